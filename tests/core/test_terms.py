import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssdnet_jax.core import registry, terms

Y, F = jax.random.normal(jax.random.key(0), (2, 3, 4, 5))


@pytest.mark.parametrize("name", list(registry.RECONSTRUCTION_ERRORS))
def test_errors_are_zero_at_equality_and_grow_with_the_difference(name):
    error = registry.RECONSTRUCTION_ERRORS[name]
    np.testing.assert_allclose(error(Y, Y), 0, atol=1e-7)
    near, far = error(Y, Y + 0.1), error(Y, Y + 0.2)
    assert near.shape == Y.shape[:-1]
    assert bool((near > 0).all() and (far > near).all())


def test_errors_are_their_formulas():
    np.testing.assert_allclose(terms.squared(Y, F), ((Y - F) ** 2).mean(-1), rtol=1e-6)
    np.testing.assert_allclose(terms.absolute(Y, F), jnp.abs(Y - F).mean(-1), rtol=1e-6)
    y, f = jnp.abs(Y), jnp.abs(F)
    ratios = jnp.abs(jnp.log((y + 0.1) / (f + 0.1))).mean(-1)
    np.testing.assert_allclose(terms.log_ratio(y, f), ratios, rtol=1e-4)
    # Far above its scale the smooth error is the absolute one, less that scale.
    np.testing.assert_allclose(terms.charbonnier(Y, Y + 5), 5 - 1e-3, rtol=1e-5)


@pytest.mark.parametrize("name", list(registry.RECONSTRUCTION_ERRORS))
def test_gradients_of_errors_are_finite_at_equality(name):
    def total(f):
        return registry.RECONSTRUCTION_ERRORS[name](Y, f).sum()

    assert bool(jnp.isfinite(jax.grad(total)(Y)).all())


def test_similarities_are_their_formulas():
    y, f = np.asarray(Y, np.float64), np.asarray(F, np.float64)
    product = (y * f).sum(-1)
    np.testing.assert_allclose(terms.inner_product(Y, F), product, rtol=1e-4, atol=1e-5)
    norms = np.linalg.norm(y, axis=-1) * np.linalg.norm(f, axis=-1)
    np.testing.assert_allclose(terms.cosine(Y, F), product / norms, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(terms.euclidean(Y, F), -((y - f) ** 2).mean(-1), rtol=1e-5)


@given(gain=st.floats(0.1, 100))
def test_the_cosine_does_not_see_the_gain_and_the_inner_product_does(gain):
    np.testing.assert_allclose(terms.cosine(Y, gain * F), terms.cosine(Y, F), atol=1e-4)
    expected = gain * terms.inner_product(Y, F)
    np.testing.assert_allclose(terms.inner_product(Y, gain * F), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", list(registry.PERCEPTUAL_SIMILARITIES))
def test_gradients_of_similarities_are_finite_at_zero_features(name):
    def total(f):
        return registry.PERCEPTUAL_SIMILARITIES[name](Y, f).sum()

    assert bool(jnp.isfinite(jax.grad(total)(jnp.zeros_like(Y))).all())


@pytest.mark.parametrize("name", list(registry.AGGREGATIONS))
def test_aggregations_are_those_of_numpy(name):
    operator = {"min": np.min, "max": np.max, "mean": np.mean, "median": np.median}[name]
    actual = registry.AGGREGATIONS[name](Y)
    np.testing.assert_allclose(actual, operator(np.asarray(Y), axis=0), rtol=1e-6)
