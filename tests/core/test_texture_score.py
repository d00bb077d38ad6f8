import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssdnet_jax.baselines.fca import feature_correspondence
from ssdnet_jax.core.config import FeatureConfig, ScoreConfig
from ssdnet_jax.core.features import View, fit_target, views
from ssdnet_jax.core.score import ScoreSettings
from ssdnet_jax.core.texture_score import (
    agreement,
    image_distances,
    residual_distance,
    tile_distances,
    tile_score,
)
from ssdnet_jax.data.synthetic import grid_texture, plant_defect
from ssdnet_jax.evaluation.metrics import auroc

pytestmark = pytest.mark.usefixtures("fast_compilation")

CONFIG = ScoreConfig(tile_size=5)
FILTERS = FeatureConfig(kind="filters", components=6, fine_components=4)
VIEWS = views(FILTERS, coarse_scale=CONFIG.coarse_scale, noisy=False)


def distances(image):
    return image_distances(
        jnp.asarray(image), None, views=VIEWS.compared, kind="filters", config=CONFIG
    )


def test_distances_are_those_of_feature_correspondence_analysis():
    features = jax.random.uniform(jax.random.key(0), (20, 24, 3))
    expected = feature_correspondence(features, tile_size=5, border="corrected")
    np.testing.assert_allclose(tile_distances(features, tile_size=5), expected, rtol=1e-5)


def test_a_defect_of_the_texture_stands_out():
    texture = grid_texture((64, 64), period=8, seed=0)
    image, mask = plant_defect(texture, kind="blob", center=(30, 36), size=6, seed=1)
    maps = distances(image)
    assert maps.shape == (2, 64, 64)
    assert auroc(mask, np.asarray(maps.mean(0))) > 0.8


def test_a_patch_of_other_residuals_stands_out():
    residual = jax.random.normal(jax.random.key(0), (32, 32, 4))
    residual = residual.at[10:16, 20:26].multiply(4.0)
    actual = residual_distance(residual, shape=(64, 64), config=CONFIG)
    mask = np.zeros((64, 64), bool)
    mask[20:32, 40:52] = True
    assert auroc(mask, np.asarray(actual)) > 0.95
    assert float(actual.max()) > 10


@pytest.mark.parametrize(("scale", "tolerance"), [(1e4, 1e-2), (1e-4, 1e-2)])
def test_agreement_goes_from_the_mean_to_the_geometric_mean(scale, tolerance):
    maps = np.random.default_rng(0).uniform(0.5, 9.0, (3, 4, 5)).astype(np.float32)
    expected = maps.mean(0) if scale > 1 else np.cbrt(maps.prod(0))
    np.testing.assert_allclose(agreement(jnp.asarray(maps), scale=scale), expected, rtol=tolerance)


def test_agreement_prefers_what_all_maps_say_and_keeps_units():
    together, alone = jnp.full((3, 1, 1), 30.0), jnp.array([90.0, 0.0, -1.0])[:, None, None]
    assert float(agreement(together, scale=4.0)[0, 0]) == pytest.approx(30.0, rel=1e-5)
    assert float(agreement(alone, scale=4.0)[0, 0]) < 10


def test_the_score_is_the_agreement_of_three_maps_and_of_pixels_the_residuals():
    image = grid_texture((64, 64), period=8)
    target = fit_target(jnp.asarray(image), None, View("coarse", 1.0, 3), kind="filters")
    mu = 0.5 * target
    settings = ScoreSettings(CONFIG, features=FILTERS)
    actual = tile_score(jnp.asarray(image), target, mu, None, settings)
    common = distances(image)
    residual = residual_distance(target - mu, shape=(64, 64), config=CONFIG)
    expected = agreement(jnp.stack([*common, residual]), scale=CONFIG.agreement_scale)
    np.testing.assert_allclose(actual.raw, expected, rtol=1e-4, atol=1e-4)
    assert float(actual.normalized.max()) == pytest.approx(1.0)
    of_pixels = tile_score(jnp.asarray(image), image, 0.5 * image, None, ScoreSettings(CONFIG))
    expected = residual_distance(0.5 * jnp.asarray(image), shape=(64, 64), config=CONFIG)
    np.testing.assert_allclose(of_pixels.raw, expected, rtol=1e-4, atol=1e-4)


def test_a_noisy_image_is_compared_at_one_more_size():
    image = jnp.asarray(grid_texture((64, 64), period=8))
    noisy = views(FILTERS, coarse_scale=CONFIG.coarse_scale, noisy=True)
    assert noisy.fitted.scale == CONFIG.coarse_scale
    assert max(view.scale for view in noisy.compared) == CONFIG.coarse_scale
    target = fit_target(image, None, noisy.fitted, kind="filters")
    assert target.shape == (24, 24, FILTERS.components + 1)
    settings = ScoreSettings(CONFIG, features=FILTERS, noisy=True)
    actual = tile_score(image, target, 0.5 * target, None, settings)
    common = image_distances(image, None, views=noisy.compared, kind="filters", config=CONFIG)
    residual = residual_distance(0.5 * target, shape=(64, 64), config=CONFIG)
    expected = agreement(jnp.stack([*common, residual]), scale=CONFIG.agreement_scale)
    assert len(common) == 3
    np.testing.assert_allclose(actual.raw, expected, rtol=1e-4, atol=1e-4)
