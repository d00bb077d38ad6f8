"""An image too large to be processed at once: one network fitted to crops, run in tiles.

The steps are those of `methods.ssdnet`, in passes over the image: sums for the means, standard
deviations and principal directions of the features; a fit to random crops; a pass for the scale of
components and the typical tile; a pass for distances. A pass computes the features of each tile
once, all representations together, and forgets them band by band (`methods.large.bands`). No more
is held at once than the image, its maps, and the features of a few bands.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from ssdnet_jax.config import TilingConfig
from ssdnet_jax.core.crops import averaged_parameters, fit_crops, init_crop_fit
from ssdnet_jax.core.fit import StopReason, total_steps
from ssdnet_jax.core.noise import MEDIAN_OF_NORMAL
from ssdnet_jax.core.plan import Plan
from ssdnet_jax.core.registry import NETWORKS, SCORES, TARGETS
from ssdnet_jax.core.score import level_reach
from ssdnet_jax.core.target import Target
from ssdnet_jax.core.vgg19 import VGG19Weights
from ssdnet_jax.methods.base import Progress, Report
from ssdnet_jax.methods.large.agreement import merged
from ssdnet_jax.methods.large.image import (
    STEP,
    AnalysedImage,
    FittedNetwork,
    Part,
    analyse,
    fitted_values,
    network_margin,
    reconstruction,
)
from ssdnet_jax.methods.large.score import distance_maps

_CROPS_FOR_STATISTICS = 8  # of which the network's normalization takes its statistics
_KNOWN = 0.5  # share of a crop that must take part
_TRIES = 100  # crops drawn for one that has it


class TiledFit(NamedTuple):
    """What a large image came to.

    Attributes:
      raw: float32 (h, w), the raw map at the size at which the image is analysed.
      losses: float32 (steps,), the loss of each step.
      stop: why the fit ended.
      restorations: how often the guard undid a blow-up.
    """

    raw: np.ndarray
    losses: np.ndarray
    stop: StopReason
    restorations: int


def is_large(shape: tuple[int, int], tiling: TilingConfig) -> bool:
    """Whether an image analysed at this shape is fitted in crops and scored in tiles."""
    return bool(tiling.above) and shape[0] * shape[1] > tiling.above


def refusal(plan: Plan) -> str | None:
    """Why an image cannot be processed in tiles by this plan; None if it can."""
    if NETWORKS[plan.fit.network.kind].with_statistics is None:
        return f"config.network.kind {plan.fit.network.kind}, which needs a whole image"
    if plan.score.method not in ("tiles", "patches", "relative"):
        return f"config.score.method {plan.score.method}, which needs a whole image"
    if plan.fit.loss.w_perc or plan.score.alpha_perc:
        return "a perceptual term, which needs a whole image"
    if plan.fit.fit.permute_ratio:
        return "config.fit.permute_ratio above 0, which needs a whole image"
    scales = [representation.scale for representation in (plan.fitted, *plan.compared)]
    if any((STEP * scale / 2) % 1 for scale in scales):
        return f"config.score.coarse_scale {plan.score.coarse_scale:g}; expected a multiple of 1/16"
    if not TARGETS[plan.target].is_image and plan.target not in ("vgg19", "filters"):
        return f"config.features.kind {plan.target}, which needs a whole image"
    return None


def fit_in_tiles(
    image: np.ndarray,
    valid: np.ndarray | None,
    key: PRNGKeyArray,
    vgg19: VGG19Weights | None,
    plan: Plan,
    tiling: TilingConfig,
    *,
    noise: float,
    report: Report = lambda progress: None,
) -> TiledFit:
    """Fits a network to random crops of an image and scores the image tile by tile.

    Args:
      image: float32 (h, w, c) in [0, 1], of the plan's shape.
      valid: bool (h, w), where the image takes part; None: everywhere.
      key: source of randomness.
      vgg19: weights; may be None unless the plan's target needs them.
      plan: for which there is no `refusal`.
      tiling: sizes of crops and tiles.
      noise: standard deviation of the image's noise (`core.noise.noise_deviation`).
      report: told how far it is.
    """
    seeds = range(plan.seeds)
    keys = [jax.random.fold_in(key, seed) if seed else key for seed in seeds]
    analysed = analyse(image, valid, vgg19, plan, tiling, noise=noise, report=report)
    fits = [_fitted(analysed, key, report) for key in keys]
    maps = [raw_map(analysed, fit, report) for fit in fits]
    return TiledFit(
        raw=maps[0] if len(maps) == 1 else np.median(maps, axis=0),
        losses=fits[0].losses,
        stop=StopReason(max(fit.stop for fit in fits)),
        restorations=sum(fit.restorations for fit in fits),
    )


def sampled_noise(image: np.ndarray, valid: np.ndarray | None) -> float:
    """`core.noise.noise_deviation` of a large image, from at most about 2^24 of its pixels."""
    rows = max(1, image.shape[0] * image.shape[1] // 2**24)
    diagonals = []
    for start in range(0, image.shape[0] - 1, rows):
        pair = image[start : start + 2]
        diagonal = np.abs(pair[0, :-1] - pair[0, 1:] - pair[1, :-1] + pair[1, 1:])
        if valid is not None:
            known = valid[start : start + 2]
            diagonal = diagonal[known[0, :-1] & known[0, 1:] & known[1, :-1] & known[1, 1:]]
        diagonals.append(diagonal)
    differences = np.concatenate(diagonals)
    if not len(differences):
        return 0.0
    return float(np.median(differences, axis=0).mean() / (2 * MEDIAN_OF_NORMAL))


def _fitted(analysed: AnalysedImage, key: PRNGKeyArray, report: Report) -> FittedNetwork:
    large = analysed.large
    settings = large.plan.fit
    fit_key, place_key, statistics_key = jax.random.split(key, 3)
    crops = _crops(analysed, place_key)
    first = next(crops)
    total = total_steps(first[0].shape[:2], settings)
    state = _init(fit_key, first[0], settings)
    pending = [first]
    # A crop a step. All blocks have one length, so that there is one program: crops beyond the last
    # step are not used.
    steps = min(settings.fit.block_steps, total)
    while state.state.stop == StopReason.RUNNING:
        while len(pending) < steps:
            pending.append(next(crops))
        values, known = (np.stack(parts) for parts in zip(*pending, strict=True))
        pending = []
        state = _fit_crops(state, values, known, settings)
        step = int(state.state.step)
        report(Progress("fit", step, total, float(state.state.history[step - 1])))
    channels = first[0].shape[-1]
    params = _averaged(state, settings, channels=channels)
    crops = _crops(analysed, statistics_key)
    sample = np.stack([next(crops)[0] for _ in range(_CROPS_FOR_STATISTICS)])
    measure = large.network.measure
    assert measure is not None
    statistics = jax.jit(measure, static_argnums=2)(params, sample, settings.network)
    return FittedNetwork(
        params,
        statistics,
        np.asarray(state.state.history[: int(state.state.step)]),
        StopReason(int(state.state.stop)),
        int(state.state.undone),
    )


_averaged = jax.jit(averaged_parameters, static_argnames=("settings", "channels"))
_init = jax.jit(init_crop_fit, static_argnames="settings")
_fit_crops = jax.jit(fit_crops, static_argnames="settings", donate_argnums=0)


def _crops(analysed: AnalysedImage, key: PRNGKeyArray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Random crops of what is fitted, of which enough takes part, and their weights in the loss."""
    large = analysed.large
    margin, shape = large.feature_margin, large.shape
    outer = [min(side, large.tiling.crop + 2 * margin) for side in shape]
    kept = tuple(
        slice(None)
        if size == side
        else slice(int(margin * large.scale), int((size - margin) * large.scale))
        for size, side in zip(outer, shape, strict=True)
    )
    generator = np.random.default_rng(np.asarray(jax.random.key_data(key)).tolist())
    while True:
        best: tuple[float, Any] = (-1.0, None)
        for _ in range(_TRIES):
            starts = [
                int(generator.integers((side - size) // STEP + 1)) * STEP
                for side, size in zip(shape, outer, strict=True)
            ]
            rows, columns = (slice(a, a + size) for a, size in zip(starts, outer, strict=True))
            cut_out = large.cut((rows, columns))
            share = float(cut_out.counted(cut_out.valid, 1).mean())
            best = max(best, (share, cut_out), key=lambda pair: pair[0])
            if share >= _KNOWN:
                break
        values, known = (x[kept] for x in fitted_values(analysed, best[1]))
        yield values, known / np.maximum(known.mean(), np.float32(1e-6))


def raw_map(
    analysed: AnalysedImage, fit: FittedNetwork, report: Report = lambda progress: None
) -> np.ndarray:
    """The raw map of the image by a fitted network; see `core.score`."""
    large = analysed.large
    if large.plan.score.method != "tiles":
        return _patch_map(analysed, fit, report)
    parts = [*analysed.compared_parts(), Part(analysed.fitted, large.scale, fit)]

    def show(stage: str, total: int) -> Callable[[], None]:
        count = iter(range(1, total + 1))
        return lambda: report(Progress(stage, next(count), total, float("nan")))

    tiles = len(large.tiles_for_statistics) + sum(map(len, large.bands))
    return merged(large, distance_maps(analysed, parts, show("score", tiles)), show)


def _patch_map(analysed: AnalysedImage, fit: FittedNetwork, report: Report) -> np.ndarray:
    """The raw map of Eq. 3, or of its relative form, of what was fitted."""
    large = analysed.large
    score = large.plan.score
    reach = network_margin(large) + 2 * max(score.patch_sizes) + level_reach(score)
    tiles = large.grid(large.feature_margin + int(reach / large.scale))
    height, width = large.image.shape[:2]
    raw = np.zeros(large.shape, np.float32)
    for done, tile in enumerate(tiles):
        cut_out = large.cut(tile.outer)
        values, known = fitted_values(analysed, cut_out)
        mu = reconstruction(large, fit, values)
        found = _patch_raw(values, mu, known, large.plan, cut_out.valid.shape)
        raw[tile.inner] = np.asarray(found)[tile.inner_of_outer]
        report(Progress("score", done + 1, len(tiles), float("nan")))
    return raw[:height, :width]


@functools.partial(jax.jit, static_argnames=("plan", "shape"))
def _patch_raw(values: Array, mu: Array, known: Array, plan: Plan, shape: tuple[int, int]) -> Array:
    channels = jnp.zeros(1, jnp.float32)
    target = Target(values, (), channels, channels, (known,), None)
    method = SCORES[plan.score.method]
    return method(target, mu, None, dataclasses.replace(plan, shape=shape)).raw
