"""Calibrated units: scores that compare between images, whatever unit their maps have.

A raw map has its method's units, and its maximum grows with contrast and texture. Measured in the
map's own usual spread it has none: (M - median) / (upper quartile - median). What such a peak means
is said by `core.regions`, for one image, and by `core.conformal`, beside known good ones.
"""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ssdnet_jax.core import masked, order_statistics


def in_quartiles(
    values: Float[Array, "h w"], valid: Float[Array, "h w"] | None = None
) -> Float[Array, "h w"]:
    """(M - median) / (upper quartile - median): distances in units of the map's usual spread.

    Neither depends on how high the upper quarter of the values is: an anomaly of less than a
    quarter of the image hardly changes them. A constant map becomes 0. Median and quartile are
    those of the pixels that take part: where `valid` is above 0, or everywhere.
    """
    shares = jnp.array([0.5, 0.75], values.dtype)
    if valid is None:
        median, quartile = order_statistics.quantiles(values.ravel(), shares)
    else:
        median, quartile = masked.quantiles(values, valid > 0, shares)
    spread = quartile - median
    return jnp.where(spread > 0, (values - median) / jnp.where(spread > 0, spread, 1.0), 0.0)


def usual_spread(score_map: Float[np.ndarray, "h w"]) -> tuple[float, float]:
    """Median of a map, and the distance of its upper quartile from it; NaN is left out.

    In numpy: maps come in any size, each of which would be compiled anew. Of a map of NaN only, NaN
    and 0.
    """
    if not np.isfinite(score_map).any():
        return math.nan, 0.0
    median, quartile = np.nanquantile(score_map, [0.5, 0.75])
    return float(median), float(quartile - median)


def calibrated_score(score_map: Float[np.ndarray, "h w"]) -> float:
    """The largest value of a raw map, `in_quartiles`; of any method, and without a unit."""
    median, spread = usual_spread(score_map)
    return float((np.nanmax(score_map) - median) / spread) if spread > 0 else 0.0


def in_units(score_map: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
    """A raw map in calibrated units, as `in_quartiles`, in numpy and float64; NaN stays."""
    return on_scale(score_map, *usual_spread(score_map))


def on_scale(
    score_map: Float[np.ndarray, "h w"], median: float, spread: float
) -> Float[np.ndarray, "h w"]:
    """`in_units` with the `usual_spread` of the map, where it is known already."""
    if not spread > 0:
        return np.where(np.isnan(score_map), np.nan, 0.0)
    return (score_map.astype(np.float64) - median) / spread
