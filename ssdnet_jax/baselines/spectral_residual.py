"""Saliency by spectral residual (Hou and Zhang, CVPR 2007)."""

from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.signal import convolve2d
from jaxtyping import Array, Complex, Float

from ssdnet_jax.baselines import pixels

Order = Literal["square_then_smooth", "smooth_then_square"]
Border = Literal["zero", "reflect"]
SpectrumBorder = Literal["edge", "reflect", "wrap"]

_ROUNDING = 1e-6  # amplitudes below this share of the largest are rounding of the float32 FFT


@pixels.compiled
def spectral_residual(
    image: Float[Array, "h w c"],
    *,
    width: int | None = 64,
    average_size: int = 3,
    sigma: float = 2.5,
    kernel_size: int = 11,
    order: Order = "square_then_smooth",
    border: Border = "zero",
    spectrum_border: SpectrumBorder = "edge",
) -> Float[Array, "h w"]:
    """Maps where an image departs from the smooth trend of its own log spectrum.

    With F the Fourier transform, A = |F|, P its phase and h an n x n mean,
    R = log A - h * log A, and the map is S = g * |F^-1[exp(R + iP)]|^2, g a Gaussian
    (Hou and Zhang, "Saliency detection: a spectral residual approach", CVPR 2007, Eqs. 6-10).

    The defaults are the authors' own MATLAB program: 64 pixels wide, Gaussian of sigma 2.5 on a
    10 x 10 support, outside counted as 0. The paper prints sigma = 8. Other published forms:
    OpenCV's `StaticSaliencySpectralResidual` is `order="smooth_then_square", sigma=8,
    kernel_size=5, border="reflect", spectrum_border="reflect"`; the comparison of PG-LSR (Cao et
    al. 2017) is `width=50, sigma=2`. What differs: the kernel has odd size (an even one shifts the
    map by half a pixel of the small image), the map is not min-max scaled, and frequencies
    without amplitude stay empty where the original takes the logarithm of 0.

    Args:
      image: grey or RGB in [0, 1]; RGB is converted to luminance.
      width: columns of the image the spectrum is taken of, in pixels, aspect ratio kept (bicubic,
        antialiased); None for the image's own size. Sets the size of what counts as a part.
      average_size: side of the mean over the log spectrum, odd, in frequency bins.
      sigma: standard deviation of the Gaussian, in pixels of the small image; 0 for none.
      kernel_size: side of the Gaussian's support, odd, in pixels of the small image.
      order: whether the modulus is squared before the Gaussian (Eq. 10) or after.
      border: what lies outside of the map for the Gaussian; "zero" darkens the frame of the map,
        where an image that does not repeat has its artefacts.
      spectrum_border: what lies outside of the log spectrum for the mean; "wrap" is how a
        spectrum continues.

    Returns:
      Raw map of the image's size, at least 0, high where salient.

    Raises:
      ConfigError: an option outside of its range.
      InputError: not (H, W, 1) or (H, W, 3).
    """
    pixels.check_channels(image)
    pixels.check(width is None or width >= 8, "width", width, "at least 8, or None")
    pixels.check_odd("average_size", average_size)
    pixels.check_odd("kernel_size", kernel_size)
    pixels.check(sigma >= 0, "sigma", sigma, "at least 0")
    pixels.check_word("order", order, Order)
    pixels.check_word("border", border, Border)
    pixels.check_word("spectrum_border", spectrum_border, SpectrumBorder)
    small = pixels.of_width(pixels.luminance(image), width)
    spectrum = jnp.fft.fft2(small)
    amplitude = jnp.abs(spectrum)
    floor = _ROUNDING * jnp.max(amplitude) + jnp.finfo(jnp.float32).tiny
    log_amplitude = jnp.log(jnp.maximum(amplitude, floor))
    residual = log_amplitude - _mean(log_amplitude, average_size, spectrum_border)
    modulus = jnp.abs(jnp.fft.ifft2(jnp.exp(residual) * _phase(spectrum, amplitude, floor)))
    mode = "constant" if border == "zero" else "reflect"
    if order == "square_then_smooth":
        saliency = pixels.smooth(lax.square(modulus), sigma=sigma, size=kernel_size, mode=mode)
    else:
        saliency = lax.square(pixels.smooth(modulus, sigma=sigma, size=kernel_size, mode=mode))
    return jax.image.resize(saliency, image.shape[:2], "linear")


def _phase(spectrum: Complex[Array, "h w"], amplitude: Array, floor: Array) -> Array:
    """exp(iP); 0 where there is no amplitude, and so no phase."""
    return jnp.where(amplitude > floor, spectrum / jnp.maximum(amplitude, floor), 0.0)


def _mean(values: Float[Array, "h w"], size: int, mode: str) -> Float[Array, "h w"]:
    padded = jnp.pad(values, size // 2, mode=mode)
    return convolve2d(padded, jnp.full((size, size), 1 / size**2), mode="valid")
