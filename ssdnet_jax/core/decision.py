"""What is decided of a raw score map: is the image anomalous, how surely, and where.

In numpy: maps come in any size, each of which would be compiled anew. A pixel that takes no part
is NaN in the map; it is left out of everything, and is never in the mask.
"""

import dataclasses
import functools
import math
from typing import Literal

import numpy as np
from jaxtyping import Float

from ssdnet_jax.core.calibration import on_scale, usual_spread
from ssdnet_jax.core.config import DecisionConfig
from ssdnet_jax.core.conformal import Calibration, KnownScores
from ssdnet_jax.core.defects import Defect, OfParts, find_defects
from ssdnet_jax.core.peaks import peak_mask
from ssdnet_jax.core.regions import LEVEL, Regions, find_regions, region_mask

Verdict = Literal["anomalous", "unsure", "good", "unjudged"]  # see `Decision`


@dataclasses.dataclass(frozen=True)
class Decision:
    """What is decided of one image by its raw map.

    Attributes:
      score: the map's peak in calibrated units, which compare between images
        (`core.calibration`).
      p_value: chance of such a map on a good image, in [0, 1]: of a region as heavy as its
        heaviest (`core.regions`), or, guaranteed by known good images, of its peak
        (`core.conformal`).
      verdict: "anomalous" where the p-value is at most the stated false-alarm rate, "unsure" where
        it is above that and at most the rate of masks (`DecisionConfig.mask_false_alarms`), "good"
        above both, "unjudged" where no pixel takes part.
      false_alarms: the stated rate.
      threshold: in units of the raw map: pixels above it stand out, and heavy regions of them are
        defects. With known good images an image whose map is above it anywhere is anomalous; where
        they give each position its own threshold, it is that of their mean level.
      mask: bool (H, W), the anomalous pixels; none where the image is good, but for "otsu".
      calibrated: float32 (H, W), the map in calibrated units, and relative to the usual level of
        each position where known good images say so: what `score` is the largest value of.
      usual: of the raw map, its median and the spread that is the unit of `calibrated`
        (`core.calibration.usual_spread`).

    Where no pixel takes part, the score and the threshold are NaN, and the p-value is 1.
    """

    score: float
    p_value: float
    verdict: Verdict
    false_alarms: float
    threshold: float
    mask: np.ndarray
    calibrated: np.ndarray
    usual: tuple[float, float] = (0.0, 1.0)  # of a map that has calibrated units

    @property
    def anomalous(self) -> bool:
        """Whether that is the verdict."""
        return self.verdict == "anomalous"

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
      resolution: pixels of the analysed image for each pixel of the map; None: as if the analysed
        image had 256 x 256 pixels.
    """
    if not np.isfinite(score_map).any():
        nothing = np.zeros(score_map.shape, bool)
        unknown = np.full(score_map.shape, np.nan, np.float32)
        unusual = (math.nan, 0.0)
        rate = config.false_alarms
        return Decision(math.nan, 1.0, "unjudged", rate, math.nan, nothing, unknown, unusual), ()
    median, spread = usual_spread(score_map)
    calibrated = on_scale(score_map, median, spread)
    of_parts: OfParts
    mask_rate = max(config.mask_false_alarms, config.false_alarms)
    if calibration is None:
        regions = find_regions(calibrated, resolution=resolution)
        p_value, threshold = regions.p_value(regions.heaviest), LEVEL
        mask = region_mask(
            calibrated,
            regions,
            mask_rate,
            others=config.other_false_alarms,
            share=config.peak_share,
        )
        of_parts = functools.partial(_of_regions, regions)
    else:
        calibrated, known = calibration.judge(calibrated)
        p_value = known.p_value(float(np.nanmax(calibrated)))
        threshold = known.threshold(config.false_alarms)
        mask = peak_mask(
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
        verdict=_verdict(p_value, config.false_alarms, mask_rate),
        false_alarms=config.false_alarms,
        threshold=median + threshold * spread,
        mask=mask,
        calibrated=calibrated.astype(np.float32),
        usual=(median, spread),
    )
    return decision, defects


def _verdict(p_value: float, false_alarms: float, mask_rate: float) -> Verdict:
    if p_value <= false_alarms:
        return "anomalous"
    return "unsure" if p_value <= mask_rate else "good"


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


def otsu_threshold(score_map: Float[np.ndarray, "h w"]) -> float:
    """Otsu's threshold (1979), which the paper uses for binary maps; a constant map's value.

    A float32 number, so that the map is above it in the same pixels however they are compared. NaN
    is left out.
    """
    from skimage.filters import threshold_otsu

    known = score_map[np.isfinite(score_map)]
    # In double precision also a nearly constant map can be divided into bins.
    return float(np.float32(threshold_otsu(known.astype(np.float64))))
