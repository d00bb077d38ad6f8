import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from ssdnet_jax.core.noise import noise_deviation, without_noise
from ssdnet_jax.data.synthetic import grid_texture

measured = jax.jit(noise_deviation)
smoothed_as_asked = jax.jit(without_noise)


@pytest.mark.parametrize("deviation", [0.02, 0.05, 0.1])
def test_noise_is_measured_on_a_texture(deviation):
    texture = 0.5 * jnp.asarray(grid_texture((128, 128), period=16))  # has noise of its own
    clean = float(measured(texture))
    noise = deviation * jax.random.normal(jax.random.key(0), texture.shape)
    assert clean < 0.02
    found = float(measured(texture + noise))
    assert found == pytest.approx(np.hypot(deviation, clean), rel=0.15)


def test_a_picture_without_noise_is_left_as_it_is_and_noise_is_smoothed():
    texture = 0.5 * jnp.asarray(grid_texture((64, 64), period=16))
    assert float(measured(texture)) < 0.02
    np.testing.assert_array_equal(smoothed_as_asked(texture), texture)
    noisy = texture + 0.1 * jax.random.normal(jax.random.key(0), texture.shape)
    smooth = smoothed_as_asked(noisy)
    assert float(jnp.std(smooth - texture)) < 0.6 * float(jnp.std(noisy - texture))
    np.testing.assert_allclose(smooth.mean(), noisy.mean(), atol=5e-3)


def test_smoothing_is_that_of_scipy_and_twice_as_wide_for_colours():
    noisy = 0.5 + 0.1 * jax.random.normal(jax.random.key(0), (32, 24, 3))
    width = 12.0 * (float(measured(noisy)) - 0.02)
    noisy = np.asarray(noisy)
    grey = noisy.mean(-1, keepdims=True)
    expected = smoothed(grey, width, radius=5) + smoothed(noisy - grey, 2 * width, radius=9)
    np.testing.assert_allclose(smoothed_as_asked(jnp.asarray(noisy)), expected, atol=1e-5)


def smoothed(image, width, *, radius):
    return gaussian_filter(image, (width, width, 0), mode="mirror", radius=(radius, radius, 0))


def test_noise_is_that_of_what_takes_part():
    generator = np.random.default_rng(0)
    image = 0.5 + 0.03 * generator.standard_normal((64, 64, 1)).astype(np.float32)
    valid = np.ones((64, 64), np.float32)
    image[:, 20:], valid[:, 20:] = 0.0, 0.0
    assert float(noise_deviation(jnp.asarray(image))) < 0.001
    found = float(noise_deviation(jnp.asarray(image), jnp.asarray(valid)))
    assert found == pytest.approx(0.03, rel=0.1)
