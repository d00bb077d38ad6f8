import dataclasses
import json

import jax
import numpy as np
import pytest

from ssdnet_jax.baselines.fca import fca
from ssdnet_jax.baselines.registry import Baseline
from ssdnet_jax.config import Config
from ssdnet_jax.data.images import DecodedImage
from ssdnet_jax.data.synthetic import grid_texture
from ssdnet_jax.data.weights import random_vgg19_weights
from ssdnet_jax.errors import InputError
from ssdnet_jax.methods.base import Bucket, Done
from ssdnet_jax.methods.baseline import BaselineMethod
from ssdnet_jax.methods.images import fill_nearest
from ssdnet_jax.methods.registry import make_method

KEY = jax.random.key(0)
IMAGE = np.asarray(grid_texture((40, 48), period=8))
OWN_SIZE = Config(image_size=0)


def made(function, *takes):
    """A method of a function of an image."""
    return BaselineMethod(Baseline("mine", function, takes), {}, OWN_SIZE)


def prepared(method, image=IMAGE, missing=None, ignored=None):
    return method.prepare(DecodedImage(image, missing, (), ignored), KEY)


def finished(method, *images, ignored=None):
    ready = [prepared(method, image, ignored=ignored) for image in images]
    (*encoded,) = method.encode(ready, len(images))
    done = [Done(str(n), each) for n, each in enumerate(encoded)]
    return [finish() for finish in method.finish(done, len(images))]


def test_an_image_has_nothing_to_fit():
    method = make_method("spectral_residual", OWN_SIZE)
    image = prepared(method)
    assert method.bucket(image) == Bucket("score", (40, 48, 1))
    (encoded,) = method.encode([image], 1)
    assert encoded is image and method.jobs(encoded, "a") == []
    assert method.fill(encoded, None) is encoded
    assert not method.keeps_fits and not method.can_do_without_vgg19


def test_results_of_a_group_are_in_its_order():
    method = made(lambda image: image[..., 0])
    one, other = finished(method, IMAGE, 1 - IMAGE)
    np.testing.assert_array_equal(one.score_map, IMAGE[..., 0])
    np.testing.assert_array_equal(other.score_map, 1 - IMAGE[..., 0])
    np.testing.assert_array_equal(one.image, IMAGE)


def test_options_reach_the_baseline():
    vgg19 = random_vgg19_weights(0, channels=(3, 4, 5, 6))
    maps = {}
    for text, options in (("fca", {}), ("fca:border=corrected", {"border": "corrected"})):
        method = make_method(text, OWN_SIZE)
        assert method.needs_vgg19 and method.name == "fca"
        (result,) = finished(method.with_weights(vgg19=vgg19), IMAGE)
        maps[text] = result.score_map
        expected = fca(IMAGE, vgg19=vgg19, **options)
        np.testing.assert_allclose(result.score_map, expected, rtol=1e-5)
    assert not np.array_equal(*maps.values())


def test_settings_are_what_is_done_to_images_the_seed_and_options():
    config = Config(image_size=64, seed=3)
    of_images = {"image_size": 64, "seed": 3, "ground": "auto", "range": "auto"}
    common = {**of_images, "decision": dataclasses.asdict(config.decision)}
    assert make_method("fca", config).settings == common
    found = make_method("glcm:angles=(0.0,):window=7", config).settings
    options = {"angles": [0.0], "window": 7}
    assert json.loads(json.dumps(found)) == {**common, "options": options}
    other = dataclasses.replace(config, fit=dataclasses.replace(config.fit, epochs=3))
    assert make_method("fca", other).settings == make_method("fca", config).settings


def test_what_a_baseline_takes_it_is_given():
    seen = {}

    def function(image, **given):
        seen.update(given)
        return image[..., 0]

    vgg19, clip = {"w": np.zeros(1)}, object()
    finished(made(function, "key", "clip").with_weights(vgg19=vgg19, clip=clip), IMAGE)
    assert set(seen) == {"key", "clip"} and seen["clip"] is clip


def test_a_map_that_is_not_finite_is_an_error():
    with pytest.raises(InputError, match="mine gave a map that is not finite"):
        finished(made(lambda image: np.full(image.shape[:2], np.inf)), IMAGE)


def test_missing_pixels_take_the_nearest_known_value():
    image = np.zeros((8, 8, 1), np.float32)
    image[:, 4:] = 1
    missing = np.zeros((8, 8), bool)
    missing[3, 1] = missing[3, 6] = missing[0, 0] = True
    holes = np.where(missing[..., None], np.float32(0.5), image)
    np.testing.assert_array_equal(fill_nearest(holes, missing), image)
    assert fill_nearest(image, np.zeros((8, 8), bool)) is image
    filled = prepared(make_method("rpca", OWN_SIZE), holes, missing)
    assert not filled.incomplete
    np.testing.assert_array_equal(filled.pixels, image)
    np.testing.assert_array_equal(filled.fitted, image)


def test_what_takes_no_part_is_filled_before_and_not_judged_after():
    image = np.array(grid_texture((40, 40), period=7), np.float32)
    ignored = np.zeros((40, 40), bool)
    ignored[12:28, 10:30] = True
    image[ignored] = 7 / 8
    seen = []

    def function(pixels):
        seen.append(pixels)
        return pixels[..., 0]

    (found,) = finished(made(function), image, ignored=ignored)
    assert not (seen[0] == 7 / 8).any()
    np.testing.assert_array_equal(np.isnan(found.score_map), ignored)
    assert found.score == image[~ignored].max() and not found.mask[ignored].any()
