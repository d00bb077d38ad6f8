import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssdnet_jax.config import from_config_dict
from ssdnet_jax.core.fit import StopReason
from ssdnet_jax.core.noise import noise_deviation
from ssdnet_jax.core.patch_statistics import tile_distances
from ssdnet_jax.core.registry import NETWORKS
from ssdnet_jax.core.score import score
from ssdnet_jax.core.target import encode
from ssdnet_jax.data.synthetic import grid_texture, plant_defect
from ssdnet_jax.errors import ConfigError
from ssdnet_jax.localize import localize
from ssdnet_jax.methods.base import TiledLocalization
from ssdnet_jax.methods.large.image import FittedNetwork, analyse
from ssdnet_jax.methods.large.score import distance_maps
from ssdnet_jax.methods.large.tiled_fit import fit_in_tiles, raw_map, sampled_noise

NETWORK = {"channels_down": (4,), "channels_up": (4,), "channels_skip": (2,)}


def configuration(**fields):
    values = {
        "image_size": 0,
        "features": {"kind": "filters", "components": 2, "fine_components": 2},
        "network": NETWORK,
        "fit": {"max_steps": 20, "block_steps": 5},
        "tiling": {"above": 64 * 64, "crop": 64, "side": 64},
    }
    return from_config_dict(values | fields)


def check_that_maps_differ_by_rounding(found, expected, judged=...):
    """Maps are the same but where rounding decides which of two members of a tile comes first.

    Two members that are nearly equal may change places, by which their surroundings change, by up
    to some thousandths of the map's range here: as much as the map of the whole image changes if
    1e-6 is added to the image. That concerns few tiles; all others agree far better.
    """
    differences = (np.abs(found - expected) / np.ptp(expected[judged]))[judged]
    of_nine_tenths, of_nearly_all = np.quantile(differences, [0.9, 0.99])
    assert of_nine_tenths < 1e-4 and of_nearly_all < 1e-3 and differences.max() < 1e-2


@pytest.fixture(scope="module")
def planted():
    # Grain, without which neighbours are equal but for rounding, and so is their order.
    grain = np.random.default_rng(0).normal(0, 0.01, (320, 352, 1))
    image = np.clip(grid_texture((320, 352), period=12, seed=1) + grain, 0, 1).astype(np.float32)
    return plant_defect(image, kind="blob", center=(205, 250), size=22, seed=2)


def test_in_tiles_features_and_distances_are_those_of_the_whole_image(planted):
    image, _ = planted
    config = configuration()
    plan = config.plan(image.shape[:2])
    analysed = analyse(image, None, None, plan, config.tiling, noise=sampled_noise(image, None))
    target = jax.jit(encode, static_argnames="plan")(image[None], None, plan)
    assert len(analysed.large.bands) > 1 and len(analysed.large.bands[0]) > 1
    maps = distance_maps(analysed, analysed.compared_parts())
    for part, whole in zip(maps, target.compared, strict=True):
        distances = jax.jit(tile_distances, static_argnames="tile_size")(whole[0], tile_size=9)
        at_pixels = np.asarray(jax.image.resize(distances, image.shape[:2], "linear"))
        median, quartile = np.quantile(at_pixels, [0.5, 0.75])
        expected = (at_pixels - median) / (quartile - median)
        check_that_maps_differ_by_rounding(part.at_pixels(), expected)


@pytest.mark.parametrize(
    ("channels", "noise", "is_masked"),
    [(3, 0.06, False), (3, 0.0, True), (1, 0.0, False)],
    ids=["noisy", "masked", "grey"],
)
def test_of_one_network_the_map_of_tiles_is_that_of_the_whole(planted, channels, noise, is_masked):
    generator = np.random.default_rng(1)
    image = (0.2 + 0.6 * planted[0]) * np.array([1.0, 0.7, 0.4], np.float32)[:channels]
    image += generator.normal(0, 0.01 + noise, image.shape)
    image[100:103, 30:90] += 0.2  # a scratch, which is a mark
    image = np.clip(image, 0, 1).astype(np.float32)
    valid = None
    if is_masked:
        valid = np.ones(image.shape[:2], bool)
        valid[:64, 100:180] = False
    config = configuration()
    measured = sampled_noise(image, valid)
    plan = config.plan(image.shape[:2], noise=measured, masked=is_masked)
    assert plan.guided and plan.marks != is_masked
    analysed = analyse(image, valid, None, plan, config.tiling, noise=measured)
    weights = None if valid is None else jnp.asarray(valid[None], jnp.float32)
    target = jax.jit(encode, static_argnames="plan")(image[None], None, plan, valid=weights)
    network = NETWORKS[plan.fit.network.kind]
    settings = plan.fit.network
    params = network.init(jax.random.key(0), settings, channels=target.values.shape[-1])
    statistics = jax.jit(network.measure, static_argnums=2)(params, target.values, settings)
    apply = jax.jit(network.with_statistics, static_argnums=3)
    reconstruction = apply(params, statistics, target.values, settings)
    expected = np.asarray(
        jax.jit(score, static_argnames="plan")(target, reconstruction, None, plan=plan).raw[0]
    )
    fit = FittedNetwork(params, statistics, np.zeros(1), StopReason.MAX_STEPS, 0)
    found = raw_map(analysed, fit)
    check_that_maps_differ_by_rounding(found, expected, ... if valid is None else valid)


def test_a_large_image_is_localized_with_its_defect(planted):
    image, mask = planted
    seen = []
    result = localize(image, configuration(), report=seen.append)
    assert isinstance(result, TiledLocalization)
    assert result.score_map.shape == mask.shape and result.steps == 20
    peak = np.unravel_index(result.score_map.argmax(), mask.shape)
    assert mask[peak]
    assert {progress.stage for progress in seen} == {"features", "fit", "score", "marks", "guide"}
    again = localize(image, configuration())
    np.testing.assert_array_equal(result.score_map, again.score_map)


def test_of_a_very_large_image_evenly_spread_tiles_tell_the_statistics(planted, monkeypatch):
    image, mask = planted
    whole = localize(image, configuration())
    monkeypatch.setattr("ssdnet_jax.methods.large.image.COUNTED", image.size // 2)
    result = localize(image, configuration())
    assert mask[np.unravel_index(result.score_map.argmax(), mask.shape)]
    assert not np.array_equal(result.score_map, whole.score_map)
    correlation = np.corrcoef(result.score_map.ravel(), whole.score_map.ravel())[0, 1]
    assert correlation > 0.95


def test_what_takes_no_part_has_no_value_and_no_influence(planted):
    image, mask = planted
    ignored = np.zeros(mask.shape, bool)
    ignored[:64, 100:180] = True
    spoiled = np.where(ignored[..., None], 1 - image, image)
    first, second = (localize(each, configuration(), ignored=ignored) for each in (image, spoiled))
    np.testing.assert_array_equal(np.isnan(first.score_map), ignored)
    np.testing.assert_array_equal(first.score_map, second.score_map)


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize(
    "fields",
    [
        {
            "features": {"kind": "pixels"},
            "score": {"method": "patches"},
            "loss": {"patch_sizes": 16, "patch_strides": 8},
        },
        {
            "features": {"kind": "pixels"},
            "score": {"method": "relative", "level_width": 4.0},
            "loss": {"patch_sizes": 16, "patch_strides": 8},
        },
        {},
    ],
    ids=["patches of pixels", "relative errors of pixels", "tiles of features"],
)
def test_the_map_of_a_fit_does_not_depend_on_the_tiles(planted, fields, wide):
    image, _ = planted
    image = image if wide else image.transpose(1, 0, 2)
    config = configuration(**fields)
    plan = config.plan(image.shape[:2])
    maps = [
        fit_in_tiles(
            image,
            None,
            jax.random.key(0),
            None,
            plan,
            dataclasses.replace(config.tiling, side=side),
            noise=0.0,
        ).raw
        for side in (64, 352)
    ]
    check_that_maps_differ_by_rounding(*maps)  # sums over other tiles are rounded otherwise


def test_scattered_missing_pixels_take_the_nearest_value_and_hide_no_defect(planted):
    image, mask = planted
    missing = np.random.default_rng(3).random(mask.shape) < 0.05
    result = localize(image, configuration(), missing=missing)
    assert mask[np.unravel_index(result.score_map.argmax(), mask.shape)]
    np.testing.assert_array_equal(result.image[~missing], image[~missing])
    # The value of a neighbour, of which each has 24 within two pixels.
    around = np.stack([np.roll(image, (i, j), (0, 1)) for i in range(-2, 3) for j in range(-2, 3)])
    inner = missing.copy()
    inner[:2] = inner[-2:] = inner[:, :2] = inner[:, -2:] = False
    assert (around == result.image)[:, inner].any(axis=0).mean() > 0.99


def test_noise_of_a_large_image_is_that_of_the_whole(planted):
    image, _ = planted
    assert sampled_noise(image, None) == pytest.approx(float(noise_deviation(jnp.asarray(image))))


def test_what_needs_a_whole_image_is_refused_with_a_way_out(planted):
    image, _ = planted
    config = configuration(score={"coarse_scale": 0.7})
    with pytest.raises(ConfigError, match=r"coarse_scale 0\.7.*--image_size.*tiling\.above=0"):
        localize(image, config)
