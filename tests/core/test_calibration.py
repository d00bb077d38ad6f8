import math

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssdnet_jax.core.calibration import calibrated_score, in_quartiles, in_units, usual_spread


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


def test_the_score_is_the_largest_value_in_quartiles():
    values = np.random.default_rng(0).random((9, 7), np.float32)
    expected = float(in_quartiles(jnp.asarray(values)).max())
    assert calibrated_score(values) == pytest.approx(expected, rel=1e-5)
    assert calibrated_score(np.ones((3, 3))) == 0.0
    np.testing.assert_allclose(in_units(values), in_quartiles(jnp.asarray(values)), rtol=1e-4)


def test_pixels_that_take_no_part_are_left_out():
    values = np.random.default_rng(0).random((9, 8), np.float32)
    part = values.copy()
    part[:, 4:] = np.nan
    assert usual_spread(part) == usual_spread(values[:, :4])
    assert calibrated_score(part) == calibrated_score(values[:, :4])
    np.testing.assert_array_equal(np.isnan(in_units(part)), np.isnan(part))
    median, spread = usual_spread(np.full((2, 2), np.nan))
    assert math.isnan(median) and spread == 0
