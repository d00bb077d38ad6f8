import jax
import numpy as np
import pytest
from scipy.ndimage import correlate1d, uniform_filter
from skimage.transform import resize

from ssdnet_jax.baselines.spectral_residual import spectral_residual
from ssdnet_jax.data.synthetic import grid_texture, plant_defect
from ssdnet_jax.errors import ConfigError, InputError
from ssdnet_jax.evaluation.metrics import auroc

NUMPY_BORDERS = {"zero": "constant", "reflect": "mirror", "edge": "nearest", "wrap": "wrap"}


def recipe(grey, *, average_size, sigma, kernel_size, order, border, spectrum_border):
    """The published steps in float64 numpy and scipy, at the image's own size."""
    spectrum = np.fft.fft2(grey.astype(np.float64))
    log_amplitude = np.log(np.abs(spectrum))
    mode = NUMPY_BORDERS[spectrum_border]
    residual = log_amplitude - uniform_filter(log_amplitude, average_size, mode=mode)
    modulus = np.abs(np.fft.ifft2(np.exp(residual + 1j * np.angle(spectrum))))
    offsets = np.arange(kernel_size) - kernel_size // 2
    kernel = np.exp(-(offsets**2) / (2 * sigma**2))
    kernel /= kernel.sum()

    def smooth(values):
        for axis in (0, 1):
            values = correlate1d(values, kernel, axis=axis, mode=NUMPY_BORDERS[border])
        return values

    return smooth(modulus**2) if order == "square_then_smooth" else smooth(modulus) ** 2


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"order": "smooth_then_square", "sigma": 8.0, "kernel_size": 5},
        {"border": "reflect", "spectrum_border": "wrap", "average_size": 5},
        {"border": "reflect", "spectrum_border": "reflect"},
    ],
)
@pytest.mark.parametrize("shape", [(64, 64), (45, 64), (33, 51)])
def test_map_is_that_of_the_recipe_in_numpy(options, shape):
    image = np.random.default_rng(0).random((*shape, 1), np.float32)
    defaults = {
        "average_size": 3,
        "sigma": 2.5,
        "kernel_size": 11,
        "order": "square_then_smooth",
        "border": "zero",
        "spectrum_border": "edge",
    }
    expected = recipe(image[..., 0], **(defaults | options))
    actual = spectral_residual(image, width=None, **options)
    np.testing.assert_allclose(actual, expected, rtol=2e-3, atol=2e-3 * expected.max())


def test_works_at_the_width_asked_for_and_keeps_the_aspect_ratio():
    image = grid_texture((96, 128), noise=0.05)
    small = resize(image[..., 0], (48, 64), order=3, anti_aliasing=True)[..., None]
    at_64 = spectral_residual(image)
    at_own_size = spectral_residual(small.astype(np.float32), width=None)
    correlation = np.corrcoef(np.ravel(at_64), np.ravel(resize(np.asarray(at_own_size), (96, 128))))
    assert correlation[0, 1] > 0.9
    assert not np.allclose(at_64, spectral_residual(image, width=32), rtol=0.1)


def test_colour_is_scored_by_its_luminance():
    image = grid_texture((40, 56), channels=3, noise=0.05)
    luminance = image @ np.array([0.2989, 0.587, 0.114], np.float32)
    np.testing.assert_allclose(
        spectral_residual(image), spectral_residual(luminance[..., None]), rtol=1e-3, atol=1e-5
    )


def test_a_planted_scratch_is_found():
    image, mask = plant_defect(
        grid_texture((128, 128)), kind="scratch", center=(60, 70), size=30, contrast=0.4
    )
    assert auroc(mask, np.asarray(spectral_residual(image))) > 0.9


def test_batched_equals_one_by_one_and_repeats():
    images = np.stack([grid_texture((37, 50), noise=0.1, seed=s) for s in range(3)])
    batched = jax.jit(jax.vmap(spectral_residual))(images)
    single = [spectral_residual(image) for image in images]
    np.testing.assert_allclose(batched, single, rtol=1e-3, atol=1e-3 * np.max(single))
    np.testing.assert_array_equal(single[0], spectral_residual(images[0]))


def test_a_constant_image_has_a_map_without_a_peak():
    values = np.asarray(spectral_residual(np.full((40, 40, 1), 0.5, np.float32), border="reflect"))
    assert np.isfinite(values).all()
    np.testing.assert_allclose(values, values[0, 0], rtol=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 4}, "width is 4; expected at least 8"),
        ({"average_size": 2}, "average_size is 2; expected an odd number"),
        ({"kernel_size": 0}, "kernel_size is 0"),
        ({"sigma": -1.0}, "sigma is -1.0"),
        ({"order": "other"}, "order is 'other'; expected square_then_smooth or"),
        ({"border": "wrap"}, "border is 'wrap'; expected zero or reflect"),
        ({"spectrum_border": "zero"}, "spectrum_border is 'zero'"),
    ],
)
def test_options_out_of_range_are_named(options, message):
    with pytest.raises(ConfigError, match=message):
        spectral_residual(np.zeros((32, 32, 1), np.float32), **options)


@pytest.mark.parametrize("shape", [(32, 32), (32, 32, 2)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(InputError, match="expected \\(H, W, 1\\) or \\(H, W, 3\\)"):
        spectral_residual(np.zeros(shape, np.float32))
