"""The score "tiles_and_marks": tiles of features, of the file's detail, and marks beside them.

What `core.texture_score` compares, and more: features of the image at twice the size at which it is
analysed, where its file has that many pixels; the maps that see something count most
(`core.trust`); and thin and small marks, which tiles smear, are added from the whitened image
(`core.matched_filter`). It finds more (docs/auto.md), but the largest value of its maps is not
distributed as the verdict's law has it (docs/decisions.md): judge by a calibration.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ssdnet_jax.core import trust
from ssdnet_jax.core.calibration import in_quartiles
from ssdnet_jax.core.plan import Plan
from ssdnet_jax.core.registry import SCORES
from ssdnet_jax.core.score import ScoreMaps, from_raw
from ssdnet_jax.core.target import Target
from ssdnet_jax.core.texture_score import tile_distances
from ssdnet_jax.core.vgg19 import VGG19Weights


@SCORES.register_own("tiles_and_marks")
def marked_tile_score(
    target: Target,
    reconstruction: Float[Array, "hh ww d"],
    vgg19: VGG19Weights | None,
    plan: Plan,
) -> ScoreMaps:
    """Agreement of the compared representations and of what the fit left of `target.values`, marks.

    For maps M `in_quartiles` and s = `plan.score.agreement_scale`, the agreement in logarithms is
    the weighted mean of log(1 + max(M, 0) / s), and the score s (exp(.) - 1) of it.

    A target without compared representations, as the image itself, has the latter map alone.
    """
    parts = (*target.compared, target.values - reconstruction)
    weights = target.weights or (None,) * len(parts)
    strides = [*(representation.stride for representation in plan.compared), 1][-len(parts) :]
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
    return from_raw(scale * jnp.expm1(found), valid)


def _scaled_distances(
    features: Array, weights: Array | None, valid: Array | None, plan: Plan, stride: int
) -> Array:
    """How unusual a representation is around each pixel, `in_quartiles`, at the image's size."""
    distances = tile_distances(features, tile_size=plan.score.tile_size, weights=weights)
    at_pixels = jax.image.resize(distances, plan.shape, "linear")
    if stride == 2:
        # Every second position lies a quarter of a feature up and left of the middle of two: half a
        # pixel of the image, by which the map would lie down and right.
        at_pixels = _half_a_pixel_back(_half_a_pixel_back(at_pixels).T).T
    return in_quartiles(at_pixels, valid)


def _half_a_pixel_back(values: Float[Array, "h w"]) -> Float[Array, "h w"]:
    """Moved up by half a row."""
    return (values + jnp.concatenate([values[1:], values[-1:]])) / 2
