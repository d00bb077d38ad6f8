import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.decomposition import PCA

from ssdnet_jax.core.features import (
    feature_maps,
    principal_components,
    represent,
    resized,
    standardize,
)
from ssdnet_jax.core.plan import Representation
from ssdnet_jax.core.vgg19 import max_pool2x2, vgg19_features
from ssdnet_jax.data.weights import random_vgg19_weights

pytestmark = pytest.mark.usefixtures("fast_compilation")

TINY = random_vgg19_weights(0, channels=(3, 4, 5, 6))


def image(height=24, width=32, channels=3):
    return jax.random.uniform(jax.random.key(0), (height, width, channels))


@pytest.mark.parametrize("kind", ["vgg19", "filters"])
@pytest.mark.parametrize("shape", [(24, 32, 3), (25, 33, 1)])
def test_maps_have_half_of_the_resolution(kind, shape):
    for x in feature_maps(image(*shape), TINY, kind=kind):
        assert x.shape[:2] == (shape[0] // 2, shape[1] // 2)
        assert bool(jnp.isfinite(x).all())


def test_vgg19_maps_are_its_layers_of_the_mirrored_image():
    padded = jnp.asarray(np.pad(image(), ((8, 8), (8, 8), (0, 0)), mode="reflect"))[None]
    maps = feature_maps(image(), TINY, kind="vgg19")
    fine = max_pool2x2(vgg19_features(TINY, padded, layer="conv1_2"))[0, 4:-4, 4:-4]
    coarse = vgg19_features(TINY, padded)[0, 4:-4, 4:-4]
    np.testing.assert_allclose(maps.fine, fine, atol=1e-5)
    np.testing.assert_allclose(maps.coarse, coarse, atol=1e-5)


def test_filters_see_orientation_and_not_brightness():
    across = jnp.tile(jnp.sin(jnp.arange(32) * 2 * jnp.pi / 7)[None, :, None] / 4, (32, 1, 1)) + 0.5
    maps = feature_maps(across, None, kind="filters")
    turned = feature_maps(across.swapaxes(0, 1), None, kind="filters")
    brighter = feature_maps(across + 0.2, None, kind="filters")
    inner = np.s_[4:-4, 4:-4]
    energy, turned_energy = (np.asarray(m.coarse[inner].mean((0, 1)))[:-1] for m in (maps, turned))
    assert np.abs(energy - turned_energy).max() > 0.5 * energy.max()
    np.testing.assert_allclose(brighter.fine, maps.fine, atol=1e-6)


def test_components_span_what_scikit_learn_finds():
    features = standardize(
        jnp.asarray(image(12, 10, 3) @ np.array([[1, 2, 0, 1], [0, 1, 1, 3], [2, 0, 1, 1.0]]))
    )
    x = np.asarray(features).reshape(-1, 4)
    actual = np.asarray(principal_components(features, count=2)).reshape(-1, 2)
    expected = PCA(2).fit_transform(x)
    np.testing.assert_allclose(np.abs(actual), np.abs(expected), atol=1e-4)


def test_components_keep_their_sign_and_fill_up_with_zeros():
    features = standardize(image(12, 10, 3))
    actual = principal_components(features, count=5)
    np.testing.assert_array_equal(actual[..., 3:], 0)
    flipped = principal_components(features[:, ::-1], count=5)
    np.testing.assert_allclose(flipped[:, ::-1], actual, atol=1e-4)


@pytest.mark.parametrize("layer", ["fine", "coarse"])
def test_a_representation_is_the_principal_components_of_a_layer_of_the_resized_image(layer):
    y = image(32, 40)
    smaller = resized(y, scale=0.75)
    assert smaller.shape == (24, 30, 3)
    maps = feature_maps(smaller, TINY, kind="vgg19")
    expected = principal_components(standardize(getattr(maps, layer)), count=2)
    actual = represent(y, TINY, Representation(layer, 0.75, 2), kind="vgg19")
    np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_an_image_at_its_own_size_is_itself():
    np.testing.assert_array_equal(resized(image(25, 33), scale=1.0), image(25, 33))
