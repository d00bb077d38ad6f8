"""Known good images as a scale: false-alarm rates that hold for any distribution of scores.

Conformal prediction (Vovk, Gammerman and Shafer 2005; Bates et al. 2023): if a good image is as any
of the n known good ones, its score is as likely at each of the n + 1 places among them, so

    p = (1 + number of known good scores that are at least the image's) / (n + 1)

is at most alpha with a chance of at most alpha, for every n, and whatever the scores are. Nothing
is learned: the method is unchanged, only its scale is measured.

Where images show the same scene or part, some positions are high in every good image (an edge, a
bore). So a score is the largest value of a map relative to the usual level of its position, which
is estimated from the known good images *and* the image that is judged, in the same way for each of
the n + 1 (full conformal prediction): the guarantee stays as it is, and no image is set aside for
the levels. How far levels may differ is estimated as well: where images have no position in common,
levels are equal but for a little noise, and the score is the largest value of the map.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

POSITIONS = 16  # cells along each side of an image, in each of which the largest value is kept


@dataclasses.dataclass(frozen=True)
class KnownScores:
    """Scores of known good images.

    Attributes:
      scores: one a good image, ascending.
    """

    scores: tuple[float, ...]

    @property
    def least(self) -> float:
        """The smallest p-value, which is the lowest false-alarm rate that can be guaranteed."""
        return 1 / (len(self.scores) + 1)

    def p_value(self, peak: float) -> float:
        """The chance of at least this score on a good image, in (0, 1]."""
        at_least = sum(score >= peak for score in self.scores)
        return (1 + at_least) / (len(self.scores) + 1)

    def threshold(self, false_alarms: float) -> float:
        """Scores above it have a p-value of at most `false_alarms`; infinite if none can have."""
        # Rounding must not take away a rank: 0.07 * 100 is more than 7, 0.29 * 100 less than 29.
        rank = math.floor(false_alarms * (len(self.scores) + 1) * (1 + 1e-12))
        if rank < 1:
            return math.inf
        if rank > len(self.scores):
            return -math.inf
        return self.scores[-rank]


@dataclasses.dataclass(frozen=True)
class Calibration:
    """What is known of good images.

    Attributes:
      peaks: float32 (n, rows, columns), `peaks_by_position` of each image; with one row and one
        column all positions have the same threshold.
      method: name of the method that scored them.
      settings: all that decides its scores.
      sha256: of the file it comes from; empty where it comes from none.
    """

    peaks: np.ndarray = dataclasses.field(compare=False)
    method: str
    settings: Mapping[str, Any]
    sha256: str = ""

    @property
    def known(self) -> KnownScores:
        """The known good images among themselves."""
        return KnownScores(_scores(self.peaks, usual_levels(self.peaks)))

    @property
    def levels(self) -> tuple[float, float]:
        """The lowest and the highest usual level of a position, in units of their mean."""
        levels = np.exp(usual_levels(self.peaks))
        return float(levels.min()), float(levels.max())

    def judge(
        self, calibrated: Float[np.ndarray, "h w"]
    ) -> tuple[Float[np.ndarray, "h w"], KnownScores]:
        """A map relative to the usual level of each position, and the scores to compare it with.

        Args:
          calibrated: in calibrated units, of any size; NaN where a pixel takes no part.

        Returns:
          The map, float64, in calibrated units at a position of mean level, of which the largest
          value is the image's score; and the known good images' scores by the same levels.
        """
        rows, columns = self.peaks.shape[1:]
        own = peaks_by_position(calibrated, rows, columns)
        levels = usual_levels(np.concatenate([self.peaks, own[None]]))
        height, width = calibrated.shape
        of_pixels = levels[_cells(height, rows)[:, None], _cells(width, columns)]
        by_position = np.expm1(_logarithms(calibrated).astype(np.float64) - of_pixels)
        return by_position, KnownScores(_scores(self.peaks, levels))


def peaks_by_position(
    calibrated: Float[np.ndarray, "h w"], rows: int = POSITIONS, columns: int = POSITIONS
) -> Float[np.ndarray, "rows columns"]:
    """log(1 + largest value, at least 0) in each cell of a grid over a map, float32.

    NaN where no pixel of the cell takes part, and in some cells of a map with fewer pixels.
    """
    height, width = calibrated.shape
    own_rows, row_starts = np.unique(_cells(height, rows), return_index=True)
    own_columns, column_starts = np.unique(_cells(width, columns), return_index=True)
    values = _logarithms(calibrated)
    found = np.fmax.reduceat(np.fmax.reduceat(values, row_starts, axis=0), column_starts, axis=1)
    peaks = np.full((rows, columns), np.nan, np.float32)
    peaks[np.ix_(own_rows, own_columns)] = found
    return peaks


def usual_levels(peaks: Float[np.ndarray, "n rows columns"]) -> Float[np.ndarray, "rows columns"]:
    """The usual level of each position, logarithms around 0; treats all images alike.

    The mean over images, drawn towards the mean of all positions as much as chance explains their
    differences (James and Stein 1961): by s / (s + e / n), with the variance s between positions
    and e of an image's value at a position, once images and positions have had their means taken.
    """
    values = peaks.astype(np.float64)
    known = np.isfinite(values)
    values = np.where(known, values, 0.0)

    def mean(of: np.ndarray, axis: Any) -> np.ndarray:
        return of.sum(axis, keepdims=True) / np.maximum(known.sum(axis, keepdims=True), 1)

    values = np.where(known, values - mean(values, (1, 2)), 0.0)
    position = mean(values, 0)
    seen = known.any(0, keepdims=True)
    images, positions = known.any((1, 2)).sum(), seen.sum()
    freedom = known.sum() - images - positions + 1
    if positions < 2 or freedom < 1:
        return np.zeros(peaks.shape[1:])
    chance = (np.where(known, values - position, 0.0) ** 2).sum() / freedom
    chance /= known.sum() / positions  # of the mean over the images
    differences = float(np.var(position[seen], ddof=1))
    share = max(0.0, 1 - chance / differences) if differences > 0 else 0.0
    return np.where(seen, share * position, 0.0)[0]


def _scores(peaks: np.ndarray, levels: np.ndarray) -> tuple[float, ...]:
    highest = np.nanmax(peaks.astype(np.float64) - levels, axis=(1, 2))
    return tuple(np.sort(np.expm1(highest)).tolist())


def _logarithms(calibrated: np.ndarray) -> np.ndarray:
    """Of one plus the map; float32, as they are kept: equal values stay equal."""
    return np.log1p(np.maximum(calibrated, 0.0)).astype(np.float32)


def _cells(length: int, count: int) -> np.ndarray:
    """In which of `count` cells along an axis each pixel is."""
    return np.arange(length) * count // length
