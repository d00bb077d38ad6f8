"""Marks on a texture: matched filters in the whitened image.

The spectrum of an image is mostly that of its texture. Divided by its modulus, every frequency
counts alike (the phase-only transform: Aiger and Talbot, The phase only transform for unsupervised
surface defect detection, CVPR 2010). What owns few frequencies vanishes: periodic patterns,
stripes, uneven light. The texture becomes white noise, in which a mark of known shape is found best
by a filter of that shape. Scratches, cracks and spots are lines and blobs where they are looked at
closely, so the shapes are Gaussians: round, or long and thin in several directions, of which the
strongest response counts. No weights are needed, and nothing is learned.
"""

import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Complex, Float

from ssdnet_jax.core.features import principal_components, standardize
from ssdnet_jax.core.order_statistics import quantiles
from ssdnet_jax.core.smoothing import smoothed

_DIRECTIONS = 12  # of a line, over half a turn
MARGIN = 4  # before it is transformed, the image is mirrored beyond its borders by side // MARGIN
SMALLEST = 1e-6  # of the largest modulus: what is below it is rounding
SMOOTHING = 1.2  # standard deviation, in widths of a shape
BORDER = 24  # pixels: farther from the border nothing of it is seen
HIGH = 0.95  # share of pixels, as quantile
TREND = 12 / 256  # standard deviation of the Gaussian that a trend passes, in shorter sides


class Shape(NamedTuple):
    """A Gaussian mark: standard deviations in pixels of the analysed image.

    Attributes:
      width: across the mark.
      length: along it; as `width` for a round one.
    """

    width: float
    length: float


LINE = Shape(0.8, 6.0)
SPOT = Shape(2.2, 2.2)
STRIPE = Shape(2.2, 9.0)  # for colours, which cameras and files keep at half of the resolution


class Marks(NamedTuple):
    """Marks of an image.

    Attributes:
      brightness: how strongly a line and a spot stand out of the brightness around each pixel.
      colour: how strongly a stripe stands out of the colours, in so far as they vary beside the
        main one; none for a grey image.
      unevenness: `trend_share` of the brightness.
    """

    brightness: Float[Array, "*b marks h w"]
    colour: Float[Array, "*b colours h w"]
    unevenness: Float[Array, "*b"]


def marks_of(image: Float[Array, "h w c"]) -> Marks:
    """Lines, spots and coloured stripes of an image, grey or RGB."""
    grey = image.mean(-1, keepdims=True)
    colour: list[Array] = []
    if image.shape[-1] > 1:
        components = principal_components(image - image.mean((0, 1)), count=image.shape[-1])
        colour = [mark_map(standardize(components[..., 1:]), STRIPE)]
    return Marks(
        brightness=jnp.stack([mark_map(grey, LINE), mark_map(grey, SPOT)]),
        colour=jnp.stack(colour) if colour else jnp.zeros((0, *image.shape[:2]), image.dtype),
        unevenness=trend_share(grey),
    )


def mark_map(channels: Float[Array, "h w c"], shape: Shape) -> Float[Array, "h w"]:
    """How strongly marks of one shape stand out around each pixel; at least 0, without a unit.

    Args:
      channels: brightness, colours or others. What a channel is multiplied by changes nothing, nor
        does what is added to it; a constant channel has no marks.
      shape: static.

    Returns:
      The root of the mean square of responses over channels, in the direction of the strongest,
      smoothed in proportion to the width. Marks along all four borders are taken from it.
    """
    margins, sides, spectrum = _spectrum(channels)
    modulus = jnp.abs(spectrum)
    floor = SMALLEST * modulus.max((0, 1)) + jnp.finfo(jnp.float32).tiny
    # What is left of the mean is rounding, and would be as large as any other coefficient.
    white = (spectrum / (modulus + floor)).at[0, 0].set(0)
    height, width, _ = channels.shape
    energy = _energy(white, sides, margins, (height, width), shape)
    amplitude = jnp.sqrt(smoothed(energy, SMOOTHING * shape.width) * math.prod(sides))
    return amplitude * _border_shares(amplitude)


def energy_of_part(
    white: Float[Array, "hh ww c"], shape: Shape, *, margin: int
) -> Float[Array, "h w"]:
    """The strongest response to a shape, squared, within a part of a whitened image.

    Args:
      white: the part, with `margin` pixels around it, over which it is repeated.
      shape: static.
      margin: static; from 5 times the shape's length on the response is that in the whole image.
    """
    height, width, _ = white.shape
    inner = (height - 2 * margin, width - 2 * margin)
    spectrum = jnp.fft.rfft2(white, axes=(0, 1))
    return _energy(spectrum, (height, width), (margin, margin), inner, shape)


def _energy(
    white: Complex[Array, "hh ww c"],
    sides: tuple[int, int],
    starts: tuple[int, int],
    inner: tuple[int, int],
    shape: Shape,
) -> Float[Array, "h w"]:
    """Mean of squared responses over channels, in the direction of the strongest."""

    def strongest(so_far: Array, angle: Array) -> tuple[Array, None]:
        of_shape = _transfer(sides, shape, angle)[..., None]
        filtered = jnp.fft.irfft2(white * of_shape, s=sides, axes=(0, 1))
        response = lax.dynamic_slice(filtered, (*starts, 0), (*inner, white.shape[-1]))
        return jnp.maximum(so_far, lax.square(response).mean(-1)), None

    directions = 1 if shape.width == shape.length else _DIRECTIONS
    angles = jnp.arange(directions) * (math.pi / directions)
    return lax.scan(strongest, jnp.zeros(inner, white.real.dtype), angles)[0]


def _border_shares(values: Float[Array, "h w"]) -> Float[Array, "h w"]:
    """Factors, in [0, 1], that take marks along all four borders from a map.

    Mirroring breaks the phase of a pattern, which leaves a mark along each border. At each distance
    from the borders, the 95th percentiles along the four sides are compared with that of the inner
    part: if the least of the four is above it, it is brought down to it. So what is at one side
    only, such as a defect or the end of a plate, stays. In a corner both directions count.
    """
    height, width = values.shape
    reach = min(BORDER, min(values.shape) // 4)
    high_share = jnp.array([HIGH], values.dtype)
    middle = values[reach : height - reach, reach : width - reach]
    inner = quantiles(middle.ravel(), high_share)[0]
    both = (values, values.T)
    lines = [part[:reach] for one in both for part in (one, one[::-1])]
    high = jnp.stack([quantiles(part, high_share)[:, 0] for part in lines]).min(0)
    shares = jnp.where(high > inner, inner / jnp.where(high > 0, high, 1.0), 1.0)
    of_rows, of_columns = (
        jnp.concatenate([shares, jnp.ones(side - 2 * reach), shares[::-1]]) for side in values.shape
    )
    return of_rows[:, None] * of_columns[None, :]


def trend_share(grey: Float[Array, "h w 1"]) -> Float[Array, ""]:
    """Share of the variance of brightness that a wide Gaussian leaves: of light, not of texture.

    0.76 to 0.9 where light is uneven, on plates of metal for example; mostly below 0.5 elsewhere.
    """
    _, sides, spectrum = _spectrum(grey)
    side = TREND * min(grey.shape[:2])
    low = _transfer(sides, Shape(side, side), jnp.float32(0))[..., None]
    power = lax.square(jnp.abs(spectrum)).at[:, 1:-1].multiply(2)  # of both halves
    total = power.sum()
    return jnp.where(total > 0, (power * lax.square(low)).sum() / jnp.maximum(total, 1e-30), 0.0)


def _spectrum(
    channels: Float[Array, "h w c"],
) -> tuple[tuple[int, int], tuple[int, int], Complex[Array, "hh ww c"]]:
    """Half of the spectrum of the channels, mirrored beyond their borders and without their means.

    Also by how much they are mirrored, and what their sides are then. To a Fourier transform the
    image repeats itself: at the seam, where it starts again, it does not go on smoothly. A quarter
    of a side lies between the seam and the image.
    """
    # Even sides have a last column of the half spectrum that stands for itself.
    height, width = channels.shape[:2]
    top, left = height // MARGIN, width // MARGIN
    bottom, right = top + height % 2, left + width % 2
    padded = jnp.pad(channels, ((top, bottom), (left, right), (0, 0)), mode="reflect")
    sides = (top + height + bottom, left + width + right)
    return (top, left), sides, jnp.fft.rfft2(padded - padded.mean((0, 1)), axes=(0, 1))


def _transfer(sides: tuple[int, int], shape: Shape, angle: Array) -> Float[Array, "h w"]:
    """What the filter of a shape, turned by an angle, makes of each frequency."""
    rows = 2 * np.pi * np.fft.fftfreq(sides[0]).astype(np.float32)[:, None]
    columns = 2 * np.pi * np.fft.rfftfreq(sides[1]).astype(np.float32)[None, :]
    along = columns * jnp.cos(angle) + rows * jnp.sin(angle)
    across = rows * jnp.cos(angle) - columns * jnp.sin(angle)
    return jnp.exp(-0.5 * (lax.square(shape.length * along) + lax.square(shape.width * across)))
