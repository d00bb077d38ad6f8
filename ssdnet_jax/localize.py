"""`localize`: one image in, one frozen result out. The host side of the method."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from ssdnet_jax.config import Config, check_against_image, from_config_dict
from ssdnet_jax.core import fit as fitting
from ssdnet_jax.core.fit import FitSettings, FitState, StopReason
from ssdnet_jax.core.score import score_maps
from ssdnet_jax.core.vgg19 import VGG19Weights
from ssdnet_jax.data.images import resize_image, resize_map, resize_missing
from ssdnet_jax.errors import ConfigError, InputError
from ssdnet_jax.programs import program

_ROUNDING = 1e-6  # how far values may leave [0, 1], as those of resampled images do
SMALLEST_SIDE = 8  # pixels: in less there is no texture that a picture could be unlike

_reconstruct = jax.jit(fitting.reconstruct, static_argnames="settings")
_score_maps = jax.jit(score_maps, static_argnames=("config", "loss_config"))


@dataclasses.dataclass(frozen=True)
class Progress:
    """Where a call of `localize` stands.

    Attributes:
      stage: "inpaint", "fit" or "score".
      step: steps taken in this stage.
      total: most steps this stage can take.
      loss: loss of the last step; nan before the first.
    """

    stage: str
    step: int
    total: int
    loss: float


@dataclasses.dataclass(frozen=True)
class Localization:
    """What SSDnet says about one image; all arrays are numpy, maps have the input's size.

    Attributes:
      score_map: float32 (H, W), raw anomaly score (Eq. 3 without min-max scaling).
      normalized_map: float32 (H, W), Eq. 3 with min-max scaling, in [0, 1] for alpha (1, 0).
      mask: bool (H, W), `score_map` above `threshold` (Otsu, paper section 5.3).
      threshold: in units of `score_map`.
      score: the image's score, the maximum of `score_map`.
      image: float32 (H, W, C), y: the input with missing pixels filled in.
      reconstruction: float32 (H, W, C), the normal component mu = f_theta(y).
      residual: float32 (H, W, C), y - mu, anomaly and noise together (Eq. 1).
      losses: float32 (steps,), the loss (Eq. 2) of each step.
      steps: optimizer steps taken.
      stop_reason: "threshold" or "max_steps".
      restorations: how often the guard undid a blow-up of Adam.
    """

    score_map: np.ndarray
    normalized_map: np.ndarray
    mask: np.ndarray
    threshold: float
    score: float
    image: np.ndarray
    reconstruction: np.ndarray
    residual: np.ndarray
    losses: np.ndarray
    steps: int
    stop_reason: str
    restorations: int


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
      config: by default `Config()`, the setting of `configs/grid.py`.
      key: source of randomness; by default made from `config.seed`.
      missing: bool (H, W), True where a pixel is not known. Such pixels are first inpainted and
        the result is then scored (paper section 5.2).
      vgg19: weights of phi, from `load_vgg19_weights`; needed if `config.needs_vgg19`.
      report: called with the progress between compiled blocks of steps.

    Raises:
      InputError: the image has a wrong shape, type or range, is constant, or could not be fitted.
      ConfigError: a field or a combination of fields cannot work.
    """
    config = from_config_dict(dataclasses.asdict(config or Config()))
    if config.needs_vgg19 and vgg19 is None:
        raise ConfigError(
            "config.loss.w_perc or config.score.alpha_perc is above 0 and vgg19 is None; "
            "expected weights, for example vgg19=ssdnet_jax.load_vgg19_weights()"
        )
    key = jax.random.key(config.seed) if key is None else key
    pixels, missing = _as_image(image, missing)
    size = pixels.shape[:2] if config.image_size == 0 else (config.image_size, config.image_size)
    check_against_image(config, size)
    fitted, fitted_missing = _resize_known(pixels, missing, size)
    inpaint_key, fit_key = jax.random.split(key)
    report = report or (lambda progress: None)

    if fitted_missing.any():
        known = jnp.asarray(~fitted_missing, jnp.float32)
        filled, _ = _fit(
            inpaint_key, fitted, known, None, config.inpaint_settings, "inpaint", report
        )
        fitted = np.where(fitted_missing[..., None], np.clip(filled, 0, 1), fitted)
        pixels = np.where(missing[..., None], resize_image(fitted, missing.shape), pixels)

    everything = jnp.ones(size, jnp.float32)
    reconstruction, state = _fit(
        fit_key, fitted, everything, vgg19, config.fit_settings, "fit", report
    )
    losses = np.asarray(state.history)[: int(state.step)]
    report(Progress("score", len(losses), len(losses), float(losses[-1])))
    maps = jax.device_get(
        _score_maps(fitted, reconstruction, vgg19, config=config.score, loss_config=config.loss)
    )
    score_map = resize_map(maps.raw, pixels.shape[:2])
    threshold = otsu_threshold(score_map)
    mu = resize_image(reconstruction, pixels.shape[:2])
    return Localization(
        score_map=score_map,
        normalized_map=resize_map(maps.normalized, pixels.shape[:2]),
        mask=score_map > threshold,
        threshold=threshold,
        score=float(score_map.max()),
        image=pixels,
        reconstruction=mu,
        residual=pixels - mu,
        losses=losses,
        steps=len(losses),
        stop_reason=StopReason(int(state.stop)).name.lower(),
        restorations=int(state.undone),
    )


def otsu_threshold(score_map: np.ndarray) -> float:
    """Otsu's threshold (1979), which the paper uses for binary maps; a constant map's value.

    A float32 number, so that the map is above it in the same pixels however they are compared.
    """
    from skimage.filters import threshold_otsu

    # In double precision also a nearly constant map can be divided into bins.
    return float(np.float32(threshold_otsu(score_map.astype(np.float64))))


def _fit(
    key: PRNGKeyArray,
    image: np.ndarray,
    known: jax.Array,
    vgg19: VGG19Weights | None,
    settings: FitSettings,
    stage: str,
    report: Callable[[Progress], None],
) -> tuple[np.ndarray, FitState]:
    """Runs blocks of steps until the fit stops; returns its reconstruction and last state."""
    image = jnp.asarray(image)
    total = fitting.total_steps(image.shape[:2], settings)
    report(Progress(stage, 0, total, float("nan")))
    state = program(fitting.init_fit, key, image, settings=settings)(key, image)
    arguments = (image, known, vgg19, jnp.int32(1))
    block = program(fitting.fit_block, state, *arguments, settings=settings, donate=(0,))
    while int(state.stop) == StopReason.RUNNING:
        # One step first, so that something is seen to move as soon as compilation is over.
        steps = settings.fit.block_steps if int(state.step) else 1
        state = block(state, image, known, vgg19, jnp.int32(steps))
        step = int(state.step)
        report(Progress(stage, step, total, float(state.history[step - 1])))
    if int(state.stop) == StopReason.UNSTABLE:
        raise InputError(
            f"the fit did not stay finite (stopped after {int(state.step)} steps); "
            f"expected a finite loss, try a smaller config.fit.learning_rate"
        )
    return np.asarray(_reconstruct(state, image, known, settings=settings)), state


def _as_image(image: Any, missing: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Checks an image and brings it to float32 (H, W, C) with a mask of missing pixels."""
    pixels = np.asarray(image)
    shape = pixels.shape
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3):
        raise InputError(f"image has shape {shape}; expected (H, W), (H, W, 1) or (H, W, 3)")
    if min(shape[:2]) < SMALLEST_SIDE:
        raise InputError(
            f"image is {shape[0]} x {shape[1]} pixels; expected at least {SMALLEST_SIDE} a side"
        )
    if pixels.dtype in (np.uint8, np.uint16):
        pixels = pixels.astype(np.float32) / np.iinfo(pixels.dtype).max
    elif not np.issubdtype(pixels.dtype, np.floating):
        raise InputError(f"image is {pixels.dtype}; expected float in [0, 1], uint8 or uint16")
    unknown = np.isnan(pixels).any(axis=-1)
    if missing is not None:
        if np.shape(missing) != unknown.shape:
            raise InputError(
                f"mask of missing pixels has shape {np.shape(missing)}; expected {unknown.shape}"
            )
        unknown |= np.asarray(missing, bool)
    if unknown.all():
        raise InputError("every pixel is missing; expected an image")
    known = pixels[~unknown]
    low, high = known.min(), known.max()
    if not (low >= -_ROUNDING and high <= 1 + _ROUNDING):
        raise InputError(f"image has values from {low:.6g} to {high:.6g}; expected [0, 1]")
    if (known == known[0]).all():
        color = ", ".join(f"{value:.3g}" for value in known[0])
        raise InputError(f"image is constant ({color} everywhere); expected a picture of something")
    pixels = np.where(unknown[..., None], 0, np.clip(pixels, 0, 1))
    return pixels.astype(np.float32), unknown


def _resize_known(
    pixels: np.ndarray, missing: np.ndarray, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Resizes an image so that missing pixels, which hold 0, do not darken their neighbours."""
    if not missing.any():
        return resize_image(pixels, size), np.zeros(size, bool)
    share = resize_image((~missing).astype(np.float32)[..., None], size)
    known = resize_image(pixels, size) / np.maximum(share, 1e-6)
    fitted_missing = resize_missing(missing, size)
    return np.where(fitted_missing[..., None], 0, np.clip(known, 0, 1)), fitted_missing
