import jax.numpy as jnp
import numpy as np
import pytest

from ssdnet_jax.core import masked

RANDOM = np.random.default_rng(0)


def test_a_feature_is_known_by_the_share_of_valid_pixels_that_it_sees():
    valid = np.ones((24, 32), np.float32)
    valid[:, 20:] = 0
    known = np.asarray(masked.known_share(jnp.asarray(valid), reach=3))
    assert known.shape == (12, 16)
    # The block at columns 2 b and 2 b + 1 sees columns 2 b - 3 to 2 b + 4.
    shares = [np.clip(20 - (2 * b - 3), 0, 8) / 8 for b in range(16)]
    np.testing.assert_allclose(known[5], np.clip(2 * np.array(shares) - 1, 0, 1), atol=1e-6)
    whole = masked.known_share(jnp.ones((9, 7)), reach=3)
    np.testing.assert_array_equal(whole, np.ones((4, 3)))


def test_statistics_are_those_of_what_counts():
    values = RANDOM.normal(size=(6, 7, 2)).astype(np.float32)
    counted = RANDOM.random((6, 7)) < 0.6
    spoilt = jnp.asarray(np.where(counted[..., None], values, 1e6))
    mean, deviation = masked.weighted_moments(spoilt, jnp.asarray(counted, jnp.float32))
    np.testing.assert_allclose(mean, values[counted].mean(0), rtol=1e-5)
    np.testing.assert_allclose(deviation, values[counted].std(0), rtol=1e-5)
    shares = jnp.array([0.0, 0.3, 0.5, 0.75, 1.0])
    found = masked.quantiles(spoilt[..., 0], jnp.asarray(counted), shares)
    np.testing.assert_allclose(found, np.quantile(values[counted][:, 0], shares), rtol=1e-5)
    middle = masked.median(spoilt[..., 1], jnp.asarray(counted))
    assert float(middle) == pytest.approx(np.median(values[counted][:, 1]), rel=1e-6)


def test_partly_known_features_are_left_out_of_statistics_where_enough_are_known():
    mostly = jnp.array([1.0, 1.0, 0.4, 0.6, 0.0])
    np.testing.assert_array_equal(masked.for_statistics(mostly), [1, 1, 0, 0, 0])
    # One of five that are known at all is less than a quarter.
    hardly = jnp.array([1.0, 0.4, 0.6, 0.2, 0.2, 0.0])
    np.testing.assert_array_equal(masked.for_statistics(hardly), hardly)


def test_where_nothing_is_known_well_the_best_known_counts():
    weights = jnp.array([0.0, 0.2, 0.3, 0.3])
    np.testing.assert_array_equal(masked.well_known(weights), [False, False, True, True])
    np.testing.assert_array_equal(
        masked.well_known(jnp.array([0.4, 0.5, 1.0])), [False, True, True]
    )
