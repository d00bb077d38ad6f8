import numpy as np
import pytest

from ssdnet_jax.core.defects import defect_pixels, find_defects


def alike(parts, peaks):
    """All parts are as likely on a good image."""
    return np.full(len(peaks), 0.5)


def test_the_pixels_of_each_defect_are_those_of_its_part_of_the_mask():
    mask = np.zeros((9, 12), bool)
    mask[0, :12] = mask[8, :12] = mask[:9, 0] = mask[:9, 11] = True
    mask[3:6, 3:5] = mask[4, 7:9] = mask[5, 9] = True  # a ring around two others
    values = np.arange(108.0).reshape(9, 12)
    found, defects = find_defects(values, mask, alike)
    np.testing.assert_array_equal(found, mask)
    assert [d.area for d in defects] == [38, 3, 6]
    union = np.zeros_like(mask)
    for defect, inside in zip(defects, defect_pixels(mask, defects), strict=True):
        box = np.s_[defect.y : defect.y + defect.height, defect.x : defect.x + defect.width]
        assert inside.sum() == defect.area and values[box][inside].max() == defect.peak
        assert values[box][inside].mean() == pytest.approx(defect.mean)
        union[box] |= inside
    np.testing.assert_array_equal(union, mask)
    small, rest = find_defects(values, mask, alike, least_area=4)
    assert [d.area for d in rest] == [38, 6] and small.sum() == 44
