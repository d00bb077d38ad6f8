"""What a person at the terminal sees: one live line, problems on their own lines, a summary."""

import sys
import time
from typing import TYPE_CHECKING, TextIO

from ssdnet_jax.localize import Progress
from ssdnet_jax.runner.workdir import Row

if TYPE_CHECKING:
    from tqdm import tqdm

# tqdm cuts a line to the terminal's width only if there is a bar in it; this one is of blanks.
_TEXT = "{desc}{bar}"
_STEPS = "{desc} step {n_fmt}/{total_fmt}, {rate_fmt}, {remaining} left at most{postfix}{bar}"
_STAGES = {"inpaint": "inpainting", "fit": "fitting", "score": "scoring"}


class Terminal:
    """Shows a run on a terminal; on a pipe only problems and the summary appear.

    Everything but the summary goes to the error stream.
    """

    def __init__(self, out: TextIO | None = None, err: TextIO | None = None):
        self._out = out or sys.stdout
        self._err = err or sys.stderr
        self._line = _live_line(self._err) if self._err.isatty() else None
        self._count, self._name = "", ""
        self._started = 0.0

    def start_image(self, name: str, number: int, images: int) -> None:
        """The image `number` (from 0) of `images` begins."""
        if number == 0:
            self._started = time.monotonic()
        left = ""
        if number:
            seconds = (time.monotonic() - self._started) / number * (images - number)
            left = f", {duration(seconds)} left"
        self._count = f"[{number + 1}/{images}{left}] " if images > 1 else ""
        self._name = one_line(name)
        self.stage("reading")

    def stage(self, text: str) -> None:
        """Names what is going on with the image, for as long as it has no steps to count."""
        if self._line is not None:
            self._line.bar_format = _TEXT
            self._describe(text)

    def progress(self, progress: Progress) -> None:
        """Shows step, rate, time left and loss of the current fit."""
        if self._line is None:
            return
        if progress.stage == "score":
            self.stage(_STAGES["score"])
        elif progress.step == 0:
            self._line.n = 0
            self.stage("compiling (the first image of a size takes longer)")
        else:
            if self._line.n == 0:
                # The first call compiles, which takes far longer than any step: the clock of the
                # rate starts after it.
                self._line.reset(total=progress.total)
                self._line.initial = progress.step
            self._line.bar_format = _STEPS
            self._line.n = progress.step
            self._line.set_postfix_str(f"loss {progress.loss:.2e}", refresh=False)
            self._describe(_STAGES[progress.stage])

    def end_image(self, row: Row) -> None:
        """Leaves one line for a finished image."""
        if row.status == "ok":
            self.note(
                f"{self._count}{self._name}: score {row.score:.3g}, "
                f"{row.anomalous_fraction:.1%} anomalous, {row.steps} steps, "
                f"{duration(row.seconds)}"
            )

    def problem(self, text: str) -> None:
        """A warning or an error, always shown, always in one line."""
        self._print(f"ssdnet: {one_line(text)}", self._err)

    def note(self, text: str) -> None:
        """Something a person wants to know and a pipe does not."""
        if self._line is not None:
            self._print(text, self._err)

    def summary(self, text: str) -> None:
        """The last lines of a run, the only ones on standard output."""
        self._print(one_line(text), self._out)

    def _describe(self, text: str) -> None:
        name = self._name if len(self._name) <= 32 else f"…{self._name[-31:]}"
        self._line.set_description_str(f"{self._count}{name}: {text}")

    def _print(self, text: str, stream: TextIO) -> None:
        if self._line is not None:
            self._line.clear()
        print(text, file=stream, flush=True)


def one_line(text: str) -> str:
    """Text whose control characters and stray bytes, legal in file names, are spelled out."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def duration(seconds: float) -> str:
    """Seconds as a person says them: "42 s", "3 min 20 s", "2 h 05 min"."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"


def _live_line(stream: TextIO) -> "tqdm":
    from tqdm import tqdm

    return tqdm(
        file=stream,
        position=0,  # the only line, also if an earlier one was never closed
        leave=False,
        dynamic_ncols=True,
        smoothing=0,  # the mean rate
        unit=" steps",
        ascii="  ",
        bar_format=_TEXT,
    )
