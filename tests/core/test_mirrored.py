import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssdnet_jax.core.convolution import conv2d, pad2d
from ssdnet_jax.core.mirrored import mirrored_conv2d, padded_conv2d

pytestmark = pytest.mark.usefixtures("fast_compilation")

CASES = [  # height, width, in, out, stride
    (4, 5, 3, 4, 1),
    (9, 4, 2, 6, 1),
    (7, 8, 1, 3, 1),
    (4, 6, 3, 4, 2),
    (8, 4, 1, 5, 2),
]


def arrays(h, w, i, o):
    keys = jax.random.split(jax.random.key(0), 2)
    return jax.random.normal(keys[0], (2, h, w, i)), jax.random.normal(keys[1], (3, 3, i, o))


def literal(x, kernel, stride):
    return conv2d(pad2d(x, margin=1, padding="reflection"), kernel, stride)


@pytest.mark.parametrize(("h", "w", "i", "o", "stride"), CASES)
def test_output_and_gradients_equal_those_of_the_padded_image(h, w, i, o, stride):
    x, kernel = arrays(h, w, i, o)

    @functools.partial(jax.jit, static_argnums=0)
    def both(form, x, kernel, g):
        y, vjp = jax.vjp(lambda *a: form(*a, stride), x, kernel)
        return y, vjp(g)

    g = jax.random.normal(jax.random.key(1), literal(x, kernel, stride).shape)
    actual, expected = (both(form, x, kernel, g) for form in (mirrored_conv2d, literal))
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, e, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("stride", [1, 2])
def test_vmap_over_images_and_kernels_equals_a_loop(stride):
    x, kernel = arrays(6, 8, 2, 3)
    xs, kernels = jnp.stack([x, 2 * x + 1]), jnp.stack([kernel, kernel**2])

    def gradient(x, kernel):
        return jax.grad(lambda *a: jnp.sum(mirrored_conv2d(*a, stride) ** 2), argnums=(0, 1))(
            x, kernel
        )

    batched = jax.vmap(gradient)(xs, kernels)
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
    kernel = jax.random.normal(jax.random.key(2), (size, size, 2, 3))
    expected = conv2d(pad2d(x, margin=size // 2, padding=padding), kernel, stride)
    actual = padded_conv2d(x, kernel, stride, padding=padding)
    np.testing.assert_array_equal(actual, expected)
