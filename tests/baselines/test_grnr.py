import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import cdist

from ssdnet_jax.baselines.grnr import grnr, normal_features, regression_errors
from ssdnet_jax.data.synthetic import grid_texture, plant_defect
from ssdnet_jax.data.weights import random_vgg19_weights
from ssdnet_jax.errors import ConfigError, InputError
from ssdnet_jax.evaluation.metrics import auroc

TINY = random_vgg19_weights(0, channels=(3, 4, 5, 6))


@pytest.mark.parametrize("features", ["vgg19", "filters"])
def test_a_planted_defect_stands_out(features):
    texture = grid_texture((64, 56), period=8)
    image, mask = plant_defect(texture, kind="blob", center=(40, 25), size=12, contrast=0.5)
    score_map = np.asarray(grnr(image, features=features, vgg19=TINY, strides=(2, 4), normal=9))
    assert score_map.shape == mask.shape
    assert (score_map >= 0).all()
    assert auroc(mask, score_map) > 0.8


def test_errors_are_those_of_the_publications_formula():
    height, width, channels, normal, weight = 5, 6, 20, 4, 0.3
    generator = np.random.default_rng(0)
    features = generator.normal(size=(height, width, channels))
    padded = np.pad(features, ((1, 1), (1, 1), (0, 0)), mode="reflect")
    averaged = np.zeros_like(features)
    for row in range(3):
        for column in range(3):
            averaged += padded[row : row + height, column : column + width] / 9
    flat = averaged.reshape(-1, channels)
    usual = flat[np.argsort(cdist(flat, flat).mean(1))[:normal]]
    around = np.pad(averaged, ((1, 1), (1, 1), (0, 0)), mode="reflect")
    expected = np.zeros((height, width))
    for row in range(height):
        for column in range(width):
            block = around[row : row + 3, column : column + 3].reshape(9, channels)
            S, q = np.delete(block, 4, 0), averaged[row, column]
            # At corners neighbours are equal by the mirror: a pseudo-inverse.
            right = q @ S.T + weight * sum(mu @ S.T for mu in usual)
            W = right @ np.linalg.pinv(S @ S.T + weight * normal * S @ S.T)
            expected[row, column] = np.linalg.norm(q - W @ S)
    errors = regression_errors(jnp.asarray(features, jnp.float32), normal=normal, weight=weight)
    np.testing.assert_allclose(errors, expected, rtol=0.02)


def test_normal_features_are_those_of_the_smallest_mean_distance():
    features = np.random.default_rng(2).normal(size=(300, 3)).astype(np.float32) + 20
    expected = features[np.argsort(cdist(features, features).mean(1))[:5]]
    found = normal_features(jnp.asarray(features), count=5)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert normal_features(jnp.asarray(features[:4]), count=40).shape == (4, 3)


def test_an_image_without_texture_has_a_finite_map():
    assert np.isfinite(np.asarray(grnr(jnp.ones((48, 48, 3)), features="filters"))).all()


def test_images_go_through_vmap_and_jit_as_one_by_one():
    images = jnp.stack([grid_texture((32, 40), period=p) for p in (6, 7)])
    one = lambda image: grnr(image, features="filters", strides=(2,))  # noqa: E731
    both = jax.jit(jax.vmap(one))(images)
    for image, result in zip(images, both, strict=True):
        np.testing.assert_allclose(result, one(image), rtol=0.01, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({}, ConfigError, "load_vgg19_weights"),
        ({"features": "laws"}, ConfigError, "expected vgg19 or filters"),
        ({"features": "filters", "normal": 0}, ConfigError, "normal is 0"),
        ({"features": "filters", "weight": -1.0}, ConfigError, "weight is -1.0"),
        ({"features": "filters", "strides": ()}, ConfigError, "one or more"),
        ({"features": "filters", "blur": -1.0}, ConfigError, "blur is -1.0"),
        ({"features": "filters", "strides": (8,)}, InputError, "at least 48 a side"),
    ],
)
def test_wrong_options_are_refused(options, error, words):
    with pytest.raises(error, match=words):
        grnr(jnp.zeros((32, 40, 1)), **options)
