"""Gaussian and other separable filters of maps that are mirrored at their borders."""

import functools
import math
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from ssdnet_jax.core.convolution import pad2d


def gaussian(size: int, deviation: float) -> np.ndarray:
    """`size` samples of a Gaussian around the middle one, which add up to 1."""
    values = np.exp(-0.5 * ((np.arange(size) - (size - 1) / 2) / deviation) ** 2)
    return values / values.sum()


def smoothed(values: Float[Array, "h w"], deviation: float) -> Float[Array, "h w"]:
    """Convolved with a Gaussian, mirrored at the borders."""
    radius = min(math.ceil(3 * deviation), min(values.shape) - 1)
    weights = [float(weight) for weight in gaussian(2 * radius + 1, deviation)]
    return separable(values[..., None], weights)[..., 0]


def separable(
    features: Float[Array, "h w c"], weights: Sequence[Array | float]
) -> Float[Array, "h w c"]:
    """Convolved with the same odd number of weights along both axes, mirrored at the borders."""
    smooth = mirror(features, margin=len(weights) // 2)
    for axis, side in enumerate(features.shape[:2]):
        shifted = [
            weight * lax.slice_in_dim(smooth, start, start + side, axis=axis)
            for start, weight in enumerate(weights)
        ]
        smooth = functools.reduce(jnp.add, shifted)
    return smooth


def mirror(
    features: Float[Array, "h w c"], *, margin: int
) -> Float[Array, "h+2*{margin} w+2*{margin} c"]:
    """Mirrors a map at its borders without repeating the edge."""
    return pad2d(features[None], margin=margin, padding="reflection")[0]
