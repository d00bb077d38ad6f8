"""Brightness and colours of a large image without its noise, tile by tile.

`core.matched_filter` and `core.guided` look at these; their statistics are of the whole image.
"""

from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ssdnet_jax.core.features import principal_directions
from ssdnet_jax.core.noise import smoothed_for
from ssdnet_jax.core.tiling import Tile, tile_grid
from ssdnet_jax.methods.large.image import LargeImage

_AT_ONCE = 1 << 20  # values
MARGIN = 32  # pixels of a tile that are not taken from it, more than smoothing and guides see


class Channels(NamedTuple):
    """What the channels of an image are described by.

    Attributes:
      grey: float32 (h, w), brightness.
      mean: (c,), of each channel, over the image.
      directions: (c, c - 1), in which colours vary, the main direction left out.
    """

    grey: np.ndarray
    mean: np.ndarray
    directions: np.ndarray


def pixel_tiles(large: LargeImage) -> list[Tile]:
    """Tiles of one shape that end where the image does."""
    height, width = large.image.shape[:2]
    side = large.tiling.side + 2 * MARGIN
    return tile_grid((height, width), side=side, margin=MARGIN, step=1)


def smooth_tile(large: LargeImage, tile: Tile) -> np.ndarray:
    """A tile of the image without noise (`core.noise.smoothed_for`)."""
    return np.asarray(_smoothed(large.image[tile.outer], jnp.float32(large.noise)))


_smoothed = jax.jit(smoothed_for)


def channels_of(large: LargeImage) -> Channels:
    """Describes the channels of an image; directions are those of what takes part."""
    height, width, count = large.image.shape
    grey = np.empty((height, width), np.float32)
    total, known, total_known = np.zeros(count), 0, np.zeros(count)
    squares = np.zeros((count, count))
    for tile in pixel_tiles(large):
        inner = smooth_tile(large, tile)[tile.inner_of_outer]
        # Channel by channel: numpy takes ten times as long over an axis of three.
        grey[tile.inner] = sum(inner[..., n] for n in range(count)) / np.float32(count)
        values = inner.reshape(-1, count).astype(np.float64)
        total += values.sum(0)
        if large.valid is not None:
            values = values[large.valid[tile.inner].ravel()]
        known += len(values)
        total_known += values.sum(0)
        squares += values.T @ values
    mean = total / grey.size
    across = np.outer(mean, total_known)
    covariance = (squares - across - across.T) / known + np.outer(mean, mean)
    directions = np.asarray(principal_directions(jnp.asarray(covariance, jnp.float32), count=count))
    return Channels(grey, mean.astype(np.float32), directions[:, 1:])


def colours(large: LargeImage, channels: Channels) -> Iterator[np.ndarray]:
    """The image's components along each of the directions, float32 (h, w), one at a time."""
    for direction in channels.directions.T:
        found = np.empty(channels.grey.shape, np.float32)
        for tile in pixel_tiles(large):
            inner = smooth_tile(large, tile)[tile.inner_of_outer]
            found[tile.inner] = (inner - channels.mean) @ direction
        yield found


def mean_and_deviation(values: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation in float64, without a copy of all values in it."""
    flat = values.ravel()
    shift, total, squares = float(flat[0]), 0.0, 0.0
    for start in range(0, flat.size, _AT_ONCE):
        part = flat[start : start + _AT_ONCE].astype(np.float64) - shift
        total += float(part.sum())
        squares += float(np.square(part).sum())
    mean = total / flat.size
    return shift + mean, max(squares / flat.size - mean**2, 0.0) ** 0.5
