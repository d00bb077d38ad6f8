import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.test_util import check_grads

from ssdnet_jax.core.convolution import conv2d, pad2d

CASES = [  # height, width, in, out, kernel, stride
    (7, 9, 3, 4, 3, 1),
    (8, 8, 2, 5, 3, 2),
    (9, 7, 2, 3, 3, 2),
    (6, 5, 4, 2, 1, 1),
    (6, 7, 4, 2, 1, 2),
    (11, 10, 1, 2, 5, 1),
    (12, 9, 2, 2, 5, 3),
    (3, 3, 2, 2, 3, 1),
]


def reference(x, kernel, stride):
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def arrays(height, width, channels, out, k):
    generator = np.random.default_rng(0)
    x = generator.standard_normal((2, height, width, channels), np.float32)
    return x, generator.standard_normal((k, k, channels, out), np.float32)


@pytest.mark.parametrize(("h", "w", "i", "o", "k", "stride"), CASES)
def test_output_and_gradients_equal_lax_conv(h, w, i, o, k, stride):
    x, kernel = arrays(h, w, i, o, k)
    shape = jax.eval_shape(lambda *a: reference(*a, stride), x, kernel).shape
    g = np.random.default_rng(1).standard_normal(shape, np.float32)

    @jax.jit
    def both(x, kernel, g):
        def output_and_gradients(form):
            y, vjp = jax.vjp(lambda *a: form(*a, stride), x, kernel)
            return y, vjp(g)

        return output_and_gradients(conv2d), output_and_gradients(reference)

    (actual, gradients), (expected, expected_gradients) = both(x, kernel, g)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)
    for a, e in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(a, e, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("stride", [1, 2])
def test_gradients_agree_with_finite_differences(stride):
    x, kernel = arrays(6, 5, 2, 3, 3)
    compiled = jax.jit(lambda *a: conv2d(*a, stride))  # to which `check_grads` may give NumPy
    check_grads(compiled, (x, kernel), order=1, modes=["rev"], rtol=2e-2)


@pytest.mark.parametrize("stride", [1, 2])
def test_vmap_over_images_and_kernels_equals_a_loop(stride):
    x, kernel = arrays(8, 7, 2, 3, 3)
    xs, kernels = np.stack([x, 2 * x + 1]), np.stack([kernel, kernel**2])

    @jax.jit
    def gradient(x, kernel):
        return jax.grad(lambda *a: jnp.sum(conv2d(*a, stride) ** 2), argnums=(0, 1))(x, kernel)

    batched = jax.jit(jax.vmap(gradient))(xs, kernels)
    for lane in range(2):
        for a, e in zip(batched, gradient(xs[lane], kernels[lane]), strict=True):
            np.testing.assert_allclose(a[lane], e, rtol=1e-4, atol=1e-3)


def test_vmapped_gradients_compile_without_any_convolution():
    x, kernel = arrays(8, 8, 2, 3, 3)

    def gradient(x, kernel):
        return jax.grad(lambda *a: jnp.sum(conv2d(*a, 1) ** 2), argnums=(0, 1))(x, kernel)

    text = jax.jit(jax.vmap(gradient)).lower(x[None], kernel[None]).compile().as_text()
    assert "convolution(" not in text
    assert "convolution(" in jax.jit(reference, static_argnums=2).lower(x, kernel, 1).as_text("hlo")


def test_a_kernel_for_other_channels_is_refused():
    x, _ = arrays(8, 8, 2, 3, 3)
    with pytest.raises(ValueError, match=r"\(3, 3, 5, 4\).*expected \(k, k, 2, out\)"):
        inspect.unwrap(conv2d)(x, jnp.zeros((3, 3, 5, 4)))


@pytest.mark.parametrize("margin", [0, 1, 2])
@pytest.mark.parametrize(("padding", "mode"), [("reflection", "reflect"), ("zero", "constant")])
def test_padding_equals_numpy(margin, padding, mode):
    x, _ = arrays(5, 4, 2, 1, 1)
    widths = ((0, 0), (margin, margin), (margin, margin), (0, 0))
    expected = np.pad(np.asarray(x), widths, mode=mode)
    actual = jax.jit(pad2d, static_argnames=("margin", "padding"))(
        x, margin=margin, padding=padding
    )
    np.testing.assert_array_equal(actual, expected)


def test_unknown_padding_is_refused():
    with pytest.raises(ValueError, match="'wrap'"):
        inspect.unwrap(pad2d)(jnp.zeros((1, 4, 4, 1)), margin=1, padding="wrap")
