"""Statistics of the part of an image that takes part: means, quantiles, and what features know.

Pixels outside of it (transparent, masked, ground) hold a harmless filling and have the weight 0. A
feature that sees such pixels beside others is partly known, and its weight lies between 0 and 1.
Images of which every pixel takes part do not come here: their programs are those without weights.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from ssdnet_jax.core.convolution import pad2d
from ssdnet_jax.core.order_statistics import at_ranks

ALL_OF_IT = 1 - 1e-4  # of what a feature sees, up to rounding
WELL_KNOWN = 0.5
ENOUGH = 0.25  # of the features that are known at least in part


def known_share(valid: Float[Array, "h w"], *, reach: int) -> Float[Array, "h//2 w//2"]:
    """How well each feature at half resolution is known, in [0, 1].

    A feature belongs to a block of 2 x 2 pixels and sees `reach` pixels beyond it. It is known (1)
    where all that it sees is valid, and unknown (0) where half of that or less is, as on the border
    of what is valid; in between it is partly known.

    Args:
      valid: 1 where a pixel takes part, 0 where it does not.
      reach: pixels.
    """
    side = 2 * (1 + reach)
    padded = pad2d(valid[None, ..., None], margin=reach, padding="reflection")[0, ..., 0]
    sums = lax.reduce_window(padded, 0.0, lax.add, (side, side), (2, 2), "VALID")
    return jnp.clip(2 * sums / side**2 - 1, 0, 1)


def weighted_moments(
    values: Float[Array, "h w c"], weights: Float[Array, "h w"]
) -> tuple[Float[Array, " c"], Float[Array, " c"]]:
    """Mean and standard deviation of each channel."""
    shares = (weights / _at_least(weights.sum()))[..., None]
    mean = (values * shares).sum((0, 1))
    return mean, jnp.sqrt((jnp.square(values - mean) * shares).sum((0, 1)))


def for_statistics(weights: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Weights with which features enter statistics of the image: 1 where they are known, else 0.

    A feature that is partly known depends on the filling too. Where fewer features are known than a
    quarter of those that are known at least in part, the weights stay as they are.
    """
    known = weights >= ALL_OF_IT
    enough = known.sum() >= ENOUGH * (weights > 0).sum()
    return jnp.where(enough, known.astype(weights.dtype), weights)


def well_known(weights: Float[Array, "*shape"]) -> Bool[Array, "*shape"]:
    """Where weights are at least one half, or where they are largest if none is."""
    return weights >= jnp.minimum(WELL_KNOWN, weights.max())


def quantiles(
    values: Float[Array, "*shape"], counted: Bool[Array, "*shape"], shares: Float[Array, " q"]
) -> Float[Array, " q"]:
    """Quantiles of the values that count, with linear interpolation as `jnp.quantile` has it.

    Args:
      values: of which some count.
      counted: which do; at least one.
      shares: in [0, 1], which quantiles.
    """
    last = jnp.maximum(counted.sum() - 1, 0)
    place = shares * last.astype(values.dtype)
    below = jnp.floor(place).astype(jnp.int32)
    low, following = at_ranks(jnp.where(counted, values, jnp.inf).ravel(), below)
    high = jnp.where(below < last, following, low)
    return low + (high - low) * (place - below)


def median(values: Float[Array, "*shape"], counted: Bool[Array, "*shape"]) -> Float[Array, ""]:
    """The median of the values that count."""
    return quantiles(values, counted, jnp.array([0.5], values.dtype))[0]


def _at_least(total: Float[Array, ""]) -> Float[Array, ""]:
    return jnp.maximum(total, jnp.finfo(jnp.float32).tiny)
