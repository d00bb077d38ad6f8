import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssdnet_jax.core.normalization import normalize

pytestmark = pytest.mark.usefixtures("fast_compilation")


def literal(x, scale, shift):
    mean = x.mean((0, 1, 2))
    variance = ((x - mean) ** 2).mean((0, 1, 2))
    return scale * (x - mean) / jnp.sqrt(variance + 1e-5) + shift


def arguments():
    keys = jax.random.split(jax.random.key(0), 4)
    x = 3 + 2 * jax.random.normal(keys[0], (2, 5, 4, 3))
    return x, jax.random.normal(keys[1], (3,)), jax.random.normal(keys[2], (3,)), keys[3]


def test_value_and_gradients_equal_those_of_the_formula():
    *inputs, key = arguments()
    expected, expected_vjp = jax.vjp(literal, *inputs)
    actual, vjp = jax.vjp(normalize, *inputs)
    np.testing.assert_allclose(actual, expected, atol=1e-5)
    g = jax.random.normal(key, actual.shape)
    for a, e in zip(vjp(g), expected_vjp(g), strict=True):
        np.testing.assert_allclose(a, e, rtol=1e-4, atol=1e-5)


def test_a_constant_channel_becomes_its_shift_and_has_a_finite_gradient():
    _, scale, shift, _ = arguments()
    x = jnp.ones((1, 4, 4, 3))
    np.testing.assert_allclose(normalize(x, scale, shift), jnp.broadcast_to(shift, x.shape))
    gradient = jax.grad(lambda x: jnp.sum(normalize(x, scale, shift) ** 2))(x)
    assert np.isfinite(gradient).all()


def test_lanes_are_normalized_apart():
    x, scale, shift, _ = arguments()
    lanes = jnp.stack([x, 100 * x])
    batched = jax.vmap(lambda x: normalize(x, scale, shift))(lanes)
    np.testing.assert_allclose(batched[0], normalize(x, scale, shift), atol=1e-5)
