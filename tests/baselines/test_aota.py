import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from ssdnet_jax.baselines.aota import aota, neighbour_distances
from ssdnet_jax.baselines.pixels import box_mean
from ssdnet_jax.data.synthetic import grid_texture, plant_defect
from ssdnet_jax.data.weights import random_vgg19_weights
from ssdnet_jax.errors import ConfigError, InputError
from ssdnet_jax.evaluation.metrics import auroc

TINY = random_vgg19_weights(0, channels=(3, 4, 5, 6))


@pytest.mark.parametrize("features", ["vgg19", "filters"])
def test_a_planted_defect_stands_out(features):
    texture = grid_texture((64, 56), period=8)
    image, mask = plant_defect(texture, kind="blob", center=(40, 25), size=12, contrast=0.5)
    score_map = np.asarray(aota(image, features=features, vgg19=TINY, window=3, stride=2))
    assert score_map.shape == mask.shape
    assert score_map.min() >= -1e-6
    assert auroc(mask, score_map) > 0.9


@pytest.mark.parametrize("count", [1, 7, 300])
def test_distances_are_those_of_scikit_learn(count):
    features = np.random.default_rng(0).normal(size=(300, 5)).astype(np.float32) + 30
    nearest = NearestNeighbors(n_neighbors=count).fit(features.astype(np.float64))
    expected = (nearest.kneighbors(features)[0] ** 2).mean(1)
    distances = neighbour_distances(jnp.asarray(features), count=count)
    np.testing.assert_allclose(distances, expected, rtol=1e-4, atol=1e-4)


def test_a_window_is_averaged_as_by_scipy():
    from scipy.ndimage import uniform_filter

    features = np.random.default_rng(1).random((11, 13, 2), np.float32)
    expected = uniform_filter(features, (5, 5, 1), mode="mirror")
    np.testing.assert_allclose(box_mean(jnp.asarray(features), size=5), expected, rtol=1e-5)


def test_images_go_through_vmap_and_jit_as_one_by_one():
    images = jnp.stack([grid_texture((32, 40), period=p) for p in (6, 7)])
    one = lambda image: aota(image, features="filters", window=3, blur=0.0)  # noqa: E731
    both = jax.jit(jax.vmap(one))(images)
    for image, result in zip(images, both, strict=True):
        np.testing.assert_allclose(result, one(image), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({}, ConfigError, "load_vgg19_weights"),
        ({"features": "laws"}, ConfigError, "expected vgg19 or filters"),
        ({"features": "filters", "neighbours": 0.0}, ConfigError, "neighbours is 0.0"),
        ({"features": "filters", "window": 4}, ConfigError, "window is 4"),
        ({"features": "filters", "stride": 0}, ConfigError, "stride is 0"),
        ({"features": "filters", "blur": -1.0}, ConfigError, "blur is -1.0"),
        ({"features": "filters", "window": 9}, InputError, "at least 36 a side"),
    ],
)
def test_wrong_options_are_refused(options, error, words):
    with pytest.raises(error, match=words):
        aota(jnp.zeros((32, 40, 1)), **options)
