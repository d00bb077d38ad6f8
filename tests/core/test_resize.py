import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssdnet_jax.core.resize import resize_bilinear, upsample2x

pytestmark = pytest.mark.usefixtures("fast_compilation")


def image(height, width):
    return jax.random.uniform(jax.random.key(0), (2, height, width, 3))


@pytest.mark.parametrize("shape", [(4, 6), (1, 1), (1, 5), (3, 2)])
def test_bilinear_doubling_equals_image_resize(shape):
    x = image(*shape)
    expected = jax.image.resize(x, (2, 2 * shape[0], 2 * shape[1], 3), "bilinear")
    np.testing.assert_allclose(upsample2x(x, upsampling="bilinear"), expected, atol=1e-6)


@pytest.mark.parametrize("shape", [(4, 6), (1, 1), (3, 2)])
def test_its_gradient_is_the_adjoint(shape):
    x = image(*shape)
    g = image(2 * shape[0], 2 * shape[1])
    (actual,) = jax.vjp(lambda x: upsample2x(x, upsampling="bilinear"), x)[1](g)

    def reference(x):
        return jax.image.resize(x, g.shape, "bilinear")

    (expected,) = jax.vjp(reference, x)[1](g)
    np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_nearest_doubling_repeats_pixels():
    x = image(2, 3)
    expected = np.kron(np.asarray(x), np.ones((1, 2, 2, 1)))
    np.testing.assert_array_equal(upsample2x(x, upsampling="nearest"), expected)


def test_unknown_upsampling_is_refused():
    with pytest.raises(ValueError, match="'cubic'"):
        inspect.unwrap(upsample2x)(jnp.zeros((1, 2, 2, 1)), upsampling="cubic")


def test_resize_equals_torch(shared):
    golden = np.load(shared / "golden" / "resize_16_to_224_bilinear.npz")
    x, every_seventh = (np.moveaxis(golden[name], 1, -1) for name in ("x", "y"))
    actual = resize_bilinear(jnp.asarray(x), size=224)[:, ::7, ::7]
    np.testing.assert_allclose(actual, every_seventh, atol=1e-6)
