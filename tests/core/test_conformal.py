import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssdnet_jax.core.conformal import Calibration


def calibration(scores):
    return Calibration(tuple(sorted(scores)), "any", {})


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
