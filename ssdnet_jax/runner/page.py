"""index.html of a work folder: its pictures, worst first, to look at while a run goes on and after.

The page itself never changes. It reads index/state.js, which says how far the run is, and
index/rows-N.js, a few hundred pictures each, of which a run only rewrites the last. What the page
shows of a picture lies in the comment of its thumbnail, so that a run that goes on, and one whose
pictures come from other machines, have it without looking at their maps again.
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

from ssdnet_jax.data.files import write_atomically
from ssdnet_jax.figures.colors import gradient
from ssdnet_jax.figures.heatmap import Box
from ssdnet_jax.methods.base import Localization
from ssdnet_jax.runner.verdicts import Verdict
from ssdnet_jax.runner.workdir import Row, Workdir, named_errors, read_rows

Entry = dict[str, Any]  # what the page knows of a picture, as its script takes it
# Width and height of a heat map figure, and where in it the panels are.
Panels = tuple[tuple[int, int], Mapping[str, Box]]

_ROWS = 500  # pictures of a file of rows
_SECONDS = 2.0  # between two writings, at least
_SHARE = 0.05  # of the run's time that writing the page may take
_MOST_DEFECTS = 50  # a comment has room for a few hundred


def entry_of(
    name: str,
    result: Localization,
    threshold: float,
    figure: Panels | None,
) -> Entry:
    """What the page shows of a picture.

    Args:
      name: the picture's path.
      result: what was found.
      threshold: of the decision, in calibrated units.
      figure: of its heat map; None where none was written.
    """
    decision = result.decision
    judged = bool(np.isfinite(decision.score))
    verdict = ("anomalous" if decision.anomalous else "good") if judged else "unjudged"
    height, width = result.score_map.shape
    entry: Entry = {
        "name": name,
        "verdict": verdict,
        "score": _short(decision.score),
        "threshold": _short(threshold),
        "p": _short(decision.p_value),
        "width": width,
        "height": height,
        "thumbnail": True,
        "count": len(result.defects),
        "defects": [
            [d.x, d.y, d.width, d.height, d.area, _short(d.peak), _short(d.p_value)]
            for d in result.defects[:_MOST_DEFECTS]
        ],
    }
    if figure is not None:
        entry["figure"], panels = list(figure[0]), figure[1]
        entry["panels"] = {title: list(box) for title, box in panels.items()}
    return entry


def write_thumbnail(path: Path, pixels: np.ndarray, entry: Entry) -> None:
    """Writes a JPEG, uint8 RGB, with the picture's entry as its comment."""
    from PIL import Image

    buffer = io.BytesIO()
    comment = json.dumps(entry, separators=(",", ":")).encode()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=80, comment=comment)
    write_atomically(path, lambda file: file.write(buffer.getbuffer()))


def _read_entry(path: Path) -> Entry | None:
    """What `write_thumbnail` wrote, if it is there."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            entry = json.loads(image.info["comment"])
    except (OSError, KeyError, ValueError):
        return None
    return entry if isinstance(entry, dict) and "name" in entry else None


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
        """Takes a picture that is done; the page on disk shows it within seconds."""
        self.take(row)
        now = time.monotonic()
        if now - self._written >= max(_SECONDS, self._cost / _SHARE):
            self.write(running=True)

    def take(self, row: Row) -> None:
        """The same without writing."""
        entry = self._entry(row)
        place = self._places.setdefault(row.path, len(self._places))
        self._entries[row.path] = entry
        self._stale.add(place // _ROWS)

    def _entry(self, row: Row) -> Entry:
        if row.status != "ok":
            return {"name": row.path, "verdict": "failed", "score": None, "error": row.error}
        found = _read_entry(self._workdir.thumbnail_path(row.path))
        # Of earlier versions, or deleted: the picture is there all the same.
        return found or {"name": row.path, "verdict": "unjudged", "score": None}

    def decide(self, verdict: Verdict) -> None:
        """Puts a verdict in the place of that of the picture alone."""
        entry = self._entries.get(verdict.path)
        if entry is None or not math.isfinite(verdict.calibrated_score):
            return
        decided = "anomalous" if verdict.anomalous else "good"
        entry["verdict"], entry["score"] = decided, _short(verdict.calibrated_score)
        entry["threshold"] = _short(verdict.threshold)

    def write(self, *, running: bool) -> None:
        """Writes the rows that have changed, then how far the run is."""
        started = time.monotonic()
        names = list(self._entries)
        with named_errors(self._workdir.path):
            for number in sorted(self._stale):
                part = [self._entries[n] for n in names[number * _ROWS : (number + 1) * _ROWS]]
                content = _script(f"rows({number}, ", part)
                write_atomically(self._folder / f"rows-{number}.js", _writer(content))
                self._versions[number:] = [zlib.crc32(content), *self._versions[number + 1 :]]
            self._stale.clear()
            state = {
                "name": self._workdir.path.resolve().name,
                "running": running,
                "total": max(self._total, len(names)),
                "done": len(names),
                "updated": round(time.time()),
                "chunks": self._versions,
            }
            write_atomically(self._folder / "state.js", _writer(_script("state(", state)))
            for old in () if running else self._folder.glob("rows-*.js"):
                if old.stem not in {f"rows-{n}" for n in range(len(self._versions))}:
                    old.unlink(missing_ok=True)  # of an earlier run with more pictures
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
    finally:
        page.write(running=False)


def write_page(workdir: Workdir, verdicts: Iterable[Verdict], *, total: int) -> None:
    """The page of a run that has ended, in the order of results.csv, with its final verdicts.

    Args:
      workdir: with its results.csv.
      verdicts: replace what was decided of each picture alone.
      total: pictures that the run had to do.
    """
    page = _page_of(workdir, read_rows(workdir.path / "results.csv"), total=total)
    for verdict in verdicts:
        page.decide(verdict)
    page.write(running=False)


def _page_of(workdir: Workdir, rows: Iterable[Row], *, total: int) -> Page:
    text = Path(__file__).with_suffix(".html").read_text(encoding="utf-8")
    text = text.replace("/*GRADIENT*/[]", json.dumps([[round(p, 4), c] for p, c in gradient(101)]))
    with named_errors(workdir.path):
        write_atomically(workdir.path / "index.html", _writer(text.encode()))
    page = Page(workdir, total)
    for row in rows:
        page.take(row)
    return page


def _writer(content: bytes) -> Any:
    return lambda file: file.write(content)


def _script(call: str, value: Any) -> bytes:
    """A call of the page's script; names in it are ASCII, and cannot end a script or a comment."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return f"ssdnet.{call}{text})\n".encode()


def _short(value: float | None) -> float | None:
    """Four digits; None where there is no finite value."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.4g}")
