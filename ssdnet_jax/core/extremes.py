"""How high the peak of a good image's map can be: a law of block maxima, fitted to the map itself.

Neighbouring pixels of a map depend on one another, so that counting pixels says little about its
peak. Maxima over blocks depend on one another hardly, and whatever the pixels' distribution is,
theirs tends to a generalized extreme value law (Fisher and Tippett 1928; Coles 2001, chapter 3):

    P(block maximum <= u) = exp(-(1 + shape (u - location) / scale)^(-1 / shape)).

Location and scale are the map's own, from two quantiles below which a defect does not reach: with a
defect in a fifth of the blocks both are still those of good blocks, only a little high. The shape,
how fast the tail falls, cannot be had from one image; it is one number for all textures, measured
on good images (docs/decisions.md). So is what is added to the scale, for two quantiles are not
certain. Where blocks depend on one another after all there are in effect fewer of them, and false
alarms are rarer than stated. The law does not hold where a good image has a part unlike the rest.
"""

import dataclasses
import math

import numpy as np
from jaxtyping import Float

BLOCKS = 16  # blocks along a side, of a square map
SHAPE = 0.1  # of the law's tail: 0 falls off exponentially, above 0 more slowly
SCALE_ADDED = 0.5  # calibrated units
_QUANTILES = (0.2, 0.6)  # of the block maxima, from which location and scale are taken


@dataclasses.dataclass(frozen=True)
class BlockMaxima:
    """The law of the largest value of a good image.

    Attributes:
      location: of the law of one block, calibrated units.
      scale: likewise.
      count: blocks in the image.
    """

    location: float
    scale: float
    count: float

    def p_value(self, peak: float) -> float:
        """The chance that the largest value of a good image reaches `peak`, in [0, 1]."""
        reduced = 1 + SHAPE * (peak - self.location) / self.scale
        if reduced <= 0:
            return 1.0
        return -math.expm1(-self.count * reduced ** (-1 / SHAPE))

    def threshold(self, false_alarms: float) -> float:
        """The peak that good images exceed with this chance, calibrated units."""
        expected = -math.log1p(-false_alarms)
        return self.location + self.scale * ((self.count / expected) ** SHAPE - 1) / SHAPE


def fit_block_maxima(calibrated: Float[np.ndarray, "h w"]) -> BlockMaxima:
    """The law that a map in calibrated units says of itself; NaN is left out.

    The map is divided into about `BLOCKS` squared blocks, as square as they can be.
    """
    maxima, counted = block_maxima(calibrated)
    (low, high), count = np.quantile(maxima, _QUANTILES), float(counted)
    # Of a Gumbel law, to which this one is close below its upper tail.
    low_z, high_z = (-math.log(-math.log(p)) for p in _QUANTILES)
    scale = float(high - low) / (high_z - low_z)
    return BlockMaxima(float(high) - scale * high_z, scale + SCALE_ADDED, count)


def block_maxima(
    calibrated: Float[np.ndarray, "h w"],
) -> tuple[Float[np.ndarray, "blocks"], float]:
    """The largest values of blocks, and how many blocks the pixels that take part would fill.

    Values are of blocks at least half of which takes part; where there is none, the map's largest.
    """
    height, width = calibrated.shape
    side = max(1.0, math.sqrt(height * width) / BLOCKS)
    rows, columns = (_starts(length, side) for length in (height, width))
    known = np.isfinite(calibrated)

    def by_block(reduce: np.ufunc, values: np.ndarray) -> np.ndarray:
        # Whole rows at once: ten times as fast as `reduceat` down the columns.
        parts = [reduce.reduce(part, axis=0) for part in np.split(values, rows[1:])]
        return reduce.reduceat(np.stack(parts), columns, axis=1)

    if known.all():
        maxima = by_block(np.maximum, calibrated)
        return maxima.ravel().astype(np.float64), float(maxima.size)
    maxima = by_block(np.maximum, np.where(known, calibrated, -np.inf))
    share = by_block(np.add, known.astype(np.float64)) / by_block(np.add, np.ones(known.shape))
    used = share >= 0.5
    if not used.any():
        return maxima.max(keepdims=True).ravel(), 1.0
    return maxima[used].astype(np.float64), max(1.0, float(share.sum()))


def _starts(length: int, side: float) -> np.ndarray:
    """Where blocks begin along an axis."""
    count = max(1, round(length / side))
    return np.arange(count) * length // count
