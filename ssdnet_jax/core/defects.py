"""The connected parts of a mask, as a list: where each is, how large and how sure.

In numpy, like `core.decision`, which makes the mask.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Bool, Float

from ssdnet_jax.core.regions import TOUCHING

OfParts = Callable[[np.ndarray, np.ndarray], np.ndarray]  # see `find_defects`


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
      p_value: chance of one as heavy, or with known good images as high, on a good image.
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


def find_defects(
    calibrated: Float[np.ndarray, "h w"],
    mask: Bool[np.ndarray, "h w"],
    of_parts: OfParts,
    *,
    least_area: int = 0,
    most: int = 0,
) -> tuple[Bool[np.ndarray, "h w"], tuple[Defect, ...]]:
    """The connected parts of a mask (pixels that touch, corners included), worst first.

    Args:
      calibrated: map in calibrated units.
      mask: the anomalous pixels.
      of_parts: (labels of the parts, from 1, their peaks) -> the p-value of each.
      least_area: pixels; smaller parts are left out.
      most: no more than the worst so many are listed; 0: all.

    Returns:
      The mask without the parts that are too small, and the defects.
    """
    from scipy import ndimage

    labels, count = ndimage.label(mask, structure=TOUCHING)
    if not count:
        return mask, ()
    rows, columns = np.nonzero(labels)
    part, values = labels[rows, columns] - 1, calibrated[rows, columns].astype(np.float64)
    areas = np.bincount(part, minlength=count)

    def mean_of(numbers: np.ndarray) -> np.ndarray:
        return np.bincount(part, numbers, count) / areas

    peaks = np.full(count, -np.inf)
    np.maximum.at(peaks, part, values)
    means, centres_x, centres_y = (mean_of(numbers) for numbers in (values, columns, rows))
    kept = areas >= least_area
    p_values = of_parts(labels, peaks)
    # Stable: parts alike come in the order of their first pixels.
    worst = [i for i in np.lexsort((-peaks, p_values)).tolist() if kept[i]]
    boxes = ndimage.find_objects(labels)
    defects = []
    for number, i in enumerate(worst[: most or None], start=1):
        y, x = boxes[i]
        defects.append(
            Defect(
                number=number,
                x=x.start,
                y=y.start,
                width=x.stop - x.start,
                height=y.stop - y.start,
                area=int(areas[i]),
                peak=float(peaks[i]),
                mean=float(means[i]),
                p_value=float(p_values[i]),
                centroid_x=float(centres_x[i]),
                centroid_y=float(centres_y[i]),
            )
        )
    return np.r_[False, kept][labels], tuple(defects)


def defect_pixels(
    mask: Bool[np.ndarray, "h w"], defects: Sequence[Defect]
) -> list[Bool[np.ndarray, "..."]]:
    """Which pixels of its box belong to each defect of a mask."""
    from scipy import ndimage

    if not defects:
        return []
    labels, _ = ndimage.label(mask, structure=TOUCHING)
    areas = np.bincount(labels.ravel())
    of_place: dict[tuple[int, ...], list[int]] = {}
    for label, (y, x) in enumerate(ndimage.find_objects(labels), start=1):
        # Two parts may share box and area, one around the other: either may then get the other's
        # pixels.
        place = (y.start, x.start, y.stop - y.start, x.stop - x.start, int(areas[label]))
        of_place.setdefault(place, []).append(label)
    found = []
    for defect in defects:
        top, left, height, width = defect.y, defect.x, defect.height, defect.width
        label = of_place[top, left, height, width, defect.area].pop(0)
        found.append(labels[top : top + height, left : left + width] == label)
    return found
