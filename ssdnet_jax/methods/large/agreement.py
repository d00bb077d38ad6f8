"""Maps of a large image merged as `core.texture_score` merges those of a whole one.

What the weights of maps depend on (`core.trust`) is of the whole image; the maps themselves, each
as large as the image, are made one at a time, and worked on in place.
"""

from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ssdnet_jax.core import trust
from ssdnet_jax.methods.large import guide, marks
from ssdnet_jax.methods.large.channels import channels_of
from ssdnet_jax.methods.large.image import LargeImage
from ssdnet_jax.methods.large.score import DistanceMap, in_quartiles

Show = Callable[[str, int], Callable[[], None]]  # (stage, its tiles) -> to be called after each
_ROWS = 256  # of a map that are worked on at a time, where a copy would be as large as the map


def merged(large: LargeImage, maps: Sequence[DistanceMap], show: Show) -> np.ndarray:
    """The raw map of an image, float32 (h, w), from those of its parts.

    Args:
      large: the image.
      maps: of what its score compares; one alone is taken as it is.
      show: told of stages that go through the image once more.
    """
    if len(maps) == 1:
        return maps[0].at_pixels()
    plan = large.plan
    scale = np.float32(plan.score.agreement_scale)
    channels = channels_of(large) if plan.marks or plan.guided else None
    made: list[np.ndarray] = []
    of_marks = show("marks", marks.steps(large)) if plan.marks else None
    if of_marks is not None:
        assert channels is not None
        made = [in_quartiles(large, one) for one in marks.colour_marks(large, channels, of_marks)]

    def logarithms() -> Iterator[np.ndarray]:
        for one in maps:
            yield _logarithm(one.at_pixels(), scale)
        for of_colour in made:
            yield _logarithm(of_colour.copy(), scale)

    # Made twice: all of them together are larger than the image.
    peaks = [peak(large, one) for one in logarithms()]
    shares = np.asarray(trust.shares_of_maps(jnp.asarray(peaks, jnp.float32)))
    found = _weighted_sum(shares, logarithms())
    made.clear()
    if of_marks is not None:
        assert channels is not None
        brightness, unevenness = marks.brightness_marks(large, channels, of_marks)
        found = _with_marks(large, found, brightness, unevenness, scale)
    if plan.guided:
        assert channels is not None
        of_guide = show("guide", guide.steps(large))
        found = guide.follow(large, channels, found, of_guide)
    np.expm1(found, out=found)
    found *= scale
    return found


def _with_marks(
    large: LargeImage,
    tiles: np.ndarray,
    brightness: list[np.ndarray],
    unevenness: float,
    scale: np.float32,
) -> np.ndarray:
    """`core.trust.with_marks`; changes the maps."""
    peaks = []
    for one in brightness:
        _logarithm(in_quartiles(large, one), scale)
        one -= np.float32(np.quantile(large.judged(one), trust.BACKGROUND))
        np.maximum(one, 0, out=one)
        peaks.append(peak(large, one))
    shares = trust.shares_with_marks(
        jnp.float32(peak(large, tiles)),
        jnp.float32(places(large, tiles)),
        jnp.float32(unevenness),
        jnp.asarray(peaks, jnp.float32),
    )
    low = np.quantile(large.judged(tiles), trust.BACKGROUND_SHARES).astype(np.float32)
    found = _weighted_sum(np.asarray(shares), iter([tiles, *brightness]))
    own = np.quantile(large.judged(found), trust.BACKGROUND_SHARES).astype(np.float32)
    for start in range(0, len(found), _ROWS):
        rows = slice(start, start + _ROWS)
        found[rows] = _on_background(found[rows], own, low)
    return found


_on_background = jax.jit(trust.on_background)


def _weighted_sum(shares: np.ndarray, maps: Iterator[np.ndarray]) -> np.ndarray:
    """The sum of maps, which are changed, times their shares."""
    found = None
    for share, one in zip(shares, maps, strict=True):
        one *= share
        if found is None:
            found = one
        else:
            found += one
    assert found is not None
    return found


def _logarithm(in_units: np.ndarray, scale: np.float32) -> np.ndarray:
    """log(1 + max(M, 0) / s), in place."""
    np.maximum(in_units, 0, out=in_units)
    in_units /= scale
    return np.log1p(in_units, out=in_units)


def peak(large: LargeImage, values: np.ndarray) -> float:
    """`core.trust.peak` of a map of the image."""
    counted = large.judged(values)
    limit = np.quantile(counted, 1 - trust.PEAK).astype(values.dtype)
    return float(counted[counted >= limit].mean(dtype=np.float64))


def places(large: LargeImage, values: np.ndarray) -> float:
    """`core.trust.places` of a map of the image."""
    limit = np.quantile(large.judged(values), 1 - trust.TOP).astype(values.dtype)
    top = values >= limit
    if large.valid is not None:
        top &= large.valid
    blocks = np.zeros((trust.BLOCKS, trust.BLOCKS))
    bounds = [-(-np.arange(trust.BLOCKS) * side // trust.BLOCKS) for side in values.shape]
    for row, first in enumerate(bounds[0]):
        last = bounds[0][row + 1] if row + 1 < trust.BLOCKS else values.shape[0]
        of_columns = top[first:last].sum(0, dtype=np.int64)
        blocks[row] = np.add.reduceat(of_columns, bounds[1])
    shares = blocks[blocks > 0] / blocks.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))
