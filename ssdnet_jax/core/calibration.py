"""Is this picture bad? A score of a whole image that compares between images, and its threshold.

A raw map has its method's units, and its maximum grows with contrast and texture. Measured in the
map's own usual spread (`in_quartiles`) it has none. On defect-free texture the values above the
median then fall off about like an exponential, whose quartile is one such unit: half as many
pixels for each unit more,

    P(value > u) = 2^-(u + 1)        for u >= 0.

An image of n pixels so has n 2^-(u + 1) pixels above u by chance, and `decision_threshold` is the u
at which that number is `FALSE_ALARMS`. Nothing is learned from other images, and neighbouring
pixels are not independent, so good images fail less often than that (docs/auto.md has the counts).
"""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

FALSE_ALARMS = 0.05  # pixels above the threshold by chance, expected in an image


def in_quartiles(values: Float[Array, "h w"]) -> Float[Array, "h w"]:
    """(M - median) / (upper quartile - median): distances in units of the map's usual spread.

    Half of the pixels, those below the median, and a quarter above do not see an anomaly of less
    than a quarter of the image. A constant map becomes 0.
    """
    median, quartile = jnp.quantile(values, jnp.array([0.5, 0.75], values.dtype))
    spread = quartile - median
    return jnp.where(spread > 0, (values - median) / jnp.where(spread > 0, spread, 1.0), 0.0)


def usual_spread(score_map: Float[np.ndarray, "h w"]) -> tuple[float, float]:
    """Median of a map, and the distance of its upper quartile from it; NaN is left out.

    In numpy: maps come in any size, each of which would be compiled anew.
    """
    median, quartile = np.nanquantile(score_map, [0.5, 0.75])
    return float(median), float(quartile - median)


def calibrated_score(score_map: Float[np.ndarray, "h w"]) -> float:
    """The largest value of a raw map, `in_quartiles`; of any method, and without a unit."""
    median, spread = usual_spread(score_map)
    return float((np.nanmax(score_map) - median) / spread) if spread > 0 else 0.0


def decision_threshold(pixels: int) -> float:
    """The calibrated score above which an image counts as anomalous.

    Args:
      pixels: of the map as it was made; those that came by resizing it add no chances.
    """
    return math.log2(pixels / (2 * FALSE_ALARMS))
