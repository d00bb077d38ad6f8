"""The score of a fit to texture features: where their distribution differs from the rest.

The residual of a feature is not large or small by itself: on a stochastic texture most of it is
grain. What is unusual about an anomaly is the distribution of values around it. So the tiles of
fine features, of coarse ones and of what the fit left of them are compared with the image's typical
tile (`core.patch_statistics`), and each map's distances are measured in its own spread over the
image, which makes them comparable with one another, and comparable between images after. What
counts is where the maps agree, those most that see something (`core.trust`). Thin and small marks,
which tiles smear, are added from the whitened image (`core.matched_filter`). Where within a tile
they lie, the image says (`core.guided`).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ssdnet_jax.core import trust
from ssdnet_jax.core.calibration import in_quartiles
from ssdnet_jax.core.guided import follow
from ssdnet_jax.core.patch_statistics import tile_distances
from ssdnet_jax.core.plan import Plan
from ssdnet_jax.core.registry import SCORES
from ssdnet_jax.core.score import ScoreMaps, from_raw
from ssdnet_jax.core.target import Target
from ssdnet_jax.core.vgg19 import VGG19Weights


@SCORES.register_own("tiles")
def tile_score(
    target: Target,
    reconstruction: Float[Array, "hh ww d"],
    vgg19: VGG19Weights | None,
    plan: Plan,
) -> ScoreMaps:
    """Agreement of the compared representations, what the fit left of `target.values`, and marks.

    For maps M `in_quartiles` and s = `plan.score.agreement_scale`, the agreement in logarithms is
    the weighted mean of log(1 + max(M, 0) / s), and the score s (exp(.) - 1) of it: of distances
    far below s their mean, far above it the geometric mean. A place that one map takes for very
    unusual and the others do not ends lower than one on which they agree, which also narrows what
    is marked around a defect, since each map spreads in its own way.

    The agreement, with marks, then follows the image in logarithms.

    A target without compared representations, as the image itself, has the latter map alone.
    """
    parts = (*target.compared, target.values - reconstruction)
    weights = target.weights or (None,) * len(parts)
    strides = [*(representation.stride for representation in plan.compared), 1]
    strides = strides[-len(parts) :]
    maps = [
        _scaled_distances(part, of_part, target.valid, plan, stride)
        for part, of_part, stride in zip(parts, weights, strides, strict=True)
    ]
    if len(maps) == 1:
        return from_raw(maps[0], target.valid)
    scale, valid, marks = plan.score.agreement_scale, target.valid, target.marks

    def logarithms(in_units: Float[Array, "n h w"]) -> Float[Array, "n h w"]:
        return jnp.log1p(jnp.maximum(in_units, 0) / scale)

    if marks is None:
        found = trust.agreement(logarithms(jnp.stack(maps)), valid)
    else:
        of_marks, of_colour = (
            [in_quartiles(one, valid) for one in part] for part in (marks.brightness, marks.colour)
        )
        tiles = trust.agreement(logarithms(jnp.stack([*maps, *of_colour])), valid)
        found = trust.with_marks(tiles, logarithms(jnp.stack(of_marks)), marks.unevenness, valid)
    if target.guide is not None:
        found = follow(found, target.guide, valid)
    return from_raw(scale * jnp.expm1(found), valid)


def _scaled_distances(
    features: Array, weights: Array | None, valid: Array | None, plan: Plan, stride: int
) -> Array:
    """How unusual a representation is around each pixel, `in_quartiles`, at the image's size."""
    distances = tile_distances(features, tile_size=plan.score.tile_size, weights=weights)
    at_pixels = jax.image.resize(distances, plan.shape, "linear")
    if stride == 2:
        # Resizing takes a position for the middle of two pixels; it lies on the first of them. The
        # map would lie half a pixel down and right.
        at_pixels = _half_a_pixel_back(_half_a_pixel_back(at_pixels).T).T
    return in_quartiles(at_pixels, valid)


def _half_a_pixel_back(values: Float[Array, "h w"]) -> Float[Array, "h w"]:
    """Moved up by half a row."""
    return (values + jnp.concatenate([values[1:], values[-1:]])) / 2
