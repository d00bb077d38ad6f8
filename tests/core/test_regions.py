import dataclasses

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, label

from ssdnet_jax.core.calibration import in_units
from ssdnet_jax.core.regions import LEVEL, PIXELS, find_regions, region_mask

ONE = 256.0  # pixels at which the image was analysed for each of a map of 16 x 16


def texture(seed, shape=(256, 256)):
    """Squared errors of a good texture: neighbouring pixels depend on one another."""
    noise = np.random.default_rng(seed).normal(size=shape)
    smooth = gaussian_filter(noise, 3, mode="wrap")
    return in_units(np.square(smooth / smooth.std()).astype(np.float32))


def test_regions_are_pixels_above_the_level_that_touch_and_weigh_what_is_above_it():
    values = np.zeros((16, 16))
    values[2, 2:5] = [LEVEL + 1, LEVEL + 5, LEVEL + 2]
    values[3, 5] = LEVEL + 4  # by its corner
    values[10, 10] = LEVEL + 3
    values[14, 14] = LEVEL
    values[0, 15] = np.nan
    found = find_regions(values, resolution=1.0)
    assert found.masses.tolist() == [12.0, 3.0] and found.peaks.tolist() == [LEVEL + 5, LEVEL + 3]
    assert (found.labels > 0).sum() == 5 and found.labels[3, 5] == found.labels[2, 2] == 1
    assert found.heaviest == 12.0 and found.images == 1.0
    assert find_regions(values).masses.tolist() == [12 * ONE, 3 * ONE]
    nothing = find_regions(np.zeros((4, 4)))
    assert nothing.heaviest == 0.0 and nothing.p_value(nothing.heaviest) == 1.0


def test_good_maps_are_called_bad_hardly_more_often_than_is_stated():
    p_values = np.array(
        [(lambda r: r.p_value(r.heaviest))(find_regions(texture(seed))) for seed in range(200)]
    )
    for rate in (0.01, 0.05, 0.2):
        assert (p_values <= rate).mean() <= 2 * rate


def test_a_long_faint_crack_and_a_small_high_hole_are_found():
    for place, height in ((np.s_[100:104, 20:230], 20.0), (np.s_[50:60, 60:70], 80.0)):
        bad = texture(0).copy()
        bad[place] += height
        found = find_regions(bad)
        assert found.p_value(found.heaviest) < 0.01
        assert found.labels[place].all() or (found.labels[place] > 0).mean() > 0.9


def test_a_defect_in_a_fifth_of_the_image_does_not_hide_itself():
    for seed in range(5):
        good = texture(seed, (64, 64))
        bad = good.copy()
        bad[:28, :28] += 60 * gaussian_filter(np.ones((28, 28)), 5, mode="constant")  # 19 %
        found = find_regions(bad)
        assert found.p_value(found.heaviest) < 1e-6


@pytest.mark.parametrize("rate", [1e-6, 0.01, 0.05, 0.38, 0.4, 0.9])
def test_the_mass_at_a_rate_is_where_the_p_value_is_the_rate(rate):
    for images in (1.0, 37.5):
        law = dataclasses.replace(find_regions(texture(0)), images=images)
        assert law.p_value(law.mass_at(rate)) == pytest.approx(rate, rel=1e-6)


def test_the_p_value_falls_as_the_mass_grows_and_larger_images_have_more_chances():
    law = find_regions(texture(0))
    values = [law.p_value(mass) for mass in (0.0, 1.0, 99.0, 101.0, 1e4, 1e6)]
    assert values == sorted(values, reverse=True)
    assert values[0] == 1.0 and 0 < values[-1] < 1e-12
    larger = dataclasses.replace(law, images=2.0)
    assert larger.p_value(5000.0) == pytest.approx(2 * law.p_value(5000.0), rel=0.02)


def test_masses_are_of_pixels_that_were_analysed_whatever_the_size_of_the_map():
    small = np.zeros((256, 256))
    small[40:48, 40:60] = 30.0
    large = small.repeat(4, axis=0).repeat(4, axis=1)
    one, other = find_regions(small, resolution=1.0), find_regions(large, resolution=1 / 16)
    assert one.heaviest == other.heaviest == 160 * 18.0 and one.images == other.images == 1.0
    at_own_size = find_regions(large, resolution=1.0)
    assert at_own_size.heaviest == 16 * one.heaviest and at_own_size.images == 16.0
    part = large.copy()
    part[256:] = np.nan
    assert find_regions(part, resolution=1.0).images == 256 * 1024 / PIXELS


def test_heavy_regions_are_marked_above_a_share_of_their_own_peak():
    values = np.zeros((64, 64))
    values[10:20, 10:20] = 20.0
    values[12:18, 12:18] = 100.0
    values[40, 40:50] = 40.0
    values[60, 60] = 30.0
    found = find_regions(values, resolution=1.0)

    def marked(rate, others, share=0.4):
        return region_mask(values, found, rate, others=others, share=share)

    rate = found.p_value(found.heaviest) * 1.01
    assert marked(rate, rate).sum() == 36 and marked(rate, rate, share=0.1).sum() == 100
    assert marked(rate, found.p_value(280.0) * 1.01).sum() == 46
    assert not marked(rate / 1.1, rate).any()
    # Where less is significant than counts beside it, all that is significant counts.
    assert marked(0.9, rate).sum() >= 46


def test_a_larger_image_has_no_more_clean_regions_beside_a_defect():
    values = np.zeros((128, 128))
    values[10:40, 10:40] = 100.0
    places = [(row, column) for row in range(60, 120, 10) for column in range(0, 120, 10)]
    for row, column in places:  # as heavy as a region of a tenth of good images
        values[row : row + 6, column : column + 6] = 12.0 + 900.0 / 36
    small = find_regions(values, resolution=1.0)
    large = dataclasses.replace(small, images=200.0)
    assert 0.05 < small.p_value(900.0) < 0.17 < large.p_value(900.0)
    counts = [
        label(region_mask(values, law, 0.05, others=0.17, share=0.4))[1] for law in (small, large)
    ]
    assert counts == [1 + len(places), 1]
