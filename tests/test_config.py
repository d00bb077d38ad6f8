import dataclasses
import json
import operator
import typing

import ml_collections
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ssdnet_jax.config import (
    _RANGES,
    AUTO,
    PAPER,
    Config,
    check_against_image,
    field_names,
    from_config_dict,
    legal_words,
    to_config_dict,
)
from ssdnet_jax.errors import ConfigError

PIXELS = {"features": {"kind": "pixels"}}


def nested(name, value):
    """{"fit": {"epochs": value}} for "fit.epochs"."""
    for part in reversed(name.split(".")):
        value = {part: value}
    return value


def kind_of(name):
    *groups, last = name.split(".")
    cls = type(operator.attrgetter(".".join(groups))(Config())) if groups else Config
    return {field.name: field.type for field in dataclasses.fields(cls)}[last]


def refused(values, *words):
    with pytest.raises(ConfigError) as caught:
        from_config_dict(values)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message
    return message


def odd(limit):
    return st.integers(0, limit).map(lambda n: 2 * n + 1)


@st.composite
def configs(draw):
    """Legal configurations, every field drawn."""
    scales = draw(st.integers(1, 3))
    sizes = draw(st.lists(st.integers(20, 40), min_size=1, max_size=3))
    words = {
        name: draw(st.sampled_from(legal_words(kind_of(name))))
        for name in field_names()
        if legal_words(kind_of(name))
    }
    of_pixels = words["features.kind"] == "pixels"
    relative = words["score.method"] == "relative"
    if relative and not of_pixels:
        words["score.method"] = "patches"
    flags = {name: draw(st.booleans()) for name in field_names() if kind_of(name) is bool}
    alpha = draw(st.floats(0, 1)) if of_pixels and not relative else 1.0
    positive = st.floats(1e-2, 1e2)
    any_number = st.floats(-1e300, 2**32)
    share = st.floats(0, 1, exclude_max=True)
    inside = st.floats(0, 1, exclude_min=True, exclude_max=True)
    count = st.integers(1, 1000)

    def entries(length, low=1, high=64):
        return tuple(draw(st.lists(st.integers(low, high), min_size=length, max_size=length)))

    numbers = {
        "image_size": draw(st.one_of(st.just(0), st.integers(96, 4096))),
        "seed": draw(st.integers(0, 2**32 - 1)),
        "features.components": draw(count),
        "features.fine_components": draw(count),
        "features.noise_limit": draw(st.floats(0, 1)),
        "network.channels_down": entries(scales),
        "network.channels_up": entries(scales),
        "network.channels_skip": entries(scales, low=0),
        "network.kernel_down": draw(odd(2)),
        "network.kernel_up": draw(odd(2)),
        "network.kernel_skip": draw(odd(2)),
        "loss.patch_sizes": tuple(sizes),
        "loss.patch_strides": entries(len(sizes), high=20),
        "loss.w_rec": draw(positive),
        "loss.w_perc": draw(st.floats(0, 1e6)) if of_pixels else 0.0,
        "loss.perceptual_size": draw(st.integers(2, 512)),
        "loss.patches_per_step": draw(count),
        "fit.learning_rate": draw(positive),
        "fit.warmup_steps": draw(st.integers(0, 1000)),
        "fit.epochs": draw(count),
        "fit.max_steps": draw(st.integers(0, 10**6)),
        "fit.stop_threshold": draw(any_number),
        "fit.input_noise": draw(st.floats(0, 1e3)),
        "fit.mask_ratio": draw(share),
        "fit.mask_block": draw(count),
        "fit.permute_ratio": draw(st.floats(0, 1)),
        "fit.blowup_factor": draw(st.one_of(st.just(0.0), st.floats(1.01, 1e3))),
        "fit.average_decay": draw(share),
        "fit.seeds": draw(count),
        "fit.block_steps": draw(count),
        "score.patch_sizes": tuple(sizes),
        "score.patch_strides": entries(len(sizes), high=20),
        "score.level_width": draw(st.floats(1, 1000)),
        "score.tile_size": 1 + 2 * draw(st.integers(1, 4)),
        "score.coarse_scale": draw(st.floats(0.9, 1)),
        "score.agreement_scale": draw(positive),
        "score.alpha_rec": alpha,
        "score.alpha_perc": 1 - alpha,
        "inpaint.max_steps": draw(count),
        "inpaint.stop_threshold": draw(any_number),
        "inpaint.mask_ratio": draw(share),
        "decision.false_alarms": draw(inside),
        "decision.mask_false_alarms": draw(inside),
        "decision.peak_share": draw(inside),
        "decision.other_false_alarms": draw(inside),
        "decision.other_peaks": draw(st.floats(0, 1, exclude_min=True)),
        "decision.min_area": draw(st.integers(0, 10**6)),
        "decision.max_defects": draw(st.integers(0, 10**6)),
        "decision.false_discoveries": draw(inside),
        "tiling.above": draw(st.integers(0, 10**6)),
        "tiling.crop": 32 * draw(st.integers(1, 100)),
        "tiling.side": 32 * draw(st.integers(1, 100)),
    }
    texts = {"range": draw(st.sampled_from(["auto", "full", "0,1", "0.25,0.5"]))}
    values = {**words, **flags, **numbers, **texts}
    assert set(values) == set(field_names())
    config = to_config_dict(Config())
    with config.ignore_type():
        config.update_from_flattened_dict(values)
    return config


@given(configs())
def test_every_legal_configuration_survives_a_round_trip(values):
    try:
        config = from_config_dict(values)
    except ConfigError as error:
        assume("channels_down" not in str(error))  # more scales than the patches can take
        raise
    assert from_config_dict(to_config_dict(config)) == config
    assert from_config_dict(json.loads(json.dumps(dataclasses.asdict(config)))) == config
    assert hash(config) == hash(from_config_dict(values))


def wrong_values():
    """(field, value) pairs of which each is of a wrong type or out of range."""
    inf, nan = float("inf"), float("nan")
    below = {  # one value below the range and, where there is one, one above
        "image_size": [-1],
        "seed": [-1, 2**32],
        "features.components": [0],
        "features.fine_components": [0],
        "features.noise_limit": [-0.1],
        "network.kernel_down": [0, 2, -1],
        "network.kernel_up": [0, 4],
        "network.kernel_skip": [0, 2],
        "loss.w_rec": [-0.1],
        "loss.w_perc": [-1.0],
        "loss.perceptual_size": [1],
        "loss.patches_per_step": [0],
        "score.agreement_scale": [0.0, -1.0],
        "fit.learning_rate": [0.0, -0.1],
        "fit.warmup_steps": [-1],
        "fit.epochs": [0],
        "fit.max_steps": [-1],
        "fit.stop_threshold": [],
        "fit.input_noise": [-0.01],
        "fit.mask_ratio": [-0.1, 1.0],
        "fit.mask_block": [0],
        "fit.permute_ratio": [-0.1, 1.1],
        "fit.blowup_factor": [-1.0, 0.5, 1.0],
        "fit.average_decay": [-0.1, 1.0],
        "fit.seeds": [0],
        "fit.block_steps": [0],
        "score.alpha_rec": [-0.1],
        "score.alpha_perc": [-0.1],
        "score.level_width": [0.0, 0.9],
        "score.tile_size": [1, 4],
        "score.coarse_scale": [0.0, 1.1],
        "inpaint.max_steps": [0],
        "inpaint.stop_threshold": [],
        "inpaint.mask_ratio": [-0.1, 1.0],
        "decision.false_alarms": [0.0, 1.0],
        "decision.mask_false_alarms": [0.0, 1.0],
        "decision.peak_share": [0.0, 1.0],
        "decision.other_false_alarms": [0.0, 1.0],
        "decision.other_peaks": [0.0, 1.1],
        "decision.min_area": [-1],
        "decision.max_defects": [-1],
        "decision.false_discoveries": [0.0, 1.0],
        "tiling.above": [-1],
        "tiling.crop": [0, 33],
        "tiling.side": [-32, 48],
    }
    for name in field_names():
        kind, wrong = kind_of(name), [None, {}, object]
        if legal_words(kind):
            wrong += ["", "no such word", 1, ["image"]]
        elif typing.get_origin(kind) is tuple:
            low = -1 if name.endswith("channels_skip") else 0
            wrong += ["", "16", 1.0, (1.0,), (True,), ("16",), (), low, (low,)]
        elif kind is str:
            wrong += ["", "no such word", "0.5", "0.5,0.2", "0,2", "0,nan", (0.5, 0.2), 0.5, True]
        elif kind is bool:
            wrong += [0, 1, "true", 1.0]
        elif kind is int:
            wrong += [1.5, "3", True, (3,), *below[name]]
        else:
            wrong += ["0.5", True, (0.5,), 1j, inf, -inf, nan, 10**400, *below[name]]
        yield from ((name, value) for value in wrong)


def test_a_wrong_value_is_refused_and_its_field_is_named():
    for name, value in wrong_values():
        refused(nested(name, value), f"config.{name}:", "expected")


def test_every_number_has_a_range_and_no_range_is_left_over():
    numbers = {
        name
        for name in field_names()
        if kind_of(name) not in (bool, str) and not legal_words(kind_of(name))
    }
    assert set(_RANGES) == numbers


def test_integers_and_lists_pass_where_no_meaning_is_lost():
    config = from_config_dict(
        {"fit": {"learning_rate": 1}, "loss": {"patch_sizes": 8, "patch_strides": [4]}}
    )
    assert config.fit.learning_rate == 1.0 and type(config.fit.learning_rate) is float
    assert config.loss.patch_sizes == (8,)
    assert config.loss.patch_strides == (4,)


def test_fields_left_out_keep_their_defaults():
    assert from_config_dict({}) == Config()
    assert from_config_dict(ml_collections.ConfigDict({"seed": 3})) == Config(seed=3)


@pytest.mark.parametrize(
    ("values", "nearest"),
    [
        ({"fit": {"learning_rat": 1.0}}, "config.fit.learning_rate"),
        ({"learning_rate": 1.0}, "config.fit.learning_rate"),
        ({"optimizer": {"learning_rate": 1.0}}, "config.fit.learning_rate"),
        ({"loss": {"patch_size": 8}}, "config.loss.patch_sizes"),
        ({"Seed": 1}, "config.seed"),
        ({"fit": {3: 1}}, "the nearest is config."),
    ],
)
def test_an_unknown_field_is_refused_with_the_nearest_one(values, nearest):
    if "optimizer" in values:
        refused(values, "config.optimizer: no such field")
    else:
        refused(values, "no such field", nearest)


@pytest.mark.parametrize("values", [None, 3, [], "grid"])
def test_what_is_no_mapping_is_refused(values):
    refused(values, "config:", "expected a group of fields")


def test_a_value_where_a_group_belongs_is_refused():
    refused({"fit": 3}, "config.fit: found 3")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"network": {"channels_up": (8, 8)}}, ("channels_up: found 2 scales", "expected 4")),
        ({"network": {"channels_skip": (4,)}}, ("channels_skip: found 1 scales", "expected 4")),
        (
            {"network": {"channels_down": (), "channels_up": (), "channels_skip": ()}},
            ("config.network.channels_down", "expected one or more"),
        ),
        ({"loss": {"patch_sizes": (8, 16)}}, ("config.loss.patch_strides", "found 1 strides")),
        ({"score": {"patch_sizes": ()}}, ("config.score.patch_sizes", "found no size")),
        ({"score": {"patch_strides": (17,)}}, ("config.score.patch_strides", "at most 16")),
        ({"loss": {"w_rec": 0.0}}, ("config.loss.w_rec", "config.loss.w_perc", "above 0")),
        ({"score": {"alpha_rec": 0.5}}, ("config.score.alpha_rec", "expected 1")),
        (
            {**PIXELS, "image_size": 20, "loss": {"patch_sizes": 40}},
            ("config.loss.patch_sizes", "at least 40 pixels", "20 x 20"),
        ),
        (
            {**PIXELS, "image_size": 16},
            ("config.network.channels_down", "at least 17 pixels", "16 x 16"),
        ),
        (
            {"features": {"kind": "filters"}, "image_size": 33},
            ("config.network.channels_down", "at least 34 pixels"),
        ),
        (
            {"features": {"kind": "vgg19"}, "score": {"tile_size": 201}},
            ("config.score.tile_size", "found 201", "at least 1070 pixels"),
        ),
        (
            {"features": {"kind": "vgg19"}, "loss": {"w_perc": 1.0}},
            ("config.loss.w_perc", "config.features.kind vgg19", "expected 0"),
        ),
        (
            {"features": {"kind": "vgg19"}, "score": {"alpha_rec": 0.5, "alpha_perc": 0.5}},
            ("config.score.alpha_perc", "config.features.kind vgg19", "expected 0"),
        ),
        (
            {"features": {"kind": "vgg19"}, "score": {"method": "relative"}},
            ("config.score.method", "config.features.kind vgg19", "expected pixels"),
        ),
        (
            {**PIXELS, "score": {"method": "relative", "alpha_rec": 0.5, "alpha_perc": 0.5}},
            ("config.score.alpha_perc", "found 0.5", "expected 0"),
        ),
        (
            {**PIXELS, "image_size": 64, "score": {"tile_size": 41}},
            ("config.score.tile_size", "found 41", "at least 81 pixels"),
        ),
    ],
)
def test_an_impossible_combination_is_refused_before_any_image_is_read(values, words):
    refused(values, *words)


def test_the_size_of_an_image_fitted_as_it_is_is_checked_against_the_configuration():
    config = dataclasses.replace(PAPER, image_size=0)
    check_against_image(config, (33, 400))
    for shape in ((400, 32), (12, 400)):
        with pytest.raises(ConfigError, match=rf"config\.network.*33 pixels.*{shape[0]} x"):
            check_against_image(config, shape)


def test_a_plan_says_what_is_done_to_an_image():
    plan = dataclasses.replace(PAPER, fit=dataclasses.replace(PAPER.fit, seeds=3)).plan((64, 80))
    assert (plan.shape, plan.target, plan.seeds) == ((64, 80), "pixels", 3)
    assert plan.fit == PAPER.fit_settings and plan.score == PAPER.score
    auto = AUTO.resolve_features(has_vgg19=True)
    assert auto.plan((256, 256)).fitted[:3] == ("coarse", 1.0, 24)
    assert auto.plan((256, 256), noise=0.1).fitted[:3] == ("coarse", 0.75, 24)
    assert auto.plan((256, 256)).marks
    assert not auto.plan((256, 256), masked=True).marks
    assert auto.plan((256, 256), detailed=True).detailed
    assert not auto.plan((256, 256), detailed=True, noise=0.1).detailed
    without = dataclasses.replace(auto.score, marks="none", detail="none")
    plain = dataclasses.replace(auto, score=without).plan((256, 256), detailed=True)
    assert not (plain.marks or plain.detailed)
    assert not dataclasses.replace(PAPER, score=auto.score).plan((256, 256)).marks
    with pytest.raises(ConfigError, match=r"found auto; expected.*resolve_features"):
        AUTO.plan((256, 256))
    with pytest.raises(ConfigError, match=r"config\.network.*20 x 400"):
        auto.plan((20, 400))


def test_inpainting_reconstructs_pixels_of_the_whole_image():
    config = from_config_dict(
        {
            **PIXELS,
            "loss": {"w_rec": 0.0, "w_perc": 1.0, "patch_sizes": 64, "patch_strides": 64},
            "fit": {"permute_ratio": 0.5, "learning_rate": 0.5, "precision": "bfloat16"},
            "inpaint": {"max_steps": 7, "stop_threshold": 0.5, "mask_ratio": 0.25},
        }
    )
    settings = config.inpaint_settings
    assert (settings.loss.w_rec, settings.loss.w_perc) == (1.0, 0.0)
    assert settings.fit.permute_ratio == 0.0
    assert (settings.fit.max_steps, settings.fit.stop_threshold) == (7, 0.5)
    assert settings.fit.mask_ratio == 0.25
    assert settings.fit.learning_rate == 0.5
    assert settings.fit.precision == "float32"  # what is found stands in the image
    assert config.fit_settings.fit == config.fit


@pytest.mark.parametrize(
    ("w_perc", "alpha_perc", "needed"), [(0, 0, False), (1, 0, True), (0, 1, True)]
)
def test_vgg19_is_needed_by_either_perceptual_term(w_perc, alpha_perc, needed):
    values = {
        **PIXELS,
        "loss": {"w_perc": w_perc},
        "score": {"alpha_rec": 1 - alpha_perc, "alpha_perc": alpha_perc},
    }
    assert from_config_dict(values).needs_vgg19 is needed


def test_the_default_is_auto_and_its_features_are_those_that_can_be_had():
    assert Config() == AUTO
    assert AUTO.resolve_features(has_vgg19=True).features.kind == "vgg19"
    assert AUTO.resolve_features(has_vgg19=False).features.kind == "filters"
    assert PAPER.resolve_features(has_vgg19=True) == PAPER
    assert AUTO.leaves_features_open and not PAPER.leaves_features_open
    assert AUTO.resolve_features(has_vgg19=True).needs_vgg19
    assert not AUTO.resolve_features(has_vgg19=False).needs_vgg19


def test_missing_pixels_are_filled_as_in_the_paper_where_features_are_fitted():
    settings = AUTO.inpaint_settings
    assert settings.network == PAPER.network
    assert settings.fit.learning_rate == PAPER.fit.learning_rate
    assert settings.fit.max_steps == AUTO.inpaint.max_steps
