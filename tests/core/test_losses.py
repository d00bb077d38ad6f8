import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssdnet_jax.core import losses
from ssdnet_jax.core.config import LossConfig
from ssdnet_jax.core.patches import extract_patches, patch_count
from ssdnet_jax.core.vgg19 import vgg19_features
from ssdnet_jax.data.weights import load_vgg19_weights, random_vgg19_weights

KEY = jax.random.key(0)
TINY = random_vgg19_weights(0, channels=(3, 4, 5, 6))
SHAPE = (13, 11)


def pair(channels=2):
    return list(np.random.default_rng(0).random((2, *SHAPE, channels), np.float32))


image_loss = jax.jit(losses.image_loss, static_argnames="config")
constant_features = jax.jit(losses.constant_features, static_argnames="config")
minibatch_corners = jax.jit(losses.minibatch_corners, static_argnums=(2, 3, 4, 5))
features_of = jax.jit(vgg19_features)
patches_of = jax.jit(extract_patches, static_argnames=("size", "stride"))


def loss_of(y, f, config, *, known=None, step=0):
    known = np.ones(SHAPE, np.float32) if known is None else known
    return image_loss(KEY, jnp.asarray(step), y, f, known, TINY, config=config)


def literal_reconstruction(y, f, size, stride):
    """Eq. 2's first term with every patch cut out, averaged over patches and their values."""
    patches = [extract_patches(x, size=size, stride=stride) for x in (y, f)]
    return jnp.mean((patches[0] - patches[1]) ** 2)


@pytest.mark.parametrize(("size", "stride"), [(1, 1), (4, 2), (5, 3), (11, 7)])
def test_reconstruction_without_cutting_patches_equals_the_literal_form(size, stride):
    y, f = pair()
    config = LossConfig(patch_sizes=(size,), patch_strides=(stride,), w_rec=2.5)

    @jax.jit
    def both(y, f):
        expected = jax.value_and_grad(lambda f: 2.5 * literal_reconstruction(y, f, size, stride))
        return jax.value_and_grad(lambda f: loss_of(y, f, config))(f), expected(f)

    (loss, gradient), (expected_loss, expected_gradient) = both(y, f)
    assert loss == pytest.approx(float(expected_loss), rel=1e-5)
    np.testing.assert_allclose(gradient, expected_gradient, atol=1e-7)


def test_a_constant_error_of_one_hundredth_meets_the_papers_threshold():
    y, _ = pair()
    assert loss_of(y, y + 0.01, LossConfig(patch_sizes=(8,))) == pytest.approx(1e-4, rel=1e-4)


@pytest.mark.parametrize(("aggregation", "operator"), [("max", max), ("min", min)])
def test_resolutions_are_aggregated(aggregation, operator):
    y, f = pair()
    sizes, strides = (2, 9), (2, 3)
    singles = [
        float(loss_of(y, f, LossConfig(patch_sizes=(m,), patch_strides=(s,))))
        for m, s in zip(sizes, strides, strict=True)
    ]
    config = LossConfig(patch_sizes=sizes, patch_strides=strides, aggregation=aggregation)
    assert loss_of(y, f, config) == pytest.approx(operator(singles))
    mean = dataclasses.replace(config, aggregation="mean")
    assert loss_of(y, f, mean) == pytest.approx(np.mean(singles))


def test_missing_pixels_do_not_count():
    y, f = pair()
    known = np.ones(SHAPE, np.float32)
    known[3:5] = 0
    config = LossConfig(patch_sizes=(4,), patch_strides=(2,))
    before = loss_of(y, f, config, known=known)
    other = f + 100 * (1 - known[..., None])
    assert loss_of(y, other, config, known=known) == pytest.approx(float(before))
    assert before < loss_of(y, f, config)


def test_perceptual_term_is_the_negative_inner_product_of_the_features():
    y, f = pair(channels=3)
    config = LossConfig(
        patch_sizes=(8,), patch_strides=(8,), w_rec=0.0, w_perc=1.5, perceptual_size=12
    )
    count = patch_count(SHAPE, size=8, stride=8)
    config = dataclasses.replace(config, patches_per_step=count)

    @jax.jit
    def phi(x):
        patches = extract_patches(x, size=8, stride=8)
        return vgg19_features(TINY, jax.image.resize(patches, (count, 12, 12, 3), "bilinear"))

    # Summed over channels, averaged over the 6 x 6 positions and over patches.
    expected = -1.5 * float(np.sum(np.asarray(phi(y)) * phi(f))) / 36 / count
    assert loss_of(y, f, config) == pytest.approx(expected, rel=1e-4)
    both = dataclasses.replace(config, w_rec=1.0)
    patches = [np.asarray(patches_of(x, size=8, stride=8)) for x in (y, f)]
    added = expected + float(np.mean((patches[0] - patches[1]) ** 2))
    assert loss_of(y, f, both) == pytest.approx(added, rel=1e-4)


def test_an_epoch_visits_every_patch_and_the_next_in_another_order():
    config = LossConfig(patch_sizes=(4,), patch_strides=(3,), patches_per_step=5)
    steps = losses.steps_per_epoch(SHAPE, config)
    count = patch_count(SHAPE, size=4, stride=3)
    assert steps == -(-count // 5)

    def epoch(first):
        batches = [
            np.asarray(minibatch_corners(KEY, jnp.asarray(first + s), SHAPE, 4, 3, config))
            for s in range(steps)
        ]
        assert all(b.shape == (5, 2) for b in batches)
        return [tuple(map(int, corner)) for batch in batches for corner in batch]

    first, second = epoch(0), epoch(steps)
    assert len(set(first)) == len(set(second)) == count
    assert len(set(first[:count])) == count
    assert first != second


def test_epochs_are_those_of_the_resolution_with_most_patches():
    config = LossConfig(patch_sizes=(4, 8), patch_strides=(1, 8), patches_per_step=7)
    assert losses.steps_per_epoch(SHAPE, config) == -(-10 * 8 // 7)


def test_the_papers_fabric_threshold_lies_between_a_flat_and_a_perfect_reconstruction(shared):
    from ssdnet_jax.data.images import read_image

    weights = load_vgg19_weights(shared / "weights" / "vgg19_imagenet_conv1_1-conv2_2.npz")
    image = read_image(shared / "data/fabric/aitex/test/c006/0011.png").pixels
    y = np.asarray(patches_of(image, size=16, stride=16))[::64]
    product = jax.jit(lambda y, f: jnp.mean(losses.patch_similarities(y, f, weights, LossConfig())))
    assert product(y, np.full_like(y, image.mean())) < 100 < product(y, y)


def test_seen_whole_an_image_has_the_similarity_of_the_patches_of_its_features():
    y, f = (np.pad(x, ((0, 1), (0, 1), (0, 0))) for x in pair(channels=3))
    config = LossConfig(
        patch_sizes=(8,), patch_strides=(4,), w_rec=0.0, w_perc=1.5, perceptual_view="image"
    )
    known = np.ones(y.shape[:2], np.float32)
    arguments = (KEY, jnp.asarray(0), y, f, known, TINY)
    actual = image_loss(*arguments, config=config)
    phi = [np.asarray(features_of(TINY, x[None]))[0] for x in (y, f)]
    products = np.sum(phi[0] * phi[1], axis=-1)[..., None]
    patches = np.asarray(patches_of(products, size=4, stride=2))
    assert actual == pytest.approx(-1.5 * float(patches.mean()), rel=1e-4)
    features = constant_features(y, known, TINY, config=config)
    again = image_loss(*arguments, config=config, features=features)
    assert again == pytest.approx(float(actual), rel=1e-6)


def test_only_a_view_of_the_whole_image_has_constant_features():
    y, _ = pair(channels=3)
    known = np.ones(SHAPE, np.float32)
    patchwise = LossConfig(w_perc=1.0)
    assert constant_features(y, known, TINY, config=patchwise) is None
    no_term = LossConfig(w_perc=0.0, perceptual_view="image")
    assert constant_features(y, known, None, config=no_term) is None


@pytest.mark.parametrize("view", ["patch", "image"])
def test_half_precision_is_near_full_precision_and_not_equal_to_it(view):
    y, f = pair(channels=3)
    config = LossConfig(
        patch_sizes=(8,), patch_strides=(8,), w_rec=0.0, w_perc=1.0, perceptual_size=12
    )
    config = dataclasses.replace(config, perceptual_view=view)
    half = dataclasses.replace(config, perceptual_precision="bfloat16")
    full_loss, half_loss = loss_of(y, f, config), loss_of(y, f, half)
    assert half_loss.dtype == jnp.float32
    assert half_loss == pytest.approx(float(full_loss), rel=0.05)
    assert half_loss != full_loss


@pytest.mark.parametrize("name", ["absolute", "charbonnier"])
def test_the_error_of_a_pixel_is_chosen_by_name(name):
    y, f = pair()
    config = LossConfig(patch_sizes=(4,), patch_strides=(2,), reconstruction=name)
    patches = [np.asarray(patches_of(x, size=4, stride=2)) for x in (y, f)]
    difference = np.abs(patches[0] - patches[1])
    assert loss_of(y, f, config) == pytest.approx(float(difference.mean()), rel=5e-3)
