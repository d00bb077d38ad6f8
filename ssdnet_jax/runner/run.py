"""Scoring a list of images one after another into a work folder."""

import dataclasses
import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from ssdnet_jax.config import Config
from ssdnet_jax.core.vgg19 import VGG19Weights
from ssdnet_jax.data.images import DecodedImage, read_image, write_mask_png, write_tiff_map
from ssdnet_jax.errors import SSDnetError
from ssdnet_jax.localize import localize
from ssdnet_jax.runner.terminal import Terminal, one_line
from ssdnet_jax.runner.workdir import Row, Workdir


@dataclasses.dataclass(frozen=True)
class Summary:
    """What a run did: images finished, failed, and found finished before it started."""

    finished: int
    failed: int
    finished_before: int
    seconds: float


def run(
    sources: Mapping[str, Callable[[], DecodedImage]],
    config: Config,
    workdir: Workdir,
    terminal: Terminal,
    *,
    vgg19: VGG19Weights | None = None,
) -> Summary:
    """Localizes each image and writes its map, heat map, mask and row.

    An image that fails gets a row with status "error"; the others go on.

    Args:
      sources: relative path -> function that reads the image.
      config: the same for all images.
      workdir: images finished there before are left alone.
      terminal: shows progress and problems.
      vgg19: weights of phi, if the configuration needs them.
    """
    started = time.monotonic()
    todo = {name: read for name, read in sources.items() if name not in workdir.finished}
    failed = 0
    for number, (relative, read) in enumerate(todo.items()):
        terminal.start_image(relative, number, len(todo))
        image_started = time.monotonic()
        try:
            row = _run_one(relative, read, config, workdir, terminal, vgg19)
        except (SSDnetError, OSError, MemoryError, jax.errors.JaxRuntimeError) as error:
            # JAX errors, such as a device without enough memory, go on for many lines.
            message = " ".join(str(error).strip().partition("\n\n")[0].split())
            row = Row(path=relative, status="error", error=message or type(error).__name__)
            terminal.problem(row.error if relative in row.error else f"{relative}: {row.error}")
            failed += 1
        row = dataclasses.replace(row, seconds=time.monotonic() - image_started)
        workdir.append(row)
        terminal.end_image(row)
    return Summary(
        finished=len(todo) - failed,
        failed=failed,
        finished_before=len(sources) - len(todo),
        seconds=time.monotonic() - started,
    )


def image_key(seed: int, relative: str) -> PRNGKeyArray:
    """The key of an image depends on its path and the seed alone, not on its neighbours."""
    digest = hashlib.sha256(relative.encode("utf-8", "surrogateescape")).digest()
    return jax.random.fold_in(jax.random.key(seed), int.from_bytes(digest[:4], "big"))


def file_sources(root: Path, relatives: Sequence[Path]) -> dict[str, Callable[[], DecodedImage]]:
    """Readers of files below `root`, by posix path relative to it."""
    return {path.as_posix(): lambda path=path: read_image(root / path) for path in relatives}


def _run_one(
    relative: str,
    read: Callable[[], DecodedImage],
    config: Config,
    workdir: Workdir,
    terminal: Terminal,
    vgg19: VGG19Weights | None,
) -> Row:
    from ssdnet_jax.evaluation.figures import write_heatmap_figure

    decoded = read()
    for warning in decoded.warnings:
        terminal.problem(f"{relative}: {warning}")
    result = localize(
        decoded.pixels,
        config,
        image_key(config.seed, relative),
        missing=decoded.missing,
        vgg19=vgg19,
        report=terminal.progress,
    )
    terminal.stage("writing")
    write_tiff_map(workdir.map_path(relative), result.score_map)
    write_mask_png(workdir.mask_path(relative), result.mask)
    write_heatmap_figure(
        workdir.heatmap_path(relative),
        image=result.image,
        score_map=result.score_map,
        mask=result.mask,
        reconstruction=result.reconstruction,
        title=one_line(relative),
    )
    return Row(
        path=relative,
        status="ok",
        score=result.score,
        threshold=result.threshold,
        anomalous_fraction=float(np.mean(result.mask)),
        steps=result.steps,
        loss=float(result.losses[-1]),
    )
