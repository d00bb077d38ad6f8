import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssdnet_jax.baselines.fca import feature_correspondence
from ssdnet_jax.config import from_config_dict
from ssdnet_jax.core.calibration import in_quartiles
from ssdnet_jax.core.config import FeatureConfig
from ssdnet_jax.core.score import score
from ssdnet_jax.core.target import Target, encode
from ssdnet_jax.core.texture_score import agreement, tile_distances
from ssdnet_jax.data.synthetic import grid_texture, plant_defect
from ssdnet_jax.evaluation.metrics import auroc

CONFIG = from_config_dict(
    {
        "image_size": 0,
        "features": {"kind": "filters", "components": 6, "fine_components": 4},
        "network": {"channels_down": 2, "channels_up": 2, "channels_skip": 0},
        "loss": {"patch_sizes": 4, "patch_strides": 4},
        "score": {"tile_size": 5},
    }
)
PLAN = CONFIG.plan((72, 72))
encoded = jax.jit(encode, static_argnames="plan")
scored = jax.jit(score, static_argnames="plan")
distances = jax.jit(tile_distances, static_argnames="tile_size")


@functools.partial(jax.jit, static_argnames="plan")
def literal_agreement(parts, plan):
    """The agreement of the distances of all parts, each brought to the size of the image."""
    maps = [
        in_quartiles(
            jax.image.resize(
                tile_distances(x, tile_size=plan.score.tile_size), plan.shape, "linear"
            )
        )
        for x in parts
    ]
    return agreement(jnp.stack(maps), scale=plan.score.agreement_scale)


def test_distances_are_those_of_feature_correspondence_analysis():
    features = np.random.default_rng(0).random((20, 24, 3), np.float32)
    correspondence = jax.jit(feature_correspondence, static_argnames=("tile_size", "border"))
    expected = correspondence(features, tile_size=5, border="corrected")
    np.testing.assert_allclose(distances(features, tile_size=5), expected, rtol=1e-5)


def test_a_defect_of_the_texture_stands_out():
    texture = grid_texture((72, 72), period=8, seed=0)
    image, mask = plant_defect(texture, kind="blob", center=(30, 36), size=6, seed=1)
    target = encoded(jnp.asarray(image)[None], None, plan=PLAN)
    nothing_left = scored(target, target.values, None, plan=PLAN)
    assert nothing_left.raw.shape == (1, 72, 72)
    assert auroc(mask, np.asarray(nothing_left.raw[0])) > 0.8


def test_a_patch_of_other_residuals_stands_out():
    residual = jax.random.normal(jax.random.key(0), (36, 36, 4))
    residual = residual.at[10:16, 20:26].multiply(4.0)
    alone = Target(residual[None], (), jnp.zeros((1, 1)), jnp.ones((1, 1)))
    actual = scored(alone, jnp.zeros_like(alone.values), None, plan=PLAN).raw[0]
    mask = np.zeros((72, 72), bool)
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


@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_the_score_is_the_agreement_of_the_maps_of_all_representations(noise):
    plan = CONFIG.plan((72, 72), noise=noise)
    target = encoded(np.asarray(grid_texture((72, 72), period=8))[None], None, plan=plan)
    mu = 0.5 * target.values
    parts = [x[0] for x in (*target.compared, target.values - mu)]
    assert len(parts) == (4 if noise else 3)
    expected = literal_agreement(parts, plan=plan)
    actual = scored(target, mu, None, plan=plan)
    np.testing.assert_allclose(actual.raw[0], expected, rtol=1e-4, atol=1e-4)
    assert float(actual.normalized.max()) == pytest.approx(1.0)


def test_of_pixels_the_score_is_the_distance_of_the_residuals():
    plan = dataclasses.replace(CONFIG, features=FeatureConfig(kind="pixels")).plan((72, 72))
    image = jnp.asarray(grid_texture((72, 72), period=8))[None]
    target = encoded(image, None, plan=plan)
    expected = in_quartiles(distances(0.5 * image[0], tile_size=5))
    actual = scored(target, 0.5 * image, None, plan=plan).raw[0]
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


def test_what_takes_no_part_changes_no_statistic_and_no_map():
    """Two fillings of what does not count: only places beside it may differ, and little."""
    valid = np.ones((72, 72), np.float32)
    valid[:, 48:] = 0
    plan = CONFIG.plan((72, 72), masked=True)
    texture = np.asarray(grid_texture((72, 72), period=8, seed=0))
    fillings = (texture, np.where(valid[..., None] > 0, texture, texture[::-1, ::-1] ** 2))
    targets = [encoded(x[None], None, plan=plan, valid=valid[None]) for x in fillings]
    far = 48 // 2 - 6  # features whose receptive field stays within what is valid
    for one, other in zip(targets[0].compared, targets[1].compared, strict=True):
        width = round(far * one.shape[2] / 36)
        np.testing.assert_allclose(one[:, :, :width], other[:, :, :width], atol=1e-4)
    maps = [scored(x, 0.5 * x.values, None, plan=plan) for x in targets]
    near, whole = (np.asarray(m.raw[0]) for m in maps)
    # What is usual is measured beside the filling too, which moves the scale a little.
    assert np.corrcoef(near[:, :30].ravel(), whole[:, :30].ravel())[0, 1] > 0.99
    judged = np.asarray(maps[0].normalized[0])[valid > 0]
    assert judged.min() == pytest.approx(0) and judged.max() == pytest.approx(1)


def test_a_map_with_weights_of_one_is_the_map_without():
    features = jax.random.uniform(jax.random.key(0), (28, 31, 3))
    plain = distances(features, tile_size=5)
    weighted = distances(features, tile_size=5, weights=jnp.ones((28, 31)))
    inside = (slice(4, -4), slice(4, -4))  # what is usual is measured here alone or everywhere
    np.testing.assert_allclose(weighted[inside], plain[inside], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(weighted, plain, atol=0.05 * np.ptp(plain))


def test_an_oddity_that_takes_no_part_leaves_the_map_as_it_is():
    features = np.asarray(jax.random.uniform(jax.random.key(1), (40, 40, 3)))
    odd, weights = features.copy(), np.ones((40, 40), np.float32)
    odd[14:26, 14:26], weights[14:26, 14:26] = 7.0, 0.0
    known = weights > 0
    seen, ignored = (
        np.asarray(distances(jnp.asarray(odd), tile_size=5, weights=w))
        for w in (None, jnp.asarray(weights))
    )
    clean = np.asarray(distances(jnp.asarray(features), tile_size=5))
    assert seen[known].max() > 2 * np.median(seen)
    assert ignored[known].max() < 1.2 * clean.max()
