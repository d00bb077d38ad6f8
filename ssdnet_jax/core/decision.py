"""What is decided of a raw score map: is the image anomalous, how surely, and where.

In numpy: maps come in any size, each of which would be compiled anew. A pixel that takes no part
is NaN in the map; it is left out of everything, and is never in the mask.
"""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float

from ssdnet_jax.core.calibration import decision_threshold, usual_spread


@dataclasses.dataclass(frozen=True)
class Defect:
    """One connected part of the mask.

    Attributes:
      number: from 1, the worst first.
      x: column of the leftmost pixel, from 0.
      y: row of the topmost pixel, from 0.
      width: of the box around it, image pixels.
      height: of the box around it, image pixels.
      area: image pixels.
      peak: largest calibrated value in it.
      mean: mean calibrated value in it.
      p_value: chance that the largest value of a good image reaches the peak.
      centroid_x: mean column of its pixels.
      centroid_y: mean row of its pixels.
    """

    number: int
    x: int
    y: int
    width: int
    height: int
    area: int
    peak: float
    mean: float
    p_value: float
    centroid_x: float
    centroid_y: float


@dataclasses.dataclass(frozen=True)
class Decision:
    """What is decided of one image by its raw map.

    Attributes:
      score: the map's peak in calibrated units, which compare between images
        (`core.calibration`).
      p_value: chance of such a peak on a good image, in [0, 1].
      anomalous: whether that is below the stated false-alarm rate.
      threshold: in units of the raw map: an image whose map is above it anywhere is anomalous.
      mask: bool (H, W), the anomalous pixels; none where the image is good.
    """

    score: float
    p_value: float
    anomalous: bool
    threshold: float
    mask: np.ndarray


def decide(
    score_map: Float[np.ndarray, "h w"], *, size: int
) -> tuple[Decision, tuple[Defect, ...]]:
    """The decision that follows from a raw map, and the defects in it, worst first.

    Args:
      score_map: raw, of any method and unit; NaN where a pixel takes no part.
      size: pixels of the map as it was made, before it was resized.
    """
    median, spread = usual_spread(score_map)
    limit = decision_threshold(size)
    threshold = median + limit * spread if spread > 0 else float(np.nanmax(score_map))
    calibrated = (score_map - median) / spread if spread > 0 else np.zeros_like(score_map)
    score = float(np.nanmax(calibrated))
    mask = np.nan_to_num(calibrated, nan=-np.inf) > limit
    p_value = _p_value(score, size)
    decision = Decision(score, p_value, score > limit, float(threshold), mask)
    return decision, find_defects(calibrated, mask, size=size)


def find_defects(
    calibrated: Float[np.ndarray, "h w"], mask: Bool[np.ndarray, "h w"], *, size: int
) -> tuple[Defect, ...]:
    """The connected parts of a mask (pixels that touch, corners included), worst first.

    Args:
      calibrated: map in calibrated units.
      mask: the anomalous pixels.
      size: as for `decide`.
    """
    from scipy import ndimage

    labels, _ = ndimage.label(mask, structure=np.ones((3, 3)))
    found = []
    for label, box in enumerate(ndimage.find_objects(labels), start=1):
        inside = labels[box] == label
        values = calibrated[box][inside].astype(np.float64)
        rows, columns = np.nonzero(inside)
        y, x = (part.start for part in box)
        height, width = inside.shape
        area, peak = int(inside.sum()), float(values.max())
        centroid = float(columns.mean() + x), float(rows.mean() + y)
        mean, chance = float(values.mean()), _p_value(peak, size)
        found.append(Defect(label, x, y, width, height, area, peak, mean, chance, *centroid))
    found.sort(key=lambda defect: (-defect.peak, defect.y, defect.x))
    return tuple(dataclasses.replace(d, number=i) for i, d in enumerate(found, start=1))


def _p_value(score: float, size: int) -> float:
    return float(-np.expm1(size * np.log1p(-(2.0 ** -(max(score, 0.0) + 1)))))
