"""`localize`: one image in, one frozen result out."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from ssdnet_jax import stages
from ssdnet_jax.config import AUTO, Config, from_config_dict
from ssdnet_jax.core.vgg19 import VGG19Weights
from ssdnet_jax.errors import ConfigError
from ssdnet_jax.runner.batching import Failed, Fitted, Job, Progress, fit_stream
from ssdnet_jax.stages import Localization


def localize(
    image: Any,
    config: Config | None = None,
    key: PRNGKeyArray | None = None,
    *,
    missing: np.ndarray | None = None,
    vgg19: VGG19Weights | None = None,
    report: Callable[[Progress], None] | None = None,
) -> Localization:
    """Localizes anomalies in one image by fitting a network to it (SSDnet, arXiv 2509.18354).

    Args:
      image: (H, W) or (H, W, C) with C in {1, 3}; float in [0, 1], or uint8 or uint16. NaN means
        that a pixel is missing.
      config: by default `AUTO`, the setting of `configs/auto.py`.
      key: source of randomness; by default made from `config.seed`.
      missing: bool (H, W), True where a pixel is not known. Such pixels are first inpainted and
        the result is then scored (paper section 5.2).
      vgg19: weights of phi, from `load_vgg19_weights`; needed if `config.needs_vgg19`. Features
        "auto" are VGG19's with them and filter responses without.
      report: called with the progress between compiled blocks of steps.

    Raises:
      InputError: the image has a wrong shape, type or range, is constant, or could not be fitted.
      ConfigError: a field or a combination of fields cannot work.
    """
    config = from_config_dict(dataclasses.asdict(config or AUTO))
    config = config.settled(has_vgg19=vgg19 is not None)
    if config.needs_vgg19 and vgg19 is None:
        raise ConfigError(
            "config.features.kind is vgg19, or config.loss.w_perc or config.score.alpha_perc is "
            "above 0, and vgg19 is None; "
            "expected weights, for example vgg19=ssdnet_jax.load_vgg19_weights()"
        )
    key = jax.random.key(config.seed) if key is None else key
    report = report or (lambda progress: None)
    prepared = stages.prepare(image, config, missing=missing)
    if job := stages.inpaint_job(prepared, config, key, name=0):
        (inpainted,) = _fit([job], vgg19, report)
        prepared = stages.fill(prepared, inpainted)
    jobs = stages.fit_jobs(prepared, config, key, range(config.fit.seeds), vgg19)
    fits = _fit(jobs, vgg19, report)
    stages.check_fit(fits[0])
    steps = len(fits[0].losses)
    report(Progress("score", steps, steps, float(fits[0].losses[-1])))
    return stages.finish(prepared, fits, config, vgg19)


def _fit(
    jobs: list[Job], vgg19: VGG19Weights | None, report: Callable[[Progress], None]
) -> list[Fitted]:
    """Fits of one image in the order of `jobs`, one after another."""
    waiting = iter(jobs)
    fits = []
    for result in fit_stream(lambda: next(waiting, None), vgg19=vgg19, report=report):
        if isinstance(result, Failed):
            raise result.error
        fits.append(result)
    return fits
