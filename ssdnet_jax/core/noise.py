"""Noise of an image: how much there is, and smoothing as far as that asks for."""

import math

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from ssdnet_jax.core import masked, order_statistics
from ssdnet_jax.core.masked import well_known
from ssdnet_jax.core.smoothing import separable

_SMOOTHING = 12.0  # pixels of smoothing for each image unit of noise
_HARMLESS_NOISE = 0.02  # image units, standard deviation; photographs of textures have up to that
_WIDEST = 1.5  # pixels of smoothing
MEDIAN_OF_NORMAL = 0.6745  # of the absolute value, standard deviation 1


def without_noise(
    image: Float[Array, "h w c"], valid: Float[Array, "h w"] | None = None
) -> Float[Array, "h w c"]:
    """The image, smoothed as far as its noise asks for; with noise below 0.02 as it is.

    Noise hides fine features first, and a little smoothing brings them back (docs/auto.md). Colour,
    the difference of each channel from the channels' mean, is smoothed twice as widely: it holds
    less detail than brightness.
    """
    return smoothed_for(image, noise_deviation(image, valid))


def smoothed_for(
    image: Float[Array, "h w c"], noise: Float[Array, ""] | float
) -> Float[Array, "h w c"]:
    """`without_noise` where the standard deviation of the noise is known already."""
    width = _SMOOTHING * (noise - _HARMLESS_NOISE)
    width = jnp.minimum(width, _WIDEST)

    def smoothed() -> Array:
        grey = image.mean(-1, keepdims=True)
        smooth = _smoothed(grey, width, most=_WIDEST)
        if image.shape[-1] > 1:
            smooth = smooth + _smoothed(image - grey, 2 * width, most=2 * _WIDEST)
        return smooth

    # Few images need it, and it would be a tenth of their analysis.
    return lax.cond(width > 0, smoothed, lambda: image)


def _smoothed(image: Float[Array, "h w c"], width: Array, *, most: float) -> Array:
    """Convolved with a Gaussian whose standard deviation is `width` pixels, `most` at most."""
    radius = math.ceil(3 * most)
    offsets = jnp.arange(-radius, radius + 1)
    weights = jnp.exp(-0.5 * lax.square(offsets / jnp.maximum(width, 1e-3)))
    weights = weights / weights.sum()
    return separable(image, list(weights))


def noise_deviation(
    image: Float[Array, "h w c"], valid: Float[Array, "h w"] | None = None
) -> Float[Array, ""]:
    """Standard deviation of pixelwise noise, in image units; the mean over channels.

    From the median of the finest diagonal differences, which edges hardly change (Donoho and
    Johnstone, Biometrika 1994). Only differences of pixels that all take part count: where `valid`
    is 1; None: all do.
    """
    diagonal = image[:-1, :-1] - image[:-1, 1:] - image[1:, :-1] + image[1:, 1:]
    if valid is not None:
        whole = valid[:-1, :-1] * valid[:-1, 1:] * valid[1:, :-1] * valid[1:, 1:]
        counted = well_known(whole)
        medians = [masked.median(x, counted) for x in jnp.moveaxis(jnp.abs(diagonal), -1, 0)]
        return jnp.stack(medians).mean() / (2 * MEDIAN_OF_NORMAL)
    by_channel = jnp.moveaxis(jnp.abs(diagonal), -1, 0).reshape(image.shape[-1], -1)
    return order_statistics.median(by_channel).mean() / (2 * MEDIAN_OF_NORMAL)
