"""The host side of one image: what comes before, between and after its fits.

    prepare -> inpaint_job -> fill -> fit_jobs -> finish

`localize` walks these for one image, `runner.run` for a stream of them.
"""

import dataclasses
import functools
from collections.abc import Hashable, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ssdnet_jax.config import Config, check_against_image, fits_smaller
from ssdnet_jax.core import texture_score as _texture_score  # noqa: F401, registers its score
from ssdnet_jax.core.calibration import calibrated_score, decision_threshold
from ssdnet_jax.core.features import Kind, View, fit_target, picture_of, views
from ssdnet_jax.core.fit import StopReason
from ssdnet_jax.core.noise import noise_deviation, without_noise
from ssdnet_jax.core.registry import SCORES
from ssdnet_jax.core.score import ScoreMaps, ScoreSettings
from ssdnet_jax.core.vgg19 import VGG19Weights
from ssdnet_jax.data.images import resize_image, resize_map, resize_missing
from ssdnet_jax.errors import InputError
from ssdnet_jax.runner.batching import Fitted, Job

_ROUNDING = 1e-6  # how far values may leave [0, 1], as those of resampled images do
SMALLEST_SIDE = 8  # pixels: in less there is no texture that a picture could be unlike

_noise_deviation = jax.jit(noise_deviation)


@jax.jit
def _picture_of(target: Array, image: Array) -> Array:
    return picture_of(target, without_noise(image))


@functools.partial(jax.jit, static_argnums=4)
def _scores(
    image: Array,
    target: Array,
    reconstructions: Array,
    vgg19: VGG19Weights | None,
    settings: ScoreSettings,
) -> ScoreMaps:
    """Of each seed; what does not depend on the reconstruction is computed once."""
    score = SCORES[settings.score.method]
    one = functools.partial(score, settings=settings)
    return jax.vmap(one, in_axes=(None, None, 0, None))(image, target, reconstructions, vgg19)


@functools.partial(jax.jit, static_argnames=("view", "kind"))
def _fit_target(image: Array, vgg19: VGG19Weights | None, view: View, kind: Kind) -> Array:
    return fit_target(without_noise(image), vgg19, view, kind=kind)


@dataclasses.dataclass(frozen=True)
class Localization:
    """What SSDnet says about one image; all arrays are numpy, maps have the input's size.

    Attributes:
      score_map: float32 (H, W), raw anomaly score (Eq. 3 without min-max scaling).
      normalized_map: float32 (H, W), Eq. 3 with min-max scaling, in [0, 1] for alpha (1, 0).
      mask: bool (H, W), `score_map` above `threshold` (Otsu, paper section 5.3).
      threshold: in units of `score_map`.
      score: the image's score, the maximum of `score_map`.
      calibrated_score: the same without a unit, which compares between images: the distance of
        the maximum from the median in the map's own usual spread (`core.calibration`).
      is_anomalous: whether that is more than chance makes in an image of this size.
      image: float32 (H, W, C), y: the input with missing pixels filled in.
      reconstruction: float32 (H, W, C), the normal component mu = f_theta(y); with several
        seeds, their median, as for both maps.
      residual: float32 (H, W, C), y - mu, anomaly and noise together (Eq. 1).
      uncertainty: float32 (H, W), standard deviation of the raw maps over seeds, in units of
        `score_map`; zero for one seed.
      losses: float32 (steps,), the loss (Eq. 2) of each step; with several seeds, the first's.
      steps: optimizer steps taken; with several seeds, the most that one took.
      stop_reason: "threshold", or "max_steps" if any seed ended so.
      restorations: how often the guard undid a blow-up of Adam, over all seeds.
    """

    score_map: np.ndarray
    normalized_map: np.ndarray
    mask: np.ndarray
    threshold: float
    score: float
    calibrated_score: float
    is_anomalous: bool
    image: np.ndarray
    reconstruction: np.ndarray
    residual: np.ndarray
    uncertainty: np.ndarray
    losses: np.ndarray
    steps: int
    stop_reason: str
    restorations: int


@dataclasses.dataclass(frozen=True)
class Prepared:
    """An image that has been checked and brought to the size at which it is fitted.

    Attributes:
      pixels: float32 (H, W, C), the input; 0 where missing.
      missing: bool (H, W).
      fitted: float32 (h, w, C), the input at the fit's size; 0 where missing.
      fitted_missing: bool (h, w).
      filled: whether missing pixels hold the inpainting's values instead of 0.
    """

    pixels: np.ndarray
    missing: np.ndarray
    fitted: np.ndarray
    fitted_missing: np.ndarray
    filled: bool = False

    @property
    def incomplete(self) -> bool:
        """Whether pixels of the fitted image are still to be inpainted."""
        return not self.filled and bool(self.fitted_missing.any())


def prepare(image: Any, config: Config, *, missing: np.ndarray | None = None) -> Prepared:
    """Checks and resizes an image; see `localize` for the arguments and errors."""
    pixels, missing = _as_image(image, missing)
    size = pixels.shape[:2] if config.image_size == 0 else (config.image_size, config.image_size)
    check_against_image(config, size)
    return Prepared(pixels, missing, *_resize_known(pixels, missing, size))


def inpaint_job(
    prepared: Prepared, config: Config, key: PRNGKeyArray, name: Hashable
) -> Job | None:
    """Stage one for an image with missing pixels (paper section 5.2); None if it has none left."""
    if not prepared.incomplete:
        return None
    known = (~prepared.fitted_missing).astype(np.float32)
    key = jax.random.split(key)[0]
    return Job(name, "inpaint", key, prepared.fitted, known, config.inpaint_settings)


def fill(prepared: Prepared, inpainted: Fitted) -> Prepared:
    """Puts the reconstruction of stage one where pixels are missing."""
    check_fit(inpainted)
    reconstruction = np.clip(inpainted.reconstruction, 0, 1)
    fitted = np.where(prepared.fitted_missing[..., None], reconstruction, prepared.fitted)
    resized = resize_image(fitted, prepared.missing.shape)
    pixels = np.where(prepared.missing[..., None], resized, prepared.pixels)
    return dataclasses.replace(prepared, pixels=pixels, fitted=fitted, filled=True)


def fit_jobs(
    prepared: Prepared,
    config: Config,
    key: PRNGKeyArray,
    names: Sequence[Hashable],
    vgg19: VGG19Weights | None = None,
) -> list[Job]:
    """One fit a seed, `names` long, to the image or its features. The first is that of one seed."""
    key = jax.random.split(key)[1]
    keys = [jax.random.fold_in(key, seed) if seed else key for seed in range(len(names))]
    target = _target(prepared, config, vgg19, noisy=_is_noisy(prepared, config))
    known = np.ones(target.shape[:2], np.float32)
    return [
        Job(name, "fit", key, target, known, config.fit_settings)
        for name, key in zip(names, keys, strict=True)
    ]


def finish(
    prepared: Prepared, fits: Sequence[Fitted], config: Config, vgg19: VGG19Weights | None
) -> Localization:
    """Scores the fits of one image and combines its seeds by the median.

    `config.score.method` names the score: Eq. 3, or that of `core.texture_score`.

    Raises:
      InputError: a fit did not stay finite.
    """
    for fit in fits:
        check_fit(fit)
    shape = prepared.pixels.shape[:2]
    reconstructions = np.stack([fit.reconstruction for fit in fits])
    noisy = _is_noisy(prepared, config)
    maps = _scores(
        prepared.fitted,
        _target(prepared, config, vgg19, noisy=noisy),
        reconstructions,
        vgg19,
        ScoreSettings(config.score, config.loss, config.features, noisy),
    )
    normalized, raw = jax.device_get(maps)
    score_map = resize_map(np.median(raw, axis=0), shape)
    calibrated = calibrated_score(score_map)
    threshold = otsu_threshold(score_map)
    mu = resize_image(np.median(_pictures(prepared, reconstructions, config), axis=0), shape)
    unfinished = any(fit.stop == StopReason.MAX_STEPS for fit in fits)
    return Localization(
        score_map=score_map,
        normalized_map=resize_map(np.median(normalized, axis=0), shape),
        mask=score_map > threshold,
        threshold=threshold,
        score=float(score_map.max()),
        calibrated_score=calibrated,
        is_anomalous=calibrated > decision_threshold(raw[0].size),
        image=prepared.pixels,
        reconstruction=mu,
        residual=prepared.pixels - mu,
        uncertainty=resize_map(raw.std(axis=0), shape),
        losses=fits[0].losses,
        steps=max(len(fit.losses) for fit in fits),
        stop_reason="max_steps" if unfinished else "threshold",
        restorations=sum(fit.restorations for fit in fits),
    )


def _pictures(
    prepared: Prepared, reconstructions: np.ndarray, config: Config
) -> Float[np.ndarray, "seeds h w c"]:
    """The reconstructions to look at."""
    if config.features.kind == "pixels":
        return reconstructions
    return np.stack([jax.device_get(_picture_of(mu, prepared.fitted)) for mu in reconstructions])


def _target(
    prepared: Prepared, config: Config, vgg19: VGG19Weights | None, *, noisy: bool
) -> np.ndarray:
    """What the network is fitted to, float32 (h, w, c)."""
    if config.features.kind == "pixels":
        return prepared.fitted
    view = views(config.features, coarse_scale=config.score.coarse_scale, noisy=noisy).fitted
    return np.asarray(_fit_target(prepared.fitted, vgg19, view=view, kind=config.features.kind))


def _is_noisy(prepared: Prepared, config: Config) -> bool:
    """Whether the image is seen smaller for its noise (`core.features.views`).

    One that is too small for that is seen as it is.
    """
    if config.features.kind == "pixels" or not fits_smaller(config, prepared.fitted.shape[:2]):
        return False
    return float(_noise_deviation(prepared.fitted)) > config.features.noise_limit


def check_fit(fit: Fitted) -> None:
    """Raises InputError if a fit did not stay finite."""
    if fit.stop == StopReason.UNSTABLE:
        raise InputError(
            f"the fit did not stay finite (stopped after {len(fit.losses)} steps); "
            f"expected a finite loss, try a smaller config.fit.learning_rate"
        )


def otsu_threshold(score_map: np.ndarray) -> float:
    """Otsu's threshold (1979), which the paper uses for binary maps; a constant map's value.

    A float32 number, so that the map is above it in the same pixels however they are compared.
    """
    from skimage.filters import threshold_otsu

    # In double precision also a nearly constant map can be divided into bins.
    return float(np.float32(threshold_otsu(score_map.astype(np.float64))))


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
