"""Marks of a large image (`core.matched_filter`): whitened as a whole, then filtered by tiles.

Whitening needs the spectrum of the whole image. It is transformed in place, rows and then columns
of half a spectrum, which is as large as 2.25 maps of the image. Filters see 45 pixels.
"""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import numpy as np

from ssdnet_jax.core import matched_filter
from ssdnet_jax.core.batch import IN_ONE_THREAD
from ssdnet_jax.core.features import is_constant
from ssdnet_jax.core.matched_filter import LINE, SPOT, STRIPE, Shape
from ssdnet_jax.core.smoothing import gaussian
from ssdnet_jax.methods.large.channels import Channels, colours, mean_and_deviation
from ssdnet_jax.methods.large.image import LargeImage

_MARGIN = 48  # pixels around a tile, beyond which no filter sees anything
_BLOCK = 256  # rows or columns that are transformed at a time


class White(NamedTuple):
    """A whitened channel.

    Attributes:
      values: float32, of the image with `_MARGIN` pixels around it.
      size: number of pixels of the mirrored image.
      unevenness: `core.matched_filter.trend_share` of the channel.
    """

    values: np.ndarray
    size: int
    unevenness: float


def steps(large: LargeImage) -> int:
    """How many tiles are filtered for the marks of an image."""
    tiles = len(_corners(large)[1])
    return tiles * (2 + (large.image.shape[-1] > 1))


def colour_marks(
    large: LargeImage, channels: Channels, show: Callable[[], None]
) -> Iterator[np.ndarray]:
    """The map of coloured stripes, float32 (h, w); none of a grey image."""
    if channels.directions.shape[1]:
        white = [_whitened(_or_zero(one)) for one in colours(large, channels)]
        yield _mark_map(large, white, STRIPE, show)


def brightness_marks(
    large: LargeImage, channels: Channels, show: Callable[[], None]
) -> tuple[list[np.ndarray], float]:
    """The maps of lines and of spots, float32 (h, w), and the unevenness of brightness."""
    white = _whitened(channels.grey)
    maps = [_mark_map(large, [white], shape, show) for shape in (LINE, SPOT)]
    return maps, white.unevenness


def _or_zero(channel: np.ndarray) -> np.ndarray:
    """The channel, or zeros where what varies in it is rounding."""
    return np.zeros_like(channel) if is_constant(*mean_and_deviation(channel)) else channel


def _whitened(channel: np.ndarray) -> White:
    from scipy import fft

    rows, columns = (_mirrored(side) for side in channel.shape)
    sides = len(rows), len(columns)
    mean = np.float32(channel.mean(dtype=np.float64))
    spectrum = np.empty((sides[0], sides[1] // 2 + 1), np.complex64)
    for start in range(0, sides[0], _BLOCK):
        place = slice(start, start + _BLOCK)
        spectrum[place] = fft.rfft(channel[rows[place]][:, columns] - mean, axis=1, workers=-1)
    largest, power, of_trend = 0.0, 0.0, 0.0
    width = 2 * np.pi * matched_filter.TREND * min(channel.shape)
    low_rows = np.exp(-((width * np.fft.fftfreq(sides[0])) ** 2)).astype(np.float32)
    low_columns = np.exp(-((width * np.fft.rfftfreq(sides[1])) ** 2)).astype(np.float32)
    for start in range(0, spectrum.shape[1], _BLOCK):
        place = slice(start, start + _BLOCK)
        part = fft.fft(spectrum[:, place], axis=0, workers=-1)
        if start == 0:
            part[0, 0] = 0  # what is left of the mean is rounding
        spectrum[:, place] = part
        squares = np.square(np.abs(part))
        largest = max(largest, float(squares.max()))
        of_columns = squares.sum(0, dtype=np.float64)
        of_low = (low_rows @ squares) * low_columns[place]
        # Half a spectrum: columns but the first and the last stand for two.
        numbers = np.arange(spectrum.shape[1])[place]
        twice = np.where((numbers > 0) & (numbers < spectrum.shape[1] - 1), 2, 1)
        power += float((twice * of_columns).sum())
        of_trend += float((twice * of_low).sum(dtype=np.float64))
    floor = matched_filter.SMALLEST * math.sqrt(largest) + np.finfo(np.float32).tiny
    for start in range(0, spectrum.shape[1], _BLOCK):
        part = spectrum[:, start : start + _BLOCK]
        part = part / (np.abs(part) + np.float32(floor))
        spectrum[:, start : start + _BLOCK] = fft.ifft(part, axis=0, workers=-1)
    wanted_rows, wanted_columns = (
        (np.arange(-_MARGIN, side + _MARGIN) + side // matched_filter.MARGIN) % mirrored
        for side, mirrored in zip(channel.shape, sides, strict=True)
    )
    values = np.empty((len(wanted_rows), len(wanted_columns)), np.float32)
    for start in range(0, len(wanted_rows), _BLOCK):
        part = spectrum[wanted_rows[start : start + _BLOCK]]
        real = fft.irfft(part, n=sides[1], axis=1, workers=-1)
        values[start : start + _BLOCK] = real[:, wanted_columns]
    return White(values, math.prod(sides), of_trend / power if power > 0 else 0.0)


def _mirrored(side: int) -> np.ndarray:
    """Positions along an axis, with those mirrored before and behind it; an even number."""
    more = side // matched_filter.MARGIN
    return np.pad(np.arange(side), (more, more + side % 2), mode="reflect")


def _mark_map(
    large: LargeImage, white: list[White], shape: Shape, show: Callable[[], None]
) -> np.ndarray:
    from scipy.ndimage import convolve1d

    height, width = large.image.shape[:2]
    sides, corners = _corners(large)
    energy = np.empty((height, width), np.float32)
    for top, left in corners:
        outer = np.s_[top : top + sides[0] + 2 * _MARGIN, left : left + sides[1] + 2 * _MARGIN]
        part = np.stack([one.values[outer] for one in white], axis=-1)
        found = _energy_of_part(part, shape, margin=_MARGIN)
        energy[top : top + sides[0], left : left + sides[1]] = found
        show()
    # As `core.smoothing.smoothed`, in place.
    deviation = matched_filter.SMOOTHING * shape.width
    radius = min(math.ceil(3 * deviation), min(height, width) - 1)
    weights = gaussian(2 * radius + 1, deviation)
    for axis in (0, 1):
        convolve1d(energy, weights, axis=axis, output=energy, mode="mirror")
    energy *= np.float32(white[0].size)
    np.sqrt(np.maximum(energy, 0, out=energy), out=energy)
    _without_borders(energy)
    return energy


_energy_of_part = jax.jit(
    matched_filter.energy_of_part,
    static_argnames=("shape", "margin"),
    compiler_options=IN_ONE_THREAD,
)


def _corners(large: LargeImage) -> tuple[tuple[int, int], list[tuple[int, int]]]:
    """Height and width of what is taken from each tile, and where it starts in the image."""
    starts, sides = [], []
    for length in large.image.shape[:2]:
        most = -(-length // -(-length // large.tiling.side))
        side = min(length, _fast(most + 2 * _MARGIN) - 2 * _MARGIN)
        count = -(-length // side)
        starts.append([number * (length - side) // max(1, count - 1) for number in range(count)])
        sides.append(side)
    return (sides[0], sides[1]), [(top, left) for top in starts[0] for left in starts[1]]


def _fast(length: int) -> int:
    from scipy.fft import next_fast_len

    return int(next_fast_len(length, real=True))


def _without_borders(amplitude: np.ndarray) -> None:
    """`core.matched_filter` takes marks along all four borders from a map; here in place."""
    high = matched_filter.HIGH
    reach = min(matched_filter.BORDER, min(amplitude.shape) // 4)
    inner = np.quantile(amplitude[reach:-reach, reach:-reach], high)
    both = (amplitude, amplitude.T)
    lines = [part[:reach] for one in both for part in (one, one[::-1])]
    of_lines = np.min([np.quantile(part, high, axis=1) for part in lines], axis=0)
    shares = np.where(of_lines > inner, inner / np.where(of_lines > 0, of_lines, 1), 1)
    shares = shares.astype(np.float32)
    amplitude[:reach] *= shares[:, None]
    amplitude[-reach:] *= shares[::-1, None]
    amplitude[:, :reach] *= shares
    amplitude[:, -reach:] *= shares[::-1]
