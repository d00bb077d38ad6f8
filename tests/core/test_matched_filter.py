import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from ssdnet_jax.core.matched_filter import LINE, SPOT, Shape, mark_map, marks_of, trend_share
from ssdnet_jax.data.synthetic import grid_texture
from ssdnet_jax.evaluation.metrics import auprc

marks = jax.jit(marks_of)
one_map = jax.jit(mark_map, static_argnames="shape")
SHAPE = (64, 72)


def noise(seed=0, channels=1):
    return np.random.default_rng(seed).normal(0.5, 0.1, (*SHAPE, channels)).astype(np.float32)


def test_a_map_is_the_strongest_response_of_gaussians_to_the_whitened_image():
    image = noise()[:33, :41]
    padded = np.pad(image[..., 0], ((8, 9), (10, 11)), mode="reflect")
    spectrum = np.fft.fft2(padded - padded.mean())
    white = spectrum / np.abs(spectrum)
    white[0, 0] = 0
    frequencies = (2 * np.pi * np.fft.fftfreq(n) for n in padded.shape)
    rows, columns = np.meshgrid(*frequencies, indexing="ij")
    energies = []
    for angle in np.arange(12) * np.pi / 12:
        along = columns * np.cos(angle) + rows * np.sin(angle)
        across = rows * np.cos(angle) - columns * np.sin(angle)
        of_shape = np.exp(-0.5 * ((3 * along) ** 2 + across**2))
        energies.append(np.fft.ifft2(white * of_shape).real[8:41, 10:51] ** 2)
    smooth = gaussian_filter(np.max(energies, axis=0), 1.2, mode="mirror", radius=4)
    expected = np.sqrt(smooth * padded.size)
    found = np.asarray(one_map(image, Shape(1.0, 3.0)))
    inner = np.s_[8:25, 8:33]
    np.testing.assert_allclose(found[inner], expected[inner], rtol=2e-3, atol=2e-3)
    assert np.all(found <= 1.002 * expected + 2e-3)  # at the border less, if anything


def test_a_pattern_has_no_marks_along_its_border_where_it_is_mirrored():
    rows, columns = np.indices(SHAPE)
    pattern = np.cos(0.7 * rows + 0.5) * np.cos(0.9 * columns + 1.1) + noise()[..., 0]
    found = np.asarray(one_map(pattern[..., None].astype(np.float32), SPOT))
    border = np.ones(SHAPE, bool)
    border[8:-8, 8:-8] = False
    assert found[border].max() < 1.3 * found[~border].max()
    pattern[:6, 30:36] += 3.0
    marked = np.asarray(one_map(pattern[..., None].astype(np.float32), SPOT))
    assert np.unravel_index(marked.argmax(), SHAPE)[0] < 8


@pytest.mark.parametrize("texture", ["noise", "grid", "light"])
def test_a_line_and_a_spot_stand_out_of_noise_a_pattern_and_uneven_light(texture):
    image = noise()
    if texture == "grid":
        image = grid_texture(SHAPE, period=8, seed=0).reshape(*SHAPE, 1).astype(np.float32)
    if texture == "light":
        image = image + np.linspace(-3, 3, SHAPE[1], dtype=np.float32)[:, None]
    line, spot = (np.zeros(SHAPE, bool) for _ in range(2))
    line[range(20, 44), range(24, 48)] = True
    spot[30:35, 50:55] = True
    for shape, mask, depth in ((LINE, line, 0.35), (SPOT, spot, 0.25)):
        found = np.asarray(one_map(image - depth * mask[..., None], shape))
        beside = np.asarray(one_map(image, shape))
        assert auprc(mask, found) > 0.4
        assert auprc(mask, beside) < 0.1


def test_contrast_and_brightness_of_a_channel_make_no_difference():
    image = noise(channels=3)
    brighter = 0.2 * image + np.array([0.1, 0.5, 0.3], np.float32)
    np.testing.assert_allclose(one_map(brighter, LINE), one_map(image, LINE), rtol=1e-2, atol=1e-3)


def test_a_constant_channel_has_no_marks():
    flat = np.full((*SHAPE, 1), 0.4, np.float32)
    assert not np.asarray(one_map(flat, SPOT)).any()


def test_colours_have_marks_that_brightness_has_not():
    image = noise(channels=1).repeat(3, axis=-1) + 0.02 * noise(1, channels=3)
    mask = np.zeros(SHAPE, bool)
    mask[20:40, 30:36] = True
    image[mask] += np.array([0.02, -0.02, 0.0], np.float32)
    found = marks(image)
    assert found.brightness.shape == (2, *SHAPE)
    assert found.colour.shape == (1, *SHAPE)
    assert auprc(mask, np.asarray(found.colour[0])) > 0.5
    assert max(auprc(mask, np.asarray(one)) for one in found.brightness) < 0.2
    assert marks(noise()).colour.shape == (0, *SHAPE)


def test_light_is_told_from_texture_by_the_share_of_the_trend():
    light = np.linspace(0, 1, SHAPE[1], dtype=np.float32)[None, :, None] * np.ones((64, 1, 1))
    share = jax.jit(trend_share)
    assert float(share(jnp.asarray(light, jnp.float32))) > 0.7
    assert float(share(noise())) < 0.2
    assert float(share(jnp.zeros((*SHAPE, 1)))) == 0
