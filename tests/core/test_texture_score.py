import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssdnet_jax.baselines.fca import feature_correspondence
from ssdnet_jax.core.config import ScoreConfig
from ssdnet_jax.core.texture_score import (
    image_distances,
    in_quartiles,
    residual_distance,
    tile_distances,
)
from ssdnet_jax.data.synthetic import grid_texture, plant_defect
from ssdnet_jax.evaluation.metrics import auroc

pytestmark = pytest.mark.usefixtures("fast_compilation")

CONFIG = ScoreConfig(tile_size=5)


def test_distances_are_those_of_feature_correspondence_analysis():
    features = jax.random.uniform(jax.random.key(0), (20, 24, 3))
    expected = feature_correspondence(features, tile_size=5, border="corrected")
    np.testing.assert_allclose(tile_distances(features, tile_size=5), expected, rtol=1e-5)


def test_quartiles_are_those_of_numpy():
    values = np.random.default_rng(0).gamma(2.0, size=(9, 11)).astype(np.float32)
    median, quartile = np.quantile(values, [0.5, 0.75])
    actual = in_quartiles(jnp.asarray(values))
    np.testing.assert_allclose(actual, (values - median) / (quartile - median), rtol=1e-4)


@settings(max_examples=20, deadline=None)
@given(gain=st.floats(0.01, 100), shift=st.floats(-5, 5))
def test_quartiles_do_not_depend_on_the_unit(gain, shift):
    values = jnp.asarray(np.random.default_rng(0).random((8, 8), np.float32))
    np.testing.assert_allclose(
        in_quartiles(gain * values + shift), in_quartiles(values), atol=2e-3 * max(1, 5 / gain)
    )


def test_a_constant_map_is_zero():
    np.testing.assert_array_equal(in_quartiles(jnp.full((4, 4), 3.0)), 0)


def test_a_defect_of_the_texture_stands_out():
    texture = grid_texture((64, 64), period=8, seed=0)
    image, mask = plant_defect(texture, kind="blob", center=(30, 36), size=6, seed=1)
    maps = image_distances(jnp.asarray(image), None, kind="filters", config=CONFIG)
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
