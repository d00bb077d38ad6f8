"""The work folder: results.csv, run.json and where each image's files go.

A row of results.csv is written only after the image's files are in place, so a row means a
finished image whenever the run was cut off. run.json holds the configuration and the hashes of the
weights; others cannot be mixed into the same folder.
"""

import contextlib
import csv
import dataclasses
import hashlib
import json
import os
import platform
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from ssdnet_jax.data.decision_file import is_decision_file
from ssdnet_jax.data.files import (
    is_whole,
    real_path,
    remove_unfinished,
    safe_relative,
    write_bytes,
)
from ssdnet_jax.data.json_values import parse_json
from ssdnet_jax.data.tables import csv_line, read_lines, write_table
from ssdnet_jax.errors import ConfigError, InputError
from ssdnet_jax.methods.base import Method
from ssdnet_jax.runner.sources import Origin
from ssdnet_jax.text import shortened

_LONGEST_NAME = 255  # bytes, on the usual file systems
_PACKAGES = ("ssdnet-jax", "jax", "jaxlib", "flax", "optax", "numpy", "scikit-image")


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of results.csv."""

    path: str  # the image, relative to the input's root, with its suffix
    status: str  # "ok", "error", or "gone": finished, but its file is no longer there
    score: float | None = None  # the image's score, the maximum of its raw map
    pixel_threshold: float | None = None  # of the raw map: pixels above it stand out. Whether the
    # image is anomalous is by `p_value`, that of its regions: a good one may have pixels above it
    anomalous_fraction: float | None = None  # share of pixels in the mask, in [0, 1]
    steps: int | None = None  # optimizer steps taken
    loss: float | None = None  # the last step's loss (Eq. 2)
    seconds: float | None = None  # wall time, decoding and writing included
    p_value: float | None = None  # chance of such a map on a good image, in [0, 1]; what decides
    ground: float | None = None  # share of pixels that are flat ground and not judged; empty: none
    range: str | None = None  # LOW,HIGH, what of [0, 1] was stretched before the image was
    # analysed; empty: nothing
    size: int | None = None  # of the image's file, in bytes; like what follows none for images
    # that are no files
    modified: str = ""  # when that file was last modified, UTC
    sha256: str = ""  # of that file, whose contents were scored
    mask_sha256: str = ""  # of the file that says which pixels do not count; empty without one
    read: str = ""  # when the file was read, UTC
    error: str = ""  # why there is no result; empty for "ok"

    @property
    def origin(self) -> Origin | None:
        """The contents that the result belongs to, None if they are not known."""
        if self.size is None:
            return None
        return Origin(self.size, self.modified, self.sha256, self.mask_sha256, self.read)

    @property
    def contents(self) -> str:
        """SHA-256 of its file, for a page with its number; equal for copies, empty if unknown."""
        page = self.path.rpartition("#")[2]
        return self.sha256 + f"#{page}" * (self.path.endswith(f"#{page}") and page.isdecimal())

    def of(self, origin: Origin | None) -> "Row":
        """The row with the contents that its result belongs to."""
        return self if origin is None else dataclasses.replace(self, **dataclasses.asdict(origin))


_PARSERS: dict[Any, Any] = {str: str, str | None: str, float | None: float, int | None: int}
COLUMNS = tuple(field.name for field in dataclasses.fields(Row))
RESULT_FOLDERS = (
    "maps",
    "heatmaps",
    "masks",
    "uncertainty",
    "fits",
    "params",
    "decisions",
    "thumbnails",
)

# Files about all images of a run, which are written anew by each.
_RUN_FILES = (
    *("index.html", "verdicts.csv"),
    *("defects.csv", "defects.coco.json", "defects.geojson"),
)


@dataclasses.dataclass(frozen=True)
class Workdir:
    """An opened work folder; see `open_workdir`."""

    path: Path  # the folder
    finished: Mapping[str, Row]  # by path, the images that earlier runs finished
    fits: bool = True  # whether the method fits, so that a finished image has a file of its fits

    def map_path(self, relative: str) -> Path:
        """Raw score map, float32 TIFF. The image's suffix stays, so a.png and a.jpg differ."""
        return self.path / "maps" / f"{relative}.tiff"

    def heatmap_path(self, relative: str) -> Path:
        """Figure of input, heat map, reconstruction and mask; not with --heatmaps=none."""
        return self.path / "heatmaps" / f"{relative}.png"

    def thumbnail_path(self, relative: str) -> Path:
        """Small heat map of `index.html`, JPEG; its comment says where panels are."""
        return self.path / "thumbnails" / f"{relative}.jpg"

    def mask_path(self, relative: str) -> Path:
        """Binary mask, 0 and 255."""
        return self.path / "masks" / f"{relative}.png"

    def decision_path(self, relative: str) -> Path:
        """What was decided of the image, and its defects (`runner.decisions`)."""
        return self.path / "decisions" / f"{relative}.json"

    def uncertainty_path(self, relative: str) -> Path:
        """Standard deviation of the raw maps over seeds, float32 TIFF; only with several seeds."""
        return self.path / "uncertainty" / f"{relative}.tiff"

    def fit_path(self, relative: str) -> Path:
        """What scoring again needs: fitted image, reconstructions, losses (`data.fits_file`)."""
        return self.path / "fits" / f"{relative}.npz"

    def params_path(self, relative: str) -> Path:
        """Folder of the fitted parameters; only with --save_params."""
        return self.path / "params" / relative

    def has_files(self, relative: str) -> bool:
        """Whether all files of an image are in place, none was cut off and its decision is one.

        Those that are there to be looked at, heat map and thumbnail, do not count.
        """
        paths = [self.map_path, self.mask_path] + [self.fit_path] * self.fits
        whole = all(is_whole(path(relative)) for path in paths)
        return whole and is_decision_file(self.decision_path(relative))

    def check_name(self, relative: str) -> None:
        """Raises InputError if no file could have the names of an image's results."""
        name = relative.rpartition("/")[2]
        if (length := len(os.fsencode(f"{name}.tiff"))) > _LONGEST_NAME:
            raise InputError(
                f"{relative}: the name has {length - 5} bytes; expected at most "
                f"{_LONGEST_NAME - 5}, since results get its name and a suffix"
            )

    def check(self) -> None:
        """Raises InputError if the folder was taken away, which must not be made again."""
        if not (self.path / "results.csv").is_file():
            raise InputError(
                f"{self.path}: the work folder has gone while the run was at work in it; expected "
                f"it to stay"
            )

    def append(self, row: Row) -> None:
        """Adds a line to results.csv and makes sure that it is on disk.

        Raises:
          InputError: it cannot be written, for example because the disk is full.
        """
        self.check()
        with named_errors(self.path):
            # Not created here: a table without a header would be left.
            descriptor = os.open(self.path / "results.csv", os.O_WRONLY | os.O_APPEND)
            with os.fdopen(descriptor, "ab") as file:
                file.write(csv_line(dataclasses.astuple(row)))
                file.flush()
                os.fsync(file.fileno())

    def finished_rows(self) -> dict[str, Row]:
        """The images that are finished by now, by path."""
        return {row.path: row for row in read_rows(self.path / "results.csv") if row.status == "ok"}

    def order(self, relatives: Iterable[str]) -> None:
        """Rewrites results.csv in the order of the input, images of other inputs first."""
        self.check()
        rows = {row.path: row for row in read_rows(self.path / "results.csv")}
        ordered = [rows.pop(path) for path in relatives if path in rows]
        with named_errors(self.path):
            write_rows(self.path, [*rows.values(), *ordered])


def open_workdir(
    path: Path,
    method: Method,
    *,
    root: Path | None,
    missing: Path | None = None,
    ignored: Path | None = None,
    run: Mapping[str, Any] | None = None,
) -> Workdir:
    """Creates or re-opens a work folder.

    Images that an earlier run with the same configuration finished are kept; rows of failed
    images, and of images whose results have gone or were cut off, are dropped, so that they are
    tried again. Unfinished files of runs that were killed are removed. Whether the images are still
    those that were scored is looked at by `runner.changes`.

    Args:
      path: the folder.
      method: its name and settings decide the results; compared with those of the earlier run.
      root: folder to which the paths of images are relative, likewise: elsewhere the same path
        is another image. None for images that are not files.
      missing: masks of missing pixels, likewise.
      ignored: regions that are not judged, likewise.
      run: what else to note in run.json (command, device, seed).

    Raises:
      InputError: the folder cannot be written, or holds a results.csv, or another file with the
        name of one of ours, of something else.
      ConfigError: the folder belongs to a run with another configuration; names what differs.
    """
    settings = {
        "method": method.name,
        "root": str(real_path(root)) if root else None,
        "missing": str(real_path(missing)) if missing else None,
        "ignored": str(real_path(ignored)) if ignored else None,
        "calibration": method.calibration.sha256 if method.calibration else None,
        "config": method.settings,
        "weights": _weights(method),
    }
    with named_errors(path):
        path.mkdir(parents=True, exist_ok=True)
        _refuse_other_settings(path, json.loads(json.dumps(settings)))
        for unfinished in (path, *(path / name for name in RESULT_FOLDERS)):
            remove_unfinished(unfinished, recursive=unfinished != path)
        rows = {row.path: row for row in read_rows(path / "results.csv")}
        folder = Workdir(path, {}, fits=method.keeps_fits)
        kept = {p: r for p, r in rows.items() if r.status != "error" and folder.has_files(p)}
        note = {**settings, **(run or {}), "versions": versions(), "started": _now()}
        text = json.dumps(note, indent=2) + "\n"
        write_bytes(path / "run.json", text.encode())
        write_rows(path, kept.values())
    return dataclasses.replace(folder, finished=kept)


def is_workdir(path: Path) -> bool:
    """Whether a run has used `path` as its work folder."""
    return (path / "results.csv").is_file() and (path / "run.json").is_file()


def versions() -> dict[str, str]:
    """Versions of what decides a result."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "unknown"
    return found


def versions_in_words() -> str:
    """`versions` in one line, for reports."""
    return ", ".join(f"{name} {number}" for name, number in versions().items())


def differences(old: Any, new: Any, name: str = "") -> list[str]:
    """Leaves in which two nested mappings differ: "config.fit.epochs: 5 there, 10 here".

    Of runs of two methods that is all.
    """
    if isinstance(old, dict) and isinstance(new, dict):
        found: list[str] = []
        if not name and old.get("method") != new.get("method"):
            # Other methods have other fields, which say nothing more.
            old, new = ({"method": d.get("method", "nothing")} for d in (old, new))
        for key in [*old, *(k for k in new if k not in old)]:
            inner = f"{name}.{key}" if name else key
            found += differences(old.get(key, "nothing"), new.get(key, "nothing"), inner)
        return found
    return [] if old == new else [f"{name}: {old} there, {new} here"]


@contextlib.contextmanager
def named_errors(path: Path) -> Iterator[None]:
    """Turns errors of the file system into one that names the folder of results."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{path}: cannot be used as a work folder ({error.strerror or error}); "
            f"expected a folder that can be created and written"
        ) from error


def read_note(path: Path) -> dict[str, Any]:
    """What run.json of a work folder holds; raises InputError if ssdnet has not written it."""
    note = path / "run.json"
    try:
        found = parse_json(note.read_bytes())
        if not {"method", "root", "config"} <= found.keys():
            raise ValueError("fields are missing")
    except (ValueError, AttributeError) as error:
        raise InputError(f"{note}: not written by ssdnet; expected another --workdir") from error
    return found


def _refuse_other_settings(path: Path, settings: dict[str, Any]) -> None:
    if not (path / "run.json").exists():
        if (path / "results.csv").exists():
            raise InputError(
                f"{path}: found results.csv without run.json; expected both or neither"
            )
        # What a user has by these names would be overwritten.
        if found := [name for name in _RUN_FILES if (path / name).exists()]:
            raise InputError(
                f"{path}: found {found[0]} that no run of ssdnet has written; expected another "
                f"--workdir"
            )
        return
    note = read_note(path)
    earlier = {key: note.get(key, "nothing") for key in settings}
    if found := differences(earlier, settings):
        raise ConfigError(
            f"{path}: holds results of another run ({'; '.join(found)}); "
            f"expected the same settings, or another --workdir"
        )


def _weights(method: Method) -> dict[str, str]:
    """SHA-256 of the values of the weights that a method has, by name."""
    found = {name: getattr(method, name, None) for name in ("vgg19", "clip")}
    return {name: _sha256(value) for name, value in found.items() if value is not None}


def _sha256(weights: Any) -> str:
    """Hash of names, shapes and values in nested mappings and dataclasses, in order of names."""
    digest = hashlib.sha256()

    def update(name: str, value: Any) -> None:
        if dataclasses.is_dataclass(value):
            value = vars(value)
        if isinstance(value, Mapping):
            for key in sorted(value):
                update(f"{name}/{key}", value[key])
        elif hasattr(value, "shape"):
            array = np.ascontiguousarray(value)
            digest.update(f"{name} {array.dtype.str} {array.shape} ".encode())
            digest.update(array.data)
        else:
            digest.update(f"{name} {value!r} ".encode())

    update("", weights)
    return digest.hexdigest()


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Writes results.csv of a work folder anew."""
    write_table(path / "results.csv", COLUMNS, map(dataclasses.astuple, rows))


def read_rows(path: Path) -> list[Row]:
    """Rows of results.csv, of each image the last; a last line that was cut off is left out.

    Columns go by their names: those that an earlier version did not write are empty.

    Raises:
      InputError: there is another table, or a damaged one.
    """
    if not path.exists():
        return []
    try:
        lines = read_lines(path)
        header = next(lines, [])
        if not {"path", "status", "error"} <= set(header):
            raise ValueError(f"columns {','.join(header)}")
        others = [name for name in header if name not in COLUMNS]
        rows = [_row(header, cells) for cells in lines if len(cells) == len(header)]
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(
            f"{path}: found {shortened(str(error), 100)}; expected a table of {','.join(COLUMNS)}"
        ) from error
    if others:
        raise InputError(
            f"{path}: found columns that this version of ssdnet does not have "
            f"({shortened(', '.join(others), 100)}); expected a folder of this version"
        )
    return list({row.path: row for row in rows}.values())


def _row(header: Sequence[str], cells: Sequence[str]) -> Row:
    found = dict(zip(header, cells, strict=True))
    texts = {f.name: found.get(f.name, "") for f in dataclasses.fields(Row)}
    safe_relative(texts["path"])
    values = {f.name: _value(f.type, texts[f.name]) for f in dataclasses.fields(Row)}
    row = Row(**values)
    if row.status not in ("ok", "error", "gone"):
        raise ValueError(f"the status {row.status!r:.40}")
    return row


def _value(kind: Any, text: str) -> Any:
    return _PARSERS[kind](text) if text or kind is str else None


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
