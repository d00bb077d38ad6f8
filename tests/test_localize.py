import dataclasses
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssdnet_jax import (
    Config,
    ConfigError,
    InputError,
    Progress,
    SSDnetError,
    StopReason,
    localize,
    localize_batch,
)
from ssdnet_jax.config import from_config_dict
from ssdnet_jax.core import registry
from ssdnet_jax.core.decision import decide
from ssdnet_jax.data.images import resize_map
from ssdnet_jax.data.synthetic import grid_texture, plant_defect
from ssdnet_jax.data.weights import random_vgg19_weights
from ssdnet_jax.evaluation.metrics import auroc
from ssdnet_jax.runner import devices

GREY = grid_texture((40, 56), period=8, seed=1)
KEY = jax.random.key(5)


@pytest.fixture(scope="module")
def config(tiny) -> Config:
    return from_config_dict(tiny)


def assert_equal_results(one, other):
    fields = {field.name for field in dataclasses.fields(one)} - {"analysed", "decision", "fits"}
    for name in fields | {"normalized_map", "reconstruction", "residual", "uncertainty"}:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    for name, value in vars(one.decision).items():
        np.testing.assert_array_equal(value, getattr(other.decision, name))


@pytest.mark.parametrize("shape", [(40, 56, 1), (8, 200, 1), (301, 9, 1), (32, 32, 1), (40, 56, 3)])
def test_maps_have_the_size_of_the_image(config, shape):
    image = np.random.default_rng(0).random(shape, np.float32)
    result = localize(image, config)
    assert result.score_map.shape == result.normalized_map.shape == result.mask.shape == shape[:2]
    assert result.image.shape == result.reconstruction.shape == result.residual.shape == shape
    assert result.mask.dtype == bool
    for name in ("score_map", "normalized_map", "image", "reconstruction", "residual", "losses"):
        assert getattr(result, name).dtype == np.float32
        assert np.isfinite(getattr(result, name)).all()


def test_programs_are_loaded_once_a_shape_while_images_are_under_way(config, monkeypatch):
    loaded = []
    module = sys.modules[localize.__module__]  # the package has a function of that name
    monkeypatch.setattr(module, "load_programs", lambda _, bucket, *more: loaded.append(bucket))
    localize_batch([GREY, 1 - GREY, GREY[:32]], config)
    assert [bucket.shape for bucket in loaded] == [(32, 44, 1), (32, 56, 1)]


def test_the_parts_of_a_result_belong_together(config):
    result = localize(GREY, config)
    np.testing.assert_array_equal(result.image, GREY)
    np.testing.assert_array_equal(result.residual, GREY - result.reconstruction)
    decision, defects = decide(result.score_map, config.decision)
    np.testing.assert_array_equal(result.mask, decision.mask)
    assert (result.threshold, result.is_anomalous) == (decision.threshold, decision.anomalous)
    assert result.defects == defects
    assert result.score == result.score_map.max()
    assert result.normalized_map.min() >= 0 and result.normalized_map.max() <= 1
    assert (result.steps, result.losses.shape) == (5, (5,))
    assert (result.stop_reason, result.restorations) == ("max_steps", 0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.score = 0.0


def test_the_score_map_is_the_patch_mean_of_the_squared_error(config):
    image = grid_texture((32, 32), period=8, seed=2)
    result = localize(image, config)
    error = np.square(result.residual[..., 0].astype(np.float64))
    total, count = np.zeros((32, 32)), np.zeros((32, 32))
    for top in range(0, 25, 2):
        for left in range(0, 25, 2):
            patch = np.s_[top : top + 8, left : left + 8]
            total[patch] += error[patch].mean()
            count[patch] += 1
    np.testing.assert_allclose(result.score_map, total / count, rtol=1e-4)


def test_a_planted_defect_scores_higher_than_the_rest(tiny):
    network = {
        **tiny["network"],
        "channels_down": 8,
        "channels_up": 8,
        "activation": "leaky_relu",
    }
    score = {"method": "patches", "patch_sizes": 4, "patch_strides": 1}
    fit = {**tiny["fit"], "max_steps": 150}
    config = from_config_dict({**tiny, "network": network, "score": score, "fit": fit})
    image, mask = plant_defect(
        grid_texture((32, 32), period=8), kind="blob", center=(20, 12), size=9, contrast=0.5
    )
    assert auroc(mask, localize(image, config).score_map) > 0.75


def test_equal_keys_give_equal_results_and_others_do_not(config):
    first = localize(GREY, config, KEY)
    assert_equal_results(first, localize(GREY, config, KEY))
    other = localize(GREY, config, jax.random.key(6))
    assert not np.array_equal(first.score_map, other.score_map)


def test_the_seed_decides_where_no_key_is_given(config):
    seven = dataclasses.replace(config, seed=7)
    assert_equal_results(localize(GREY, seven), localize(GREY, config, jax.random.key(7)))


@pytest.mark.parametrize(
    "as_given",
    [
        lambda x: x[..., 0],
        lambda x: jnp.asarray(x),
        lambda x: x.astype(np.float64),
        lambda x: np.round(x * 255).astype(np.uint8),
        lambda x: np.round(x * 65535).astype(np.uint16),
    ],
    ids=["two axes", "JAX", "float64", "uint8", "uint16"],
)
def test_images_are_accepted_in_several_forms(config, as_given):
    scale = np.float32(1 / 255)
    image = np.round(GREY * 255).astype(np.float32) * scale
    result, expected = localize(as_given(image), config, KEY), localize(image, config, KEY)
    np.testing.assert_allclose(result.image, expected.image, atol=1e-6)
    np.testing.assert_allclose(result.score_map, expected.score_map, rtol=1e-2)


def test_the_image_given_is_left_alone(config):
    image = GREY.copy()
    image[3, 3] = np.nan
    before = image.copy()
    localize(image, config)
    np.testing.assert_array_equal(image, before)


def test_values_that_resampling_pushed_out_of_range_are_let_through(config):
    image = GREY.astype(np.float64)
    image[0, 0], image[1, 1] = -1e-7, 1 + 1e-7
    result = localize(image, config)
    assert result.image.min() >= 0 and result.image.max() <= 1


def test_at_its_own_size_an_image_is_fitted_as_it_is(config):
    image = grid_texture((32, 32), period=8, seed=2)
    native = dataclasses.replace(config, image_size=0)
    assert_equal_results(localize(image, native), localize(image, config))


def holes():
    image, missing = GREY.copy(), np.zeros(GREY.shape[:2], bool)
    missing[10:20, 30:36] = True
    missing[0, 0] = True
    return image, missing


def test_missing_pixels_are_filled_in_before_the_fit(config):
    image, missing = holes()
    image[missing] = np.nan
    stages = []
    result = localize(image, config, KEY, report=lambda p: stages.append(p.stage))
    assert list(dict.fromkeys(stages)) == ["inpaint", "fit", "score"]
    np.testing.assert_array_equal(result.image[~missing], GREY[~missing])
    assert (result.image[missing] > 0).all()
    for field in ("score_map", "image", "reconstruction", "residual"):
        assert np.isfinite(getattr(result, field)).all()


def test_missing_pixels_may_be_told_by_nan_or_by_a_mask(config):
    image, missing = holes()
    by_mask = localize(image, config, KEY, missing=missing)
    image[missing] = np.nan
    assert_equal_results(localize(image, config, KEY), by_mask)
    half = holes()[0]
    half[:15][missing[:15]] = np.nan
    assert_equal_results(localize(half, config, KEY, missing=missing), by_mask)


def test_what_lies_under_missing_pixels_does_not_matter(config):
    image, missing = holes()
    expected = localize(image, config, KEY, missing=missing)
    image[missing] = 1.0
    assert_equal_results(localize(image, config, KEY, missing=missing), expected)


def test_uint8_images_may_have_missing_pixels(config):
    image, missing = holes()
    result = localize(np.round(255 * image).astype(np.uint8), config, missing=missing * 255)
    assert np.isfinite(result.score_map).all()


def test_progress_only_grows_and_ends_where_the_result_says(config):
    image, missing = holes()
    seen = []
    result = localize(image, config, missing=missing, report=seen.append)
    assert [(p.stage, p.step, p.total) for p in seen] == [
        ("inpaint", 0, 3),
        ("inpaint", 1, 3),
        ("inpaint", 3, 3),
        ("fit", 0, 5),
        ("fit", 1, 5),
        ("fit", 3, 5),
        ("fit", 5, 5),
        ("score", 5, 5),
    ]
    assert [p.loss for p in seen if p.stage == "fit"][1:] == list(result.losses[[0, 2, 4]])
    assert all(np.isnan(p.loss) == (p.step == 0) for p in seen)
    assert seen[-1] == Progress("score", 5, 5, result.losses[-1])


def test_a_fit_that_reaches_its_threshold_stops_there(tiny):
    config = from_config_dict({**tiny, "fit": {**tiny["fit"], "stop_threshold": 1e6}})
    result = localize(GREY, config)
    assert (result.steps, result.stop_reason) == (1, "threshold")


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros((40, 56, 2)), ["(40, 56, 2)", "(H, W, 3)"]),
        (np.zeros((40, 56, 4), np.uint8), ["(40, 56, 4)", "(H, W, 3)"]),
        (np.zeros(40), ["(40,)", "(H, W)"]),
        (np.zeros((1, 40, 56, 3)), ["(1, 40, 56, 3)"]),
        (np.zeros((0, 56)), ["0 x 56", "at least 8"]),
        (np.eye(7), ["7 x 7", "at least 8"]),
        (np.eye(40, dtype=int), ["int64", "uint8"]),
        (np.eye(40, dtype=complex), ["complex128", "float"]),
        (np.eye(40, dtype=bool), ["bool", "float"]),
        (np.eye(40).astype(str), ["float"]),
        (np.eye(40) * 255, ["0 to 255", "[0, 1]"]),
        (np.eye(40) - 0.5, ["-0.5 to 0.5", "[0, 1]"]),
        (np.where(np.eye(40) > 0, np.inf, 0), ["inf", "[0, 1]"]),
        (np.where(np.eye(40) > 0, -np.inf, 0), ["-inf", "[0, 1]"]),
        (np.full((40, 40), 0.5), ["constant (0.5 everywhere)"]),
        (np.full((40, 40, 3), np.array([1.0, 0.0, 0.0])), ["constant (1, 0, 0 everywhere)"]),
        (np.full((40, 40), 7, np.uint8), ["constant"]),
        (np.where(np.eye(40) > 0, np.nan, 0.5), ["constant"]),
        (np.full((40, 40), np.nan), ["every pixel is missing"]),
    ],
)
def test_an_image_that_cannot_be_used_is_refused(config, image, words):
    with pytest.raises(InputError) as caught:
        localize(image, config)
    message = str(caught.value)
    assert "\n" not in message and "expected" in message
    for word in words:
        assert word in message


def test_a_mask_of_another_size_is_refused(config):
    with pytest.raises(InputError, match=r"\(3, 4\); expected \(40, 56\)"):
        localize(GREY, config, missing=np.zeros((3, 4), bool))


def test_a_configuration_made_by_hand_is_checked(config):
    rate = dataclasses.replace(config.fit, learning_rate=-1.0)
    with pytest.raises(ConfigError, match=r"config.fit.learning_rate: found -1.0"):
        localize(GREY, dataclasses.replace(config, fit=rate))
    sizes = dataclasses.replace(config.loss)
    object.__setattr__(sizes, "patch_sizes", [8])  # a list, which jit could not hash
    assert_equal_results(
        localize(GREY, dataclasses.replace(config, loss=sizes)), localize(GREY, config)
    )


def test_a_configuration_that_cannot_fit_the_image_is_refused(config):
    native = dataclasses.replace(
        config, image_size=0, score=dataclasses.replace(config.score, patch_sizes=(50,))
    )
    with pytest.raises(ConfigError, match=r"config.score.patch_sizes.*fitted at 40 x 56"):
        localize(GREY, native)


@pytest.mark.parametrize("group", ["loss", "score"])
def test_perceptual_terms_need_weights(tiny, group):
    terms = {"loss": {"w_perc": 1.0}, "score": {"alpha_rec": 0.5, "alpha_perc": 0.5}}
    config = from_config_dict({**tiny, group: {**tiny[group], **terms[group]}})
    with pytest.raises(ConfigError, match=r"w_perc or config.score.alpha_perc.*load_vgg19_weights"):
        localize(GREY, config)


def test_a_fit_that_does_not_stay_finite_is_an_error(config, monkeypatch):
    fit_program = devices.fit_program

    def diverging(*arguments):
        def call(*rest):
            lanes = fit_program(*arguments)(*rest)
            stop = jnp.full_like(lanes.states.stop, StopReason.UNSTABLE)
            return lanes._replace(states=lanes.states._replace(stop=stop))

        return call

    monkeypatch.setattr(devices, "fit_program", diverging)
    with pytest.raises(InputError, match=r"finite.*after 1 steps.*config.fit.learning_rate"):
        localize(GREY, config)


def test_maps_are_resized_as_the_images_are(config):
    result = localize(grid_texture((64, 96), period=8), config)
    small = localize(resize_map(grid_texture((64, 96), period=8)[..., 0], (32, 48)), config)
    np.testing.assert_allclose(result.score_map, resize_map(small.score_map, (64, 96)), rtol=1e-3)


@pytest.fixture(scope="module")
def of_filters(tiny) -> Config:
    network = {**tiny["network"], "channels_down": (4, 4), "channels_up": (4, 4), "sigmoid": False}
    return from_config_dict(
        {
            **tiny,
            "image_size": 48,
            "features": {"kind": "filters", "components": 3},
            "network": {**network, "channels_skip": (2, 2)},
            "score": {"method": "tiles", "tile_size": 5},
        }
    )


@pytest.mark.parametrize("shape", [(40, 56, 1), (61, 50, 3)])
def test_fits_to_features_give_maps_and_pictures_of_the_images_size(of_filters, shape):
    image = np.random.default_rng(0).random(shape, np.float32)
    result = localize(image, of_filters)
    assert result.score_map.shape == result.normalized_map.shape == result.mask.shape == shape[:2]
    assert result.reconstruction.shape == result.residual.shape == shape
    assert result.reconstruction.min() >= 0 and result.reconstruction.max() <= 1
    assert np.isfinite(result.score_map).all()


def test_fits_to_features_mark_a_planted_defect(of_filters):
    image, mask = plant_defect(
        grid_texture((48, 48), period=8), kind="blob", center=(30, 18), size=8, contrast=0.5
    )
    assert auroc(mask, localize(image, of_filters).score_map) > 0.9


def test_seeds_of_fits_to_features_give_their_median(of_filters):
    seeds = dataclasses.replace(of_filters, fit=dataclasses.replace(of_filters.fit, seeds=3))
    result = localize(GREY, seeds, KEY)
    assert result.uncertainty.max() > 0
    assert not np.array_equal(result.score_map, localize(GREY, of_filters, KEY).score_map)


def test_missing_pixels_are_filled_before_features_are_taken(of_filters):
    image, missing = holes()
    result = localize(image, of_filters, missing=missing)
    assert np.isfinite(result.score_map).all()
    np.testing.assert_array_equal(result.image[~missing], GREY[~missing])


def test_automatic_features_without_weights_are_the_filters(of_filters):
    features = dataclasses.replace(of_filters.features, kind="auto")
    automatic = dataclasses.replace(of_filters, features=features)
    assert_equal_results(localize(GREY, automatic, KEY), localize(GREY, of_filters, KEY))


def test_features_of_vgg19_need_its_weights(of_filters):
    features = dataclasses.replace(of_filters.features, kind="vgg19")
    with pytest.raises(ConfigError, match=r"features\.kind"):
        localize(GREY, dataclasses.replace(of_filters, features=features))
    tiny_vgg19 = random_vgg19_weights(0, channels=(3, 4, 5, 6))
    given = dataclasses.replace(of_filters, features=features)
    result = localize(GREY, given, KEY, vgg19=tiny_vgg19)
    assert not np.array_equal(result.score_map, localize(GREY, of_filters, KEY).score_map)


@pytest.mark.parametrize(
    ("side", "noise", "fitted"), [(96, 0.0, 48), (96, 0.15, 36), (48, 0.15, 24)]
)
def test_a_noisy_picture_is_fitted_smaller_if_it_is_large_enough(of_filters, side, noise, fitted):
    config = dataclasses.replace(of_filters, image_size=0)
    texture = np.asarray(grid_texture((side, side), period=8))
    added = noise * np.random.default_rng(0).standard_normal(texture.shape)
    image = np.clip(texture + added, 0, 1).astype(np.float32)
    result = localize(image, config, KEY)
    assert result.fits.reconstructions.shape[1:3] == (fitted, fitted)
    assert result.score_map.shape == (side, side)
    assert result.reconstruction.shape == image.shape
    assert np.isfinite(result.score_map).all()


def different_images():
    """Of two sizes and kinds, one with missing pixels."""
    colours = np.random.default_rng(3).random((64, 64, 3))
    images = [grid_texture((40, 56), period=8, seed=0), GREY, colours]
    missing = np.random.default_rng(4).random((40, 56)) < 0.05
    return [image.astype(np.float32) for image in images], [None, missing, None]


@pytest.mark.parametrize("lanes", [1, 3])
def test_a_batch_is_its_images_alone_bit_for_bit_at_the_same_number_of_lanes(of_filters, lanes):
    images, masks = different_images()
    if lanes > 1:  # the network that inpaints takes long to compile: once is enough
        masks = [None] * len(images)
    keys = list(jax.random.split(KEY, 3))
    together = localize_batch(images, of_filters, keys, missing=masks, lanes=lanes)
    for image, mask, key, expected in zip(images, masks, keys, together, strict=True):
        copies = ([image] * lanes, of_filters, [key] * lanes)
        alone = localize_batch(*copies, missing=[mask] * lanes, lanes=lanes)
        assert_equal_results(expected, alone[0])
        if lanes == 1:
            assert_equal_results(expected, localize(image, of_filters, key, missing=mask))


def test_a_group_of_images_comes_back_in_one_transfer(of_filters, monkeypatch):
    images = [grid_texture((48, 48), period=8, seed=seed) for seed in range(3)]
    transfers, device_get = [], jax.device_get

    def counted(tree):
        if max(leaf.ndim for leaf in jax.tree.leaves(tree)) > 2:  # more than counts and losses
            transfers.append(jax.tree.map(lambda leaf: leaf.shape[0], tree))
        return device_get(tree)

    monkeypatch.setattr(jax, "device_get", counted)
    assert len(localize_batch(images, of_filters, lanes=3)) == 3
    assert transfers == [(3, 3, 3, 3)]  # maps, normalized maps, images, reconstructions


def test_several_seeds_share_the_lanes_of_a_batch(config):
    seeds = dataclasses.replace(config, fit=dataclasses.replace(config.fit, seeds=3))
    images = [GREY, grid_texture((32, 32), period=6, seed=5)]
    together = localize_batch(images, seeds, lanes=1)
    for image, result in zip(images, together, strict=True):
        assert_equal_results(result, localize(image, seeds))


def test_no_image_gives_no_result(config):
    assert localize_batch([], config) == []


def test_the_first_image_that_fails_ends_a_batch(config):
    flat = np.full((40, 40), 0.5)
    with pytest.raises(InputError, match=r"^images\[1\]: image is constant"):
        localize_batch([GREY, flat], config)
    with pytest.raises(InputError, match=r"^image is constant"):
        localize(flat, config)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"image": "a.png"}, r"image is the path 'a.png'.*read_image\('a.png'\).pixels"),
        ({"image": Path("a.png")}, r"image is the path 'a.png'"),
        ({"config": "grid"}, r"config: found .* type str.*load_config\('grid'\)"),
        ({"config": {"image_size": 64}}, r"config: found .* type dict; expected a Config"),
        ({"vgg19": "a.npz"}, r"vgg19: found the path 'a.npz'.*load_vgg19_weights\('a.npz'\)"),
    ],
)
def test_a_path_or_a_name_in_the_place_of_a_value_is_refused_with_what_reads_it(given, words):
    with pytest.raises(SSDnetError, match=words):
        localize(**{"image": GREY, **given})


def test_three_equal_channels_are_one(config):
    assert_equal_results(localize(np.repeat(GREY, 3, axis=-1), config), localize(GREY, config))


@pytest.mark.parametrize("name", ["config", "of_filters"])
def test_results_are_float32_also_where_jax_makes_float64(name, request):
    config, (images, _) = request.getfixturevalue(name), different_images()
    expected = localize(images[0], config, KEY)
    with jax.enable_x64(True):
        result = localize(images[0], config, KEY)
    for name in ("score_map", "image", "reconstruction", "losses"):
        assert getattr(result, name).dtype == np.float32
    assert result.steps == expected.steps
    assert np.corrcoef(result.score_map.ravel(), expected.score_map.ravel())[0, 1] > 0.9


def test_a_masked_array_is_not_taken_with_what_its_mask_hides(tiny):
    image = np.ma.masked_greater(grid_texture((32, 32), period=8, seed=0), 0.6)
    with pytest.raises(InputError, match="image is a masked array; expected an array, NaN where"):
        localize(image, from_config_dict(tiny))


def test_an_own_kind_of_features_is_scored_without_marks(tiny):
    filters = registry.TARGETS["filters"]

    def encode(*arguments, **given):
        return filters.encode(*arguments, **given)._replace(smooth=None)

    own = filters._replace(encode=encode, compare=lambda target, vgg19, plan, **_: target)
    registry.TARGETS.register("own_features")(own)
    features = {"kind": "own_features", "components": 3}
    score = {"method": "tiles", "tile_size": 5}
    fields = {"image_size": 0, "features": features, "score": score}
    config = from_config_dict({**tiny, **fields})
    assert config.plan(GREY.shape[:2]).marks
    assert np.isfinite(localize(GREY, config).score_map).all()
