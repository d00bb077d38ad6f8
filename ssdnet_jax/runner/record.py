"""Putting results on disk: files first, in several threads, then in order the row that says so."""

import dataclasses
import errno
import functools
import time
from collections.abc import Callable, MutableMapping
from pathlib import Path

import numpy as np

from ssdnet_jax.data.fits_file import write_fits, write_tiled_note
from ssdnet_jax.data.images import write_mask_png, write_tiff_map
from ssdnet_jax.methods.base import FittedLocalization, Localization, Method, TiledLocalization
from ssdnet_jax.runner.decisions import write_decision
from ssdnet_jax.runner.page import Page, Panels, write_thumbnail
from ssdnet_jax.runner.sources import Origin
from ssdnet_jax.runner.stream import IMAGE_ERRORS, Failure, Group, localizations
from ssdnet_jax.runner.terminal import LONGEST_PROBLEM, Terminal
from ssdnet_jax.runner.workdir import Row, Workdir, named_errors
from ssdnet_jax.text import chance, counted, shortened

Submit = Callable[[Callable[[], None]], None]

HEATMAPS = ("all", "anomalous", "none")
_THUMBNAIL = 240  # longer side, pixels
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # of a file system that takes no more files


@dataclasses.dataclass(frozen=True)
class Threads:
    """Threads for what is to be done between the device's results and the row on disk."""

    score: Submit  # one thread, in order: scores groups on the device
    work: Callable[[Callable[[], Row]], Callable[[], Row]]  # several threads: an image's files
    append: Submit  # one thread, in order: rows


@dataclasses.dataclass(frozen=True)
class Written:
    """What is written of an image beside its map, mask and fits."""

    heatmaps: str = "all"  # of which images the figure is written, one of `HEATMAPS`
    params: bool = False  # whether fitted parameters are


class _FullError(Exception):
    """The work folder takes no more files, of whatever image."""

    def __init__(self, reason: OSError):
        """What the system said of the first of them."""
        super().__init__(reason)
        self.reason = reason


class Record:
    """Hands finished and failed images to the threads that write, and counts them."""

    def __init__(
        self,
        method: Method,
        workdir: Workdir,
        terminal: Terminal,
        page: Page,
        threads: Threads,
        written: Written,
        origins: MutableMapping[str, Origin | None],
    ):
        """A record of a run.

        Args:
          method: what images are scored by.
          workdir: where files and rows go.
          terminal: told of each image.
          page: shows each image.
          threads: that do the work.
          written: of each image.
          origins: contents of the files of images that have been read; taken out when rows are
            written.
        """
        self._method, self._workdir, self._terminal, self._page = method, workdir, terminal, page
        self._threads, self._written, self._origins = threads, written, origins
        self._warm = False
        self.finished = self.failed = 0

    def warm_up(self) -> None:
        """Prepares what writing needs while the device is busy: it takes three seconds."""
        if not self._warm:
            self._warm = True
            self._threads.score(_warm_up_writers)

    def finish(self, group: Group) -> None:
        """Scores a group of images and writes their files and rows."""
        self._threads.score(lambda: self._finish(group))

    def _finish(self, group: Group) -> None:
        for done, started, result in localizations(self._method, group, self._terminal.progress):
            if isinstance(result, Exception):
                self._fail(done.name, result, started)
                continue
            if self._written.params and done.fits:  # Orbax has threads of its own
                from ssdnet_jax.runner.checkpoints import save_networks

                network = self._method.config.network
                try:
                    save_networks(self._workdir.params_path(done.name), done.fits, network)
                except IMAGE_ERRORS as error:
                    self._fail(done.name, error, started)
                    continue
            row = self._threads.work(functools.partial(self._write, done.name, result))
            self._threads.append(functools.partial(self._append, done.name, row, started))

    def fail(self, failure: Failure) -> None:
        """Writes the row of an image that failed, and says why."""
        self._threads.score(lambda: self._fail(failure.name, failure.error, failure.started))

    def _fail(self, name: str, error: Exception, started: float) -> None:
        def failed() -> Row:
            raise error

        self._threads.append(functools.partial(self._append, name, failed, started))

    def _write(self, name: str, finish: Callable[[], Localization]) -> Row:
        self._workdir.check()
        result = finish()
        try:
            return write_result(self._workdir, name, result, heatmaps=self._written.heatmaps)
        except OSError as error:
            if error.errno in _FULL:
                raise _FullError(error) from error
            raise

    def _append(self, name: str, written: Callable[[], Row], started: float) -> None:
        """Waits until an image's files are written, or have failed, and writes its row.

        Raises InputError where no other image could be written either.
        """
        try:
            row = written()
            self.finished += 1
        except _FullError as error:
            with named_errors(self._workdir.path):
                raise error.reason from None
        except IMAGE_ERRORS as error:
            row = error_row(name, error, self._terminal)
            self.failed += 1
        row = row.of(self._origins.pop(name, None))
        row = dataclasses.replace(row, seconds=time.monotonic() - started)
        self._workdir.append(row)
        self._terminal.end_image(row)
        self._page.add(row)


def error_row(relative: str, error: Exception, terminal: Terminal) -> Row:
    """The row of an image that failed, without the time it took; also says why."""
    # JAX errors, such as a device without enough memory, go on for many lines.
    message = " ".join(str(error).strip().partition("\n\n")[0].split()) or type(error).__name__
    message = shortened(message, LONGEST_PROBLEM)
    terminal.problem(message if relative in message else f"{relative}: {message}")
    return Row(path=relative, status="error", error=message)


def write_result(
    workdir: Workdir, relative: str, result: Localization, *, heatmaps: str = "all"
) -> Row:
    """Writes an image's files; returns its row, without the time it took."""
    from ssdnet_jax.figures.heatmap import thumbnail

    reconstruction = steps = loss = None
    if isinstance(result, FittedLocalization):
        write_fits(workdir.fit_path(relative), result.fits)
        if len(result.fits.losses) > 1:
            write_tiff_map(workdir.uncertainty_path(relative), result.uncertainty)
        # Large images are drawn smaller: theirs need not become larger first.
        analysed = result.analysed
        reconstruction = result.reconstruction if analysed.layout else analysed.reconstruction
        steps, loss = result.steps, float(result.losses[-1])
    elif isinstance(result, TiledLocalization):
        write_tiled_note(workdir.fit_path(relative), result.losses)
        steps, loss = result.steps, float(result.losses[-1])
    write_tiff_map(workdir.map_path(relative), result.score_map)
    write_mask_png(workdir.mask_path(relative), result.mask)
    write_decision(workdir, relative, result)
    calibrated, threshold = _calibrated(result)
    panels = None
    if heatmaps == "all" or (heatmaps == "anomalous" and result.is_anomalous):
        panels = _write_figure(
            workdir.heatmap_path(relative), relative, result, calibrated, threshold, reconstruction
        )
    write_thumbnail(
        workdir.thumbnail_path(relative),
        thumbnail(result.image, calibrated, threshold, _THUMBNAIL),
        panels,
    )
    return Row(
        path=relative,
        status="ok",
        score=result.score,
        pixel_threshold=result.threshold,
        anomalous_fraction=float(np.mean(result.mask)),
        p_value=result.decision.p_value,
        steps=steps,
        loss=loss,
        ground=result.ground,
        range=_range_text(result.used_range),
    )


def _range_text(used: tuple[float, float] | None) -> str | None:
    """A range as the flag `--range` takes it."""
    return None if used is None else ",".join(f"{value:.9g}" for value in used)


def _write_figure(
    path: Path,
    name: str,
    result: Localization,
    calibrated: np.ndarray,
    threshold: float,
    reconstruction: np.ndarray | None,
) -> Panels:
    """Writes the heat map figure; returns its width and height, and where its panels are."""
    from ssdnet_jax.figures.heatmap import Box, heatmap_figure, write_heatmap_figure

    decision = result.decision
    judged = decision.verdict != "unjudged"
    figure = heatmap_figure(
        image=result.image,
        score_map=calibrated,
        threshold=threshold,
        mask=result.mask,
        reconstruction=reconstruction,
        boxes=[Box(d.x, d.y, d.width, d.height) for d in result.defects],
        title=name,
        verdict=decision.verdict if judged else "not judged",
        details=_details(result) if judged else "",
    )
    write_heatmap_figure(path, figure)
    height, width = figure.pixels.shape[:2]
    return (width, height), figure.panels


def _details(result: Localization) -> str:
    """What the figure says of an image behind its verdict."""
    decision, count = result.decision, len(result.defects)
    p_value = chance(decision.p_value)
    if not decision.anomalous:
        p_value += f" (above {decision.false_alarms:g})"
    parts = [f"score {decision.score:.3g}", p_value]
    return ", ".join([*parts, counted(count, "defect")] if count else parts)


def _calibrated(result: Localization) -> tuple[np.ndarray, float]:
    """The map and its threshold in calibrated units, as figures show them."""
    decision = result.decision
    _, spread = decision.usual
    # Without a spread also where nothing was judged.
    return decision.calibrated, decision.calibrated_threshold if spread > 0 else 1.0


@functools.cache  # once a process
def _warm_up_writers() -> None:
    import scipy.ndimage  # noqa: F401

    from ssdnet_jax.figures.heatmap import heatmap_figure

    # The first figure of a process finds fonts and computes its colours.
    tiny = np.zeros((8, 8), np.float32)
    heatmap_figure(
        image=tiny[..., None], score_map=tiny, threshold=1.0, mask=tiny > 0, title="warming up"
    )
