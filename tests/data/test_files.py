import errno
import resource
import signal
from pathlib import PurePosixPath

import numpy as np
import pytest
from PIL import Image

from ssdnet_jax.data.files import (
    is_whole,
    remove_unfinished,
    safe_relative,
    write_atomically,
    write_bytes,
)
from ssdnet_jax.data.images import write_mask_png, write_tiff_map
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


def test_why_a_library_could_not_write_is_what_the_system_says(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))  # as on a full disk
        for side in (20, 300):  # numpy writes all of a map or says "90000 requested, ... written"
            try:
                write_tiff_map(tmp_path / f"{side}.tiff", np.zeros((side, side)))
            except OSError as error:
                assert (side, error.errno) == (300, errno.EFBIG)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert [path.name for path in tmp_path.iterdir()] == ["20.tiff"]


def test_an_unfinished_write_is_not_visible_under_the_name(tmp_path):
    path = tmp_path / "m.bin"

    def look(file):
        file.write(b"x")
        assert not path.exists()

    write_atomically(path, look)
    assert path.read_bytes() == b"x"


def test_content_replaces_what_was_there_and_folders_are_made(tmp_path):
    path = tmp_path / "deep" / "m.bin"
    for content in (b"a longer one", b"x"):
        write_bytes(path, content)
        assert path.read_bytes() == content
    assert [entry.name for entry in path.parent.iterdir()] == ["m.bin"]


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


@pytest.mark.parametrize("kind", ["map.tiff", "big.tiff", "mask.png", "fits.npz"])
def test_a_file_that_was_cut_off_anywhere_is_not_whole(tmp_path, kind):
    path = tmp_path / kind
    values = np.random.default_rng(0).random((300, 40) if kind == "big.tiff" else (9, 7))
    if kind.endswith("tiff"):
        write_tiff_map(path, values)
    elif kind.endswith("png"):
        write_mask_png(path, values > 0.5)
    else:
        np.savez(path, values=values, more=values)
    content = path.read_bytes()
    assert is_whole(path)
    for end in {0, 1, 7, 8, 9, len(content) // 2, len(content) - 20, len(content) - 1}:
        path.write_bytes(content[:end])
        assert not is_whole(path) or end < 8, end  # of so few bytes only that there are some
    path.unlink()
    assert not is_whole(path)


def test_a_tiff_of_another_byte_order_is_understood(tmp_path):
    path = tmp_path / "a.tif"
    Image.new("I;16B", (30, 20), 7).save(path)
    content = path.read_bytes()
    assert is_whole(path)
    path.write_bytes(content[:-1] if content[4:8] == b"\0\0\0\x08" else content[:-9])
    assert not is_whole(path)


def test_what_killed_writers_leave_is_removed_and_nothing_else(tmp_path):
    names = [f".{'0a' * 16}.tmp", "mine.tmp", ".hidden", "s/.tmp", f"s/.{'f' * 32}.tmp"]
    (tmp_path / "s").mkdir()
    for name in names:
        (tmp_path / name).write_bytes(b"")
    remove_unfinished(tmp_path, recursive=False)
    assert not (tmp_path / names[0]).exists() and (tmp_path / names[4]).exists()
    remove_unfinished(tmp_path, recursive=True)
    assert [name for name in names if (tmp_path / name).exists()] == names[1:4]
