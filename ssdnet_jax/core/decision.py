"""What is decided of a raw score map: is the image anomalous, how surely, and where.

In numpy: maps come in any size, each of which would be compiled anew. A pixel that takes no part
is NaN in the map; it is left out of everything, and is never in the mask.
"""

import dataclasses
import math

import numpy as np
from jaxtyping import Bool, Float

from ssdnet_jax.core.calibration import usual_spread
from ssdnet_jax.core.config import DecisionConfig
from ssdnet_jax.core.conformal import Calibration
from ssdnet_jax.core.extremes import BlockMaxima, fit_block_maxima

_CORNERS = np.ones((3, 3), int)  # pixels that touch, corners included, belong together


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
      p_value: chance of such a peak on a good image, in [0, 1]: by the map's own tail
        (`core.extremes`), or guaranteed by known good images (`core.conformal`).
      anomalous: whether that is at most the stated false-alarm rate.
      threshold: in units of the raw map: an image whose map is above it anywhere is anomalous.
      mask: bool (H, W), the anomalous pixels; none where the image is good.

    Where no pixel takes part, the score and the threshold are NaN, and the image is not anomalous.
    """

    score: float
    p_value: float
    anomalous: bool
    threshold: float
    mask: np.ndarray


def decide(
    score_map: Float[np.ndarray, "h w"],
    config: DecisionConfig = DecisionConfig(),
    calibration: Calibration | None = None,
) -> tuple[Decision, tuple[Defect, ...]]:
    """The decision that follows from a raw map, and the defects in it, worst first.

    Args:
      score_map: raw, of any method and unit; NaN where a pixel takes no part.
      config: false-alarm rates, and how the mask is made.
      calibration: what known good images scored, of the same method and settings; without it the
        map is judged by its own tail.
    """
    if not np.isfinite(score_map).any():
        nothing = np.zeros(score_map.shape, bool)
        return Decision(math.nan, 1.0, False, math.nan, nothing), ()
    median, spread = usual_spread(score_map)
    if spread > 0:
        calibrated = (score_map.astype(np.float64) - median) / spread
    else:
        calibrated = np.where(np.isnan(score_map), np.nan, 0.0)
    score = float(np.nanmax(calibrated))
    law = calibration or fit_block_maxima(calibrated)
    p_value, threshold = law.p_value(score), law.threshold(config.false_alarms)
    if config.mask == "otsu":
        mask = np.nan_to_num(score_map, nan=-np.inf) > otsu_threshold(score_map)
    else:
        lowest_peak = law.threshold(max(config.mask_false_alarms, config.false_alarms))
        mask = grow_peaks(calibrated, lowest_peak, share=config.peak_share)
    mask, defects = find_defects(calibrated, mask, law, least_area=config.min_area)
    decision = Decision(
        score=score,
        p_value=p_value,
        anomalous=p_value <= config.false_alarms,
        threshold=median + threshold * spread,
        mask=mask,
    )
    return decision, defects[: config.max_defects or None]


def grow_peaks(
    calibrated: Float[np.ndarray, "h w"], lowest_peak: float, *, share: float
) -> Bool[np.ndarray, "h w"]:
    """The pixels around significant peaks: empty where no value exceeds `lowest_peak`.

    A peak takes all pixels that are connected with it by values above `share` of its own, the
    highest peak first. A threshold for the whole map would be too high for a defect that stands
    out little and too low for one that stands out much, whose score spreads beyond its outline.

    Args:
      calibrated: map in calibrated units; NaN where a pixel takes no part.
      lowest_peak: the value above which a peak is significant, calibrated units.
      share: in (0, 1), of a peak's value.
    """
    from scipy import ndimage

    values = np.nan_to_num(calibrated, nan=-np.inf)
    mask = np.zeros(values.shape, bool)
    labels, count = ndimage.label(values > lowest_peak, structure=_CORNERS)
    if not count:
        return mask
    places = ndimage.maximum_position(values, labels, np.arange(1, count + 1))
    for place in sorted(places, key=lambda p: (-values[p], p)):
        if not mask[place]:
            around, _ = ndimage.label(values > share * values[place], structure=_CORNERS)
            mask |= around == around[place]
    return mask


def find_defects(
    calibrated: Float[np.ndarray, "h w"],
    mask: Bool[np.ndarray, "h w"],
    law: BlockMaxima | Calibration,
    *,
    least_area: int = 0,
) -> tuple[Bool[np.ndarray, "h w"], tuple[Defect, ...]]:
    """The connected parts of a mask (pixels that touch, corners included), worst first.

    Args:
      calibrated: map in calibrated units.
      mask: the anomalous pixels.
      law: of the peaks of good images.
      least_area: pixels; smaller parts are left out.

    Returns:
      The mask without the parts that are left out, and the defects.
    """
    mask, found = mask.copy(), []
    for box, inside in regions(mask):
        area = int(inside.sum())
        if area < least_area:
            mask[box][inside] = False
            continue
        y, x = (part.start for part in box)
        height, width = inside.shape
        rows, columns = np.nonzero(inside)
        values = calibrated[box][inside].astype(np.float64)
        peak, mean = float(values.max()), float(values.mean())
        centroid = float(columns.mean() + x), float(rows.mean() + y)
        found.append(Defect(0, x, y, width, height, area, peak, mean, law.p_value(peak), *centroid))
    found.sort(key=lambda defect: (-defect.peak, defect.y, defect.x))
    return mask, tuple(dataclasses.replace(d, number=i) for i, d in enumerate(found, start=1))


def regions(
    mask: Bool[np.ndarray, "h w"],
) -> list[tuple[tuple[slice, slice], Bool[np.ndarray, "..."]]]:
    """The box of each connected part of a mask, and which of its pixels belong to the part."""
    from scipy import ndimage

    labels, _ = ndimage.label(mask, structure=_CORNERS)
    boxes = enumerate(ndimage.find_objects(labels), start=1)
    return [(box, labels[box] == label) for label, box in boxes]


def otsu_threshold(score_map: Float[np.ndarray, "h w"]) -> float:
    """Otsu's threshold (1979), which the paper uses for binary maps; a constant map's value.

    A float32 number, so that the map is above it in the same pixels however they are compared. NaN
    is left out.
    """
    from skimage.filters import threshold_otsu

    known = score_map[np.isfinite(score_map)]
    # In double precision also a nearly constant map can be divided into bins.
    return float(np.float32(threshold_otsu(known.astype(np.float64))))
