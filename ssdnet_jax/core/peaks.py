"""The pixels around the peaks of a map: its mask where single values are significant.

Without known good images regions are judged instead: `core.regions`.
"""

import numpy as np
from jaxtyping import Bool, Float

from ssdnet_jax.core.regions import TOUCHING


def peak_mask(
    calibrated: Float[np.ndarray, "h w"], significant: float, *, others: float, share: float
) -> Bool[np.ndarray, "h w"]:
    """The pixels around significant peaks: empty where no value is significant.

    A peak takes all pixels that are connected with it by values above `share` of its own, the
    highest peak first. A threshold for the whole map would be too high for a defect that stands
    out little and too low for one that stands out much, whose score spreads beyond its outline.
    Defects come in parts and in numbers: where one peak is significant, lower ones count as well.

    Args:
      calibrated: map in calibrated units; NaN where a pixel takes no part.
      significant: the value above which a peak is significant, calibrated units.
      others: in (0, 1]; other peaks count from this share of that value.
      share: in (0, 1), of a peak's value.
    """
    from scipy import ndimage

    values = calibrated
    if np.isnan(values).any():
        values = np.nan_to_num(values, nan=-np.inf)
    mask = np.zeros(values.shape, bool)
    if not values.max() > significant:
        return mask
    # Where almost all images are to be marked the value can be below 0, which is no peak.
    labels, _ = ndimage.label(values > max(others * significant, 0.0), structure=TOUCHING)
    boxes = ndimage.find_objects(labels)
    peaks = []
    for label, box in enumerate(boxes, start=1):
        inside = np.where(labels[box] == label, values[box], -np.inf)
        row, column = np.unravel_index(inside.argmax(), inside.shape)
        peaks.append((int(row) + box[0].start, int(column) + box[1].start))
    of_peaks = sorted(zip(peaks, boxes, strict=True), key=lambda pair: (-values[pair[0]], pair[0]))
    for place, box in of_peaks:
        if not mask[place]:
            _mark_around(mask, values, place, share * values[place], box)
    return mask


def _mark_around(
    mask: np.ndarray,
    values: np.ndarray,
    place: tuple[int, int],
    level: float,
    box: tuple[slice, slice],
) -> None:
    """Marks what is connected with a place by values above a level.

    Looked for in a box around it, which grows until nothing leads out of it: large maps have many
    peaks.
    """
    from scipy import ndimage

    while True:
        rows, columns = (
            slice(max(0, s.start - (s.stop - s.start)), min(n, s.stop + (s.stop - s.start)))
            for s, n in zip(box, values.shape, strict=True)
        )
        labels, _ = ndimage.label(values[rows, columns] > level, structure=TOUCHING)
        found = labels == labels[place[0] - rows.start, place[1] - columns.start]
        ends = (
            (found[0], rows.start > 0),
            (found[-1], rows.stop < values.shape[0]),
            (found[:, 0], columns.start > 0),
            (found[:, -1], columns.stop < values.shape[1]),
        )
        if not any(goes_on and end.any() for end, goes_on in ends):
            mask[rows, columns] |= found
            return
        box = (rows, columns)
