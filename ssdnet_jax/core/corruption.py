"""What keeps the network from learning the identity (paper section 3.5), each on its own."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from ssdnet_jax.core.arrays import Size


def add_noise(
    key: PRNGKeyArray, image: Float[Array, "*shape"], *, deviation: float
) -> Float[Array, "*shape"]:
    """Adds Gaussian noise of mean 0; the paper's standard deviation is 0.01."""
    return image + deviation * jax.random.normal(key, image.shape, image.dtype)


def block_mask(
    key: PRNGKeyArray, shape: Size, *, ratio: float, block: int
) -> Bool[Array, "{shape[0]} {shape[1]}"]:
    """True on a random `ratio` of `block` x `block` pixel squares (block 1: single pixels)."""
    coarse = tuple(math.ceil(n / block) for n in shape)
    hidden = jax.random.bernoulli(key, jnp.float32(ratio), coarse)
    return jnp.repeat(jnp.repeat(hidden, block, 0), block, 1)[: shape[0], : shape[1]]


def hide(
    image: Float[Array, "*lead h w c"], hidden: Bool[Array, "h w"]
) -> Float[Array, "*lead h w c"]:
    """Sets hidden pixels to 0 in all channels."""
    return jnp.where(hidden[..., None], 0.0, image)


def permute_patches(
    key: PRNGKeyArray, patches: Float[Array, "n ..."], *, ratio: float
) -> Float[Array, "n ..."]:
    """Lets a random `ratio` of the patches change places with one another.

    The rest stay where they are. With outputs permuted against their targets the network can only
    succeed on what patches share.
    """
    n = patches.shape[0]
    chosen_key, order_key = jax.random.split(key)
    chosen = jax.random.bernoulli(chosen_key, jnp.float32(ratio), (n,))
    # Both orders list the chosen patches first, so places and occupants pair up.
    places = jnp.argsort(~chosen)
    order = jax.random.uniform(order_key, (n,), jnp.float32)
    shuffled = jnp.where(chosen, order, 2.0 + jnp.arange(n).astype(jnp.float32))
    return patches.at[places].set(patches[jnp.argsort(shuffled)])


def permute_tiles(
    key: PRNGKeyArray, image: Float[Array, "h w c"], *, size: int, ratio: float
) -> Float[Array, "h w c"]:
    """`permute_patches` on the disjoint `size` x `size` tiles of an image.

    A rest at the bottom and right that fills no tile stays in place.
    """
    rows, columns, channels = image.shape[0] // size, image.shape[1] // size, image.shape[2]
    inner = image[: rows * size, : columns * size]
    tiles = inner.reshape(rows, size, columns, size, channels).swapaxes(1, 2)
    tiles = permute_patches(key, tiles.reshape(rows * columns, -1), ratio=ratio)
    tiles = tiles.reshape(rows, columns, size, size, channels).swapaxes(1, 2)
    return image.at[: rows * size, : columns * size].set(tiles.reshape(inner.shape))
