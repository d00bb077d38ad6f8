import os
import time

import pytest

from ssdnet_jax.errors import InputError
from ssdnet_jax.runner.sources import FileSource
from ssdnet_jax.runner.watch import watch


class Folder:
    """A folder that changes from look to look, by what each of `looks` does to it."""

    def __init__(self, path, *looks):
        self.path, self.looks = path, list(looks)
        self.scored, self.finished = [], 0

    def find(self):
        if self.looks:
            self.looks.pop(0)(self)
        found = sorted(self.path.iterdir())
        if not found:
            raise InputError("no images")
        return {p.name: FileSource(p.read_bytes, p) for p in found}

    def score(self, sources):
        self.scored.append({name: source() for name, source in sources.items()})

    def finish(self):
        self.finished += 1

    def watch(self):
        watch(self.find, self.score, self.finish, stop=lambda: not self.looks, poll=0.0)
        return self.scored


def put(name, content, age=0):
    def look(folder):
        (folder.path / name).write_bytes(content)
        when = time.time() - age
        os.utime(folder.path / name, (when, when))

    return look


def remove(name):
    return lambda folder: (folder.path / name).unlink()


def nothing(folder):
    pass


@pytest.mark.parametrize(
    ("looks", "scored"),
    [
        ([nothing, put("a", b"1"), nothing, nothing, nothing], [{"a": b"1"}]),
        # It waits while a file grows, and takes it when it has come to rest.
        ([put("a", b"1"), put("a", b"12"), put("a", b"123"), nothing, nothing], [{"a": b"123"}]),
        # Another picture under the name, of the same size.
        ([put("a", b"1"), nothing, put("a", b"2"), nothing, nothing], [{"a": b"1"}, {"a": b"2"}]),
        # The oldest first, together.
        ([put("b", b"1", 9), put("a", b"2", 5), nothing, nothing], [{"b": b"1"}, {"a": b"2"}]),
        # It went before its turn, and another one stays.
        ([put("a", b"1"), remove("a"), put("b", b"2"), nothing, nothing], [{"b": b"2"}]),
    ],
)
def test_what_has_come_to_rest_is_scored_once(tmp_path, looks, scored):
    folder = Folder(tmp_path, *looks)
    assert folder.watch() == scored
    assert folder.finished == len(scored)


def test_many_are_taken_in_parts_the_oldest_first(tmp_path):
    for number in range(40):
        put(f"{number:02d}", b"x", age=100 - number)(Folder(tmp_path))
    folder = Folder(tmp_path, *[nothing] * 6)
    names = [name for part in folder.watch() for name in part]
    assert names == [f"{number:02d}" for number in range(40)]
    assert len(folder.scored) == 3
