import dataclasses

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from ssdnet_jax.core.calibration import in_units
from ssdnet_jax.core.extremes import BLOCKS, block_maxima, fit_block_maxima


def texture(seed, shape=(64, 64)):
    """Squared errors of a good texture: neighbouring pixels depend on one another."""
    noise = np.random.default_rng(seed).normal(size=shape)
    smooth = gaussian_filter(noise, 1.5, mode="wrap")
    return in_units(np.square(smooth / smooth.std()).astype(np.float32))


def test_good_maps_are_called_bad_hardly_more_often_than_is_stated():
    p_values = np.array([fit_block_maxima(m).p_value(m.max()) for m in map(texture, range(300))])
    for rate in (0.01, 0.05, 0.2):
        assert (p_values <= rate).mean() <= 2 * rate


def test_a_defect_in_a_fifth_of_the_blocks_does_not_hide_itself():
    for seed in range(5):
        good = texture(seed)
        bad = good.copy()
        bad[:28, :28] += 60 * gaussian_filter(np.ones((28, 28)), 5, mode="constant")  # 19 %
        assert fit_block_maxima(bad).p_value(bad.max()) < 0.01
        before, after = (fit_block_maxima(each).threshold(0.01) for each in (good, bad))
        assert after < 2 * before


@pytest.mark.parametrize("rate", [1e-6, 0.01, 0.05, 0.9])
def test_the_threshold_is_where_the_p_value_is_the_rate(rate):
    law = fit_block_maxima(texture(0))
    assert law.p_value(law.threshold(rate)) == pytest.approx(rate, rel=1e-6)


def test_the_p_value_falls_as_the_peak_grows_and_more_blocks_have_more_chances():
    law = fit_block_maxima(texture(0))
    values = [law.p_value(peak) for peak in (-1e6, 0.0, 5.0, 20.0, 80.0, 1e6)]
    assert values == sorted(values, reverse=True)
    assert values[0] == 1.0 and 0 < values[-1] < 1e-12
    assert dataclasses.replace(law, count=2 * law.count).p_value(30.0) > law.p_value(30.0)


def test_blocks_are_about_as_many_for_any_shape_and_square():
    for shape in ((64, 64), (32, 128), (100, 37), (1, 1), (3, 200)):
        maxima, count = block_maxima(np.arange(np.prod(shape), dtype=float).reshape(shape))
        assert maxima.max() == np.prod(shape) - 1
        assert len(maxima) == count <= 1.3 * BLOCKS**2
    assert len(block_maxima(np.zeros((64, 64)))[0]) == BLOCKS**2


def test_pixels_that_take_no_part_are_left_out():
    whole = texture(1, (128, 128))
    part = whole.copy()
    part[64:] = np.nan
    law, halved = fit_block_maxima(whole), fit_block_maxima(part)
    assert halved.count == BLOCKS**2 / 2
    assert halved.location == pytest.approx(law.location, rel=0.3)
    lonely = np.full((64, 64), np.nan)
    lonely[5, 5] = 3.0
    assert block_maxima(lonely)[0] == [3.0]
