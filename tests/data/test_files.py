from pathlib import PurePosixPath

import pytest

from ssdnet_jax.data.files import safe_relative, write_atomically
from ssdnet_jax.errors import InputError


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path):
    path = tmp_path / "m.tiff"
    write_atomically(path, lambda file: file.write(b"old"))
    before = path.read_bytes()

    def fail(file):
        file.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, fail)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.tiff"]


def test_an_unfinished_write_is_not_visible_under_the_name(tmp_path):
    path = tmp_path / "m.bin"

    def look(file):
        file.write(b"x")
        assert not path.exists()

    write_atomically(path, look)
    assert path.read_bytes() == b"x"


@pytest.mark.parametrize(
    ("names", "expected"),
    [(("grid", "test", "a/b.png"), "grid/test/a/b.png"), (("a//./b..c",), "a/b..c")],
)
def test_names_from_outside_make_a_path_below_a_folder(names, expected):
    assert safe_relative(*names) == PurePosixPath(expected)


@pytest.mark.parametrize(
    "names",
    [
        *(("../../..",), ("a", "/etc/passwd"), ("a/../b",), ("..", "a")),
        *(("a\0b",), ("",), (".",), ("x" * 999 + "/..",)),
    ],
)
def test_a_path_that_could_leave_the_folder_is_refused(names):
    with pytest.raises(InputError, match="expected") as caught:
        safe_relative(*names)
    assert len(str(caught.value)) < 150
