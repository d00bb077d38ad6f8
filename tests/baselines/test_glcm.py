import functools
from typing import get_args

import jax
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from skimage.feature import graycomatrix, graycoprops

from ssdnet_jax.baselines.glcm import Statistic, glcm, quantize
from ssdnet_jax.data.synthetic import grid_texture, plant_defect
from ssdnet_jax.errors import ConfigError, InputError
from ssdnet_jax.evaluation.metrics import auroc

ANGLES = (0.0, 45.0, 90.0, 135.0)


def grains(shape, *, size=3.0, channels=1, seed=0):
    """A random texture: noise smoothed to grains, of standard deviation 0.12 around 0.5."""
    smooth = gaussian_filter(np.random.default_rng(seed).standard_normal(shape), size, mode="wrap")
    grey = 0.5 + 0.12 * (smooth - smooth.mean()) / smooth.std()
    tint = np.array([1.0, 0.9, 0.75])[:channels]
    return np.clip(grey[..., None] * tint, 0, 1).astype(np.float32)


def per_window(grey, *, statistic, window, levels, distance, angles=ANGLES):
    """scikit-image's matrix of the window around each pixel."""
    bins = np.minimum(np.floor(grey * levels), levels - 1).astype(np.uint8)
    padded = np.pad(bins, (window // 2, (window - 1) // 2), mode="reflect")
    result = np.zeros(grey.shape)
    for row, column in np.ndindex(grey.shape):
        matrix = graycomatrix(
            padded[row : row + window, column : column + window],
            [distance],
            np.deg2rad(angles),
            levels=levels,
            symmetric=True,
            normed=True,
        )
        result[row, column] = graycoprops(matrix, statistic).mean()
    return result


@pytest.mark.parametrize("statistic", get_args(Statistic))
@pytest.mark.parametrize(("window", "levels", "distance"), [(5, 8, 1), (6, 4, 2)])
def test_statistics_are_those_of_graycomatrix_in_each_window(statistic, window, levels, distance):
    grey = np.random.default_rng(0).random((12, 9), np.float32)
    grey[:6, :5] = 0.3  # windows of one level
    options = {
        "statistic": statistic,
        "window": window,
        "levels": levels,
        "distance": distance,
    }
    expected = per_window(grey, **options)
    np.testing.assert_allclose(glcm(grey[..., None], **options), expected, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("angle", [0.0, 45.0, 90.0, 135.0, 180.0, 225.0])
def test_each_angle_has_the_offset_of_graycomatrix(angle):
    grey = np.random.default_rng(1).random((7, 8), np.float32)
    options = {"statistic": "contrast", "window": 5, "levels": 8, "distance": 2, "angles": (angle,)}
    np.testing.assert_allclose(glcm(grey[..., None], **options), per_window(grey, **options), 1e-5)


def test_the_deviation_is_from_the_median_of_the_image():
    image = grains((40, 36))
    energy = np.asarray(glcm(image, levels=8))
    deviation = glcm(image, levels=8, score="deviation")
    np.testing.assert_allclose(deviation, np.abs(energy - np.median(energy)), atol=1e-6)


def test_bins_have_equal_width_and_one_belongs_to_the_last():
    grey = np.array([[0.0, 0.249, 0.25, 0.999, 1.0]], np.float32)
    np.testing.assert_array_equal(quantize(grey, 4), [[0, 0, 1, 3, 3]])


@pytest.mark.parametrize("channels", [1, 3])
def test_a_stain_that_flattens_the_texture_raises_the_energy(channels):
    image, mask = plant_defect(
        grains((97, 120), size=1.0, channels=channels),
        kind="blob",
        center=(50, 60),
        size=40,
        contrast=0.45,
    )
    assert auroc(mask, np.asarray(glcm(image, levels=8))) > 0.9
    assert auroc(mask, np.asarray(glcm(image, levels=8, score="deviation"))) > 0.9
    assert auroc(mask, np.asarray(glcm(image, levels=8, statistic="entropy"))) < 0.1


def test_colour_is_scored_by_its_luminance():
    image = grid_texture((33, 35), channels=3)
    luminance = image @ np.array([0.2989, 0.587, 0.114], np.float32)
    expected = glcm(luminance[..., None], levels=4)
    np.testing.assert_allclose(glcm(image, levels=4), expected, atol=1e-2)


def test_batched_equals_one_by_one_and_repeats():
    images = np.stack([grains((33, 40), seed=s) for s in range(3)])
    method = functools.partial(glcm, levels=4, window=7)
    single = [method(image) for image in images]
    np.testing.assert_allclose(jax.jit(jax.vmap(method))(images), single, rtol=1e-5)
    np.testing.assert_array_equal(single[0], method(images[0]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"statistic": "mean"}, "statistic is 'mean'; expected energy or ASM"),
        ({"score": "median"}, "score is 'median'; expected value or deviation"),
        ({"levels": 1}, "levels is 1; expected 2 to 64"),
        ({"distance": 15}, "distance is 15; expected at least 1 and below window 15"),
        ({"angles": ()}, "angles is empty"),
    ],
)
def test_options_out_of_range_are_named(options, message):
    with pytest.raises(ConfigError, match=message):
        glcm(np.zeros((32, 32, 1), np.float32), **options)


def test_images_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match=r"window 15 is larger than the image \(10, 40\)"):
        glcm(np.zeros((10, 40, 1), np.float32))
    with pytest.raises(InputError, match="expected \\(H, W, 1\\)"):
        glcm(np.zeros((40, 40), np.float32))
