"""Saliency by spectral residual (Hou and Zhang, CVPR 2007)."""

import functools
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.signal import convolve2d
from jaxtyping import Array, Complex, Float

from ssdnet_jax.baselines.pixels import check_channels, luminance
from ssdnet_jax.errors import ConfigError

Order = Literal["square_then_smooth", "smooth_then_square"]
Border = Literal["zero", "reflect"]
SpectrumBorder = Literal["edge", "reflect", "wrap"]

_ROUNDING = 1e-6  # amplitudes below this share of the largest are rounding of the float32 FFT


@functools.partial(
    jax.jit,
    static_argnames=(
        "width",
        "average_size",
        "sigma",
        "kernel_size",
        "order",
        "border",
        "spectrum_border",
    ),
)
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
    _check(image, width, average_size, sigma, kernel_size, order, border, spectrum_border)
    small = _shrink(luminance(image), width)
    spectrum = jnp.fft.fft2(small)
    amplitude = jnp.abs(spectrum)
    floor = _ROUNDING * jnp.max(amplitude) + jnp.finfo(jnp.float32).tiny
    log_amplitude = jnp.log(jnp.maximum(amplitude, floor))
    residual = log_amplitude - _mean(log_amplitude, average_size, spectrum_border)
    modulus = jnp.abs(jnp.fft.ifft2(jnp.exp(residual) * _phase(spectrum, amplitude, floor)))
    if order == "square_then_smooth":
        saliency = _smooth(lax.square(modulus), sigma, kernel_size, border)
    else:
        saliency = lax.square(_smooth(modulus, sigma, kernel_size, border))
    return jax.image.resize(saliency, image.shape[:2], "linear")


def _shrink(grey: Float[Array, "h w"], width: int | None) -> Float[Array, "hh ww"]:
    if width is None:
        return grey
    height = max(round(grey.shape[0] * width / grey.shape[1]), 1)
    return jax.image.resize(grey, (height, width), "cubic")


def _phase(spectrum: Complex[Array, "h w"], amplitude: Array, floor: Array) -> Array:
    """exp(iP); 0 where there is no amplitude, and so no phase."""
    return jnp.where(amplitude > floor, spectrum / jnp.maximum(amplitude, floor), 0.0)


def _mean(values: Float[Array, "h w"], size: int, mode: str) -> Float[Array, "h w"]:
    padded = jnp.pad(values, size // 2, mode=mode)
    return convolve2d(padded, jnp.full((size, size), 1 / size**2), mode="valid")


def _smooth(values: Float[Array, "h w"], sigma: float, size: int, border: Border) -> Array:
    if sigma == 0:
        return values
    offsets = np.arange(size) - size // 2
    kernel = np.exp(-0.5 * np.square(offsets / sigma))
    kernel = np.outer(kernel, kernel) / kernel.sum() ** 2
    mode = "constant" if border == "zero" else "reflect"
    padded = jnp.pad(values, size // 2, mode=mode)
    return convolve2d(padded, jnp.asarray(kernel, jnp.float32), mode="valid")


def _check(
    image: Array,
    width: int | None,
    average_size: int,
    sigma: float,
    kernel_size: int,
    order: str,
    border: str,
    spectrum_border: str,
) -> None:
    check_channels(image)
    if width is not None and width < 8:
        raise ConfigError(f"width is {width}; expected at least 8, or None")
    for name, size in (("average_size", average_size), ("kernel_size", kernel_size)):
        if size < 1 or size % 2 == 0:
            raise ConfigError(f"{name} is {size}; expected an odd number, at least 1")
    if not sigma >= 0:
        raise ConfigError(f"sigma is {sigma}; expected at least 0")
    for name, value, legal in (
        ("order", order, get_args(Order)),
        ("border", border, get_args(Border)),
        ("spectrum_border", spectrum_border, get_args(SpectrumBorder)),
    ):
        if value not in legal:
            raise ConfigError(f"{name} is {value!r}; expected {' or '.join(legal)}")
