"""The work folder: results.csv, run.json and where each image's files go.

A row of results.csv is written only after the image's files are in place, so a row means a
finished image whenever the run was cut off. run.json holds the configuration; another one cannot
be mixed into the same folder.
"""

import csv
import dataclasses
import io
import json
import os
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from ssdnet_jax.config import Config
from ssdnet_jax.data.files import write_atomically
from ssdnet_jax.errors import ConfigError, InputError

_PACKAGES = ("ssdnet-jax", "jax", "jaxlib", "flax", "optax", "numpy", "scikit-image")


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of results.csv.

    Attributes:
      path: the image, relative to the input's root, with its suffix.
      status: "ok" or "error".
      score: the image's score, the maximum of its raw map.
      threshold: Otsu's threshold of the raw map.
      anomalous_fraction: share of pixels above the threshold, in [0, 1].
      steps: optimizer steps taken.
      loss: the last step's loss (Eq. 2).
      seconds: wall time, decoding and writing included.
      error: why there is no result; empty for "ok".
    """

    path: str
    status: str
    score: float | None = None
    threshold: float | None = None
    anomalous_fraction: float | None = None
    steps: int | None = None
    loss: float | None = None
    seconds: float | None = None
    error: str = ""


COLUMNS = tuple(field.name for field in dataclasses.fields(Row))


@dataclasses.dataclass(frozen=True)
class Workdir:
    """An opened work folder; see `open_workdir`."""

    path: Path
    finished: Mapping[str, Row]  # rows with status "ok" of earlier runs

    def map_path(self, relative: str) -> Path:
        """Raw score map, float32 TIFF. The image's suffix stays, so a.png and a.jpg differ."""
        return self.path / "maps" / f"{relative}.tiff"

    def heatmap_path(self, relative: str) -> Path:
        """Picture of input, heat map, reconstruction and mask."""
        return self.path / "heatmaps" / f"{relative}.png"

    def mask_path(self, relative: str) -> Path:
        """Binary mask, 0 and 255."""
        return self.path / "masks" / f"{relative}.png"

    def append(self, row: Row) -> None:
        """Adds a line to results.csv and makes sure that it is on disk."""
        with (self.path / "results.csv").open("a", newline="", encoding="utf-8") as file:
            file.write(_csv_line(_cells(row)))
            file.flush()
            os.fsync(file.fileno())


def open_workdir(path: Path, config: Config, *, method: str, run: Mapping[str, Any]) -> Workdir:
    """Creates or re-opens a work folder.

    Images that an earlier run with the same configuration finished are kept; rows of failed
    images are dropped, so that they are tried again.

    Args:
      path: the folder.
      config: decides the results; compared with that of the earlier run.
      method: likewise.
      run: what else to note in run.json (command, device, seed).

    Raises:
      InputError: the folder cannot be written, or holds a results.csv of something else.
      ConfigError: the folder belongs to a run with another configuration; names what differs.
    """
    settings = json.loads(json.dumps({"method": method, "config": dataclasses.asdict(config)}))
    try:
        path.mkdir(parents=True, exist_ok=True)
        _refuse_other_settings(path, settings)
        rows = _read_rows(path / "results.csv")
        finished = {row.path: row for row in rows if row.status == "ok"}
        text = _csv_line(COLUMNS) + "".join(_csv_line(_cells(r)) for r in finished.values())
        note = {**settings, **run, "versions": versions(), "started": _now()}
        write_atomically(path / "results.csv", lambda file: file.write(text.encode()))
        write_atomically(
            path / "run.json",
            lambda file: file.write((json.dumps(note, indent=2) + "\n").encode()),
        )
    except OSError as error:
        raise InputError(
            f"{path}: cannot be used as a work folder ({error.strerror or error}); "
            f"expected a folder that can be created and written"
        ) from error
    return Workdir(path, finished)


def versions() -> dict[str, str]:
    """Versions of what decides a result."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "unknown"
    return found


def command_line() -> str:
    """The command that started this process, as it could be typed again."""
    import shlex

    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def differences(old: Any, new: Any, name: str = "") -> list[str]:
    """Leaves in which two nested mappings differ: "config.fit.epochs: 5 there, 10 here"."""
    if isinstance(old, dict) and isinstance(new, dict):
        found = []
        for key in [*old, *(k for k in new if k not in old)]:
            inner = f"{name}.{key}" if name else key
            found += differences(old.get(key, "nothing"), new.get(key, "nothing"), inner)
        return found
    return [] if old == new else [f"{name}: {old} there, {new} here"]


def _refuse_other_settings(path: Path, settings: dict[str, Any]) -> None:
    note = path / "run.json"
    if not note.exists():
        return
    try:
        earlier = json.loads(note.read_text(encoding="utf-8"))
        earlier = {key: earlier[key] for key in settings}
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{note}: not written by ssdnet; expected another --workdir") from error
    if found := differences(earlier, settings):
        raise ConfigError(
            f"{path}: holds results of another configuration ({'; '.join(found)}); "
            f"expected the same one, or another --workdir"
        )


def _read_rows(path: Path) -> list[Row]:
    """Rows of an earlier run; a last line that was cut off is left out."""
    if not path.exists():
        return []
    lines = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8"))))
    if lines and tuple(lines[0]) != COLUMNS:
        raise InputError(f"{path}: found columns {lines[0]}; expected {','.join(COLUMNS)}")
    rows = []
    for cells in lines[1:]:
        if len(cells) == len(COLUMNS):
            row = dict(zip(COLUMNS, cells, strict=True))
            numbers = {
                name: float(row[name]) if row[name] else None
                for name in ("score", "threshold", "anomalous_fraction", "loss", "seconds")
            }
            steps = int(row["steps"]) if row["steps"] else None
            rows.append(Row(**{**row, **numbers, "steps": steps}))
    return rows


def _cells(row: Row) -> Sequence[str]:
    values = dataclasses.asdict(row).values()
    return ["" if v is None else f"{v:.8g}" if isinstance(v, float) else str(v) for v in values]


def _csv_line(cells: Sequence[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
