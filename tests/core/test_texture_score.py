import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssdnet_jax.config import from_config_dict
from ssdnet_jax.core import trust
from ssdnet_jax.core.calibration import in_quartiles
from ssdnet_jax.core.config import FeatureConfig
from ssdnet_jax.core.patch_statistics import tile_distances
from ssdnet_jax.core.score import score
from ssdnet_jax.core.target import Target, encode
from ssdnet_jax.data.synthetic import grid_texture, plant_defect
from ssdnet_jax.evaluation.metrics import auprc, auroc

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


def without_marks(*, scale=4.0, side=72, **measured):
    """A plan of two representations or more, whose tiles alone are scored."""
    config = dataclasses.replace(CONFIG.score, marks="none", guide="none", agreement_scale=scale)
    return dataclasses.replace(CONFIG, score=config).plan((side, side), **measured)


encoded = jax.jit(encode, static_argnames="plan")
scored = jax.jit(score, static_argnames="plan")
distances = jax.jit(tile_distances, static_argnames="tile_size")


@functools.partial(jax.jit, static_argnames="plan")
def literal_agreement(parts, plan):
    """The agreement of the distances of all parts, each brought to the size of the image."""
    scale = plan.score.agreement_scale
    maps = [
        in_quartiles(
            jax.image.resize(
                tile_distances(x, tile_size=plan.score.tile_size), plan.shape, "linear"
            )
        )
        for x in parts
    ]
    logarithms = jnp.log1p(jnp.maximum(jnp.stack(maps), 0) / scale)
    return scale * jnp.expm1(trust.agreement(logarithms))


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
    # Of two parts that see the same, the score is that of one; of the parts' mean it is between.
    plan = without_marks(scale=scale)
    residual = jax.random.normal(jax.random.key(0), (36, 36, 4))
    other = jax.random.normal(jax.random.key(1), (36, 36, 4))
    target = Target(residual[None], (other[None],), jnp.zeros((1, 1)), jnp.ones((1, 1)))
    one, another = (
        np.maximum(in_quartiles(jax.image.resize(distances(x, tile_size=5), (72, 72), "linear")), 0)
        for x in (other, residual)
    )
    logs = [np.log1p(x / scale) for x in (one, another)]
    peaks = [np.sort(x.ravel())[-13:].mean() for x in logs]
    weights = np.maximum(np.exp(3 * (np.array(peaks) - max(peaks))), 0.4)
    a, b = weights / weights.sum()
    expected = a * one + b * another if scale > 1 else one**a * another**b
    actual = scored(target, jnp.zeros_like(target.values), None, plan=plan).raw[0]
    both = (one > 0.1) & (another > 0.1)
    np.testing.assert_allclose(actual[both], expected[both], rtol=tolerance)


@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_the_score_is_the_agreement_of_the_maps_of_all_representations(noise):
    plan = without_marks(noise=noise)
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
    """Two fillings of what does not count: only places beside it may differ, and little.

    Marks are those of the whole image, filled with what resembles it.
    """
    valid = np.ones((72, 72), np.float32)
    valid[:, 48:] = 0
    plan = without_marks(masked=True)
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


def test_a_thin_line_that_tiles_do_not_see_is_marked():
    image = np.random.default_rng(0).normal(0.5, 0.12, (96, 96, 1)).astype(np.float32)
    mask = np.zeros((96, 96), bool)
    mask[range(10, 62), range(62, 10, -1)] = True
    image = np.clip(image - 0.45 * mask[..., None], 0, 1)
    found = []
    for plan in (without_marks(side=96), CONFIG.plan((96, 96))):
        target = encoded(image[None], None, plan=plan)
        found.append(auprc(mask, np.asarray(scored(target, target.values, None, plan=plan).raw[0])))
    of_tiles, of_both = found
    assert of_both > 0.3
    assert of_both > 1.5 * of_tiles


def test_detail_is_compared_at_as_many_positions_and_lies_where_it_is_seen():
    plan = CONFIG.plan((72, 72), detailed=True)
    assert plan.detailed and len(plan.compared) == 4
    large = np.random.default_rng(0).random((144, 144, 1), np.float32)
    large[60:76, 100:116] **= 4
    small = large.reshape(72, 2, 72, 2, 1).mean((1, 3))
    target = encoded(small[None], None, plan=plan, details=large[None])
    assert [part.shape for part in target.compared[2:]] == [(1, 36, 36, 6), (1, 36, 36, 6)]
    found = np.asarray(scored(target, target.values, None, plan=plan).raw[0])
    rows, columns = np.nonzero(found > 0.7 * found.max())
    assert abs(rows.mean() - 33.5) < 3
    assert abs(columns.mean() - 53.5) < 3
    with pytest.raises(ValueError, match="no details"):
        encode(jnp.asarray(small[None]), None, plan)
