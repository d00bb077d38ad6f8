"""Putting results on disk, in the writing thread: files first, then the row that says so."""

import dataclasses
import time
from collections.abc import Callable, Sequence

import jax
import numpy as np

from ssdnet_jax import stages
from ssdnet_jax.config import Config
from ssdnet_jax.core.vgg19 import VGG19Weights
from ssdnet_jax.data.files import write_atomically
from ssdnet_jax.data.images import write_mask_png, write_tiff_map
from ssdnet_jax.errors import SSDnetError
from ssdnet_jax.runner.batching import Fitted
from ssdnet_jax.runner.terminal import Terminal, one_line
from ssdnet_jax.runner.workdir import Row, Workdir

# What an image may die of without taking the others along.
IMAGE_ERRORS = (SSDnetError, OSError, MemoryError, jax.errors.JaxRuntimeError)

Submit = Callable[[Callable[[], None]], None]


class Record:
    """Hands finished and failed images to the writing thread, and counts them."""

    def __init__(
        self,
        workdir: Workdir,
        terminal: Terminal,
        submit: Submit,
        config: Config,
        vgg19: VGG19Weights | None,
        save_params: bool,
    ):
        self._workdir, self._terminal, self._submit = workdir, terminal, submit
        self._config, self._vgg19, self._save_params = config, vgg19, save_params
        self._warm = False
        self.finished = self.failed = 0

    def warm_up(self) -> None:
        """Prepares what writing needs while the device is busy: it takes three seconds."""
        if not self._warm:
            self._warm = True
            self._submit(_warm_up_writers)

    def finish(
        self,
        relative: str,
        prepared: stages.Prepared,
        fits: Sequence[Fitted],
        started: float,
    ) -> None:
        """Scores the fits of an image and writes its files and its row."""

        def task() -> None:
            try:
                result = stages.finish(prepared, fits, self._config, self._vgg19)
                write_fits(self._workdir, relative, prepared, fits)
                if self._save_params:
                    from ssdnet_jax.runner.checkpoints import save_networks

                    save_networks(self._workdir.params_path(relative), fits, self._config.network)
                row = write_result(self._workdir, relative, result, seeds=len(fits))
            except IMAGE_ERRORS as error:
                self._write_error(relative, error, started)
                return
            self._append(row, started)
            self.finished += 1

        self._submit(task)

    def fail(self, relative: str, error: Exception, started: float) -> None:
        """Writes the row of an image that failed, and says why."""
        self._submit(lambda: self._write_error(relative, error, started))

    def _write_error(self, relative: str, error: Exception, started: float) -> None:
        self._append(error_row(relative, error, self._terminal), started)
        self.failed += 1

    def _append(self, row: Row, started: float) -> None:
        row = dataclasses.replace(row, seconds=time.monotonic() - started)
        self._workdir.append(row)
        self._terminal.end_image(row)


def error_row(relative: str, error: Exception, terminal: Terminal) -> Row:
    """The row of an image that failed, without the time it took; also says why."""
    # JAX errors, such as a device without enough memory, go on for many lines.
    message = " ".join(str(error).strip().partition("\n\n")[0].split()) or type(error).__name__
    terminal.problem(message if relative in message else f"{relative}: {message}")
    return Row(path=relative, status="error", error=message)


def write_fits(
    workdir: Workdir, relative: str, prepared: stages.Prepared, fits: Sequence[Fitted]
) -> None:
    """Keeps what scoring again needs: the fitted image, its reconstructions, the losses."""
    longest = max(len(fit.losses) for fit in fits)
    losses = [np.pad(f.losses, (0, longest - len(f.losses)), constant_values=np.nan) for f in fits]
    arrays = {
        "image": prepared.fitted,
        "reconstructions": np.stack([fit.reconstruction for fit in fits]),
        "losses": np.stack(losses),
        "stop": np.array([int(fit.stop) for fit in fits]),
        "restorations": np.array([fit.restorations for fit in fits]),
        "size": np.array(prepared.pixels.shape[:2]),
    }
    write_atomically(workdir.fit_path(relative), lambda file: np.savez(file, **arrays))


def write_result(
    workdir: Workdir, relative: str, result: stages.Localization, *, seeds: int
) -> Row:
    """Writes an image's maps, mask and heat map; returns its row, without the time it took."""
    if seeds > 1:
        write_tiff_map(workdir.uncertainty_path(relative), result.uncertainty)
    row = write_map(
        workdir,
        relative,
        result.image,
        result.score_map,
        result.threshold,
        reconstruction=result.reconstruction,
    )
    return dataclasses.replace(row, steps=result.steps, loss=float(result.losses[-1]))


def write_map(
    workdir: Workdir,
    relative: str,
    image: np.ndarray,
    score_map: np.ndarray,
    threshold: float,
    *,
    reconstruction: np.ndarray | None = None,
) -> Row:
    """Writes the raw map of any method, its mask and its heat map; returns its row."""
    from ssdnet_jax.figures.heatmap import write_heatmap_figure

    mask = score_map > threshold
    write_tiff_map(workdir.map_path(relative), score_map)
    write_mask_png(workdir.mask_path(relative), mask)
    write_heatmap_figure(
        workdir.heatmap_path(relative),
        image=image,
        score_map=score_map,
        mask=mask,
        reconstruction=reconstruction,
        title=one_line(relative),
    )
    return Row(
        path=relative,
        status="ok",
        score=float(score_map.max()),
        threshold=threshold,
        anomalous_fraction=float(np.mean(mask)),
    )


def _warm_up_writers() -> None:
    import skimage.filters  # noqa: F401

    from ssdnet_jax.figures.heatmap import heatmap_figure

    # The first figure of a process finds fonts, which takes longer than drawing.
    tiny = np.zeros((8, 8), np.float32)
    heatmap_figure(image=tiny[..., None], score_map=tiny, mask=tiny > 0, title="warming up")
