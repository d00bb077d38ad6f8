"""A map of a large image that follows the image, tile by tile (`core.guided`)."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ssdnet_jax.core import guided
from ssdnet_jax.core.features import is_constant
from ssdnet_jax.core.noise import smoothed_for
from ssdnet_jax.methods.large.channels import Channels, mean_and_deviation, pixel_tiles
from ssdnet_jax.methods.large.image import LargeImage


class _Scale(NamedTuple):
    """What guides are made of, over the image: brightness and colours."""

    grey_mean: Array
    grey_inverse: Array  # of the standard deviation; 0 where brightness is constant
    middle: Array
    mean: Array
    directions: Array


def steps(large: LargeImage) -> int:
    """How many tiles are made for the guide of an image."""
    return 2 * len(pixel_tiles(large))


def follow(
    large: LargeImage, channels: Channels, values: np.ndarray, show: Callable[[], None]
) -> np.ndarray:
    """`core.guided.follow` of a map (h, w)."""
    scale = _scale_of(large, channels)
    noise = jnp.float32(large.noise)
    tiles = pixel_tiles(large)
    total = squares = np.zeros(2 + channels.directions.shape[1])
    for tile in tiles:
        guides = np.asarray(_guides(large.image[tile.outer], noise, scale))
        of_inner = guides[tile.inner_of_outer].astype(np.float64)
        counted = of_inner.reshape(-1, guides.shape[-1])
        if large.valid is not None:
            counted = of_inner[large.valid[tile.inner]]
        total = total + counted.sum(0)
        squares = squares + np.square(counted).sum(0)
        show()
    count = channels.grey.size if large.valid is None else int(large.valid.sum())
    mean = total / count
    deviation = np.sqrt(np.maximum(squares / count - mean**2, 0))
    inverse = np.where(is_constant(mean, deviation), 0, 1 / np.maximum(deviation, 1e-30))
    found = np.empty_like(values)
    for tile in tiles:
        weights = np.ones(values[tile.outer].shape, np.float32)
        if large.valid is not None:
            weights = large.valid[tile.outer].astype(np.float32)
        of_tile = _filtered(
            *(large.image[tile.outer], noise, scale, mean.astype(np.float32)),
            *(inverse.astype(np.float32), values[tile.outer], weights),
        )
        found[tile.inner] = np.asarray(of_tile)[tile.inner_of_outer]
        show()
    before, after = (float(large.judged(one).max()) for one in (values, found))
    base = float(np.quantile(large.judged(values), guided.BACKGROUND))
    if after > before:
        share = np.float32((before - base) / (after - base))
        above = found > base
        found[above] = base + share * (found[above] - base)
    return found


def _scale_of(large: LargeImage, channels: Channels) -> _Scale:
    counted = large.judged(channels.grey)
    mean, deviation = mean_and_deviation(counted)
    inverse = 0.0 if is_constant(mean, deviation) else 1 / deviation
    middle = (np.median(counted) - mean) * inverse
    return _Scale(
        jnp.float32(mean),
        jnp.float32(inverse),
        jnp.float32(middle),
        jnp.asarray(channels.mean),
        jnp.asarray(channels.directions),
    )


@jax.jit
def _guides(image: Array, noise: Array, scale: _Scale) -> Array:
    smooth = smoothed_for(image, noise)
    grey = (smooth.mean(-1, keepdims=True) - scale.grey_mean) * scale.grey_inverse
    colours = (smooth - scale.mean) @ scale.directions if image.shape[-1] > 1 else None
    return guided.smooth_guides(grey, scale.middle, colours)


@jax.jit
def _filtered(
    image: Array,
    noise: Array,
    scale: _Scale,
    mean: Array,
    inverse: Array,
    values: Array,
    weights: Array,
) -> Array:
    guides = (_guides(image, noise, scale) - mean) * inverse
    return guided.filtered(values, guides, weights)
