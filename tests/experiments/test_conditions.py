import dataclasses

import numpy as np
import pytest
from PIL import Image

from ssdnet_jax.config import Config
from ssdnet_jax.data.images import DecodedImage, resize_image
from ssdnet_jax.data.layouts.sample import Sample
from ssdnet_jax.experiments.conditions import PLAIN, Condition, corrupt, shaded
from ssdnet_jax.methods.registry import make_method

GREY = DecodedImage(np.full((64, 80, 3), 0.5, np.float32), None, ())


def test_noise_has_its_deviation_in_every_channel_and_its_own_draw_for_each_path():
    noise = corrupt(GREY, "noise", 0.05, "a.png").pixels - 0.5
    assert noise.dtype == np.float32
    assert noise.std() == pytest.approx(0.05, rel=0.03) and abs(noise.mean()) < 0.002
    assert np.corrcoef(noise[..., 0].ravel(), noise[..., 1].ravel())[0, 1] < 0.05
    np.testing.assert_array_equal(corrupt(GREY, "noise", 0.05, "a.png").pixels - 0.5, noise)
    other = corrupt(GREY, "noise", 0.05, "b.png").pixels - 0.5
    assert abs(np.corrcoef(noise.ravel(), other.ravel())[0, 1]) < 0.05
    double = corrupt(GREY, "noise", 0.1, "a.png").pixels - 0.5
    np.testing.assert_allclose(double, 2 * noise, atol=1e-6)


def test_noise_stays_in_range_and_leaves_missing_pixels_missing():
    missing = np.zeros((64, 80), bool)
    missing[3] = True
    pixels = np.where(missing[..., None], 0, np.ones((64, 80, 1), np.float32))
    noisy = corrupt(DecodedImage(pixels, missing, ("w",)), "noise", 0.1, "a.png")
    assert noisy.pixels.max() == 1 and noisy.pixels[~missing].min() < 1
    assert (noisy.pixels[3] == 0).all() and noisy.warnings == ("w",)
    np.testing.assert_array_equal(noisy.missing, missing)


def test_missing_pixels_have_their_share_and_grow_with_the_level():
    few, many = (corrupt(GREY, "missing", ratio, "a.png") for ratio in (0.05, 0.1))
    assert few.missing.mean() == pytest.approx(0.05, abs=0.01)
    assert many.missing.mean() == pytest.approx(0.1, abs=0.015)
    assert (many.missing >= few.missing).all()
    assert (many.pixels[many.missing] == 0).all() and (many.pixels[~many.missing] == 0.5).all()
    before = np.zeros((64, 80), bool)
    before[0] = True
    both = corrupt(dataclasses.replace(GREY, missing=before), "missing", 0.05, "a.png")
    np.testing.assert_array_equal(both.missing, few.missing | before)


def test_nothing_is_missing_at_level_zero():
    assert corrupt(GREY, "missing", 0.0, "a.png").missing is None


@pytest.fixture
def sample(tmp_path):
    """An image of 40 x 56 with a texture."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 56), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    return Sample(tmp_path / "a.png", "a.png", "grid", "bent", None)


def pixels_of(sample):
    return np.asarray(Image.open(sample.path), np.float32)[..., None] / 255


def sr(**fields):
    return make_method("spectral_residual", Config(**fields))


def test_without_a_condition_an_image_is_read_as_it_is(sample):
    image = PLAIN.read(sample, sr(image_size=32))
    np.testing.assert_allclose(image.pixels, pixels_of(sample), atol=1e-6)
    assert (PLAIN.words, PLAIN.folder, PLAIN.resizes_maps) == ("", "", False)


def test_an_image_is_corrupted_at_the_size_at_which_it_is_scored(sample):
    # A shorter side of 32 pixels, or a square of 32, in which images are compared.
    for condition, shape in (
        (Condition(noise=0.1, evaluate_at=32), (32, 32)),
        (Condition(noise=0.1), (32, 44)),
    ):
        small = DecodedImage(resize_image(pixels_of(sample), shape), None, ())
        noisy = corrupt(small, "noise", 0.1, "a.png")
        image = condition.read(sample, sr(image_size=32 if condition.resizes_maps else 0))
        np.testing.assert_allclose(image.pixels, noisy.pixels, atol=1e-6)
    both = Condition(noise=0.1, missing=0.2).read(sample, sr(image_size=32))
    gaps = corrupt(small, "missing", 0.2, "a.png").missing
    np.testing.assert_array_equal(both.missing, gaps)
    np.testing.assert_allclose(both.pixels[~gaps], noisy.pixels[~gaps], atol=1e-6)


def test_noise_of_the_original_is_there_before_it_is_resized(sample):
    noisy = corrupt(DecodedImage(pixels_of(sample), None, ()), "noise", 0.1, "a.png").pixels
    condition = Condition(noise_of_original=0.1)
    np.testing.assert_allclose(condition.read(sample, sr()).pixels, noisy, atol=1e-6)
    condition = Condition(noise_of_original=0.1, evaluate_at=32)
    expected = resize_image(noisy, (32, 32))
    np.testing.assert_allclose(condition.read(sample, sr()).pixels, expected, atol=1e-6)


def test_uneven_light_falls_from_a_highlight_to_the_other_end():
    image = shaded(GREY, 0.6, "a.png")
    factors = image.pixels[..., 0] / 0.5
    assert factors.min() == pytest.approx(0.4, abs=0.02)  # 1 - level
    assert factors.max() == pytest.approx(1.6, abs=0.1)  # 1 + level
    assert (image.pixels == image.pixels[..., :1]).all() and image.pixels.dtype == np.float32
    # Nine tenths of the way lie outside of three widths of the highlight: light is a plane there.
    rows, columns = np.indices(factors.shape)
    beyond = factors < np.quantile(factors, 0.5)
    terms = np.stack([np.ones(beyond.sum()), rows[beyond], columns[beyond]], axis=1)
    fit = terms @ np.linalg.lstsq(terms, factors[beyond], rcond=None)[0]
    np.testing.assert_allclose(fit, factors[beyond], atol=2e-3)
    np.testing.assert_array_equal(shaded(GREY, 0.6, "a.png").pixels, image.pixels)
    assert (shaded(GREY, 0.6, "b.png").pixels != image.pixels).any()
    np.testing.assert_array_equal(shaded(GREY, 0.0, "a.png").pixels, GREY.pixels)
    bright = dataclasses.replace(GREY, pixels=np.ones((64, 80, 1), np.float32))
    assert shaded(bright, 0.6, "a.png").pixels.max() == 1


def test_light_is_uneven_before_an_image_is_resized(sample):
    whole = DecodedImage(pixels_of(sample), None, ())
    expected = shaded(whole, 0.5, "a.png").pixels
    condition = Condition(uneven_light=0.5)
    np.testing.assert_allclose(condition.read(sample, sr()).pixels, expected, atol=1e-6)
    assert (condition.folder, condition.words) == ("uneven_light0.5", "uneven light 0.5")


def test_methods_that_do_not_inpaint_can_be_given_zeros(sample):
    condition = Condition(missing=0.2, missing_values="zero")
    image = condition.read(sample, sr(image_size=32))
    assert image.missing is None and (image.pixels == 0).mean() > 0.1
    assert condition.folder == "missing0.2-zero" and condition.words == "missing 0.2 as 0"
    assert condition.seen_by("rpca") == condition
    assert condition.seen_by("ssdnet:grid") == Condition(missing=0.2)


def test_each_condition_has_a_folder_of_its_own():
    condition = Condition(256, noise=0.05, missing=0.1, noise_of_original=0.2)
    assert condition.folder == "at256-original_noise0.2-noise0.05-missing0.1"
    assert condition.words == "at 256 px, noise 0.2 of the original, noise 0.05, missing 0.1"
    assert Condition(noise=0.05).folder == "noise0.05"
