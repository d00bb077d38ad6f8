import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from ssdnet_jax.core.vgg19 import frozen_conv2d, max_pool2x2, needed, vgg19_features
from ssdnet_jax.data.weights import load_vgg19_weights, random_vgg19_weights

TINY = random_vgg19_weights(0, channels=(3, 4, 5, 6))


features_of = jax.jit(vgg19_features, static_argnames="layer")


def images(channels=3):
    return np.random.default_rng(0).random((2, 9, 8, channels), np.float32)


def test_features_equal_torchvision(shared):
    weights = load_vgg19_weights(shared / "weights" / "vgg19_imagenet_conv1_1-conv2_2.npz")
    golden = np.load(shared / "golden" / "vgg19_conv2_2_astronaut.npz")
    features = features_of(weights, golden["image_rgb_0_1"][None])[0]
    expected = golden["conv2_2_pre_relu_every_8th_pixel"]
    np.testing.assert_allclose(features[::8, ::8], expected, atol=1e-4 * np.abs(expected).max())
    assert np.mean(features) == pytest.approx(golden["mean"], rel=1e-4)
    assert np.std(features) == pytest.approx(golden["std"], rel=1e-4)
    product = np.sum(np.asarray(features, np.float64) ** 2)
    assert product == pytest.approx(golden["inner_product_with_itself"], rel=1e-5)


def test_grey_images_are_repeated():
    grey = images(1)
    colour = np.repeat(grey, 3, axis=-1)
    np.testing.assert_allclose(features_of(TINY, grey), features_of(TINY, colour), atol=1e-6)


def test_relu2_2_is_conv2_2_without_its_negative_part():
    features = np.asarray(features_of(TINY, images()))
    assert (features < 0).any()
    rectified = features_of(TINY, images(), layer="relu2_2")
    np.testing.assert_array_equal(rectified, np.maximum(features, 0))


def test_image_gradient_equals_that_of_lax_conv():
    x, kernel = images(), TINY["conv1_1"]["kernel"]

    def reference(x):
        return lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    @jax.jit
    def both(x):
        expected, expected_vjp = jax.vjp(reference, x)
        actual, vjp = jax.vjp(lambda x: frozen_conv2d(x, kernel), x)
        return (actual, *vjp(expected)), (expected, *expected_vjp(expected))

    (actual, gradient), (expected, expected_gradient) = both(x)
    np.testing.assert_allclose(actual, expected, atol=1e-5)
    np.testing.assert_allclose(gradient, expected_gradient, atol=1e-4)


def test_pooling_takes_the_largest_of_each_square_and_drops_a_rest():
    x = jnp.arange(5 * 4.0).reshape(1, 5, 4, 1)
    np.testing.assert_array_equal(max_pool2x2(x)[0, ..., 0], [[5, 7], [13, 15]])


@pytest.mark.parametrize(
    ("channels", "layer", "words"), [(2, "conv2_2", "2 channels"), (3, "conv3_1", "conv3_1")]
)
def test_wrong_arguments_are_refused(channels, layer, words):
    with pytest.raises(ValueError, match=words):
        inspect.unwrap(vgg19_features)(TINY, jnp.zeros((1, 8, 8, channels)), layer=layer)


def test_a_setting_that_needs_weights_is_refused_without():
    assert needed(TINY) is TINY
    with pytest.raises(ValueError, match="no VGG19 weights"):
        needed(None)
