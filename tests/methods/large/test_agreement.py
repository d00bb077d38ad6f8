"""Parts of the score of large images, of sides that fit nothing, beside those of whole ones."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssdnet_jax.config import AUTO
from ssdnet_jax.core import guided, trust
from ssdnet_jax.core.matched_filter import marks_of
from ssdnet_jax.core.noise import smoothed_for
from ssdnet_jax.methods.large import guide, marks
from ssdnet_jax.methods.large.agreement import peak, places
from ssdnet_jax.methods.large.channels import channels_of
from ssdnet_jax.methods.large.image import LargeImage

SHAPE = (131, 98)


def large_image_of(*, channels=3, is_masked=False, noise=0.0):
    generator = np.random.default_rng(0)
    wave = np.sin(np.add.outer(np.arange(131) / 3, np.arange(98) / 5))[..., None]
    image = 0.5 + 0.2 * wave * np.array([1.0, 0.5, -0.4])[:channels]
    image = (image + generator.normal(0, 0.05, image.shape)).astype(np.float32)
    image[40:42, 20:60] += 0.2
    valid = None
    if is_masked:
        valid = np.ones(SHAPE, bool)
        valid[90:, :40] = False
    config = AUTO.resolve_features(has_vgg19=False)
    tiling = dataclasses.replace(config.tiling, side=64)
    return LargeImage(image, valid, None, config.plan(SHAPE), tiling, noise)


def scores():
    return np.random.default_rng(1).exponential(1, SHAPE).astype(np.float32)


@pytest.mark.parametrize("is_masked", [False, True])
def test_peak_and_places_are_those_of_whole_images(is_masked):
    large, values = large_image_of(is_masked=is_masked), scores()
    counted = np.ones(SHAPE, bool) if large.valid is None else large.valid
    for own, whole in ((peak, trust.peak), (places, trust.places)):
        expected = float(jax.jit(whole)(jnp.asarray(values), jnp.asarray(counted)))
        assert own(large, values) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("channels", "noise"), [(3, 0.0), (1, 0.06)])
def test_marks_are_those_of_whole_images(channels, noise):
    large, seen = large_image_of(channels=channels, noise=noise), []
    described = channels_of(large)
    of_marks = large, described, lambda: seen.append(1)
    brightness, unevenness = marks.brightness_marks(*of_marks)
    colour = list(marks.colour_marks(*of_marks))
    expected = jax.jit(marks_of)(smoothed_for(jnp.asarray(large.image), noise))
    for found, whole in ((brightness, expected.brightness), (colour, expected.colour)):
        assert len(found) == len(whole)
        for one, of_whole in zip(found, whole, strict=True):
            np.testing.assert_allclose(one, of_whole, atol=1e-3 * np.ptp(of_whole))
    assert unevenness == pytest.approx(float(expected.unevenness), rel=1e-3)
    assert len(seen) == marks.steps(large)


def test_of_a_grey_image_in_three_channels_colours_have_no_marks():
    large = large_image_of(channels=1)
    grey = dataclasses.replace(large, image=np.repeat(large.image, 3, axis=-1))
    (found,) = marks.colour_marks(grey, channels_of(grey), lambda: None)
    np.testing.assert_array_equal(found, 0)


@pytest.mark.parametrize(("channels", "is_masked", "noise"), [(3, True, 0.06), (1, False, 0.0)])
def test_a_map_follows_the_image_as_that_of_a_whole_one(channels, is_masked, noise):
    large = large_image_of(channels=channels, is_masked=is_masked, noise=noise)
    seen, values = [], scores()
    valid = None if large.valid is None else jnp.asarray(large.valid, jnp.float32)

    def whole(image, values):
        followed = guided.guide_of(smoothed_for(image, noise), valid)
        return guided.follow(values, followed, valid)

    expected = np.asarray(jax.jit(whole)(large.image, values))
    found = guide.follow(large, channels_of(large), values, lambda: seen.append(1))
    judged = np.ones(SHAPE, bool) if large.valid is None else large.valid
    np.testing.assert_allclose(found[judged], expected[judged], atol=1e-4 * np.ptp(expected))
    assert len(seen) == guide.steps(large)
