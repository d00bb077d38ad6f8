"""What a person at the terminal sees: one live line, problems on their own lines, a summary."""

import contextlib
import io
import math
import os
import sys
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TextIO

from ssdnet_jax.errors import OutputError
from ssdnet_jax.methods.base import Progress
from ssdnet_jax.runner.workdir import Row
from ssdnet_jax.text import chance, duration, one_line, shortened

if TYPE_CHECKING:
    from tqdm import tqdm

# tqdm cuts a line to the terminal's width only if there is a bar in it; this one is of blanks.
_TEXT = "{desc}{bar}"
_STEPS = "{desc} step {n_fmt}/{total_fmt}, {rate_fmt}, {remaining} left at most{postfix}{bar}"
_TILES = "{desc} tile {n_fmt}/{total_fmt}, {remaining} left{bar}"
LONGEST_PROBLEM = 400  # characters of a line about something that went wrong
_STAGES = {
    "inpaint": "inpainting",
    "fit": "fitting",
    "features": "analysing tiles",
    "score": "scoring",
    "marks": "looking for marks",
    "guide": "finding edges",
}


class Terminal:
    """Shows a run on a terminal; on a pipe only problems and the summary appear.

    Everything but the summary goes to the error stream.
    """

    def __init__(self, out: TextIO | None = None, err: TextIO | None = None):
        self._out = out or sys.stdout or io.StringIO()  # Python has none where it was closed
        self._err = err or sys.stderr or io.StringIO()
        self._line = _live_line(self._err) if self._err.isatty() else None
        self._name = ""
        self._total = self._done = 0
        self._started = self._each = 0.0  # seconds; `_each`: an image, on average
        self._remarks: set[str] = set()
        self._lock = threading.RLock()  # the writing thread has things to say too

    def start_run(self, images: int) -> None:
        """A run of so many images begins."""
        self._total, self._done = images, 0
        self._started = time.monotonic()
        self.stage("reading")

    def images(self, names: Sequence[str]) -> None:
        """Which images are being fitted."""
        self._name = one_line(names[0]) if len(names) == 1 else f"{len(names)} images"

    def stage(self, text: str) -> None:
        """Says what is going on, for as long as there are no steps to count."""
        with self._lock:
            if self._line is not None:
                self._line.bar_format = _TEXT
                self._describe(self._line, text)

    def progress(self, progress: Progress) -> None:
        """Shows step, rate, time left and loss of the current fit."""
        if self._line is not None:
            with self._lock:
                self._progress(self._line, progress)

    def _progress(self, line: "tqdm", progress: Progress) -> None:
        if math.isnan(progress.loss) and progress.step:
            self._tiles(line, progress)
        elif progress.stage == "score":
            self.stage(_STAGES["score"])
        elif progress.step == 0:
            line.n = 0
            self.stage("compiling (the first image of a size takes longer)")
        else:
            if line.n == 0:
                # The first call compiles, which takes far longer than any step: the clock of the
                # rate starts after it.
                line.reset(total=progress.total)
                line.initial = progress.step
            line.bar_format = _STEPS
            line.n = progress.step
            line.set_postfix_str(f"loss {progress.loss:.2e}", refresh=False)
            self._describe(line, _STAGES[progress.stage])

    def _tiles(self, line: "tqdm", progress: Progress) -> None:
        """How far a large image is that goes tile by tile."""
        if line.bar_format != _TILES or progress.step < line.n:
            line.reset(total=progress.total)
        line.bar_format = _TILES
        line.n = progress.step
        line.set_postfix_str("", refresh=False)
        self._describe(line, _STAGES[progress.stage])

    def end_image(self, row: Row) -> None:
        """Counts an image that is done, and leaves a line for one that is finished."""
        self._done += 1
        self._each = (time.monotonic() - self._started) / self._done
        if row.status == "ok":
            count = f"[{self._done}/{self._total}] " if self._total > 1 else ""
            found = [f"{row.anomalous_fraction:.1%} marked", duration(row.seconds or 0.0)]
            if row.steps:
                found.insert(1, f"{row.steps} steps")
            if row.p_value is not None:
                found.insert(0, chance(row.p_value))
            self.note(f"{count}{one_line(row.path)}: {', '.join(found)}")

    def problem(self, text: str) -> None:
        """A warning or an error, always shown, always in one line."""
        self._print(f"ssdnet: {shortened(one_line(text), LONGEST_PROBLEM)}\n", self._err)

    def remark(self, text: str) -> None:
        """A `problem` that is shown once, however many runs of a command meet it."""
        if text not in self._remarks:
            self._remarks.add(text)
            self.problem(text)

    def note(self, text: str) -> None:
        """Something a person wants to know and a pipe does not."""
        if self._line is not None:
            self._print(f"{text}\n", self._err)

    def summary(self, text: str) -> None:
        """The last lines of a run, the only ones on standard output; may fail as `page` does."""
        self.page(f"{one_line(text)}\n")

    def page(self, text: str) -> None:
        """Text for standard output, as it is.

        Raises:
          BrokenPipeError: nobody reads it any more.
          OutputError: it cannot be written.
        """
        try:
            self._print(text, self._out)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputError(
                f"standard output cannot be written ({error.strerror or error}); expected room "
                f"for: {text.splitlines()[0]}"
            ) from error

    def _describe(self, line: "tqdm", text: str) -> None:
        name = self._name if len(self._name) <= 32 else f"…{self._name[-31:]}"
        with contextlib.suppress(OSError):  # a terminal that has gone
            line.set_description_str(f"{self._count()}{name}{': ' if name else ''}{text}")

    def _count(self) -> str:
        """Images done, their rate and the time left, for several images."""
        if self._total <= 1:
            return ""
        if not self._done:
            return f"[0/{self._total}] "
        each = self._each
        rate = f"{60 / each:.3g}/min" if each > 1 else f"{1 / each:.3g}/s"
        left = duration(each * (self._total - self._done))
        return f"[{self._done}/{self._total}, {rate}, {left} left] "

    def _print(self, text: str, stream: TextIO) -> None:
        with self._lock:
            if self._line is not None:
                with contextlib.suppress(OSError):
                    self._line.clear()
            try:
                print(text, end="", file=stream, flush=True)
            except BrokenPipeError:
                raise
            except OSError:
                # A full disk behind the error stream ends no run: there is nowhere to say it.
                if stream is not self._err:
                    raise


def line_size(stream: TextIO) -> dict[str, Any]:
    """Arguments of tqdm for a line on a terminal, which it cuts to the terminal's width.

    Serial lines and terminals within containers often say that they have 0 x 0 characters, for
    which tqdm shows nothing at all: they are taken to have the usual 80 x 24.
    """
    try:
        unknown = 0 in os.get_terminal_size(stream.fileno())
    except (OSError, ValueError):  # no terminal, or a stream without a file
        unknown = False
    return {"ncols": 79, "nrows": 24} if unknown else {"dynamic_ncols": True}


def _live_line(stream: TextIO) -> "tqdm":
    from tqdm import tqdm

    return tqdm(
        file=stream,
        position=0,  # the only line, also if an earlier one was never closed
        leave=False,
        **line_size(stream),
        smoothing=0,  # the mean rate
        unit=" steps",
        ascii="  ",
        bar_format=_TEXT,
    )
