"""The work folder: results.csv, run.json and where each image's files go.

A row of results.csv is written only after the image's files are in place, so a row means a
finished image whenever the run was cut off. run.json holds the configuration; another one cannot
be mixed into the same folder.
"""

import contextlib
import csv
import dataclasses
import io
import json
import os
import platform
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from ssdnet_jax.data.files import write_atomically
from ssdnet_jax.errors import ConfigError, InputError
from ssdnet_jax.methods.base import Method
from ssdnet_jax.text import shortened

_PACKAGES = ("ssdnet-jax", "jax", "jaxlib", "flax", "optax", "numpy", "scikit-image")


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of results.csv."""

    path: str  # the image, relative to the input's root, with its suffix
    status: str  # "ok" or "error"
    score: float | None = None  # the image's score, the maximum of its raw map
    threshold: float | None = None  # of the raw map: above it anywhere, the image is anomalous
    anomalous_fraction: float | None = None  # share of pixels in the mask, in [0, 1]
    steps: int | None = None  # optimizer steps taken
    loss: float | None = None  # the last step's loss (Eq. 2)
    seconds: float | None = None  # wall time, decoding and writing included
    p_value: float | None = None  # chance of such a score on a good image, in [0, 1]
    ground: float | None = None  # share of pixels that are flat ground and not judged; empty: none
    range: str | None = None  # LOW,HIGH, what of [0, 1] was stretched before the image was
    # analysed; empty: nothing
    error: str = ""  # why there is no result; empty for "ok"


_PARSERS: dict[Any, Any] = {str: str, str | None: str, float | None: float, int | None: int}
COLUMNS = tuple(field.name for field in dataclasses.fields(Row))
RESULT_FOLDERS = (
    *("maps", "heatmaps", "masks", "uncertainty", "fits", "params", "decisions"),
    "thumbnails",
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
        """Picture of input, heat map, reconstruction and mask; not with --heatmaps=none."""
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
        """What scoring again needs: fitted image, reconstructions, losses (`runner.record`)."""
        return self.path / "fits" / f"{relative}.npz"

    def params_path(self, relative: str) -> Path:
        """Folder of the fitted parameters; only with --save_params."""
        return self.path / "params" / relative

    def has_files(self, relative: str) -> bool:
        """Whether all files of an image are in place, pictures to look at apart."""
        paths = [self.map_path, self.mask_path, self.decision_path]
        files = [path(relative) for path in paths + [self.fit_path] * self.fits]
        return all(file.is_file() for file in files)

    def append(self, row: Row) -> None:
        """Adds a line to results.csv and makes sure that it is on disk.

        Raises:
          InputError: it cannot be written, for example because the disk is full.
        """
        with named_errors(self.path), (self.path / "results.csv").open("ab") as file:
            file.write(_csv_line(_cells(row)))
            file.flush()
            os.fsync(file.fileno())

    def order(self, relatives: Iterable[str]) -> None:
        """Rewrites results.csv in the order of the input, images of other inputs first."""
        rows = {row.path: row for row in read_rows(self.path / "results.csv")}
        ordered = [rows.pop(path) for path in relatives if path in rows]
        _write_rows(self.path, [*rows.values(), *ordered])


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
    images, and of images whose files have gone, are dropped, so that they are tried again.

    Args:
      path: the folder.
      method: its name and settings decide the results; compared with those of the earlier run.
      root: folder to which the paths of images are relative, likewise: elsewhere the same path
        is another image. None for images that are not files.
      missing: masks of missing pixels, likewise.
      ignored: regions that are not judged, likewise.
      run: what else to note in run.json (command, device, seed).

    Raises:
      InputError: the folder cannot be written, or holds a results.csv of something else.
      ConfigError: the folder belongs to a run with another configuration; names what differs.
    """
    settings = {
        "method": method.name,
        "root": str(root.resolve()) if root else None,
        "missing": str(missing.resolve()) if missing else None,
        "ignored": str(ignored.resolve()) if ignored else None,
        "calibration": method.calibration.sha256 if method.calibration else None,
        "config": method.settings,
    }
    with named_errors(path):
        path.mkdir(parents=True, exist_ok=True)
        _refuse_other_settings(path, json.loads(json.dumps(settings)))
        rows = {row.path: row for row in read_rows(path / "results.csv")}
        folder = Workdir(path, {}, fits=method.keeps_fits)
        kept = {p: r for p, r in rows.items() if r.status == "ok" and folder.has_files(p)}
        note = {**settings, **(run or {}), "versions": versions(), "started": _now()}
        text = json.dumps(note, indent=2) + "\n"
        write_atomically(path / "run.json", lambda file: file.write(text.encode()))
        _write_rows(path, kept.values())
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


def differences(old: Any, new: Any, name: str = "") -> list[str]:
    """Leaves in which two nested mappings differ: "config.fit.epochs: 5 there, 10 here"."""
    if isinstance(old, dict) and isinstance(new, dict):
        found = []
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


def _refuse_other_settings(path: Path, settings: dict[str, Any]) -> None:
    note = path / "run.json"
    if not note.exists():
        if (path / "results.csv").exists():
            raise InputError(
                f"{path}: found results.csv without run.json; expected both or neither"
            )
        return
    try:
        earlier = json.loads(note.read_text(encoding="utf-8"))
        # Notes of earlier versions do not say that there was none.
        none = dict.fromkeys(("missing", "ignored", "calibration"))
        earlier = {key: (none | earlier)[key] for key in settings}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{note}: not written by ssdnet; expected another --workdir") from error
    if found := differences(earlier, settings):
        raise ConfigError(
            f"{path}: holds results of another run ({'; '.join(found)}); "
            f"expected the same settings, or another --workdir"
        )


def _write_rows(path: Path, rows: Iterable[Row]) -> None:
    table = b"".join(map(_csv_line, [COLUMNS, *map(_cells, rows)]))
    write_atomically(path / "results.csv", lambda file: file.write(table))


def read_rows(path: Path) -> list[Row]:
    """Rows of results.csv; a last line that was cut off is left out."""
    if not path.exists():
        return []
    try:
        text = path.read_bytes().decode("utf-8", "surrogateescape")
        lines = csv.reader(io.StringIO(text, newline=""))
        if (header := tuple(next(lines, ()))) != COLUMNS:
            raise ValueError(f"columns {','.join(header)}")
        return [_row(cells) for cells in lines if len(cells) == len(COLUMNS)]
    except (ValueError, csv.Error) as error:
        raise InputError(
            f"{path}: found {shortened(str(error), 100)}; expected a table of {','.join(COLUMNS)}"
        ) from error


def _row(cells: Sequence[str]) -> Row:
    fields = zip(dataclasses.fields(Row), cells, strict=True)
    values: dict[str, Any] = {f.name: _PARSERS[f.type](t) if t else None for f, t in fields}
    row = Row(**{**values, "path": cells[0], "error": cells[-1]})
    if row.status not in ("ok", "error"):
        raise ValueError(f"the status {row.status!r:.40}")
    return row


def _cells(row: Row) -> Sequence[str]:
    # Nine digits bring a float32 back exactly.
    values = dataclasses.asdict(row).values()
    return ["" if v is None else f"{v:.9g}" if isinstance(v, float) else str(v) for v in values]


def _csv_line(cells: Sequence[str]) -> bytes:
    """One line of CSV; bytes of a file name that are no UTF-8 stay as they are."""
    text = io.StringIO()
    # The writer quotes what looks like its own end of line, and both \r and \n need quotes.
    csv.writer(text, lineterminator="\r\n").writerow(cells)
    return f"{text.getvalue()[:-2]}\n".encode("utf-8", "surrogateescape")


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
