import dataclasses
import pickle

import jax
import numpy as np
import pytest

from ssdnet_jax.config import AUTO, from_config_dict
from ssdnet_jax.core.fit import StopReason
from ssdnet_jax.data.images import DecodedImage
from ssdnet_jax.data.synthetic import grid_texture
from ssdnet_jax.data.weights import random_vgg19_weights
from ssdnet_jax.errors import ConfigError, InputError
from ssdnet_jax.methods.base import Done, Fitted, Member, alone
from ssdnet_jax.methods.ssdnet import SSDnet, check_fit, make_ssdnet

KEY = jax.random.key(3)


@pytest.fixture(scope="module")
def of_filters(tiny):
    """A method that fits features; images are analysed at their own size."""
    values = {
        **tiny,
        "image_size": 0,
        "features": {"kind": "filters", "components": 3, "fine_components": 2},
        "score": {"method": "tiles", "tile_size": 5},
    }
    return make_ssdnet(from_config_dict(values), None)


@pytest.fixture(scope="module")
def of_pixels(tiny):
    return make_ssdnet(from_config_dict(tiny), None)


def texture(side, seed=0, *, noise=0.0):
    image = np.asarray(grid_texture((side, side), period=8, seed=seed))
    added = noise * np.random.default_rng(seed).standard_normal(image.shape)
    return np.clip(image + added, 0, 1).astype(np.float32)


def prepared(method, image, missing=None, key=KEY):
    return method.prepare(DecodedImage(image, missing, ()), key)


def holed(side=48):
    missing = np.zeros((side, side), bool)
    missing[10:20, 30:36] = True
    return texture(side), missing


def fitted_by(encoded, name=0, *, scale=0.9, stop=StopReason.MAX_STEPS):
    """As if a fit had ended: what was fitted, but for some of it."""
    batch, place = encoded.target.batch.values, encoded.target.place
    losses = np.array([0.5, 0.25], np.float32)
    return Fitted(name, Member(scale * batch, place), losses, stop, 0)


def leaves(member):
    return jax.tree.leaves(jax.device_get(member.value))


def assert_same_results(one, other):
    fields = {field.name for field in dataclasses.fields(one)} - {"analysed", "decision", "fits"}
    for name in fields | {"normalized_map", "reconstruction", "residual", "uncertainty"}:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    for name, value in vars(one.decision).items():
        np.testing.assert_array_equal(value, getattr(other.decision, name))


def test_a_group_of_images_is_analysed_as_each_alone_bit_for_bit(of_filters):
    group = [prepared(of_filters, texture(48, seed)) for seed in range(3)]
    together = of_filters.encode(group, 4)
    assert len(together) == 3
    assert all(each.target.batch is together[0].target.batch for each in together)
    assert together[0].target.batch.values.shape == (4, 24, 24, 4)
    for each, whole in zip(group, together, strict=True):
        (one,) = of_filters.encode([each], 4)
        for found, expected in zip(leaves(one.target), leaves(whole.target), strict=True):
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("kind", ["of_filters", "of_pixels"])
def test_a_group_of_images_is_scored_as_each_alone_bit_for_bit(kind, request):
    method = request.getfixturevalue(kind)
    group = method.encode([prepared(method, texture(48, seed)) for seed in range(3)], 4)
    done = [Done(str(n), each, (fitted_by(each),)) for n, each in enumerate(group)]
    together = [finish() for finish in method.finish(done, 4)]
    assert len(together) == 3
    for each, expected in zip(done, together, strict=True):
        found = method.finish([each], 4)[0]()
        assert_same_results(found, expected)
        np.testing.assert_array_equal(found.image, each.prepared.pixels)


def test_seeds_give_the_median_map_and_what_scoring_again_needs(of_pixels):
    seeds = dataclasses.replace(of_pixels.config.fit, seeds=3)
    method = make_ssdnet(dataclasses.replace(of_pixels.config, fit=seeds), None)
    (encoded,) = method.encode([prepared(method, texture(32))], 1)
    scales = (0.5, 0.7, 0.9)
    fits = [fitted_by(encoded, n, scale=scale) for n, scale in enumerate(scales)]
    fits[1] = dataclasses.replace(fits[1], losses=fits[1].losses[:1], stop=StopReason.THRESHOLD)
    result = method.finish([Done("a", encoded, tuple(fits))], 1)[0]()
    middle = of_pixels.finish([Done("a", encoded, (fits[1],))], 1)[0]()
    np.testing.assert_allclose(result.score_map, middle.score_map, rtol=1e-6)
    np.testing.assert_allclose(result.reconstruction, middle.reconstruction, rtol=1e-6)
    assert result.uncertainty.max() > 0 and middle.uncertainty.max() == 0
    assert (result.steps, result.stop_reason) == (2, "max_steps")
    stored = result.fits
    assert stored.reconstructions.shape == (3, 32, 32, 1) and stored.size.tolist() == [32, 32]
    np.testing.assert_array_equal(np.isnan(stored.losses), [[0, 0], [0, 1], [0, 0]])
    assert stored.stop.tolist() == [fit.stop for fit in fits]


def test_each_seed_has_a_key_of_its_own_and_the_first_that_of_a_single_fit(of_pixels):
    (encoded,) = of_pixels.encode([prepared(of_pixels, texture(32))], 1)
    (single,) = of_pixels.jobs(encoded, "a")
    three = dataclasses.replace(encoded, plan=dataclasses.replace(encoded.plan, seeds=3))
    several = of_pixels.jobs(three, "a")
    assert [job.name for job in several] == [("a", 0), ("a", 1), ("a", 2)]
    bits = [jax.random.key_data(job.key).tolist() for job in several]
    assert bits[0] == jax.random.key_data(single.key).tolist()
    assert len({tuple(each) for each in bits}) == 3
    assert (single.stage, single.settings) == ("fit", encoded.plan.fit)
    np.testing.assert_array_equal(single.values.value, encoded.fitted)
    assert single.known.all()


def test_noisy_images_have_a_plan_and_a_bucket_of_their_own(of_filters):
    clean, noisy = (prepared(of_filters, texture(96, noise=noise)) for noise in (0.0, 0.15))
    assert noisy.plan.fitted.scale < clean.plan.fitted.scale == 1
    buckets = [of_filters.bucket(each) for each in (clean, noisy)]
    assert [bucket.shape for bucket in buckets] == [(48, 48, 4), (36, 36, 4)]
    assert buckets[0] != buckets[1]
    assert of_filters.bucket(prepared(of_filters, texture(96, 5))) == buckets[0]


def test_pixels_with_and_without_noise_share_a_bucket(of_pixels):
    clean, noisy = (prepared(of_pixels, texture(96, noise=noise)) for noise in (0.0, 0.15))
    assert of_pixels.bucket(clean) == of_pixels.bucket(noisy)


def test_grey_and_colour_images_have_buckets_of_their_own(of_pixels):
    colour = np.concatenate([texture(48), 0.5 * texture(48), texture(48)], axis=-1)
    one, other = (of_pixels.bucket(prepared(of_pixels, x)) for x in (colour, colour[..., :1]))
    assert (one.shape, other.shape) == ((32, 32, 3), (32, 32, 1))


def test_an_incomplete_image_is_inpainted_before_it_has_a_plan(of_filters):
    image, missing = holed()
    waiting = prepared(of_filters, image, missing)
    assert waiting.incomplete and waiting.plan is None
    bucket = of_filters.bucket(waiting)
    assert (bucket.stage, bucket.plan, bucket.shape) == ("inpaint", None, (48, 48, 1))
    (job,) = of_filters.jobs(waiting, "a")
    assert (job.stage, job.settings) == ("inpaint", of_filters.config.inpaint_settings)
    np.testing.assert_array_equal(job.known == 0, missing)
    assert (job.values.value[missing] == 0).all()
    found = Fitted("a", alone(np.full((48, 48, 1), 0.25, np.float32)), job.known, 1, 0)
    filled = of_filters.fill(waiting, found)
    assert not filled.incomplete and filled.plan is not None
    np.testing.assert_array_equal(filled.fitted[missing], 0.25)
    np.testing.assert_array_equal(filled.pixels[~missing], image[~missing])
    whole = prepared(of_filters, texture(48))
    assert of_filters.bucket(filled) == of_filters.bucket(whole)
    # Stage one and the fit do not have the same randomness.
    (encoded,) = of_filters.encode([filled], 1)
    (fit_job,) = of_filters.jobs(encoded, "a")
    assert jax.random.key_data(fit_job.key).tolist() != jax.random.key_data(job.key).tolist()


def test_the_size_is_checked_before_anything_is_computed(of_filters):
    for image, missing in ((texture(48)[:9], None), holed()):
        small = None if missing is None else missing[:9]
        with pytest.raises(ConfigError, match="the image is fitted at 9 x 48"):
            prepared(of_filters, image[:9], small)


def test_a_fit_that_did_not_stay_finite_is_refused(of_pixels):
    (encoded,) = of_pixels.encode([prepared(of_pixels, texture(32))], 1)
    check_fit(fitted_by(encoded))
    with pytest.raises(InputError, match=r"after 2 steps.*config.fit.learning_rate"):
        check_fit(fitted_by(encoded, stop=StopReason.UNSTABLE))


def test_features_follow_the_weights_that_there_are(of_filters):
    auto = SSDnet(AUTO)
    assert auto.can_do_without_vgg19 and not auto.needs_vgg19
    without = auto.with_weights(vgg19=None)
    assert without.config.features.kind == "filters" and not without.needs_vgg19
    vgg19 = random_vgg19_weights(0, channels=(2, 2, 2, 2))
    with_them = auto.with_weights(vgg19=vgg19)
    assert with_them.config.features.kind == "vgg19" and with_them.needs_vgg19
    assert with_them.vgg19 is vgg19
    assert of_filters.settings["features"]["kind"] == "filters"
    assert from_config_dict(of_filters.settings) == of_filters.config


def test_a_method_is_sent_to_other_processes(of_filters):
    again = pickle.loads(pickle.dumps(of_filters))
    assert again == of_filters
    image = prepared(again, texture(48))
    assert again.bucket(image) == of_filters.bucket(prepared(of_filters, texture(48)))


def test_a_configuration_made_by_hand_is_checked(of_pixels):
    rate = dataclasses.replace(of_pixels.config.fit, learning_rate=-1.0)
    with pytest.raises(ConfigError, match=r"config.fit.learning_rate: found -1.0"):
        make_ssdnet(dataclasses.replace(of_pixels.config, fit=rate), None)
