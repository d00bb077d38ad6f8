import numpy as np
import pytest

from ssdnet_jax.config import Config
from ssdnet_jax.data.synthetic import grid_texture
from ssdnet_jax.errors import InputError
from ssdnet_jax.methods.images import resized_image

GREY = np.asarray(grid_texture((40, 56), period=8, seed=1))
OWN_SIZE = Config(image_size=0)


def test_three_equal_channels_are_one(tmp_path):
    from_array = resized_image(np.repeat(GREY, 3, axis=-1), OWN_SIZE)
    as_bytes = resized_image(np.repeat(np.round(255 * GREY).astype(np.uint8), 3, -1), OWN_SIZE)
    assert from_array.pixels.shape == from_array.fitted.shape == (40, 56, 1)
    assert as_bytes.pixels.shape == (40, 56, 1)
    np.testing.assert_array_equal(from_array.pixels, GREY)
    colour = np.repeat(GREY, 3, axis=-1)
    colour[0, 0, 1] += 0.01
    assert resized_image(colour, OWN_SIZE).pixels.shape == (40, 56, 3)


def test_channels_that_are_equal_where_they_are_known_are_one():
    missing = np.zeros((40, 56), bool)
    missing[3, 4] = True
    colour = np.repeat(GREY, 3, axis=-1)
    colour[3, 4] = 0.1, 0.5, 0.9
    assert resized_image(colour, OWN_SIZE, missing=missing).pixels.shape == (40, 56, 1)


def test_an_image_is_resized_to_the_configured_square_or_not_at_all():
    small = resized_image(GREY, Config(image_size=24))
    assert small.pixels.shape == (40, 56, 1) and small.missing.shape == (40, 56)
    assert small.fitted.shape == (24, 24, 1) and small.fitted_missing.shape == (24, 24)
    np.testing.assert_array_equal(resized_image(GREY, OWN_SIZE).fitted, GREY)


def test_missing_pixels_do_not_darken_their_neighbours():
    missing = np.zeros((40, 56), bool)
    missing[10:22, 10:22] = True
    bright = np.full((40, 56, 1), 0.8, np.float32)
    bright[0, 0] = 0.9  # not constant
    small = resized_image(bright, Config(image_size=24), missing=missing)
    assert small.fitted_missing.any()
    assert small.fitted[~small.fitted_missing].min() > 0.79
    assert (small.fitted[small.fitted_missing] == 0).all()


def test_missing_pixels_are_those_of_the_mask_and_those_that_are_nan():
    missing = np.zeros((40, 56), bool)
    missing[3, 4] = True
    holed = GREY.copy()
    holed[5, 6] = np.nan
    found = resized_image(holed, OWN_SIZE, missing=missing)
    assert np.argwhere(found.missing).tolist() == [[3, 4], [5, 6]]
    assert found.pixels[3, 4, 0] == found.pixels[5, 6, 0] == 0


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros((40, 56, 2)), "(40, 56, 2)"),
        (np.eye(7), "7 x 7 pixels; expected at least 8 a side"),
        (np.eye(40) * 255, "from 0 to 255; expected [0, 1]"),
        (np.full((40, 40), 0.5), "constant (0.5 everywhere)"),
        (np.full((40, 40), np.nan), "every pixel is missing"),
    ],
)
def test_an_image_that_cannot_be_used_is_refused(image, words):
    with pytest.raises(InputError) as caught:
        resized_image(image, OWN_SIZE)
    assert words in str(caught.value) and "\n" not in str(caught.value)
