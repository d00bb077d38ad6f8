"""The score of a fit to texture features: where their distribution differs from the rest.

The residual of a feature is not large or small by itself: on a stochastic texture most of it is
grain. What is unusual about an anomaly is the distribution of values around it. So the tiles of
fine features, of coarse ones and of what the fit left of them are compared with the image's typical
tile (`core.patch_statistics`), and each map's distances are measured in its own spread over the
image, which makes them comparable with one another, and comparable between images after. What
counts is where the maps agree (`agreement`).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ssdnet_jax.core.arrays import Size
from ssdnet_jax.core.calibration import in_quartiles
from ssdnet_jax.core.config import ScoreConfig
from ssdnet_jax.core.patch_statistics import (
    correspondence_errors,
    median_sorted_tile,
    scale_channels,
    scatter_errors,
)
from ssdnet_jax.core.plan import Plan
from ssdnet_jax.core.registry import SCORES
from ssdnet_jax.core.score import ScoreMaps, from_raw
from ssdnet_jax.core.target import Target
from ssdnet_jax.core.vgg19 import VGG19Weights

SPREAD = 3.0  # feature pixels, standard deviation of the weight of a tile around its centre
BLUR, BLUR_SIZE = 1.0, 5  # feature pixels, smoothing within a tile


@SCORES.register_own("tiles")
def tile_score(
    target: Target,
    reconstruction: Float[Array, "hh ww d"],
    vgg19: VGG19Weights | None,
    plan: Plan,
) -> ScoreMaps:
    """Agreement of the compared representations and of what the fit left of `target.values`.

    A target without compared representations, as the image itself, has the latter map alone.
    """
    parts = (*target.compared, target.values - reconstruction)
    weights = target.weights or (None,) * len(parts)
    maps = [
        _scaled_distances(part, of_part, target.valid, plan.shape, plan.score)
        for part, of_part in zip(parts, weights, strict=True)
    ]
    if len(maps) == 1:
        return from_raw(maps[0], target.valid)
    raw = agreement(jnp.stack(maps), scale=plan.score.agreement_scale)
    return from_raw(raw, target.valid)


def agreement(maps: Float[Array, "n h w"], *, scale: float) -> Float[Array, "h w"]:
    """The shifted geometric mean s (prod_i (1 + max(M_i, 0) / s))^(1/n) - s.

    Of distances far below `scale` it is the mean, far above it the geometric mean: a place that
    one map takes for very unusual and the others do not ends lower than one on which they agree.
    That also narrows what is marked around a defect, since each map spreads in its own way.

    Args:
      maps: distances `in_quartiles`.
      scale: s, in the same units.
    """
    return scale * jnp.expm1(jnp.log1p(jnp.maximum(maps, 0) / scale).mean(0))


def _scaled_distances(
    features: Array, weights: Array | None, valid: Array | None, shape: Size, config: ScoreConfig
) -> Array:
    """How unusual a representation is around each pixel, `in_quartiles`, at the image's size."""
    distances = tile_distances(features, tile_size=config.tile_size, weights=weights)
    return in_quartiles(jax.image.resize(distances, shape, "linear"), valid)


def tile_distances(
    features: Float[Array, "h w c"], *, tile_size: int, weights: Float[Array, "h w"] | None = None
) -> Float[Array, "h w"]:
    """Wasserstein distance of the tiles around a pixel to the typical tile, channel by channel.

    Feature Correspondence Analysis (Ardelean and Weyrich, WACV 2024) without its bright frame.
    With weights, how well each feature is known in [0, 1], tiles count by what they know.
    """
    scaled = scale_channels(features, weights)
    reference = median_sorted_tile(scaled, tile_size=tile_size, weights=weights)
    errors = correspondence_errors(scaled, reference, tile_size=tile_size, weights=weights)
    return scatter_errors(
        errors, spread=SPREAD, blur=BLUR, blur_size=BLUR_SIZE, border="corrected", weights=weights
    )
