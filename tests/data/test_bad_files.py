"""Odd, damaged and hostile files: a picture that is right, or an error of one line."""

import contextlib
import csv
import importlib.util
import resource
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from ssdnet_jax.cli.ssdnet import main
from ssdnet_jax.data.images import read_image, search_images, with_pages
from ssdnet_jax.errors import InputError

SECONDS = 10  # that one file may take, on a busy machine
MEGABYTES = 400  # that a group of files may add to the most memory the process ever had


def _load(name: str) -> ModuleType:
    path = Path(__file__).with_name(f"{name}.py")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


bad_files = _load("bad_files")


@contextlib.contextmanager
def time_limit() -> Iterator[None]:
    def out_of_time(*_: object) -> None:
        raise TimeoutError(f"more than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, out_of_time)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def complaint(file, path: Path) -> str | None:
    """What is wrong with what reading a file came to; None if nothing is."""
    try:
        with time_limit():
            decoded = read_image(path)
    except InputError as error:
        message = str(error)
        if "\n" in message.replace(str(path), "") or len(message) > len(str(path)) + 300:
            return f"an error that is no short line: {message!r}"
        if not message.startswith(str(path)):
            return f"an error without the file's name: {message!r}"
        return f"not read: {message}" if file.outcome == "picture" else None
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    if file.outcome == "error":
        return "read, but is no picture"
    pixels = decoded.pixels
    if not (np.isfinite(pixels).all() and pixels.min() >= 0 and pixels.max() <= 1):
        return "values outside [0, 1]"
    if any("\n" in note or len(note) > 300 for note in decoded.warnings):
        return f"a note that is no short line: {decoded.warnings}"
    if file.outcome == "sane or error" or file.pixels is None:
        return None
    expected = np.atleast_3d(np.asarray(file.pixels, np.float64))
    if expected.shape[2] == 3 and (expected == expected[..., :1]).all():
        expected = expected[..., :1]
    if pixels.shape != expected.shape:
        return f"shape {pixels.shape}, expected {expected.shape}"
    if (difference := np.abs(pixels - expected).max()) > file.tolerance:
        return f"values differ by {difference}"
    missing = np.zeros(pixels.shape[:2], bool) if file.missing is None else file.missing
    found = np.zeros_like(missing)
    for without_value in (decoded.missing, decoded.ignored):  # NaN, transparent
        found |= False if without_value is None else without_value
    return None if (found == missing).all() else "other pixels are missing"


def test_there_are_many_files():
    assert sum(1 for make in bad_files.GROUPS.values() for _ in make()) > 1300


@pytest.mark.parametrize("group", bad_files.GROUPS)
def test_a_file_comes_to_the_right_picture_or_to_an_error_of_one_line(tmp_path, capfd, group):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wrong = {}
    for number, file in enumerate(bad_files.GROUPS[group]()):
        (tmp_path / str(number)).mkdir()
        path = tmp_path / str(number) / file.name
        file.put(path)
        if found := complaint(file, path):
            wrong[file.name] = found
    assert not wrong
    assert capfd.readouterr() == ("", "")  # libraries are not heard, whatever they meet
    added = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert added < MEGABYTES


def test_a_folder_of_odd_names_and_places_is_searched_without_harm(tmp_path):
    files = [*bad_files.names(), *bad_files.places()]
    for file in files:
        with contextlib.suppress(OSError):  # those that cannot be there
            file.put(tmp_path / file.name)
    (tmp_path / "folder.png" / "a.png").write_bytes(b"")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "circle").symlink_to(tmp_path)
    deep = tmp_path / "sub"
    for _ in range(40):
        deep = deep / "d"
        deep.mkdir()
    (deep / "deep.png").write_bytes(b"")
    with time_limit():
        found = search_images(tmp_path)
        assert with_pages(tmp_path, found.images) == found.images
    names = {path.name for path in found.images}
    absent = {"folder.png", "absent.png", "a.png", "up.png", "x" * 300 + ".png", ".png", "..png"}
    expected = {Path(file.name).name for file in files} - absent
    assert expected <= names
    assert {"a.png", "deep.png"} <= names
    assert len(found.images) == len(set(found.images)) < len(files) + 2
    assert found.others == found.unreadable == []


@pytest.mark.usefixtures("quick_figures")
def test_a_run_over_odd_files_has_a_row_for_each(tmp_path, capfd):
    folder = tmp_path / "in"
    folder.mkdir()
    chosen = [
        *[file for file in bad_files.places() if "/" not in file.name and len(file.name) < 99],
        *list(bad_files.names())[-25:],
        *list(bad_files.damaged())[::60],
        *[file for file in bad_files.bombs() if file.outcome == "error"][::6],
        *list(bad_files.pixel_types())[::30],
    ]
    for file in chosen:
        file.put(folder / file.name)
    pages = [Image.fromarray(bad_files.grey()), Image.fromarray(bad_files.grey()[::-1])]
    pages[0].save(folder / "stack.tif", save_all=True, append_images=pages[1:])
    flags = [f"--input={folder}", f"--workdir={tmp_path / 'out'}", "--config=grid"]
    flags += ["--image_size=32", "--config.network.channels_down=2", "--config.fit.max_steps=2"]
    flags += ["--config.network.channels_up=2", "--config.network.channels_skip=0"]
    flags += ["--config.loss.patch_sizes=8", "--config.loss.patch_strides=8"]
    flags += ["--config.score.patch_sizes=8"]
    assert main(["ssdnet", *flags]) == 1
    output = capfd.readouterr()
    assert "Traceback" not in output.err
    assert all(line.startswith("ssdnet: ") and len(line) < 700 for line in output.err.splitlines())
    with (tmp_path / "out/results.csv").open(newline="", errors="surrogateescape") as file:
        rows = {row["path"]: row for row in csv.DictReader(file)}
    images = with_pages(folder, search_images(folder).images)
    assert set(rows) == {path.as_posix() for path in images}
    assert len(rows) > 50
    assert {rows[f"stack.tif#{page}"]["status"] for page in (1, 2)} == {"ok"}
    assert (tmp_path / "out/maps/stack.tif#2.tiff").is_file()
    for file in chosen:
        row = rows.get(file.name)
        if row is not None and file.outcome in ("picture", "error"):
            assert row["status"] == ("ok" if file.outcome == "picture" else "error"), row
        if row is not None and row["status"] == "ok":
            assert np.isfinite(
                [float(row[name]) for name in ("score", "pixel_threshold", "loss")]
            ).all()
