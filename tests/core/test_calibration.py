import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssdnet_jax.core.calibration import (
    FALSE_ALARMS,
    calibrated_score,
    decision_threshold,
    in_quartiles,
)

pytestmark = pytest.mark.usefixtures("fast_compilation")


def test_quartiles_are_those_of_numpy():
    values = np.random.default_rng(0).gamma(2.0, size=(9, 11)).astype(np.float32)
    median, quartile = np.quantile(values, [0.5, 0.75])
    actual = in_quartiles(jnp.asarray(values))
    np.testing.assert_allclose(actual, (values - median) / (quartile - median), rtol=1e-4)


@settings(max_examples=20)
@given(gain=st.floats(0.01, 100), shift=st.floats(-5, 5))
def test_quartiles_do_not_depend_on_the_unit(gain, shift):
    values = jnp.asarray(np.random.default_rng(0).random((8, 8), np.float32))
    np.testing.assert_allclose(
        in_quartiles(gain * values + shift), in_quartiles(values), atol=2e-3 * max(1, 5 / gain)
    )


def test_a_constant_map_is_zero():
    np.testing.assert_array_equal(in_quartiles(jnp.full((4, 4), 3.0)), 0)


@pytest.mark.parametrize("pixels", [64, 256**2, 1024**2])
def test_the_threshold_leaves_the_false_alarms_that_are_named(pixels):
    expected = pixels * 2 ** -(decision_threshold(pixels) + 1)
    assert expected == pytest.approx(FALSE_ALARMS)


def test_an_exponential_tail_passes_the_threshold_as_often_as_is_said():
    maps = np.asarray(jax.random.exponential(jax.random.key(0), (2000, 32, 32)))
    scores = np.array([calibrated_score(each) for each in maps])
    failed = float((scores > decision_threshold(32 * 32)).mean())
    assert 0.5 * FALSE_ALARMS < failed < 2 * FALSE_ALARMS


def test_a_patch_of_outliers_is_far_above_the_threshold():
    noise = jax.random.exponential(jax.random.key(1), (64, 64))
    marked = noise.at[10:14, 20:24].add(30.0)
    threshold = decision_threshold(64 * 64)
    scores = [calibrated_score(np.asarray(each)) for each in (noise, marked)]
    assert scores[0] < threshold < 0.8 * scores[1]


def test_the_score_is_the_largest_value_in_quartiles():
    values = np.random.default_rng(0).random((9, 7), np.float32)
    expected = float(in_quartiles(jnp.asarray(values)).max())
    assert calibrated_score(values) == pytest.approx(expected, rel=1e-5)
    assert calibrated_score(np.ones((3, 3))) == 0.0
