"""How heavy the heaviest region of a good image's map can be: a law of region masses.

A defect is a place where neighbouring pixels are high together. So pixels of a map in calibrated
units that are above a fixed level are joined into regions, and a region's mass, the sum of what is
above the level, says how much of a defect it is: a crack that is nowhere very high has it by its
length, a hole by its height (cluster mass: Bullmore et al., IEEE Transactions on Medical Imaging
1999). Square roots of the masses of good images fall off exponentially above the lightest:

    P(mass > m) = share exp(-(sqrt(m) - start) / scale), sqrt(m) > start;

below that it falls linearly in sqrt(m), from 1 to the share.

Share and scale are constants for all textures, measured on good images (docs/decisions.md). Masses
are counted in pixels at which the image is analysed, for that is what tiles and the correlation
of maps are measured in; an image with more of them than 256 x 256 has as many more chances.
"""

import dataclasses
import math

import numpy as np
from jaxtyping import Bool, Float

LEVEL = 12.0  # calibrated units: pixels above it belong to regions
PIXELS = 256**2  # of an analysed image for which the law was measured
_SHARE, _START, _SCALE = 0.39, 10.0, 15.4  # of good images; square roots of masses
TOUCHING = np.ones((3, 3), int)  # pixels that touch, corners included, belong together


@dataclasses.dataclass(frozen=True)
class Regions:
    """The regions of a map.

    Attributes:
      labels: int (H, W), the region of a pixel, from 1; 0 outside.
      masses: one a region, calibrated units times analysed pixels.
      peaks: one a region, its largest value in calibrated units.
      images: how many images of `PIXELS` pixels the part that is judged would fill, at least 1.
    """

    labels: np.ndarray
    masses: np.ndarray
    peaks: np.ndarray
    images: float

    @property
    def heaviest(self) -> float:
        """The largest mass; 0 without a region."""
        return float(self.masses.max(initial=0.0))

    def p_value(self, mass: float) -> float:
        """The chance that a good image has a region of this mass or more, in [0, 1]."""
        root = math.sqrt(max(mass, 0.0))
        if root < _START:
            one = 1 - (1 - _SHARE) * root / _START
        else:
            one = _SHARE * math.exp(-(root - _START) / _SCALE)
        # Of so many images one or more; near 0 the difference would lose digits.
        return -math.expm1(self.images * math.log1p(-one)) if one < 1 else 1.0

    def mass_at(self, false_alarms: float) -> float:
        """The mass that good images exceed with this chance."""
        one = -math.expm1(math.log1p(-false_alarms) / self.images)
        if one > _SHARE:
            return (_START * (1 - one) / (1 - _SHARE)) ** 2
        return (_START + _SCALE * math.log(_SHARE / one)) ** 2


def find_regions(
    calibrated: Float[np.ndarray, "h w"], *, resolution: float | None = None
) -> Regions:
    """Joins the pixels above `LEVEL`; NaN is left out.

    Args:
      calibrated: map in calibrated units.
      resolution: pixels of the analysed image for each pixel of the map; None: as if the analysed
        image had `PIXELS`.
    """
    from scipy import ndimage

    each = PIXELS / calibrated.size if resolution is None else resolution
    with np.errstate(invalid="ignore"):
        labels, count = ndimage.label(calibrated > LEVEL, structure=TOUCHING)
    # Of the few marked pixels: scipy's functions of labels sort all of a map, which may be large.
    marked = np.flatnonzero(labels)
    region, values = labels.ravel()[marked] - 1, calibrated.ravel()[marked].astype(np.float64)
    sums, sizes = np.bincount(region, values, count), np.bincount(region, minlength=count)
    peaks = np.full(count, -np.inf)
    np.maximum.at(peaks, region, values)
    images = np.isfinite(calibrated).sum() * each / PIXELS
    return Regions(labels, each * (sums - LEVEL * sizes), peaks, max(1.0, float(images)))


def region_mask(
    calibrated: Float[np.ndarray, "h w"],
    regions: Regions,
    false_alarms: float,
    *,
    others: float,
    share: float,
) -> Bool[np.ndarray, "h w"]:
    """The pixels of heavy regions; none where no region is significant.

    Of a region count the pixels above a share of its own peak: its score spreads beyond the outline
    of what it marks. Defects come in parts and in numbers: where one region is significant, lighter
    ones count as well.

    Args:
      calibrated: map in calibrated units.
      regions: of it.
      false_alarms: the share of good images on which anything may be marked.
      others: likewise, of good images that have regions as heavy as those that count beside a
        significant one; at least `false_alarms` counts. However large an image is, so many of its
        clean regions are marked beside a defect, and no more.
      share: in (0, 1), of a region's peak.
    """
    from scipy import ndimage

    needed = regions.mass_at(false_alarms)
    mask = np.zeros(calibrated.shape, bool)
    if not regions.heaviest > needed:
        return mask
    boxes = ndimage.find_objects(regions.labels)
    for i in np.flatnonzero(regions.masses > regions.mass_at(max(others, false_alarms))):
        inside = regions.labels[boxes[i]] == i + 1
        mask[boxes[i]] |= inside & (calibrated[boxes[i]] > share * regions.peaks[i])
    return mask
