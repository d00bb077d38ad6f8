"""index.html of a work folder: its images, worst first, to look at while a run goes on and after.

The page itself never changes. It reads index/state.js, which says how far the run is, and
index/rows-N.js, a few hundred images each, of which a run only rewrites the last. What the page
says of an image is in its files, decisions/PATH.json and the comment of its thumbnail, so that a
run that goes on, and one whose images come from other machines, have it without their maps.
"""

import contextlib
import io
import json
import math
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ssdnet_jax.data.decision_file import read_decision
from ssdnet_jax.data.files import real_path, write_bytes
from ssdnet_jax.data.json_values import parse_json
from ssdnet_jax.errors import InputError
from ssdnet_jax.figures.colors import gradient
from ssdnet_jax.figures.heatmap import Box
from ssdnet_jax.runner.verdicts import JudgedImage
from ssdnet_jax.runner.workdir import Row, Workdir, named_errors, read_rows

Entry = dict[str, Any]  # what the page knows of an image, as its script takes it
# Width and height of a heat map figure, and where in it the panels are.
Panels = tuple[tuple[int, int], Mapping[str, Box]]

_ROWS = 500  # images of a file of rows
_SECONDS = 2.0  # between two writings, at least
_SHARE = 0.05  # of the run's time that writing the page may take
_MOST_DEFECTS = 50  # that are listed; defects.csv has all


def write_thumbnail(path: Path, pixels: np.ndarray, panels: Panels | None) -> None:
    """Writes a JPEG, uint8 RGB; where the panels of the heat map figure are is its comment.

    Args:
      path: of the thumbnail.
      pixels: uint8 RGB.
      panels: None where there is no figure.
    """
    from PIL import Image

    figure = panels and {"figure": panels[0], "panels": panels[1]}
    buffer = io.BytesIO()
    comment = json.dumps(figure or {}, separators=(",", ":")).encode()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=80, comment=comment)
    write_bytes(path, buffer.getvalue())


def _figure(thumbnail: Path) -> Entry:
    """Whether there is a thumbnail, and what `write_thumbnail` put into it."""
    from PIL import Image

    try:
        with Image.open(thumbnail) as image:
            comment = image.info.get("comment", b"{}")
        found = parse_json(comment)
    except (OSError, ValueError):
        return {}
    return {"thumbnail": True, **(found if isinstance(found, dict) else {})}


class Page:
    """The page of a run; see `open_page`. One thread at a time may use it."""

    def __init__(self, workdir: Workdir, total: int):
        self._workdir, self._total = workdir, total
        self._folder = workdir.path / "index"
        self._entries: dict[str, Entry] = {}
        self._versions: list[int] = []
        self._stale: set[int] = set()  # files of rows that are to be written
        self._places: dict[str, int] = {}
        self._written, self._cost = -math.inf, 0.0

    def add(self, row: Row) -> None:
        """Takes an image that is done; the page on disk shows it within seconds."""
        self.take(row)
        now = time.monotonic()
        if now - self._written >= max(_SECONDS, self._cost / _SHARE):
            self.write(running=True)

    def take(self, row: Row) -> None:
        """Takes an image that is done, without writing."""
        entry = self._entry(row)
        place = self._places.setdefault(row.path, len(self._places))
        self._entries[row.path] = entry
        self._stale.add(place // _ROWS)

    def _entry(self, row: Row) -> Entry:
        entry: Entry = {"name": row.path, "verdict": "failed", "score": None}
        if row.status != "ok":
            return {**entry, "error": row.error}
        try:
            decided = read_decision(self._workdir.decision_path(row.path))
        except InputError as error:
            return {**entry, "error": str(error)}
        return {
            "name": row.path,
            "verdict": decided["verdict"],
            "score": _short(decided["score"]),
            "threshold": _short(decided["calibrated_threshold"]),
            "p": _short(decided["p_value"]),
            "rate": decided["false_alarms"],
            "width": decided["width"],
            "height": decided["height"],
            "count": len(decided["defects"]),
            "defects": [
                [*(d[name] for name in ("x", "y", "width", "height", "area")), _short(d["peak"])]
                for d in decided["defects"][:_MOST_DEFECTS]
            ],
            **_figure(self._workdir.thumbnail_path(row.path)),
        }

    def decide(self, verdicts: Iterable[JudgedImage]) -> None:
        """Puts verdicts, the worst first, in the place of those of each image alone."""
        for rank, verdict in enumerate(verdicts):
            if entry := self._entries.get(verdict.path):
                before = dict(entry)
                entry |= {"verdict": verdict.verdict, "rank": rank}
                if verdict.rank_p_value is not None:
                    entry["rank_p"] = _short(verdict.rank_p_value)
                if entry != before:
                    self._stale.add(self._places[verdict.path] // _ROWS)

    def write(self, *, running: bool) -> None:
        """Writes the rows that have changed, then how far the run is."""
        started = time.monotonic()
        self._workdir.check()
        names = list(self._entries)
        with named_errors(self._workdir.path):
            for number in sorted(self._stale):
                part = [self._entries[n] for n in names[number * _ROWS : (number + 1) * _ROWS]]
                content = _script(f"rows({number}, ", part)
                write_bytes(self._folder / f"rows-{number}.js", content)
                self._versions[number:] = [zlib.crc32(content), *self._versions[number + 1 :]]
            self._stale.clear()
            state = {
                "name": real_path(self._workdir.path).name,
                "running": running,
                "total": max(self._total, len(names)),
                "done": len(names),
                "updated": round(time.time()),
                "chunks": self._versions,
            }
            write_bytes(self._folder / "state.js", _script("state(", state))
            for old in () if running else self._folder.glob("rows-*.js"):
                if old.stem not in {f"rows-{n}" for n in range(len(self._versions))}:
                    old.unlink(missing_ok=True)  # of an earlier run with more images
        self._written = time.monotonic()
        self._cost = self._written - started


@contextlib.contextmanager
def open_page(workdir: Workdir, names: Sequence[str]) -> Iterator[Page]:
    """The page of a run, shown as running for as long as the context lasts.

    Args:
      workdir: whose finished images are shown at once.
      names: of all images of the run.
    """
    page = _page_of(workdir, workdir.finished.values(), total=len({*names, *workdir.finished}))
    page.write(running=True)
    try:
        yield page
    except BaseException:
        with contextlib.suppress(InputError):  # what ended the run is to be told, not this
            page.write(running=False)
        raise
    page.write(running=False)


def write_page(workdir: Workdir, verdicts: Iterable[JudgedImage], *, total: int) -> None:
    """The page of a run that has ended, in the order of results.csv, with its final verdicts.

    Args:
      workdir: with its results.csv.
      verdicts: of all images, the worst first.
      total: images that the run had to do.
    """
    page = _page_of(workdir, read_rows(workdir.path / "results.csv"), total=total)
    page.decide(verdicts)
    page.write(running=False)


def _page_of(workdir: Workdir, rows: Iterable[Row], *, total: int) -> Page:
    text = Path(__file__).with_suffix(".html").read_text(encoding="utf-8")
    text = text.replace("/*GRADIENT*/[]", json.dumps([[round(p, 4), c] for p, c in gradient(101)]))
    with named_errors(workdir.path):
        write_bytes(workdir.path / "index.html", text.encode())
    page = Page(workdir, total)
    for row in rows:
        if row.status != "gone":
            page.take(row)
    return page


def _script(call: str, value: Any) -> bytes:
    """A call of the page's script; names in it are ASCII, and cannot end a script or a comment."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return f"ssdnet.{call}{text})\n".encode()


def _short(value: float | None) -> float | None:
    """Four digits; None where there is no finite value."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.4g}")
