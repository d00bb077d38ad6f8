"""Texture statistics of grey-level co-occurrence matrices in a sliding window (Haralick 1973)."""

import functools
import operator
from collections.abc import Callable
from typing import Literal

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from ssdnet_jax.baselines.pixels import check, check_channels, check_word, compiled, luminance
from ssdnet_jax.core.linear import product
from ssdnet_jax.errors import ConfigError, InputError

Statistic = Literal[
    "energy", "ASM", "entropy", "contrast", "dissimilarity", "homogeneity", "correlation"
]
Score = Literal["value", "deviation"]


@compiled
def glcm(
    image: Float[Array, "h w c"],
    *,
    statistic: Statistic = "energy",
    score: Score = "value",
    window: int = 15,
    levels: int = 16,
    distance: int = 1,
    angles: tuple[float, ...] = (0.0, 45.0, 90.0, 135.0),
) -> Float[Array, "h w"]:
    """Maps a statistic of the co-occurrence matrix of the window around each pixel.

    P(i, j) is the share of pixel pairs at `distance` and angle in the window that have grey levels
    i and j, in either order; the statistic of P is averaged over the angles. With the defaults the
    map is the energy, the square root of the angular second moment sum_ij P(i, j)^2, as in
    scikit-image. Sources: Haralick, Shanmugam and Dinstein, "Textural features for image
    classification", 1973; in a sliding window for fabric: Raheja, Ajay and Chaudhary, 2013, who
    use the moment without its root ("ASM") and compare it with a reference, here the median of
    the image (`score="deviation"`). A defect may raise or lower a statistic: only the deviation
    is high on both. Neither says window, levels and distance for other images; ours are common
    ones. Windows are centred on their pixel; the image is reflected at its border.

    The counts are those of `skimage.feature.graycomatrix` of each window, exactly, at the cost of
    one box filter for each pair of levels instead of one matrix for each pixel.

    Args:
      image: grey or RGB in [0, 1]; RGB is converted to luminance.
      statistic: property of P; "contrast", "dissimilarity", "homogeneity" and "correlation" as
        `skimage.feature.graycoprops` has them, "entropy" in nats.
      score: the statistic itself, or its absolute difference from its median over the image.
      window: side of the window, in pixels; larger than `distance`.
      levels: number of equal grey bins of [0, 1], from 2 to 64.
      distance: between the pixels of a pair, in pixels.
      angles: directions of pairs, in degrees from the row axis; offsets are rounded to pixels.

    Returns:
      Raw map of the image's size. As "value" it is high on defects only if they raise the
      statistic.

    Raises:
      ConfigError: an option outside of its range.
      InputError: not (H, W, 1) or (H, W, 3), or the window does not fit.
    """
    check_channels(image)
    check_word("statistic", statistic, Statistic)
    check_word("score", score, Score)
    check(2 <= levels <= 64, "levels", levels, "2 to 64")
    check(1 <= distance < window, "distance", distance, f"at least 1 and below window {window}")
    if not angles:
        raise ConfigError("angles is empty; expected at least one angle")
    if window > min(image.shape[:2]):
        raise InputError(f"window {window} is larger than the image {image.shape[:2]}")
    border = (window // 2, (window - 1) // 2)  # so that each pixel has its window
    padded = jnp.pad(quantize(luminance(image), levels), border, mode="reflect")
    offsets = [_offset(distance, angle) for angle in angles]
    maps = [_of_offset(padded, offset, statistic, window, levels) for offset in offsets]
    values = functools.reduce(operator.add, maps) / len(maps)
    if score == "value":
        return values
    return jnp.abs(values - jnp.median(values))


def quantize(grey: Float[Array, "h w"], levels: int) -> Int[Array, "h w"]:
    """Grey bins 0 to levels - 1 of equal width over [0, 1]."""
    return jnp.clip(jnp.floor(grey * levels), 0, levels - 1).astype(jnp.int32)


def _offset(distance: int, angle: float) -> tuple[int, int]:
    """(rows, columns) from a pixel to its partner; never upwards, pairs have no order."""
    turn = np.deg2rad(angle)
    rows, columns = round(np.sin(turn) * distance), round(np.cos(turn) * distance)
    return (rows, columns) if rows >= 0 else (-rows, -columns)


def _of_offset(
    padded: Int[Array, "hh ww"],
    offset: tuple[int, int],
    statistic: Statistic,
    window: int,
    levels: int,
) -> Float[Array, "h w"]:
    """The statistic of the windows' matrices for one offset between the pixels of a pair."""
    height, width = padded.shape
    rows, columns = offset
    left, right = max(-columns, 0), max(columns, 0)
    i = padded[: height - rows, left : width - right]
    j = padded[rows:, right : width - left]
    pairs = (window - rows) * (window - abs(columns))

    def share(selected: Array) -> Float[Array, "h w"]:
        """Sum over the window's pairs, divided by their number."""
        sums = _box_sums(selected.astype(jnp.float32), window - rows, window - abs(columns))
        return sums / pairs

    match statistic:
        case "contrast":
            return share(lax.square(i - j))
        case "dissimilarity":
            return share(jnp.abs(i - j))
        case "homogeneity":
            return share(1 / (1 + lax.square(i - j)))
        case "correlation":
            return _correlation(i, j, share, pairs, levels)
        case "entropy":
            return _sum_over_cells(
                i, j, share, levels, lambda p: -p * jnp.log(jnp.where(p > 0, p, 1))
            )
        case "ASM":
            return _sum_over_cells(i, j, share, levels, lax.square)
        case _:
            return jnp.sqrt(_sum_over_cells(i, j, share, levels, lax.square))


def _sum_over_cells(
    i: Int[Array, "rr cc"],
    j: Int[Array, "rr cc"],
    share: Callable[[Array], Array],
    levels: int,
    term: Callable[[Array], Array],
) -> Float[Array, "h w"]:
    """sum_ab term(P(a, b)), one pair of levels at a time: memory does not grow with levels."""
    lower, upper = np.triu_indices(levels)
    low, high = jnp.minimum(i, j), jnp.maximum(i, j)
    cell_of_pair = low * levels + high
    cells = jnp.asarray(lower * levels + upper)
    # Off the diagonal a pair is counted in both orders: two cells with half of the pairs each.
    multiplicity = jnp.asarray(np.where(lower == upper, 1.0, 2.0), jnp.float32)

    def add(total: Array, cell: tuple[Array, Array]) -> tuple[Array, None]:
        index, copies = cell
        return total + copies * term(share(cell_of_pair == index) / copies), None

    start = jnp.zeros_like(share(cell_of_pair))
    return lax.scan(add, start, (cells, multiplicity))[0]


def _correlation(
    i: Array, j: Array, share: Callable[[Array], Array], pairs: int, levels: int
) -> Float[Array, "h w"]:
    """Covariance over variance of the two levels; 1 where the window has one level only."""
    i, j = i - (levels - 1) / 2, j - (levels - 1) / 2  # keeps squares small in float32
    mean = share(i + j) / 2
    variance = share(lax.square(i) + lax.square(j)) / 2 - lax.square(mean)
    covariance = share(i * j) - lax.square(mean)
    constant = variance < 0.25 / pairs  # one deviating pixel has about twice as much
    return jnp.where(constant, 1.0, covariance / jnp.where(constant, 1.0, variance))


def _box_sums(values: Float[Array, "rr cc"], height: int, width: int) -> Float[Array, "h w"]:
    """Sums over all boxes of height x width: two products with 0/1 matrices, exact for counts."""

    def boxes(length: int, size: int) -> np.ndarray:
        starts, pixels = np.arange(length - size + 1)[:, None], np.arange(length)[None, :]
        return ((pixels >= starts) & (pixels < starts + size)).astype(np.float32)

    rows, columns = boxes(values.shape[0], height), boxes(values.shape[1], width)
    return product(product(rows, values), columns.T)
