import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.ndimage import gaussian_filter

from ssdnet_jax.core.calibration import in_units
from ssdnet_jax.core.config import DecisionConfig
from ssdnet_jax.core.conformal import Calibration, peaks_by_position
from ssdnet_jax.core.decision import decide, otsu_threshold
from ssdnet_jax.core.regions import LEVEL


def texture(seed=0, shape=(64, 64)):
    noise = np.random.default_rng(seed).normal(size=shape)
    smooth = gaussian_filter(noise, 1.5, mode="wrap")
    return np.square(smooth / smooth.std()).astype(np.float32)


def marked(score_map, *places, height=60.0, radius=4):
    """The map with bumps around these rows and columns."""
    rows, columns = np.indices(score_map.shape)
    found = score_map.copy()
    for row, column in places:
        distance = np.hypot(rows - row, columns - column)
        found += height * np.exp(-((distance / radius) ** 2)).astype(np.float32)
    return found


def test_a_good_map_has_an_empty_mask_and_no_defect():
    empty = 0
    for seed in range(40):
        decision, defects = decide(texture(seed))
        assert decision.mask.dtype == bool and decision.mask.any() == bool(defects)
        empty += not decision.mask.any()
        assert decision.anomalous == (decision.p_value <= 0.01)
    assert empty >= 36


@pytest.mark.parametrize("mask", ["significant", "otsu"])
def test_the_verdict_goes_by_the_p_value_and_not_by_the_mask(mask):
    score_map = marked(texture(), (20, 30))
    p_value = decide(score_map)[0].p_value
    expected = {"anomalous": (2, 3), "unsure": (0.5, 2), "good": (0.3, 0.5)}
    for verdict, (alarms, of_mask) in expected.items():
        rates = {"false_alarms": alarms * p_value, "mask_false_alarms": of_mask * p_value}
        decision, _ = decide(score_map, DecisionConfig(mask=mask, **rates))
        assert decision.verdict == verdict
        assert decision.mask.any() == (verdict != "good" or mask == "otsu")


def test_a_bump_is_found_where_it_is():
    decision, (first, second) = decide(marked(marked(texture(), (20, 30)), (50, 10), height=45))
    assert decision.anomalous and decision.p_value < 0.01
    assert decision.mask[20, 30] and decision.mask[50, 10] and decision.mask.mean() < 0.1
    assert (first.number, second.number) == (1, 2)
    assert (first.centroid_x, first.centroid_y) == pytest.approx((30, 20), abs=1)
    assert (second.centroid_x, second.centroid_y) == pytest.approx((10, 50), abs=1)
    assert first.peak == decision.score > second.peak > second.mean > 0
    assert first.p_value == decision.p_value < second.p_value


def test_a_defect_lists_its_box_area_and_values():
    score_map = marked(texture(), (20, 30))
    decision, (defect,) = decide(score_map)
    rows, columns = np.nonzero(decision.mask)
    assert (defect.x, defect.y) == (columns.min(), rows.min())
    assert (defect.width, defect.height) == (np.ptp(columns) + 1, np.ptp(rows) + 1)
    assert defect.area == decision.mask.sum()
    values = in_units(score_map)[decision.mask]
    assert (defect.peak, defect.mean) == pytest.approx((values.max(), values.mean()))
    assert (defect.centroid_x, defect.centroid_y) == pytest.approx((columns.mean(), rows.mean()))


def test_the_threshold_is_in_units_of_the_map_and_the_decision_has_none():
    score_map = marked(texture(), (20, 30))
    one, other = decide(score_map)[0], decide(1e-3 * score_map + 5e-3)[0]
    assert other.score == pytest.approx(one.score, rel=1e-3)
    assert other.threshold == pytest.approx(1e-3 * one.threshold + 5e-3, rel=1e-3)
    np.testing.assert_array_equal(one.mask, other.mask)
    assert one.p_value == pytest.approx(other.p_value, rel=1e-2)
    assert in_units_of(one, score_map) == pytest.approx(LEVEL)


def in_units_of(decision, score_map):
    median, quartile = np.quantile(score_map, [0.5, 0.75])
    return (decision.threshold - median) / (quartile - median)


def test_of_a_map_of_more_pixels_than_were_analysed_masses_are_counted_as_analysed():
    score_map = marked(texture(), (20, 30), height=40)
    large = score_map.repeat(8, axis=0).repeat(8, axis=1)
    analysed, whole = (decide(large, resolution=r)[0].p_value for r in (1 / 64, None))
    assert analysed > 0.05 and whole < 0.01
    assert decide(large)[0].p_value == pytest.approx(decide(score_map)[0].p_value)


def test_pixels_that_take_no_part_are_left_out():
    whole = texture()
    score_map = marked(whole, (20, 30))
    score_map[:, 40:] = np.nan
    decision, defects = decide(score_map)
    assert decision.anomalous and len(defects) == 1
    assert not decision.mask[:, 40:].any()
    for config in (DecisionConfig(), DecisionConfig(mask="otsu")):
        hidden = whole.copy()
        hidden[10:30, 20:40] = np.nan
        assert not decide(hidden, config)[0].anomalous
        nothing, none = decide(np.full((8, 8), np.nan, np.float32), config)
        assert math.isnan(nothing.score) and nothing.verdict == "unjudged" and none == ()
        assert nothing.mask.shape == (8, 8) and not nothing.mask.any()


def test_a_constant_map_is_good():
    decision, defects = decide(np.full((16, 16), 3.0, np.float32))
    assert (decision.score, decision.anomalous, defects) == (0.0, False, ())
    assert not decision.mask.any()


def test_small_defects_are_left_out_and_only_the_worst_are_listed():
    score_map = marked(marked(texture(), (20, 30)), (50, 10), height=45)
    score_map[5, 60] += 80
    _, defects = decide(score_map)
    assert len(defects) == 3
    decision, large = decide(score_map, DecisionConfig(min_area=10))
    assert len(large) == 2 and not decision.mask[5, 60]
    decision, worst = decide(score_map, DecisionConfig(max_defects=1))
    assert worst == defects[:1] and decision.mask[5, 60] and decision.mask[50, 10]


def test_otsu_splits_any_map_as_the_paper_does():
    decision, defects = decide(texture(), DecisionConfig(mask="otsu", max_defects=0))
    np.testing.assert_array_equal(decision.mask, texture() > otsu_threshold(texture()))
    assert not decision.anomalous and sum(d.area for d in defects) == decision.mask.sum()


def of_scores(scores):
    """Known good images with one threshold for all positions."""
    return Calibration(np.log1p(scores).astype(np.float32)[:, None, None], "any", {})


def test_known_good_images_decide_where_there_are_any():
    score_map = marked(texture(), (20, 30))
    score = decide(score_map)[0].score
    low, high = (
        of_scores(np.linspace(1, 0.9 * score, 99)),
        of_scores(np.linspace(1, 1.1 * score, 99)),
    )
    bad, good = decide(score_map, calibration=low), decide(score_map, calibration=high)
    assert bad[0].anomalous and bad[0].p_value == 0.01 and bad[0].mask.any()
    assert bad[1][0].p_value == 0.01
    assert not good[0].anomalous and good[0].p_value > 0.05 and not good[0].mask.any()
    assert in_units_of(bad[0], score_map) == pytest.approx(0.9 * score)
    few = of_scores(np.array([1.0, 2.0]))
    assert not decide(score_map, calibration=few)[0].mask.any()
    np.testing.assert_allclose(bad[0].calibrated, in_units(score_map).clip(0), atol=1e-4)


def test_known_good_images_give_each_position_its_threshold():
    usual = marked(texture(), (20, 30))  # as high in every good image
    peaks = np.stack([peaks_by_position(in_units(marked(texture(i), (20, 30)))) for i in range(99)])
    calibration = Calibration(peaks, "any", {})
    good = decide(usual, calibration=calibration)[0]
    bad, (defect, *_) = decide(marked(usual, (50, 10)), calibration=calibration)
    assert decide(usual)[0].anomalous and not good.anomalous and not good.mask.any()
    assert bad.anomalous and bad.mask[50, 10] and not bad.mask[20, 30]
    assert bad.score == pytest.approx(bad.calibrated.max()) == defect.peak


score_maps = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=12),
    elements=st.floats(-(2.0**99), 2.0**99, width=32),
)


@given(score_maps)
def test_the_threshold_lies_in_the_range_of_any_map(score_map):
    threshold = otsu_threshold(score_map)
    assert score_map.min() <= threshold <= score_map.max()
    # The same pixels are above it in any precision.
    assert np.array_equal(score_map > threshold, score_map.astype(np.float64) > threshold)


def test_the_threshold_separates_two_heaps():
    heaps = np.r_[np.linspace(0, 1, 50), np.linspace(9, 10, 50)].reshape(10, 10)
    assert 0.95 < otsu_threshold(heaps.astype(np.float32)) < 9


def test_a_constant_map_has_nothing_above_its_threshold():
    constant = np.full((5, 5), 0.3, np.float32)
    assert not (constant > otsu_threshold(constant)).any()


def test_a_map_of_two_neighbouring_floats_has_a_threshold():
    score_map = np.ones((5, 5), np.float32)
    score_map[2, 2] = np.nextafter(np.float32(1), np.float32(2))
    assert (score_map > otsu_threshold(score_map)).sum() == 1
