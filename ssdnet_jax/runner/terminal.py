"""What a person at the terminal sees: one live line, problems on their own lines, a summary."""

import sys
import time
from typing import TextIO

from ssdnet_jax.localize import Progress
from ssdnet_jax.runner.workdir import Row


class Terminal:
    """Shows a run on a terminal; on a pipe only problems and the summary appear.

    Everything but the summary goes to the error stream.
    """

    def __init__(self, out: TextIO | None = None, err: TextIO | None = None):
        self._out = out or sys.stdout
        self._err = err or sys.stderr
        self._live = self._err.isatty()
        self._line = ""
        self._started = time.monotonic()
        self._image, self._number, self._images = "", 0, 0
        self._stage_started: tuple[str, int, float] = ("", 0, 0.0)

    def stage(self, text: str) -> None:
        """Names what is going on now."""
        self._show(f"{self._prefix()}{text}")

    def start_image(self, name: str, number: int, images: int) -> None:
        """The image `number` (from 0) of `images` begins."""
        self._image, self._number, self._images = name, number, images
        self.stage("reading")

    def progress(self, progress: Progress) -> None:
        """Shows step, rate, time left and loss of the current fit."""
        if progress.stage == "score":
            return self.stage("scoring")
        if progress.step == 0:
            # The first call compiles, which takes far longer than any step.
            self._stage_started = (progress.stage, -1, 0.0)
            return self.stage("compiling (the first image of a size takes longer)")
        stage, first_step, since = self._stage_started
        now = time.monotonic()
        if first_step < 0:
            self._stage_started = (stage, progress.step, now)
            pace = ""
        else:
            rate = (progress.step - first_step) / max(now - since, 1e-9)
            left = (progress.total - progress.step) / max(rate, 1e-9)
            pace = f", {rate:.1f} steps/s, {duration(left)} left at most"
        name = "inpainting" if stage == "inpaint" else "fitting"
        return self.stage(
            f"{name} step {progress.step}/{progress.total}{pace}, loss {progress.loss:.2e}"
        )

    def end_image(self, row: Row) -> None:
        """Leaves one line for a finished image."""
        if row.status == "ok":
            steps = f", {row.steps} steps" if row.steps else ""
            self._permanent(
                f"{self._prefix()}score {row.score:.3g}, {100 * row.anomalous_fraction:.1f} % "
                f"anomalous{steps}, {duration(row.seconds or 0)}"
            )

    def problem(self, text: str) -> None:
        """A warning or an error, always shown."""
        self._clear()
        print(f"ssdnet: {text}", file=self._err, flush=True)

    def note(self, text: str) -> None:
        """Something a person wants to know and a pipe does not."""
        self._permanent(text)

    def summary(self, text: str) -> None:
        """The last line of a run, the only one on standard output."""
        self._clear()
        print(text, file=self._out, flush=True)

    def _prefix(self) -> str:
        if self._images == 0:
            return ""
        if self._images == 1:
            return f"{self._image}: "
        finished = self._number
        left = ""
        if finished:
            seconds = (time.monotonic() - self._started) / finished * (self._images - finished)
            left = f", {duration(seconds)} left"
        return f"[{finished + 1}/{self._images}{left}] {self._image}: "

    def _permanent(self, text: str) -> None:
        if self._live:
            self._clear()
            print(text, file=self._err, flush=True)

    def _show(self, text: str) -> None:
        if self._live:
            import shutil

            width = shutil.get_terminal_size().columns - 1
            text = text if len(text) <= width else text[: width - 1] + "…"
            self._err.write("\r" + text.ljust(len(self._line)))
            self._err.flush()
            self._line = text

    def _clear(self) -> None:
        if self._live and self._line:
            self._err.write("\r" + " " * len(self._line) + "\r")
            self._line = ""


def duration(seconds: float) -> str:
    """Seconds as a person says them: "42 s", "3 min 20 s", "2 h 05 min"."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"
