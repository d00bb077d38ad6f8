"""What is decided of a raw score map: is the image anomalous, how surely, and where.

In numpy: maps come in any size, each of which would be compiled anew. A pixel that takes no part
is NaN in the map; it is left out of everything, and is never in the mask.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Bool, Float

from ssdnet_jax.core.calibration import on_scale, usual_spread
from ssdnet_jax.core.config import DecisionConfig
from ssdnet_jax.core.conformal import Calibration, KnownScores
from ssdnet_jax.core.regions import LEVEL, TOUCHING, Regions, find_regions, significant_pixels

OfParts = Callable[[np.ndarray, np.ndarray], np.ndarray]


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


@dataclasses.dataclass(frozen=True)
class Decision:
    """What is decided of one image by its raw map.

    Attributes:
      score: the map's peak in calibrated units, which compare between images
        (`core.calibration`).
      p_value: chance of such a map on a good image, in [0, 1]: of a region as heavy as its
        heaviest (`core.regions`), or, guaranteed by known good images, of its peak
        (`core.conformal`).
      anomalous: whether that is at most the stated false-alarm rate.
      false_alarms: that rate.
      threshold: in units of the raw map: pixels above it stand out, and heavy regions of them are
        defects. With known good images an image whose map is above it anywhere is anomalous; where
        they give each position its own threshold, it is that of their mean level.
      mask: bool (H, W), the anomalous pixels; none where the image is good.
      calibrated: float32 (H, W), the map in calibrated units, and relative to the usual level of
        each position where known good images say so: what `score` is the largest value of.
      usual: of the raw map, its median and the spread that is the unit of `calibrated`
        (`core.calibration.usual_spread`).

    Where no pixel takes part, the score and the threshold are NaN, and the image is not anomalous.
    """

    score: float
    p_value: float
    anomalous: bool
    false_alarms: float
    threshold: float
    mask: np.ndarray
    calibrated: np.ndarray
    usual: tuple[float, float] = (0.0, 1.0)  # of a map that has calibrated units

    @property
    def calibrated_threshold(self) -> float:
        """`threshold` in calibrated units; 0 for a map without any spread."""
        median, spread = self.usual
        return (self.threshold - median) / spread if spread > 0 else 0.0


def decide(
    score_map: Float[np.ndarray, "h w"],
    config: DecisionConfig = DecisionConfig(),
    calibration: Calibration | None = None,
    *,
    resolution: float | None = None,
) -> tuple[Decision, tuple[Defect, ...]]:
    """The decision that follows from a raw map, and the defects in it, worst first.

    Args:
      score_map: raw, of any method and unit; NaN where a pixel takes no part.
      config: false-alarm rates, and how the mask is made.
      calibration: what known good images scored, of the same method and settings; without it the
        map is judged by its regions.
      resolution: pixels at which the image was analysed for each of the map; None: as if all of
        the map were 256 x 256.
    """
    if not np.isfinite(score_map).any():
        nothing = np.zeros(score_map.shape, bool)
        unknown = np.full(score_map.shape, np.nan, np.float32)
        unusual = (math.nan, 0.0)
        return (
            Decision(
                math.nan, 1.0, False, config.false_alarms, math.nan, nothing, unknown, unusual
            ),
            (),
        )
    median, spread = usual_spread(score_map)
    calibrated = on_scale(score_map, median, spread)
    of_parts: OfParts
    mask_rate = max(config.mask_false_alarms, config.false_alarms)
    if calibration is None:
        regions = find_regions(calibrated, resolution=resolution)
        p_value, threshold = regions.p_value(regions.heaviest), LEVEL
        mask = significant_pixels(
            calibrated, regions, mask_rate, others=config.other_regions, share=config.peak_share
        )
        of_parts = functools.partial(_of_regions, regions)
    else:
        calibrated, known = calibration.judge(calibrated)
        p_value = known.p_value(float(np.nanmax(calibrated)))
        threshold = known.threshold(config.false_alarms)
        mask = grow_peaks(
            calibrated,
            known.threshold(mask_rate),
            others=config.other_peaks,
            share=config.peak_share,
        )
        of_parts = functools.partial(_of_peaks, known)

    if config.mask == "otsu":
        mask = np.nan_to_num(score_map, nan=-np.inf) > otsu_threshold(score_map)
    mask, defects = find_defects(
        calibrated, mask, of_parts, least_area=config.min_area, most=config.max_defects
    )
    decision = Decision(
        score=float(np.nanmax(calibrated)),
        p_value=p_value,
        anomalous=p_value <= config.false_alarms,
        false_alarms=config.false_alarms,
        threshold=median + threshold * spread,
        mask=mask,
        calibrated=calibrated.astype(np.float32),
        usual=(median, spread),
    )
    return decision, defects


def _of_regions(regions: Regions, parts: np.ndarray, peaks: np.ndarray) -> np.ndarray:
    """The p-values of parts of a map: of the heaviest region that each has pixels of."""
    from scipy import ndimage

    masses = np.concatenate([[0.0], regions.masses])
    found = []
    for number, box in enumerate(ndimage.find_objects(parts), start=1):
        of_part = np.unique(regions.labels[box][parts[box] == number])
        found.append(regions.p_value(masses[of_part].max()))
    return np.array(found)


def _of_peaks(known: KnownScores, parts: np.ndarray, peaks: np.ndarray) -> np.ndarray:
    """The p-values of parts of a map: of peaks as high on good images."""
    return np.array([known.p_value(peak) for peak in peaks])


def grow_peaks(
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
        # Parts of equal boxes and areas, one around the other, exchange at most their shapes.
        place = (y.start, x.start, y.stop - y.start, x.stop - x.start, int(areas[label]))
        of_place.setdefault(place, []).append(label)
    found = []
    for defect in defects:
        top, left, height, width = defect.y, defect.x, defect.height, defect.width
        label = of_place[top, left, height, width, defect.area].pop(0)
        found.append(labels[top : top + height, left : left + width] == label)
    return found


def otsu_threshold(score_map: Float[np.ndarray, "h w"]) -> float:
    """Otsu's threshold (1979), which the paper uses for binary maps; a constant map's value.

    A float32 number, so that the map is above it in the same pixels however they are compared. NaN
    is left out.
    """
    from skimage.filters import threshold_otsu

    known = score_map[np.isfinite(score_map)]
    # In double precision also a nearly constant map can be divided into bins.
    return float(np.float32(threshold_otsu(known.astype(np.float64))))
