"""Analysing an image tile by tile: statistics that are gathered, then applied to each tile.

What `core.target.encode` and `core.texture_score` compute of a whole image, cut where the whole is
needed: sums over all tiles give means, standard deviations and principal directions; extremes and
sorted tiles give the scale of components and the typical tile; each tile's distances then depend
on its surroundings alone.
"""

from typing import Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ssdnet_jax.core import features
from ssdnet_jax.core.noise import smoothed_for
from ssdnet_jax.core.patch_statistics import (
    BLUR,
    BLUR_SIZE,
    SPREAD,
    correspondence_errors,
    scatter_known,
)
from ssdnet_jax.core.plan import Representation
from ssdnet_jax.core.vgg19 import VGG19Weights


class Source(NamedTuple):
    """Values of an image at half of `scale` of its resolution.

    Attributes:
      layer: of `core.features.FeatureMaps`, or the image's colours.
      scale: in (0, 1], of the image's size.
      components: number of principal components that are kept; 0: the values stay as they are, but
        for their standardization.
    """

    layer: Literal["fine", "coarse", "colours"]
    scale: float
    components: int


class Sums(NamedTuple):
    """Weighted sums over positions, of values less `shift`, which keeps rounding small."""

    weight: Float[Array, ""]
    first: Float[Array, " c"]
    second: Float[Array, "c c"]


class Basis(NamedTuple):
    """How a source's values become components: (x - mean) * inverse, times directions.

    Attributes:
      mean: of each channel, over the image.
      inverse: of the standard deviation; 0 for a constant channel.
      directions: principal directions; the identity where values stay as they are.
    """

    mean: Float[Array, " c"]
    inverse: Float[Array, " c"]
    directions: Float[Array, "c n"]


def source_values(
    image: Float[Array, "h w c"],
    noise: Float[Array, ""] | float,
    vgg19: VGG19Weights | None,
    source: Source,
    *,
    kind: features.Kind,
) -> Float[Array, "hh ww n"]:
    """A source's values of a tile, before standardization.

    Args:
      image: the tile, in [0, 1].
      noise: of the whole image (`core.noise.noise_deviation`), which decides how it is smoothed.
      vgg19: weights; may be None for "filters".
      source: static.
      kind: which features.
    """
    scaled = features.resized(smoothed_for(image, noise), scale=source.scale)
    if source.layer == "colours":
        return features.halve(scaled)
    found = features.feature_maps(scaled, vgg19, kind=kind)
    return found.fine if source.layer == "fine" else found.coarse


def source_weights(
    valid: Float[Array, "h w"], source: Source, *, kind: features.Kind
) -> Float[Array, "hh ww"]:
    """How well each value of a tile is known, in [0, 1]; colours as coarse features."""
    layer = "coarse" if source.layer == "colours" else source.layer
    return features.feature_weights(valid, Representation(layer, source.scale, 0), kind=kind)


def sums_of(
    values: Float[Array, "h w c"], weights: Float[Array, "h w"], shift: Float[Array, " c"]
) -> Sums:
    """What `basis_of` needs of a tile's positions."""
    x = (values - shift).reshape(-1, values.shape[-1])
    weighted = x * weights.reshape(-1, 1)
    return Sums(weights.sum(), weighted.sum(0), x.T @ weighted)


def basis_of(sums: Sums, shift: np.ndarray, source: Source) -> Basis:
    """Mean, standard deviation and principal directions from sums over all tiles.

    Args:
      sums: numpy, float64.
      shift: that of the sums.
      source: how many directions.
    """
    mean = sums.first / sums.weight
    covariance = sums.second / sums.weight - np.outer(mean, mean)
    deviation = np.sqrt(np.maximum(np.diag(covariance), 0))
    mean = mean + shift
    inverse = np.where(features.is_constant(mean, deviation), 0.0, 1 / np.maximum(deviation, 1e-30))
    if not source.components:
        directions = jnp.eye(len(mean), dtype=jnp.float32)
    else:
        correlation = jnp.asarray(covariance * np.outer(inverse, inverse), jnp.float32)
        directions = features.principal_directions(correlation, count=source.components)
    return Basis(jnp.asarray(mean, jnp.float32), jnp.asarray(inverse, jnp.float32), directions)


def in_basis(values: Float[Array, "h w c"], basis: Basis) -> Float[Array, "h w n"]:
    """Components of a tile's values."""
    return ((values - basis.mean) * basis.inverse) @ basis.directions


def known_distances(
    components: Float[Array, "h w c"],
    weights: Float[Array, "h w"],
    extremes: Float[Array, "2 c"],
    reference: Float[Array, "{tile_size}**2 c"],
    *,
    tile_size: int,
    ranked: Float[Array, "h w"] | None = None,
) -> tuple[Float[Array, "h w"], Float[Array, "h w"]]:
    """`core.patch_statistics.tile_distances` of a part of an image, as far as its tiles are known.

    Args:
      components: of the part.
      weights: how well each position is known.
      extremes: smallest and largest value of each component, over the image.
      reference: the typical tile of the image, of components scaled to [0, 1].
      tile_size: odd.
      ranked: 1 where a position is well known, in an image of which not all takes part: ranks are
        among these. None: all are.

    Returns:
      Sums of weighted errors, and the share of the weight that they have: beyond `score_margin` of
      the part's borders they are those of the whole image. The rest of the weight goes to what is
      usual in the image.
    """
    low, high = extremes
    scaled = (components - low) / (high - low + 1e-8)
    errors = correspondence_errors(scaled, reference, tile_size=tile_size, weights=ranked)
    return scatter_known(errors, weights, spread=SPREAD, blur=BLUR, blur_size=BLUR_SIZE)


def score_margin(tile_size: int) -> int:
    """Positions beyond which nothing reaches a position's distance: two half tiles and the blur."""
    return 2 * (tile_size // 2) + BLUR_SIZE // 2
