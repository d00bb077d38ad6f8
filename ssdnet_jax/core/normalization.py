"""Batch-statistics normalization and the leaky ReLU behind it, with a short backward pass."""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from ssdnet_jax.core.arrays import widened

EPSILON = 1e-5  # torch's default, part of the network's definition

LEAKY_SLOPE = 0.2
OTHER_ACTIVATIONS = {  # but for the leaky ReLU, which is one with its normalization
    "elu": jax.nn.elu,
    "swish": jax.nn.swish,
    "none": lambda x: x,
}


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def normalize(
    x: Float[Array, "b h w c"],
    scale: Float[Array, " c"],
    shift: Float[Array, " c"],
    slope: float = 1.0,
) -> Float[Array, "b h w c"]:
    """`leaky_relu(scale * (x - mean) / sqrt(variance + 1e-5) + shift)`.

    Statistics over batch, height, width; biased variance. The gradient is Ioffe and Szegedy's
    (2015) closed form; it keeps `x` alone and computes the rest again, which is cheaper than
    storing it. All arithmetic is float32; of another type of `x` only what is stored has it.

    Args:
      x: images.
      scale: of each channel.
      shift: of each channel.
      slope: of the leaky ReLU below 0, in [0, 1]; 1 leaves it out.
    """
    return _forward(x, scale, shift, slope)[0]


def _forward(x: Array, scale: Array, shift: Array, slope: float) -> tuple[Array, tuple[Array, ...]]:
    count, values = x.size // x.shape[-1], widened(x)
    mean = jnp.sum(values, axis=(0, 1, 2)) / count
    variance = jnp.sum(lax.square(values - mean), axis=(0, 1, 2)) / count
    inverse_deviation = lax.rsqrt(variance + EPSILON)
    y = (values - mean) * (inverse_deviation * scale) + shift
    y = y if slope == 1 else jnp.maximum(y, slope * y)
    return y.astype(x.dtype), (x, mean, inverse_deviation, scale, shift)


def _backward(slope: float, saved: tuple[Array, ...], g: Array) -> tuple[Array, Array, Array]:
    x, mean, inverse_deviation, scale, shift = saved
    count, values, g = x.size // x.shape[-1], widened(x), widened(g)
    if slope != 1:
        y = (values - mean) * (inverse_deviation * scale) + shift
        g = jnp.where(y > 0, g, slope * g)
    standardized = (values - mean) * inverse_deviation
    dshift = jnp.sum(g, axis=(0, 1, 2))
    dscale = jnp.sum(g * standardized, axis=(0, 1, 2))
    dx = (inverse_deviation * scale) * (g - (dshift + standardized * dscale) / count)
    return dx.astype(x.dtype), dscale, dshift


normalize.defvjp(_forward, _backward)
