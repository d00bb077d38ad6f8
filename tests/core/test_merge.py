import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssdnet_jax.core.convolution import conv2d, pad2d
from ssdnet_jax.core.merge import (
    double_and_add,
    doubled_convolution,
    doubled_moments,
    merged_convolution,
)
from ssdnet_jax.core.normalization import normalize
from ssdnet_jax.core.resize import upsample2x

pytestmark = pytest.mark.usefixtures("fast_compilation")

UPSAMPLINGS = ("bilinear", "nearest")


def literal(deeper, skip, affine, convolution, *, upsampling):
    """The same, written as the network's definition says."""
    x = upsample2x(deeper, upsampling=upsampling)
    x = x if skip is None else jnp.concatenate([skip, x], axis=-1)
    kernel, bias = convolution
    x = pad2d(normalize(x, *affine), margin=1, padding="reflection")
    return conv2d(x, kernel) + bias


def arrays(batch, h, w, channels, skip, out, seed=0):
    keys = iter(jax.random.split(jax.random.key(seed), 8))

    def normal(*shape):
        return jax.random.normal(next(keys), shape)

    total = channels + skip
    return (
        1 + normal(batch, h, w, channels),
        normal(batch, 2 * h, 2 * w, skip) if skip else None,
        (normal(total), normal(total)),
        (normal(3, 3, total, out), normal(out)),
    )


SHAPES = [(2, 5, 7, 6, 4, 3), (1, 2, 3, 4, 0, 5), (1, 2, 2, 1, 1, 1)]


@pytest.mark.parametrize("upsampling", UPSAMPLINGS)
@pytest.mark.parametrize("shape", SHAPES)
def test_output_and_gradients_equal_the_literal_form(shape, upsampling):
    inputs = arrays(*shape)
    weights = jax.random.normal(jax.random.key(9), (shape[0], 2 * shape[1], 2 * shape[2], shape[5]))

    def weighted(form):
        return lambda inputs: jnp.vdot(form(*inputs, upsampling=upsampling), weights)

    expected = literal(*inputs, upsampling=upsampling)
    actual = jax.jit(functools.partial(merged_convolution, upsampling=upsampling))(*inputs)
    np.testing.assert_allclose(actual, expected, atol=2e-5, rtol=1e-5)
    actual, expected = (
        jax.jit(jax.grad(weighted(form)))(inputs) for form in (merged_convolution, literal)
    )
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * float(jnp.abs(b).max()) + 1e-5)


@pytest.mark.parametrize("upsampling", UPSAMPLINGS)
def test_vmap_over_images_and_parameters_equals_a_loop(upsampling):
    lanes = [arrays(1, 3, 4, 2, 2, 3, seed) for seed in range(3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *lanes)

    @jax.jit
    def one(inputs):
        return merged_convolution(*inputs, upsampling=upsampling)

    expected = jnp.stack([one(lane) for lane in lanes])
    np.testing.assert_allclose(jax.vmap(one)(stacked), expected, atol=1e-5)


@pytest.mark.parametrize("upsampling", UPSAMPLINGS)
def test_adding_of_doubled_maps_has_its_adjoint_as_gradient(upsampling):
    z = jax.random.normal(jax.random.key(0), (2, 6, 3, 3, 2))
    y = double_and_add(z, upsampling)
    g = jax.random.normal(jax.random.key(1), y.shape)
    (dz,) = jax.vjp(lambda z: double_and_add(z, upsampling), z)[1](g)
    np.testing.assert_allclose(jnp.vdot(y, g), jnp.vdot(z, dz), rtol=1e-4)


@pytest.mark.parametrize("upsampling", UPSAMPLINGS)
def test_moments_are_those_of_the_doubled_image(upsampling):
    x = 3 + jax.random.normal(jax.random.key(0), (2, 4, 5, 3))
    doubled = np.asarray(upsample2x(x, upsampling=upsampling), np.float64)
    mean, variance = doubled_moments(x, upsampling)
    np.testing.assert_allclose(mean, doubled.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(variance, doubled.var((0, 1, 2)), rtol=1e-5)


def test_a_constant_image_has_no_variance():
    _, variance = doubled_moments(jnp.full((1, 4, 4, 2), 0.3), "bilinear")
    np.testing.assert_allclose(variance, 0, atol=1e-12)


def test_its_arithmetic_is_about_a_quarter_of_the_literal_form():
    x, kernel = jnp.zeros((1, 32, 32, 64)), jnp.zeros((3, 3, 64, 64))

    def flops(form):
        return jax.jit(form).lower(x, kernel).compile().cost_analysis()["flops"]

    def fine(x, kernel):
        x = pad2d(upsample2x(x, upsampling="bilinear"), margin=1, padding="reflection")
        return conv2d(x, kernel)

    def coarse(x, kernel):
        return doubled_convolution(x, kernel, "bilinear")

    assert flops(coarse) < 0.3 * flops(fine)


@pytest.mark.parametrize("upsampling", UPSAMPLINGS)
def test_vmapped_gradients_compile_without_any_convolution(upsampling):
    lanes = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), arrays(1, 4, 4, 3, 2, 4))

    def loss(inputs):
        return jnp.sum(merged_convolution(*inputs, upsampling=upsampling) ** 2)

    text = jax.jit(jax.vmap(jax.grad(loss))).lower(lanes).compile().as_text()
    assert "convolution(" not in text
