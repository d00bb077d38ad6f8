import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssdnet_jax.config import from_config_dict
from ssdnet_jax.core.config import LossConfig, ScoreConfig
from ssdnet_jax.core.losses import patch_similarities
from ssdnet_jax.core.patches import extract_patches, patch_corners
from ssdnet_jax.core.score import local_mean, min_max, patch_inner_products, score, score_maps
from ssdnet_jax.core.target import Target, encode
from ssdnet_jax.core.vgg19 import vgg19_features
from ssdnet_jax.data.weights import random_vgg19_weights

TINY = random_vgg19_weights(0, channels=(3, 4, 5, 6))
LOSS = LossConfig(perceptual_size=12)
SHAPE = (14, 12)


def pair(channels=3):
    return list(np.random.default_rng(0).random((2, *SHAPE, channels), np.float32))


maps_of = jax.jit(score_maps, static_argnums=(3, 4))
patches_of = jax.jit(extract_patches, static_argnames=("size", "stride"))
features_of = jax.jit(vgg19_features)
scored = jax.jit(score, static_argnums=3)
mean_of = jax.jit(local_mean, static_argnums=1)


def painted(patch_values, size, stride):
    """sum_p R_p v_p / N_r, pixel by pixel, and how many patches lie on each pixel."""
    total, covered = np.zeros(SHAPE), np.zeros(SHAPE)
    corners = patch_corners(SHAPE, size=size, stride=stride)
    for (row, column), value in zip(corners, patch_values, strict=True):
        total[row : row + size, column : column + size] += value
        covered[row : row + size, column : column + size] += 1
    return total / len(corners), total / covered


def scaled(m):
    return (m - m.min()) / (m.max() - m.min())


@pytest.mark.parametrize("coverage", ["paper", "mean"])
def test_reconstruction_score_equals_eq_3_patch_by_patch(coverage):
    y, f = pair()
    config = ScoreConfig(patch_sizes=(5,), patch_strides=(2,), coverage=coverage)
    patches = [np.asarray(patches_of(x, size=5, stride=2)) for x in (y, f)]
    errors = ((patches[0] - patches[1]) ** 2).mean(axis=(1, 2, 3))
    expected = painted(errors, 5, 2)[coverage == "mean"]
    maps = maps_of(y, f, None, config, LOSS)
    np.testing.assert_allclose(maps.raw, expected, rtol=1e-4)
    np.testing.assert_allclose(maps.normalized, scaled(expected), atol=1e-4)


def test_perceptual_score_equals_eq_3_patch_by_patch():
    y, f = pair()
    config = ScoreConfig(
        patch_sizes=(6,), patch_strides=(3,), alpha_rec=0.25, alpha_perc=0.75, coverage="paper"
    )
    patches = [np.asarray(patches_of(x, size=6, stride=3)) for x in (y, f)]
    products = np.asarray(jax.jit(patch_similarities, static_argnums=3)(*patches, TINY, LOSS))
    errors = ((patches[0] - patches[1]) ** 2).mean(axis=(1, 2, 3))
    rec, perc = painted(errors, 6, 3)[0], painted(products, 6, 3)[0]
    maps = maps_of(y, f, TINY, config, LOSS)
    np.testing.assert_allclose(maps.raw, 0.25 * rec - 0.75 * perc, rtol=1e-3, atol=1e-5)
    expected = 0.25 * scaled(rec) - 0.75 * scaled(perc)
    np.testing.assert_allclose(maps.normalized, expected, atol=1e-3)


@pytest.mark.parametrize(
    ("aggregation", "operator"), [("max", np.max), ("min", np.min), ("mean", np.mean)]
)
def test_resolutions_are_aggregated_pixel_by_pixel(aggregation, operator):
    y, f = pair()
    singles = [
        maps_of(y, f, None, ScoreConfig(patch_sizes=(m,), patch_strides=(1,)), LOSS) for m in (3, 7)
    ]
    config = ScoreConfig(patch_sizes=(3, 7), patch_strides=(1, 1), aggregation=aggregation)
    both = maps_of(y, f, None, config, LOSS)
    for name in ("raw", "normalized"):
        expected = operator([getattr(s, name) for s in singles], axis=0)
        np.testing.assert_allclose(getattr(both, name), expected, rtol=1e-5)


def test_a_planted_error_is_the_maximum_and_far_pixels_are_zero():
    y, _ = pair()
    f = y.copy()
    f[3, 4] += 0.5
    config = ScoreConfig(patch_sizes=(3,), patch_strides=(1,))
    maps = jax.device_get(maps_of(y, f, None, config, LOSS))
    assert np.unravel_index(np.argmax(maps.raw), SHAPE) == (3, 4)
    assert maps.normalized[3, 4] == 1.0
    assert (maps.raw[:, 8:] == 0).all()


def test_min_max_of_a_constant_map_is_zero():
    np.testing.assert_array_equal(min_max(jnp.full((3, 3), 7.0)), 0.0)


def test_vmap_over_images_equals_a_loop():
    y, f = pair()
    config = ScoreConfig(patch_sizes=(5,), patch_strides=(2,))
    vmapped = jax.jit(jax.vmap(lambda y, f: score_maps(y, f, None, config, LOSS).raw))
    lanes = vmapped(np.stack([y, f]), np.stack([f, f / 2]))
    np.testing.assert_allclose(lanes[0], maps_of(y, f, None, config, LOSS).raw, rtol=1e-5)
    np.testing.assert_allclose(lanes[1], maps_of(f, f / 2, None, config, LOSS).raw, rtol=1e-5)


def test_a_view_of_the_whole_image_scores_patches_of_its_features():
    y, f = np.random.default_rng(3).random((2, 16, 20, 3), np.float32)
    loss = LossConfig(perceptual_view="image")
    inner_products = jax.jit(patch_inner_products, static_argnames=("config", "size", "stride"))
    actual = inner_products(y, f, TINY, config=loss, size=4, stride=2)
    phi = [np.asarray(features_of(TINY, x[None]))[0] for x in (y, f)]
    products = np.sum(phi[0] * phi[1], axis=-1)
    # A patch of 4 pixels at an even place covers 2 x 2 features.
    expected = [[float(products[r : r + 2, c : c + 2].mean()) for c in range(9)] for r in range(7)]
    np.testing.assert_allclose(actual, expected, rtol=1e-4)


def test_the_score_of_a_fit_to_features_has_the_size_of_the_image(tiny):
    values = {**tiny, "image_size": 0, "features": {"kind": "filters"}}
    plan = from_config_dict({**values, "inpaint": {}}).plan((72, 80))
    fitted, mu = np.random.default_rng(1).standard_normal((2, 1, 36, 40, 5), np.float32)
    target = Target(fitted, (), jnp.zeros((1, 1)), jnp.ones((1, 1)))
    maps = scored(target, mu, None, plan)
    expected = maps_of(fitted[0], mu[0], None, plan.score, plan.fit.loss)
    assert maps.raw.shape == maps.normalized.shape == (1, 72, 80)
    np.testing.assert_allclose(np.mean(maps.raw), np.mean(expected.raw), rtol=0.05)


def test_a_batch_of_pixels_is_scored_image_by_image(tiny):
    plan = from_config_dict({**tiny, "image_size": 0}).plan(SHAPE)
    y, f = (np.stack([x, x / 2]) for x in pair())
    maps = scored(jax.jit(encode, static_argnums=2)(y, None, plan), f, None, plan)
    for index in range(2):
        expected = maps_of(y[index], f[index], None, plan.score, plan.fit.loss)
        np.testing.assert_allclose(maps.raw[index], expected.raw, rtol=1e-5)


def test_patches_are_scored_by_what_they_know():
    error = np.random.default_rng(0).random((20, 24, 1)).astype(np.float32)
    known = np.ones((20, 24), np.float32)
    known[:, 15:] = 0
    image = jnp.zeros((20, 24, 1))
    config = ScoreConfig(method="patches", patch_sizes=(4,), patch_strides=(1,))
    spoilt = np.where(known[..., None] > 0, np.sqrt(error), 1e3)
    found = score_maps(image, jnp.asarray(spoilt), None, config, LossConfig(), jnp.asarray(known))
    values, weights = np.zeros((20, 24)), np.zeros((20, 24))
    for y in range(17):
        for x in range(21):
            patch = (slice(y, y + 4), slice(x, x + 4))
            values[patch] += (error[..., 0] * known)[patch].sum()
            weights[patch] += known[patch].sum()
    judged = known > 0
    np.testing.assert_allclose(
        found.raw[judged], (values / np.maximum(weights, 1))[judged], rtol=1e-4
    )
    assert float(found.normalized[judged].max()) == pytest.approx(1.0)


def relative_plan(tiny, shape, **score):
    values = {"method": "relative", "patch_sizes": (4,), "patch_strides": (1,), **score}
    return from_config_dict({**tiny, "image_size": 0, "score": values}).plan(shape)


def log_ratio(y, f):
    return np.abs(np.log((y + 0.1) / (f + 0.1))).mean(-1)


def gaussian_means(values, weights, width):
    """The mean around each pixel, term by term, of an image repeated in mirror images."""
    reach = int(np.ceil(3 * width))
    mirrored = [np.pad(x, reach, mode="symmetric").astype(np.float64) for x in (values, weights)]
    line = np.exp(-0.5 * (np.arange(-reach, reach + 1) / width) ** 2)
    window = np.outer(line, line)
    found = np.zeros(values.shape)
    for row, column in np.ndindex(values.shape):
        v, w = (x[row : row + 2 * reach + 1, column : column + 2 * reach + 1] for x in mirrored)
        found[row, column] = (window * w * v).sum() / (window * w).sum()
    return found


def test_the_relative_score_is_eq_3_of_log_ratios_over_their_local_mean(tiny):
    y, f = pair()
    plan = relative_plan(tiny, SHAPE, level_width=2.0)
    maps = scored(jax.jit(encode, static_argnums=2)(y[None], None, plan), f[None], None, plan)
    error = log_ratio(y, f)
    patches = np.asarray(patches_of(error[..., None], size=4, stride=1)).mean((1, 2, 3))
    expected = painted(patches, 4, 1)[1] / gaussian_means(error, np.ones(SHAPE), 2.0)
    np.testing.assert_allclose(maps.raw[0], expected, rtol=1e-4)
    np.testing.assert_allclose(maps.normalized[0], scaled(expected), atol=1e-4)


def test_the_local_mean_is_of_what_is_known():
    values, known = np.random.default_rng(2).random((2, *SHAPE), np.float32)
    known[:, 9:] = 0
    found = mean_of(values, 3.0, known)
    np.testing.assert_allclose(found, gaussian_means(values, known, 3.0), rtol=1e-4)
    np.testing.assert_array_equal(mean_of(values, 1.0, np.zeros(SHAPE, np.float32)), 0)


def test_the_local_mean_reaches_beyond_a_small_image():
    values = np.random.default_rng(2).random((5, 7), np.float32)
    found = mean_of(values, 6.0)
    np.testing.assert_allclose(found, gaussian_means(values, np.ones((5, 7)), 6.0), rtol=1e-4)


def test_the_relative_score_finds_a_defect_beside_a_highlight_and_eq_3_the_highlight(tiny):
    shape = (64, 64)
    generator = np.random.default_rng(0)
    y = np.full((*shape, 1), 0.4, np.float32)
    y[:, 48:] = 0.9
    errors = 0.02 * generator.standard_normal(y.shape)
    f = (y * (1 + errors)).astype(np.float32)
    f[:, 48:] = y[:, 48:] * (1 + 5 * errors[:, 48:])
    f[18:22, 12:16] *= 1.1
    plans = [relative_plan(tiny, shape, method=m, level_width=8.0) for m in ("relative", "patches")]
    peaks = []
    for plan in plans:
        target = jax.jit(encode, static_argnums=2)(y[None], None, plan)
        raw = np.asarray(scored(target, f[None], None, plan).raw[0])
        peaks.append(np.unravel_index(raw.argmax(), shape))
    assert 16 <= peaks[0][0] < 24 and 10 <= peaks[0][1] < 18
    assert peaks[1][1] >= 44


def test_an_exact_reconstruction_has_no_relative_error(tiny):
    y, _ = pair()
    plan = relative_plan(tiny, SHAPE)
    target = jax.jit(encode, static_argnums=2)(y[None], None, plan)
    np.testing.assert_allclose(scored(target, y[None], None, plan).raw, 0, atol=1e-5)
