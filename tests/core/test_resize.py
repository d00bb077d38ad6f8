import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssdnet_jax.core.resize import resize_bilinear, upsample2x


def image(height, width):
    return np.random.default_rng(0).random((2, height, width, 3), np.float32)


@functools.partial(jax.jit, static_argnums=0)
def doubled(function, x, g):
    """The doubled image, and the gradient with regard to it as the gradient of the image."""
    y, vjp = jax.vjp(function, x)
    return y, *vjp(g)


@pytest.mark.parametrize("shape", [(4, 6), (1, 1), (1, 5), (3, 2)])
def test_bilinear_doubling_and_its_gradient_are_those_of_image_resize(shape):
    x, g = image(*shape), image(2 * shape[0], 2 * shape[1])

    def reference(x):
        return jax.image.resize(x, g.shape, "bilinear")

    expected = doubled(reference, x, g)
    actual = doubled(functools.partial(upsample2x, upsampling="bilinear"), x, g)
    np.testing.assert_allclose(actual[0], expected[0], atol=1e-6)
    np.testing.assert_allclose(actual[1], expected[1], atol=1e-5)


def test_nearest_doubling_repeats_pixels():
    x = image(2, 3)
    expected = np.kron(x, np.ones((1, 2, 2, 1)))
    actual = jax.jit(functools.partial(upsample2x, upsampling="nearest"))(x)
    np.testing.assert_array_equal(actual, expected)


def test_unknown_upsampling_is_refused():
    with pytest.raises(ValueError, match="'cubic'"):
        inspect.unwrap(upsample2x)(jnp.zeros((1, 2, 2, 1)), upsampling="cubic")


def test_resize_equals_torch(shared):
    golden = np.load(shared / "golden" / "resize_16_to_224_bilinear.npz")
    x, every_seventh = (np.moveaxis(golden[name], 1, -1) for name in ("x", "y"))
    actual = jax.jit(functools.partial(resize_bilinear, size=224))(x)
    np.testing.assert_allclose(np.asarray(actual)[:, ::7, ::7], every_seventh, atol=1e-6)
