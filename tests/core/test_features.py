import jax
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

TINY = random_vgg19_weights(0, channels=(3, 4, 5, 6))


maps_of = jax.jit(feature_maps, static_argnames=("kind", "stride"))
components_of = jax.jit(principal_components, static_argnames="count")
features_of = jax.jit(vgg19_features, static_argnames="layer")
resize = jax.jit(resized, static_argnames="scale")
standard = jax.jit(standardize)


def image(height=24, width=32, channels=3):
    return np.random.default_rng(0).random((height, width, channels), np.float32)


@pytest.mark.parametrize("kind", ["vgg19", "filters"])
@pytest.mark.parametrize("shape", [(24, 32, 3), (25, 33, 1)])
def test_maps_have_half_of_the_resolution(kind, shape):
    for x in maps_of(image(*shape), TINY, kind=kind):
        assert x.shape[:2] == (shape[0] // 2, shape[1] // 2)
        assert np.isfinite(x).all()


def test_vgg19_maps_are_its_layers_of_the_mirrored_image():
    padded = np.pad(image(), ((8, 8), (8, 8), (0, 0)), mode="reflect")[None]
    maps = maps_of(image(), TINY, kind="vgg19")
    fine = jax.jit(max_pool2x2)(features_of(TINY, padded, layer="conv1_2"))
    coarse = features_of(TINY, padded)
    for actual, expected in ((maps.fine, fine), (maps.coarse, coarse)):
        np.testing.assert_allclose(actual, np.asarray(expected)[0, 4:-4, 4:-4], atol=1e-5)


@pytest.mark.parametrize("kind", ["vgg19", "filters"])
@pytest.mark.parametrize("shape", [(24, 32, 3), (26, 35, 1)])
def test_with_a_stride_every_second_position_is_kept(kind, shape):
    whole, some = (maps_of(image(*shape), TINY, kind=kind, stride=stride) for stride in (1, 2))
    for actual, expected in zip(some, whole, strict=True):
        np.testing.assert_allclose(actual, expected[::2, ::2], atol=1e-5)


@pytest.mark.parametrize("shape", [(24, 32, 3), (25, 33, 1)])
def test_fine_features_without_weights_are_patches_of_the_mirrored_image(shape):
    x = image(*shape)
    padded = np.pad(x, ((1, 1), (1, 1), (0, 0)), mode="reflect")
    rows, columns = shape[0] // 2, shape[1] // 2
    expected = [
        [padded[2 * r : 2 * r + 4, 2 * c : 2 * c + 4].ravel() for c in range(columns)]
        for r in range(rows)
    ]
    np.testing.assert_array_equal(maps_of(x, None, kind="filters").fine, expected)


@pytest.mark.parametrize("stride", [1, 2])
def test_patches_lie_in_the_middle_of_what_they_stand_for(stride):
    x = image(26, 26, 1)  # 13 blocks: every second one is the same from either side
    patches, turned = (
        np.asarray(maps_of(of, None, kind="filters", stride=stride).fine)
        for of in (x, x[::-1, ::-1])
    )
    np.testing.assert_array_equal(turned, patches[::-1, ::-1, ::-1])


def test_filters_see_orientation_and_not_brightness():
    wave = np.sin(np.arange(32) * 2 * np.pi / 7)[None, :, None] / 4
    across = np.tile(wave, (32, 1, 1)).astype(np.float32) + np.float32(0.5)
    maps, turned, brighter = (
        jax.device_get(maps_of(x, None, kind="filters"))
        for x in (across, across.swapaxes(0, 1), across + np.float32(0.2))
    )
    inner = np.s_[4:-4, 4:-4]
    energy, turned_energy = (m.coarse[inner].mean((0, 1))[:-1] for m in (maps, turned))
    assert np.abs(energy - turned_energy).max() > 0.5 * energy.max()
    np.testing.assert_allclose(brighter.coarse[..., :-1], maps.coarse[..., :-1], atol=1e-6)


def test_components_span_what_scikit_learn_finds():
    mixed = image(12, 10, 3) @ np.array([[1, 2, 0, 1], [0, 1, 1, 3], [2, 0, 1, 1]], np.float32)
    features = standard(mixed)
    x = np.asarray(features).reshape(-1, 4)
    actual = np.asarray(components_of(features, count=2)).reshape(-1, 2)
    expected = PCA(2).fit_transform(x)
    np.testing.assert_allclose(np.abs(actual), np.abs(expected), atol=1e-4)


def test_components_keep_their_sign_and_fill_up_with_zeros():
    features = np.asarray(standard(image(12, 10, 3)))
    actual, flipped = (np.asarray(components_of(x, count=5)) for x in (features, features[:, ::-1]))
    np.testing.assert_array_equal(actual[..., 3:], 0)
    np.testing.assert_allclose(flipped[:, ::-1], actual, atol=1e-4)


@pytest.mark.parametrize("layer", ["fine", "coarse"])
def test_a_representation_is_the_principal_components_of_a_layer_of_the_resized_image(layer):
    y = image(32, 40)
    smaller = resize(y, scale=0.75)
    assert smaller.shape == (24, 30, 3)
    maps = maps_of(smaller, TINY, kind="vgg19")
    expected = components_of(standard(getattr(maps, layer)), count=2)
    represented = jax.jit(represent, static_argnums=2, static_argnames="kind")
    actual = represented(y, TINY, Representation(layer, 0.75, 2), kind="vgg19")
    np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_an_image_at_its_own_size_is_itself():
    np.testing.assert_array_equal(resize(image(25, 33), scale=1.0), image(25, 33))
