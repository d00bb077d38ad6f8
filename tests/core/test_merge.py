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

UPSAMPLINGS = ("bilinear", "nearest")
moments = jax.jit(doubled_moments, static_argnums=1)


def literal(deeper, skip, affine, convolution, *, upsampling):
    """The same, written as the network's definition says."""
    x = upsample2x(deeper, upsampling=upsampling)
    x = x if skip is None else jnp.concatenate([skip, x], axis=-1)
    kernel, bias = convolution
    x = pad2d(normalize(x, *affine), margin=1, padding="reflection")
    return conv2d(x, kernel) + bias


def arrays(batch, h, w, channels, skip, out, seed=0):
    generator = np.random.default_rng(seed)

    def normal(*shape):
        return generator.standard_normal(shape, np.float32)

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
    sides = (shape[0], 2 * shape[1], 2 * shape[2], shape[5])
    weights = np.random.default_rng(9).standard_normal(sides, np.float32)

    @functools.partial(jax.jit, static_argnums=0)
    def output_and_gradient(form, inputs):
        def weighted(inputs):
            output = form(*inputs, upsampling=upsampling)
            return jnp.vdot(output, weights), output

        gradient, output = jax.grad(weighted, has_aux=True)(inputs)
        return output, gradient

    output, gradient = output_and_gradient(merged_convolution, inputs)
    expected, expected_gradient = output_and_gradient(literal, inputs)
    np.testing.assert_allclose(output, expected, atol=2e-5, rtol=1e-5)
    for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(expected_gradient), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * float(np.abs(b).max()) + 1e-5)


@pytest.mark.parametrize("upsampling", UPSAMPLINGS)
def test_vmap_over_images_and_parameters_equals_a_loop(upsampling):
    lanes = [arrays(1, 3, 4, 2, 2, 3, seed) for seed in range(3)]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *lanes)

    @jax.jit
    def one(inputs):
        return merged_convolution(*inputs, upsampling=upsampling)

    expected = np.stack([one(lane) for lane in lanes])
    np.testing.assert_allclose(jax.jit(jax.vmap(one))(stacked), expected, atol=1e-5)


@pytest.mark.parametrize("upsampling", UPSAMPLINGS)
def test_adding_of_doubled_maps_has_its_adjoint_as_gradient(upsampling):
    generator = np.random.default_rng(0)
    z = generator.standard_normal((2, 6, 3, 3, 2), np.float32)
    shape = jax.eval_shape(lambda z: double_and_add(z, upsampling), z).shape
    g = generator.standard_normal(shape, np.float32)

    @jax.jit
    def output_and_gradient(z, g):
        y, vjp = jax.vjp(lambda z: double_and_add(z, upsampling), z)
        return y, *vjp(g)

    y, dz = output_and_gradient(z, g)
    np.testing.assert_allclose(np.vdot(y, g), np.vdot(z, dz), rtol=1e-4)


@pytest.mark.parametrize("upsampling", UPSAMPLINGS)
def test_moments_are_those_of_the_doubled_image(upsampling):
    x = 3 + np.random.default_rng(0).standard_normal((2, 4, 5, 3), np.float32)
    doubled = np.asarray(
        jax.jit(upsample2x, static_argnames="upsampling")(x, upsampling=upsampling)
    )
    doubled = np.asarray(doubled, np.float64)
    mean, variance = moments(x, upsampling)
    np.testing.assert_allclose(mean, doubled.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(variance, doubled.var((0, 1, 2)), rtol=1e-5)


def test_a_constant_image_has_no_variance():
    _, variance = moments(np.full((1, 4, 4, 2), 0.3, np.float32), "bilinear")
    np.testing.assert_allclose(variance, 0, atol=1e-12)


def test_its_arithmetic_is_about_a_quarter_of_the_literal_form():
    x, kernel = np.zeros((1, 32, 32, 64), np.float32), np.zeros((3, 3, 64, 64), np.float32)

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
    lanes = jax.tree.map(lambda leaf: np.stack([leaf, leaf]), arrays(1, 4, 4, 3, 2, 4))

    def loss(inputs):
        return jnp.sum(merged_convolution(*inputs, upsampling=upsampling) ** 2)

    text = jax.jit(jax.vmap(jax.grad(loss))).lower(lanes).compile().as_text()
    assert "convolution(" not in text
