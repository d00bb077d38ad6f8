"""Scoring a finished run again, from the reconstructions it kept, without fitting."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ssdnet_jax import stages
from ssdnet_jax.config import Config, from_config_dict
from ssdnet_jax.core.fit import StopReason
from ssdnet_jax.core.vgg19 import VGG19Weights
from ssdnet_jax.data.files import link_or_copy
from ssdnet_jax.data.images import resize_image
from ssdnet_jax.errors import InputError
from ssdnet_jax.runner.batching import Fitted
from ssdnet_jax.runner.record import write_result
from ssdnet_jax.runner.run import Summary
from ssdnet_jax.runner.sequence import run_in_order
from ssdnet_jax.runner.terminal import Terminal
from ssdnet_jax.runner.workdir import Row, Workdir, is_workdir, read_rows


@dataclasses.dataclass(frozen=True)
class FinishedRun:
    """What a run left behind.

    Attributes:
      workdir: its folder; `finished` holds its rows.
      config: its configuration.
      note: all of its run.json.
    """

    workdir: Workdir
    config: Config
    note: Mapping[str, Any]


def read_run(path: Path) -> FinishedRun:
    """Opens the work folder of a run of SSDnet, without changing it.

    Raises:
      InputError: it is no such folder, or nothing in it is finished.
    """
    if not is_workdir(path):
        raise InputError(f"{path}: found no run.json with results.csv; expected a work folder")
    try:
        note = json.loads((path / "run.json").read_text(encoding="utf-8"))
        config = from_config_dict(note["config"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path / 'run.json'}: not written by ssdnet; expected its file"
        ) from error
    rows = {row.path: row for row in read_rows(path / "results.csv") if row.status == "ok"}
    if not rows:
        raise InputError(f"{path}: found no finished image; expected at least one")
    return FinishedRun(Workdir(path, rows), config, note)


def rescore(
    run: FinishedRun,
    config: Config,
    workdir: Workdir,
    terminal: Terminal,
    *,
    vgg19: VGG19Weights | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Summary:
    """Scores the images of a run with `config.score`, into another work folder.

    Pictures in heat maps are those of the fit, enlarged: sources may have gone.

    Args:
      run: from `read_run`.
      config: the run's, with another `score`.
      workdir: images finished there before are left alone.
      terminal: shows progress and problems.
      vgg19: weights of phi, if the score has a perceptual term.
      stop: asked between images; True ends the call.
    """

    def score(relative: str) -> Row:
        prepared, fits = read_fits(run.workdir.fit_path(relative))
        result = stages.finish(prepared, fits, config, vgg19)
        row = write_result(workdir, relative, result, seeds=len(fits))
        link_or_copy(run.workdir.fit_path(relative), workdir.fit_path(relative))
        return row

    return run_in_order(run.workdir.finished, score, workdir, terminal, stop=stop)


def read_fits(path: Path) -> tuple[stages.Prepared, list[Fitted]]:
    """What `record.write_fits` wrote.

    Raises:
      InputError: the file is not there, or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            image, size = arrays["image"], tuple(arrays["size"].tolist())
            fits = [
                Fitted(
                    name=seed,
                    reconstruction=arrays["reconstructions"][seed],
                    losses=losses[~np.isnan(losses)],
                    stop=StopReason(int(arrays["stop"][seed])),
                    restorations=int(arrays["restorations"][seed]),
                    params=np.zeros(0, np.float32),
                )
                for seed, losses in enumerate(arrays["losses"])
            ]
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise InputError(f"{path}: cannot be read ({error}); expected fits of ssdnet") from error
    whole = np.zeros(size, bool)
    fitted_whole = np.zeros(image.shape[:2], bool)
    return stages.Prepared(resize_image(image, size), whole, image, fitted_whole), fits
