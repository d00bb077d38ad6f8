import dataclasses
import functools

import jax
import numpy as np
import pytest

from ssdnet_jax.config import AUTO, PAPER, from_config_dict
from ssdnet_jax.core import registry
from ssdnet_jax.core.config import FeatureConfig
from ssdnet_jax.core.features import halve, represent, standardize
from ssdnet_jax.core.noise import without_noise
from ssdnet_jax.core.target import (
    add_compared,
    decode,
    encode,
    encode_fitted,
    loss_weights,
    marks_of_all,
    target_shape,
)
from ssdnet_jax.data.synthetic import grid_texture
from ssdnet_jax.data.weights import random_vgg19_weights

TINY = random_vgg19_weights(0, channels=(3, 4, 5, 6))
encoded = jax.jit(encode, static_argnames="plan")
decoded = jax.jit(decode, static_argnames="plan")
represented = jax.jit(represent, static_argnames=("representation", "kind"))
smoothed = jax.jit(without_noise)


def plan_of(kind, shape, *, noise=0.0):
    config = from_config_dict(
        {
            "image_size": 0,
            "features": {"kind": kind, "components": 4, "fine_components": 3},
            "network": {"channels_down": 2, "channels_up": 2, "channels_skip": 0},
            "loss": {"patch_sizes": 4, "patch_strides": 4},
            "score": {"tile_size": 3},
        }
    )
    return config.plan(shape, noise=noise)


def images(count=2, height=72, width=80, channels=3):
    generator = np.random.default_rng(0)
    return generator.random((count, height, width, channels), np.float32)


def test_pixels_are_fitted_and_shown_as_they_are():
    plan = PAPER.plan((72, 80))
    target = encoded(images(), None, plan=plan)
    np.testing.assert_array_equal(target.values, images())
    assert target.compared == ()
    np.testing.assert_array_equal(decoded(target, images() / 2, plan=plan), images() / 2)


def test_a_fit_does_not_wait_for_features_of_other_scales_nor_for_the_guide():
    plan = dataclasses.replace(plan_of("filters", (72, 80)), guided=True)
    fitted = jax.jit(encode_fitted, static_argnames="plan")(images(1), None, plan=plan)
    scales = [representation.scale for representation in plan.compared]
    assert scales == [1.0, 0.75]
    assert (len(fitted.compared), fitted.guide, fitted.marks) == (1, None, None)
    whole = jax.jit(add_compared, static_argnames="plan")(fitted, None, plan=plan)
    whole = whole._replace(marks=jax.jit(marks_of_all)(fitted.smooth))
    expected = encoded(images(1), None, plan=plan)
    for actual, leaf in zip(jax.tree.leaves(whole), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(actual, leaf, atol=1e-4)


@pytest.mark.parametrize("kind", ["vgg19", "filters"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_a_target_has_the_shapes_that_its_plan_says(kind, channels, noise):
    plan = plan_of(kind, (73, 81), noise=noise)
    target = encoded(images(2, 73, 81, channels), TINY, plan=plan)
    assert target.values.shape == (2, *target_shape(plan, channels=channels))
    assert len(target.compared) == len(plan.compared) == (3 if noise else 2)
    for representation, values in zip(plan.compared, target.compared, strict=True):
        sides = [round(representation.scale * side) // 2 for side in (73, 81)]
        assert values.shape == (2, *sides, representation.components)
    for leaf in jax.tree.leaves(target):
        assert leaf.dtype == np.float32 and np.isfinite(leaf).all()


def test_a_noisy_image_is_analysed_at_reduced_resolution_and_a_small_one_is_not():
    clean, noisy = plan_of("filters", (72, 80)), plan_of("filters", (72, 80), noise=0.1)
    assert clean.fitted.scale == 1.0
    assert noisy.fitted.scale == max(r.scale for r in noisy.compared) == AUTO.score.coarse_scale
    assert min(r.scale for r in noisy.compared) == 0.5
    small = (64, 64)  # half of it is too small for the network that inpaints
    assert plan_of("filters", small, noise=0.1) == plan_of("filters", small)


def test_the_target_is_a_representation_and_the_colours():
    plan, y = plan_of("filters", (72, 80)), images(1)
    target = encoded(y, None, plan=plan)
    smooth = smoothed(y[0])
    expected = represented(smooth, None, representation=plan.fitted, kind="filters")
    np.testing.assert_allclose(target.values[0, ..., :4], expected, atol=1e-5)
    colours = jax.jit(lambda image: standardize(halve(image)))(smooth)
    np.testing.assert_allclose(target.values[0, ..., 4:], colours, atol=1e-5)
    for representation, values in zip(plan.compared, target.compared, strict=True):
        expected = represented(smooth, None, representation=representation, kind="filters")
        np.testing.assert_allclose(values[0], expected, atol=1e-4)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_target_holds_the_image(channels):
    plan = plan_of("filters", (72, 80))
    # Too little noise to be smoothed.
    y = np.float32(0.5) + np.float32(0.01) * images(channels=channels)
    target = encoded(y, None, plan=plan)
    halved = np.asarray(y).reshape(2, 36, 2, 40, 2, channels).mean((2, 4))
    np.testing.assert_allclose(decoded(target, target.values, plan=plan), halved, atol=1e-5)


def test_an_image_of_one_colour_has_features_of_zero():
    plan = plan_of("filters", (72, 72))
    target = encoded(np.full((1, 72, 72, 3), 0.4, np.float32), None, plan=plan)
    np.testing.assert_allclose(target.values, 0, atol=1e-6)


def test_a_batch_is_its_images_alone():
    plan = plan_of("vgg19", (72, 72))
    y = np.stack([grid_texture((72, 72), period=6, seed=seed) for seed in range(3)])
    batch = functools.partial(encoded, vgg19=TINY, plan=plan)
    together, alone = batch(y), [batch(y[i : i + 1]) for i in range(3)]
    for index, each in enumerate(alone):
        jax.tree.map(
            lambda a, b, i=index: np.testing.assert_allclose(a[i], b[0], atol=1e-3), together, each
        )
    mapped = jax.jit(jax.vmap(batch))(y[:, None])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b[:, 0], atol=1e-3), together, mapped)


def test_an_own_kind_of_target_is_encoded_and_decoded():
    pixels = registry.TARGETS["pixels"]
    own = pixels._replace(
        encode=lambda image, vgg19, plan: pixels.encode(1 - image, vgg19, plan),
        decode=lambda target, reconstruction: 1 - reconstruction,
    )
    registry.TARGETS.register("negative")(own)
    plan = dataclasses.replace(PAPER, features=FeatureConfig(kind="negative")).plan((72, 80))
    target = encoded(images(), None, plan=plan)
    np.testing.assert_allclose(target.values, 1 - images())
    np.testing.assert_allclose(decoded(target, target.values, plan=plan), images(), atol=1e-6)


def test_every_representation_says_how_well_it_is_known_and_the_loss_counts_by_it():
    plan = dataclasses.replace(plan_of("filters", (72, 80), noise=1.0), masked=True)
    valid = np.ones((2, 72, 80), np.float32)
    valid[1, :, 40:] = 0
    target = encoded(images(), None, plan=plan, valid=valid)
    parts = (*target.compared, target.values)
    assert [w.shape for w in target.weights] == [part.shape[:3] for part in parts]
    for weights in target.weights:
        assert (weights[0] == 1).all() and 0.4 < float(weights[1].mean()) < 0.5
    counts = loss_weights(target)
    np.testing.assert_allclose(counts.mean((1, 2)), 1, rtol=1e-5)
    np.testing.assert_allclose(counts[0], 1, rtol=1e-6)
    colours = np.asarray(images())[1, :, :38].mean((0, 1))
    np.testing.assert_allclose(target.mean[1], colours, atol=0.02)
    whole = encoded(images(), None, plan=plan_of("filters", (72, 80), noise=1.0))
    assert whole.weights == () and whole.valid is None and loss_weights(whole) is None


def test_a_mask_comes_with_a_plan_for_one():
    plan = plan_of("filters", (72, 80))
    with pytest.raises(ValueError, match=r"plan\.masked is False"):
        encoded(images(), None, plan, np.ones((2, 72, 80), np.float32))
    with pytest.raises(ValueError, match=r"plan\.masked is True"):
        encoded(images(), None, dataclasses.replace(plan, masked=True))
