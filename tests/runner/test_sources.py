import hashlib
import os
import threading
from pathlib import Path

import numpy as np
import pytest
import tifffile

from ssdnet_jax.errors import InputError
from ssdnet_jax.runner.sources import (
    FileSource,
    file_sources,
    is_unchanged,
    read_with_origin,
)

LONG_AGO = 1_600_000_000_123_456_789  # ns; with a fraction of a second


def written(path, content, when=None):
    path.write_bytes(content)
    if when is not None:
        os.utime(path, ns=(when, when))
    return path


def source_of(path, *masks):
    return FileSource(path.read_bytes, path, masks)


def test_what_is_read_comes_with_size_time_and_hash_of_image_and_mask(tmp_path):
    image = written(tmp_path / "a", b"picture", LONG_AGO)
    mask = written(tmp_path / "m", b"mask")
    value, origin = read_with_origin(source_of(image, mask))
    assert value == b"picture"
    assert (origin.size, origin.modified) == (7, "2020-09-13T12:26:40.123456789Z")
    assert origin.sha256 == hashlib.sha256(b"picture").hexdigest()
    assert origin.mask_sha256 == hashlib.sha256(b"mask").hexdigest()
    assert origin.read > origin.modified
    assert read_with_origin(lambda: 3) == (3, None)


def test_the_bytes_that_are_decoded_are_those_that_are_hashed(tmp_path):
    path = written(tmp_path / "a", b"old")
    reads = []

    def read():
        value = path.read_bytes()
        if not reads:  # right after it was decoded another picture of that size takes its place
            before = path.stat()
            written(path, b"new")
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        reads.append(value)
        return value

    value, origin = read_with_origin(FileSource(read, path))
    assert reads == [b"old", b"new"] and value == b"new"
    assert origin.sha256 == hashlib.sha256(b"new").hexdigest()


def test_a_file_that_does_not_come_to_rest_is_refused(tmp_path):
    path = written(tmp_path / "a", b"")

    def read():
        written(path, path.read_bytes() + b"x")
        raise ValueError("half of a picture")

    with pytest.raises(InputError, match="changes while it is read"):
        read_with_origin(FileSource(read, path))
    assert len(path.read_bytes()) == 3
    with pytest.raises(ValueError, match="damaged"):  # a file at rest: what its reader says
        read_with_origin(FileSource(lambda: (_ for _ in ()).throw(ValueError("damaged")), path))


@pytest.mark.parametrize("kind", ["nothing", "link", "pipe", "folder"])
def test_what_is_no_file_is_named_and_never_waited_for(tmp_path, kind):
    path = tmp_path / "a.png"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "link":
        path.symlink_to("nowhere")
    with pytest.raises(InputError, match=r"a\.png: .*; expected an image"):
        read_with_origin(file_sources(tmp_path, [path.relative_to(tmp_path)])["a.png"])


def test_only_contents_decide_whether_a_file_has_changed(tmp_path):
    path = written(tmp_path / "a", b"one")
    source = source_of(path)
    recorded = source.origin()
    written(path, b"one", LONG_AGO)  # touched
    assert is_unchanged(recorded, source)
    for content in (b"two", b"longer"):  # the same name, and of "two" the same size
        written(path, content)
        assert not is_unchanged(recorded, source)
    with pytest.raises(InputError):
        path.unlink()
        is_unchanged(recorded, source)


@pytest.mark.parametrize(("fraction", "hashed"), [(123, False), (0, True)])
def test_a_file_that_has_long_been_the_same_is_not_hashed_again(
    tmp_path, monkeypatch, fraction, hashed
):
    path = written(tmp_path / "a", b"one", 1_600_000_000_000_000_000 + fraction)
    now = path.lstat().st_ctime_ns
    monkeypatch.setattr("time.time_ns", lambda: now + 5 * 10**9)
    recorded = source_of(path).origin()
    opened = []
    real = os.open
    monkeypatch.setattr("os.open", lambda *a, **o: (opened.append(a), real(*a, **o))[1])
    assert is_unchanged(recorded, source_of(path))
    assert bool(opened) == hashed


@pytest.mark.parametrize("later", [5, 1, -3600])  # seconds on the clock, which may jump
def test_a_picture_of_the_same_size_and_time_is_seen_to_be_another(tmp_path, monkeypatch, later):
    path = written(tmp_path / "a", b"one", LONG_AGO)
    now = path.lstat().st_ctime_ns
    monkeypatch.setattr("time.time_ns", lambda: now + later * 10**9)
    recorded = source_of(path).origin()
    monkeypatch.undo()
    if later == 5:  # as if those five seconds had gone by
        os.utime(path)
        recorded = source_of(path).origin()
    written(path, b"two", LONG_AGO)  # as `cp --preserve` does
    assert not is_unchanged(recorded, source_of(path))


def test_a_mask_that_changes_comes_or_goes_is_a_change(tmp_path):
    path, mask = written(tmp_path / "a", b"one"), written(tmp_path / "m", b"mask")
    recorded = source_of(path, mask).origin()
    assert is_unchanged(recorded, source_of(path, mask))
    assert not is_unchanged(recorded, source_of(path))
    assert not is_unchanged(source_of(path).origin(), source_of(path, mask))
    written(mask, b"other")
    assert not is_unchanged(recorded, source_of(path, mask))


def test_sources_read_their_own_file_on_any_thread(tmp_path):
    for number, name in enumerate(["a.npy", "b.npy"]):
        np.save(tmp_path / name, np.linspace(0, number, 4).reshape(2, 2))
    sources = file_sources(tmp_path, [Path("a.npy"), Path("b.npy")])
    found = {}
    threads = [
        threading.Thread(target=lambda n=name: found.update({n: read_with_origin(sources[n])}))
        for name in sources
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [image.pixels.max() for image, _ in map(found.get, sources)] == [0, 1]


def test_what_is_not_judged_is_part_of_the_contents(tmp_path):
    for name in ("a.npy", "b.npy", "region.npy"):
        np.save(tmp_path / name, np.eye(4))
    names = [Path("a.npy"), Path("b.npy")]
    regions = {names[0]: lambda size: np.ones(size, bool)}
    plain = file_sources(tmp_path, names)
    masked = file_sources(tmp_path, names, None, regions, {names[0]: tmp_path / "region.npy"})
    polygons = file_sources(tmp_path, names, None, regions, polygons_sha256="of polygons")
    origins = [
        [each.origin().mask_sha256 for each in s.values()] for s in (plain, masked, polygons)
    ]
    digest = hashlib.sha256((tmp_path / "region.npy").read_bytes()).hexdigest()
    assert origins == [["", ""], [digest, ""], ["of polygons", ""]]
    assert masked["a.npy"]().ignored.all() and plain["a.npy"]().ignored is None
    assert not is_unchanged(masked["a.npy"].origin(), polygons["a.npy"])
    assert is_unchanged(masked["b.npy"].origin(), polygons["b.npy"])


def test_a_page_is_known_by_its_file(tmp_path):
    tifffile.imwrite(tmp_path / "s.tif", np.zeros((2, 8, 8), np.uint8), photometric="minisblack")
    source = file_sources(tmp_path, [Path("s.tif#2")])["s.tif#2"]
    assert source.image == tmp_path / "s.tif" and source.origin().size > 128
