"""Putting results on disk, in the writing thread: files first, then the row that says so."""

import dataclasses
import functools
import time
from collections.abc import Callable, MutableMapping

import numpy as np

from ssdnet_jax.data.fits_file import write_fits
from ssdnet_jax.data.images import write_mask_png, write_tiff_map
from ssdnet_jax.methods.base import Done, FittedLocalization, Localization, Method
from ssdnet_jax.runner.decisions import write_decision
from ssdnet_jax.runner.sources import Origin
from ssdnet_jax.runner.stream import IMAGE_ERRORS, Failure, Group, localizations
from ssdnet_jax.runner.terminal import LONGEST_PROBLEM, Terminal
from ssdnet_jax.runner.workdir import Row, Workdir
from ssdnet_jax.text import one_line, shortened

Submit = Callable[[Callable[[], None]], None]


class Record:
    """Hands finished and failed images to the writing thread, and counts them."""

    def __init__(
        self,
        method: Method,
        workdir: Workdir,
        terminal: Terminal,
        submit: Submit,
        origins: MutableMapping[str, Origin | None],
        *,
        save_params: bool,
    ):
        """A record of a run.

        Args:
          method: what images are scored by.
          workdir: where files and rows go.
          terminal: told of each image.
          submit: takes what the writing thread is to do.
          origins: contents of the files of images that have been read; taken out when rows are
            written.
          save_params: whether fitted networks are kept.
        """
        self._origins = origins
        self._method, self._workdir, self._terminal = method, workdir, terminal
        self._submit, self._save_params = submit, save_params
        self._warm = False
        self.finished = self.failed = 0

    def warm_up(self) -> None:
        """Prepares what writing needs while the device is busy: it takes three seconds."""
        if not self._warm:
            self._warm = True
            self._submit(_warm_up_writers)

    def finish(self, group: Group) -> None:
        """Scores a group of images and writes their files and rows."""
        self._submit(lambda: self._finish(group))

    def _finish(self, group: Group) -> None:
        for done, started, result in localizations(self._method, group):
            try:
                if isinstance(result, Exception):
                    raise result
                row = self._write(done, result)
            except IMAGE_ERRORS as error:
                self._write_error(done.name, error, started)
            else:
                self._append(row, started)
                self.finished += 1

    def fail(self, failure: Failure) -> None:
        """Writes the row of an image that failed, and says why."""
        self._submit(lambda: self._write_error(failure.name, failure.error, failure.started))

    def _write(self, done: Done, result: Localization) -> Row:
        """Writes an image's files; returns its row, without the time it took."""
        self._workdir.check()
        if self._save_params and done.fits:
            from ssdnet_jax.runner.checkpoints import save_networks

            network = self._method.config.network
            save_networks(self._workdir.params_path(done.name), done.fits, network)
        return write_result(self._workdir, done.name, result)

    def _write_error(self, name: str, error: Exception, started: float) -> None:
        self._append(error_row(name, error, self._terminal), started)
        self.failed += 1

    def _append(self, row: Row, started: float) -> None:
        row = row.of(self._origins.pop(row.path, None))
        row = dataclasses.replace(row, seconds=time.monotonic() - started)
        self._workdir.append(row)
        self._terminal.end_image(row)


def error_row(relative: str, error: Exception, terminal: Terminal) -> Row:
    """The row of an image that failed, without the time it took; also says why."""
    # JAX errors, such as a device without enough memory, go on for many lines.
    message = " ".join(str(error).strip().partition("\n\n")[0].split()) or type(error).__name__
    message = shortened(message, LONGEST_PROBLEM)
    terminal.problem(message if relative in message else f"{relative}: {message}")
    return Row(path=relative, status="error", error=message)


def write_result(workdir: Workdir, relative: str, result: Localization) -> Row:
    """Writes an image's maps, mask and heat map; returns its row, without the time it took."""
    from ssdnet_jax.figures.heatmap import write_heatmap_figure

    reconstruction = steps = loss = None
    if isinstance(result, FittedLocalization):
        write_fits(workdir.fit_path(relative), result.fits)
        if len(result.fits.losses) > 1:
            write_tiff_map(workdir.uncertainty_path(relative), result.uncertainty)
        reconstruction = result.reconstruction
        steps, loss = result.steps, float(result.losses[-1])
    write_tiff_map(workdir.map_path(relative), result.score_map)
    write_mask_png(workdir.mask_path(relative), result.mask)
    write_decision(workdir, relative, result)
    write_heatmap_figure(
        workdir.heatmap_path(relative),
        image=result.image,
        score_map=result.score_map,
        mask=result.mask,
        reconstruction=reconstruction,
        title=one_line(relative),
    )
    return Row(
        path=relative,
        status="ok",
        score=result.score,
        threshold=result.threshold,
        anomalous_fraction=float(np.mean(result.mask)),
        p_value=result.decision.p_value,
        steps=steps,
        loss=loss,
        ground=result.ground,
        range=_range_text(result.used_range),
    )


def _range_text(used: tuple[float, float] | None) -> str | None:
    """As `--range` takes it."""
    return None if used is None else ",".join(f"{value:.9g}" for value in used)


@functools.cache  # once a process
def _warm_up_writers() -> None:
    import scipy.ndimage  # noqa: F401

    from ssdnet_jax.figures.heatmap import heatmap_figure

    # The first figure of a process finds fonts, which takes longer than drawing.
    tiny = np.zeros((8, 8), np.float32)
    heatmap_figure(image=tiny[..., None], score_map=tiny, mask=tiny > 0, title="warming up")
