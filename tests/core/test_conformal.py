import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssdnet_jax.core.conformal import Calibration, KnownScores, peaks_by_position, usual_levels


def calibration(scores):
    return KnownScores(tuple(sorted(scores)))


def test_the_p_value_counts_good_scores_that_are_at_least_as_high():
    found = calibration([3.0, 1.0, 2.0])
    assert [found.p_value(s) for s in (0.5, 2.0, 2.5, 9.0)] == [1.0, 0.75, 0.5, 0.25]
    assert found.least == 0.25


@settings(max_examples=100)
@given(
    scores=st.lists(st.integers(0, 20), min_size=1, max_size=120),
    peak=st.integers(-1, 22).map(float),
    rate=st.sampled_from([0.01, 0.05, 0.07, 0.1, 0.29, 0.5, 0.9]),
)
def test_the_threshold_and_the_p_value_say_the_same(scores, peak, rate):
    found = calibration(map(float, scores))
    assert (peak > found.threshold(rate)) == (found.p_value(peak) <= rate * (1 + 1e-9))


@pytest.mark.parametrize(("good", "rate"), [(19, 0.05), (20, 0.05), (99, 0.01), (30, 0.1)])
def test_the_rate_of_false_alarms_is_guaranteed_for_any_number_of_good_images(good, rate):
    rng = np.random.default_rng(0)
    scores = rng.standard_cauchy((4000, good + 1))  # a tail as heavy as any
    p = [calibration(row[1:].tolist()).p_value(float(row[0])) for row in scores]
    called = np.mean(np.array(p) <= rate)
    expected = math.floor(rate * (good + 1)) / (good + 1)
    assert called == pytest.approx(expected, abs=4 * math.sqrt(rate / 4000))
    assert expected <= rate


def test_too_few_good_images_call_nothing_bad():
    assert calibration([1.0] * 98).threshold(0.01) == math.inf
    assert calibration([1.0] * 99).threshold(0.01) == 1.0


def a_map(rng, usual, size=(40, 48)):
    """A map of a good image: high where `usual` (16, 16) is, in calibrated units."""
    rows, columns = (np.arange(length) * 16 // length for length in size)
    return rng.exponential(size=size) * usual[rows[:, None], columns]


def of_maps(maps):
    return Calibration(np.stack([peaks_by_position(m) for m in maps]), "any", {})


def test_a_position_that_is_always_high_hides_no_defect_elsewhere():
    rng = np.random.default_rng(0)
    usual = np.ones((16, 16))
    usual[:4, :4] = 20.0
    found = of_maps([a_map(rng, usual, (40 + i, 48 - i)) for i in range(19)])
    assert 15 < found.levels[1] / found.levels[0] < 35
    good, bad = a_map(rng, usual), a_map(rng, usual)
    bad[30:32, 30:32] = 25.0  # less than the corner has
    assert bad.max() > 30
    by_position, known = found.judge(bad)
    assert np.unravel_index(by_position.argmax(), bad.shape) == (30, 30)
    assert by_position.max() > known.threshold(0.05)
    by_position, known = found.judge(good)
    assert by_position.max() < known.threshold(0.05)
    # Where a pixel takes no part nothing is said, and the rest is as it was.
    bad[:3, :3] = np.nan
    by_position, known = found.judge(bad)
    assert np.isnan(by_position[:3, :3]).all() and np.nanmax(by_position) > known.threshold(0.05)


@pytest.mark.parametrize("registered", [True, False])
def test_the_rate_is_guaranteed_by_position_as_well(registered):
    rng = np.random.default_rng(1)
    p_values = []
    for _ in range(250):
        usual = np.exp(rng.normal(size=(16, 16)) * registered)
        peaks = (rng.standard_cauchy((10, 16, 16)) ** 2 * usual).astype(np.float32)
        found = Calibration(np.log1p(peaks[:9]), "any", {})
        by_position, known = found.judge(peaks[9].astype(np.float64))
        p_values.append(known.p_value(by_position.max()))
    for rate in (0.1, 0.3, 0.5):
        assert np.mean(np.array(p_values) <= rate) == pytest.approx(rate, abs=0.1)


def test_levels_are_equal_where_images_have_no_position_in_common():
    rng = np.random.default_rng(2)
    usual = np.exp(rng.normal(size=(16, 16)))
    moved = [np.roll(usual, rng.integers(0, 16, 2), (0, 1)) for _ in range(40)]
    same, other = of_maps([a_map(rng, usual)] * 40), of_maps([a_map(rng, m) for m in moved])
    assert same.levels[1] / same.levels[0] > 10
    assert other.levels[1] / other.levels[0] < 2
    assert usual_levels(same.peaks).mean() == pytest.approx(0, abs=1e-6)
    for shape in ((40, 1, 1), (1, 16, 16), (40, 1, 2)):  # nothing to compare
        assert not usual_levels(np.ones(shape, np.float32)).any()


@pytest.mark.parametrize("size", [(1, 1), (3, 40), (16, 16), (17, 130)])
def test_the_peaks_of_maps_of_any_size_are_kept(size):
    values = np.random.default_rng(3).exponential(size=size)
    peaks = peaks_by_position(values)
    assert peaks.shape == (16, 16) and np.expm1(np.nanmax(peaks)) == pytest.approx(values.max())
    assert np.isfinite(peaks).sum() == min(size[0], 16) * min(size[1], 16)
    one = Calibration(np.log1p(np.full((3, 1, 1), 2.0, np.float32)), "any", {})
    by_position, known = one.judge(values)
    np.testing.assert_allclose(by_position, values, rtol=1e-6)
    np.testing.assert_allclose(known.scores, 2.0, rtol=1e-6)
