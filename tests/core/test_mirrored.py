import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssdnet_jax.core.convolution import conv2d, pad2d
from ssdnet_jax.core.mirrored import mirrored_conv2d, padded_conv2d

CASES = [  # height, width, in, out, stride
    (4, 5, 3, 4, 1),
    (9, 4, 2, 6, 1),
    (7, 8, 1, 3, 1),
    (4, 6, 3, 4, 2),
    (8, 4, 1, 5, 2),
]


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def arrays(h, w, i, o):
    return normal(0, 2, h, w, i), normal(1, 3, 3, i, o)


def literal(x, kernel, stride):
    return conv2d(pad2d(x, margin=1, padding="reflection"), kernel, stride)


@pytest.mark.parametrize(("h", "w", "i", "o", "stride"), CASES)
def test_output_and_gradients_equal_those_of_the_padded_image(h, w, i, o, stride):
    x, kernel = arrays(h, w, i, o)

    @functools.partial(jax.jit, static_argnums=0)
    def both(form, x, kernel, g):
        y, vjp = jax.vjp(lambda *a: form(*a, stride), x, kernel)
        return y, vjp(g)

    g = normal(2, *jax.eval_shape(lambda *a: literal(*a, stride), x, kernel).shape)
    actual, expected = (both(form, x, kernel, g) for form in (mirrored_conv2d, literal))
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, e, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("stride", [1, 2])
def test_vmap_over_images_and_kernels_equals_a_loop(stride):
    x, kernel = arrays(6, 8, 2, 3)
    xs, kernels = np.stack([x, 2 * x + 1]), np.stack([kernel, kernel**2])

    @jax.jit
    def gradient(x, kernel):
        return jax.grad(lambda *a: jnp.sum(mirrored_conv2d(*a, stride) ** 2), argnums=(0, 1))(
            x, kernel
        )

    batched = jax.jit(jax.vmap(gradient))(xs, kernels)
    for lane in range(2):
        for a, e in zip(batched, gradient(xs[lane], kernels[lane]), strict=True):
            np.testing.assert_allclose(a[lane], e, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("shape", "size", "stride", "padding"),
    [
        ((2, 3), 3, 1, "reflection"),
        ((5, 6), 3, 2, "reflection"),
        ((6, 6), 5, 1, "reflection"),
        ((6, 6), 3, 3, "reflection"),
        ((6, 6), 3, 1, "zero"),
        ((6, 6), 1, 1, "reflection"),
    ],
)
def test_what_the_mirrored_form_does_not_cover_is_padded(shape, size, stride, padding):
    x, _ = arrays(*shape, 2, 3)
    kernel = normal(2, size, size, 2, 3)

    @jax.jit
    def both(x, kernel):
        expected = conv2d(pad2d(x, margin=size // 2, padding=padding), kernel, stride)
        return padded_conv2d(x, kernel, stride, padding=padding), expected

    actual, expected = both(x, kernel)
    np.testing.assert_array_equal(actual, expected)
