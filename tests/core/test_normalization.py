import jax
import jax.numpy as jnp
import numpy as np

from ssdnet_jax.core.normalization import normalize


def literal(x, scale, shift):
    mean = x.mean((0, 1, 2))
    variance = ((x - mean) ** 2).mean((0, 1, 2))
    return scale * (x - mean) / jnp.sqrt(variance + 1e-5) + shift


def arguments():
    generator = np.random.default_rng(0)
    x, scale, shift = (
        generator.standard_normal(shape, np.float32) for shape in ((2, 5, 4, 3), (3,), (3,))
    )
    return 3 + 2 * x, scale, shift


def test_value_and_gradients_equal_those_of_the_formula():
    inputs = arguments()
    g = np.random.default_rng(1).standard_normal(inputs[0].shape, np.float32)

    @jax.jit
    def both(inputs, g):
        expected, expected_vjp = jax.vjp(literal, *inputs)
        actual, vjp = jax.vjp(normalize, *inputs)
        return (actual, vjp(g)), (expected, expected_vjp(g))

    (actual, gradients), (expected, expected_gradients) = both(inputs, g)
    np.testing.assert_allclose(actual, expected, atol=1e-5)
    for a, e in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(a, e, rtol=1e-4, atol=1e-5)


def test_a_constant_channel_becomes_its_shift_and_has_a_finite_gradient():
    _, scale, shift = arguments()
    x = np.ones((1, 4, 4, 3), np.float32)

    @jax.jit
    def both(x, scale, shift):
        gradient = jax.grad(lambda x: jnp.sum(normalize(x, scale, shift) ** 2))(x)
        return normalize(x, scale, shift), gradient

    normalized, gradient = both(x, scale, shift)
    np.testing.assert_allclose(normalized, np.broadcast_to(shift, x.shape))
    assert np.isfinite(gradient).all()


def test_lanes_are_normalized_apart():
    x, scale, shift = arguments()
    lanes = np.stack([x, 100 * x])
    batched = jax.jit(jax.vmap(normalize, (0, None, None)))(lanes, scale, shift)
    np.testing.assert_allclose(batched[0], jax.jit(normalize)(x, scale, shift), atol=1e-5)
