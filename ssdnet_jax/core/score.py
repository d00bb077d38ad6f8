"""The anomaly score of Eq. 3: patch errors painted back onto their pixels."""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from ssdnet_jax.core import patches as patch_grid
from ssdnet_jax.core.batch import over_batch
from ssdnet_jax.core.config import LossConfig, ScoreConfig
from ssdnet_jax.core.linear import product
from ssdnet_jax.core.losses import aggregate, image_features, patch_similarities
from ssdnet_jax.core.plan import Plan
from ssdnet_jax.core.registry import PERCEPTUAL_SIMILARITIES, RECONSTRUCTION_ERRORS, SCORES
from ssdnet_jax.core.target import Target
from ssdnet_jax.core.vgg19 import VGG19Weights

_PERCEPTUAL_CHUNK = 8  # patches that VGG19 is given at once; bounds memory, changes no value
_REACH = 3.0  # standard deviations, beyond which a Gaussian is cut off
_LEAST_LEVEL = 1e-3  # of errors as logarithms of ratios; a step of 8 bits is at least 0.0036


class ScoreMaps(NamedTuple):
    """The score of one image, with and without min-max scaling.

    Attributes:
      normalized: each term scaled to [0, 1] within the image (S_y as the paper prints it), so that
        values of different images do not compare.
      raw: the same sum without the scaling, in the unit of the method (`score.method`). "patches":
        with alpha_perc = 0 and coverage "mean" the mean error of the patches around a pixel, by
        default squared, in image units squared. "relative": 1 is usual. "tiles": in units of the
        usual spread of tile distances (`core.calibration.in_quartiles`).
    """

    normalized: Float[Array, "h w"]
    raw: Float[Array, "h w"]


def score(
    target: Target,
    reconstructions: Float[Array, "b hh ww d"],
    vgg19: VGG19Weights | None,
    plan: Plan,
) -> ScoreMaps:
    """Scores a batch of fits, each on its own, by the method that `plan.score.method` names.

    Args:
      target: from `core.target.encode`.
      reconstructions: f_theta(target.values).
      vgg19: weights of phi; may be None unless the score has a perceptual term.
      plan: static, as for `core.target.encode`.

    Returns:
      Maps (b, h, w) of the plan's shape.
    """
    method = SCORES[plan.score.method]
    return over_batch(lambda t, mu: method(t, mu, vgg19, plan), target, reconstructions)


def from_raw(raw: Float[Array, "h w"], valid: Float[Array, "h w"] | None = None) -> ScoreMaps:
    """Both maps of a score that is one term; see `min_max`."""
    return ScoreMaps(min_max(raw, valid), raw)


@SCORES.register_own("patches")
def patch_score(
    target: Target,
    reconstruction: Float[Array, "hh ww d"],
    vgg19: VGG19Weights | None,
    plan: Plan,
) -> ScoreMaps:
    """Eq. 3 of what was fitted, the image or its features; features are brought to its size."""
    known = target.weights[-1] if target.weights else None
    maps = score_maps(target.values, reconstruction, vgg19, plan.score, plan.fit.loss, known)
    return ScoreMaps(*(jax.image.resize(m, plan.shape, "linear") for m in maps))


@SCORES.register_own("relative")
def relative_score(
    target: Target,
    reconstruction: Float[Array, "hh ww d"],
    vgg19: VGG19Weights | None,
    plan: Plan,
) -> ScoreMaps:
    """Eq. 3 of relative errors over their level around each pixel, for light that is uneven.

    In bright light, and where a pattern is seen at another angle, all errors are larger. Their size
    is no sign of a defect then; how far they stand out from those around them is. 1 is usual.
    The error of a pixel is `terms.log_ratio`, its level the mean over a Gaussian of
    `score.level_width` pixels, mirrored at the borders.
    """
    known = target.weights[-1] if target.weights else None
    loss = dataclasses.replace(plan.fit.loss, reconstruction="log_ratio")
    raw = score_maps(target.values, reconstruction, None, plan.score, loss, known).raw
    error = RECONSTRUCTION_ERRORS["log_ratio"](target.values, reconstruction)
    relative = raw / jnp.maximum(local_mean(error, plan.score.level_width, known), _LEAST_LEVEL)
    return from_raw(jax.image.resize(relative, plan.shape, "linear"), known)


def local_mean(
    values: Float[Array, "h w"], width: float, known: Float[Array, "h w"] | None = None
) -> Float[Array, "h w"]:
    """Mean of values around each pixel, weighted by a Gaussian; mirrored at the borders.

    Args:
      values: a map.
      width: standard deviation of the Gaussian, in pixels.
      known: in [0, 1], how much each value counts; by default all count alike. The mean of nothing
        is 0.
    """
    rows, columns = (jnp.asarray(_gaussian_matrix(n, width)) for n in values.shape)

    def smooth(x: Array) -> Array:
        return product(product(rows, x), columns.T)

    if known is None:
        return smooth(values)
    weights = smooth(known)
    return jnp.where(
        weights > 0, smooth(values * known) / jnp.where(weights > 0, weights, 1.0), 0.0
    )


def level_reach(config: ScoreConfig) -> int:
    """Pixels beyond a pixel that the score sees besides those of its patches."""
    return math.ceil(_REACH * config.level_width) if config.method == "relative" else 0


def _gaussian_matrix(n: int, width: float) -> np.ndarray:
    """Gaussian smoothing of n values, mirrored at both ends, as a matrix."""
    reach = math.ceil(_REACH * width)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / width) ** 2)
    places = np.arange(n)[:, None] + np.arange(-reach, reach + 1)
    period = 2 * n
    mirrored = np.minimum(places % period, period - 1 - places % period)
    matrix = np.zeros((n, n))
    np.add.at(matrix, (np.arange(n)[:, None], mirrored), weights / weights.sum())
    return matrix.astype(np.float32)


def score_maps(
    image: Float[Array, "h w c"],
    reconstruction: Float[Array, "h w c"],
    vgg19: VGG19Weights | None,
    config: ScoreConfig,
    loss_config: LossConfig,
    known: Float[Array, "h w"] | None = None,
) -> ScoreMaps:
    """Scores how badly `reconstruction` f_theta(y) explains `image` y (Eq. 3).

    Args:
      image: y in [0, 1].
      reconstruction: f_theta(y), the normal component.
      vgg19: weights of phi; may be None if alpha_perc is 0.
      config: sizes, weights and aggregation of the score.
      loss_config: the error of a pixel, and what phi sees and how it is compared.
      known: in [0, 1], how well each value of the image is known; by default all are. A pixel then
        has the mean over its patches, each weighted by how much of it is known.
    """
    error = RECONSTRUCTION_ERRORS[loss_config.reconstruction](image, reconstruction)
    if known is not None:
        error = error * known
        image, reconstruction = (x * known[..., None] for x in (image, reconstruction))
    normalized, raw = [], []
    for size, stride in zip(config.patch_sizes, config.patch_strides, strict=True):
        terms = []
        if config.alpha_rec:
            sums = patch_grid.patch_sums(error, size=size, stride=stride) / size**2
            terms.append((config.alpha_rec, sums))
        if config.alpha_perc:
            products = patch_inner_products(
                image, reconstruction, vgg19, loss_config, size=size, stride=stride
            )
            terms.append((-config.alpha_perc, products))
        if known is None:
            maps = [(a, _painted(v, error.shape, size, stride, config)) for a, v in terms]
        else:
            maps = [(a, _painted_known(v, known, size, stride, config)) for a, v in terms]
        raw.append(jnp.asarray(sum(a * m for a, m in maps)))
        normalized.append(jnp.asarray(sum(a * min_max(m, known) for a, m in maps)))
    return ScoreMaps(aggregate(normalized, config.aggregation), aggregate(raw, config.aggregation))


def patch_inner_products(
    image: Float[Array, "h w c"],
    reconstruction: Float[Array, "h w c"],
    vgg19: VGG19Weights | None,
    config: LossConfig,
    *,
    size: int,
    stride: int,
) -> Float[Array, "rows columns"]:
    """<phi(R_p y), phi(R_p f(y))> of every patch, a few patches at a time."""
    shape = image.shape[:2]
    if config.perceptual_view == "image":
        return _products_in_image(image, reconstruction, vgg19, config, size=size, stride=stride)
    corners = jnp.asarray(patch_grid.patch_corners(shape, size=size, stride=stride))

    def similarity(corner: Array) -> Array:
        y, f = (patch_grid.patches_at(x, corner[None], size=size) for x in (image, reconstruction))
        return patch_similarities(y, f, vgg19, config)[0]

    rows = len(patch_grid.patch_starts(shape[0], size=size, stride=stride))
    return lax.map(similarity, corners, batch_size=_PERCEPTUAL_CHUNK).reshape(rows, -1)


def _products_in_image(
    image: Array,
    reconstruction: Array,
    vgg19: VGG19Weights | None,
    config: LossConfig,
    *,
    size: int,
    stride: int,
) -> Float[Array, "rows columns"]:
    """The same where phi sees whole images; its features have half of their resolution."""
    known = jnp.ones(image.shape[:2], jnp.float32)
    phi_y, phi_f = (image_features(x, known, vgg19, config) for x in (image, reconstruction))
    similarity = PERCEPTUAL_SIMILARITIES[config.perceptual](phi_y, phi_f)
    at_pixels = jnp.repeat(jnp.repeat(similarity, 2, axis=0), 2, axis=1)
    height, width = image.shape[:2]
    missing = (height - at_pixels.shape[0], width - at_pixels.shape[1])
    at_pixels = jnp.pad(at_pixels, ((0, missing[0]), (0, missing[1])), mode="edge")
    return patch_grid.patch_sums(at_pixels, size=size, stride=stride) / size**2


def min_max(
    values: Float[Array, "h w"], valid: Float[Array, "h w"] | None = None
) -> Float[Array, "h w"]:
    """(M - min M) / (max M - min M); a constant map becomes 0.

    The extremes are those where `valid` is above 0, or of the whole map.
    """
    if valid is None:
        low, high = jnp.min(values), jnp.max(values)
    else:
        low = jnp.min(jnp.where(valid > 0, values, jnp.inf))
        high = jnp.max(jnp.where(valid > 0, values, -jnp.inf))
    return jnp.where(high > low, (values - low) / jnp.where(high > low, high - low, 1.0), 0.0)


def _painted(
    patch_values: Array, shape: tuple[int, int], size: int, stride: int, config: ScoreConfig
) -> Array:
    painted = patch_grid.paint(patch_values, shape, size=size, stride=stride)
    if config.coverage == "paper":
        return painted / patch_values.size
    return painted / patch_grid.coverage(shape, size=size, stride=stride)


def _painted_known(
    patch_values: Array, known: Array, size: int, stride: int, config: ScoreConfig
) -> Array:
    """`_painted` of sums over known values, divided by how much of its patches is known."""
    shares = patch_grid.patch_sums(known, size=size, stride=stride) / size**2
    painted, covered = (
        patch_grid.paint(x, known.shape, size=size, stride=stride) for x in (patch_values, shares)
    )
    mean = jnp.where(covered > 0, painted / jnp.where(covered > 0, covered, 1.0), 0.0)
    if config.coverage == "paper":
        return mean * patch_grid.coverage(known.shape, size=size, stride=stride) / patch_values.size
    return mean
