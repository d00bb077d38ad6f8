import dataclasses

import numpy as np
import pytest

from ssdnet_jax.config import PAPER, Config, TilingConfig, from_config_dict
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


def test_an_image_is_resized_to_the_configured_shorter_side_or_not_at_all():
    small = resized_image(GREY, Config(image_size=24))
    assert small.pixels.shape == (40, 56, 1) and small.missing.shape == (40, 56)
    # The aspect of 1.4 to an eighth of the shorter side.
    assert small.fitted.shape == (24, 33, 1) and small.fitted_missing.shape == (24, 33)
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


SMALL = Config(image_size=48)  # a tile is 9 x 9 of its pixels


def square(size=48, *, at=20, side=12):
    mask = np.zeros((size, size), bool)
    mask[at : at + side, at : at + side] = True
    return mask


def texture(size=48):
    return np.asarray(grid_texture((size, size), period=7, seed=2))


def test_a_whole_image_has_no_layout_and_is_not_stretched():
    found = resized_image(texture(), SMALL)
    assert found.layout is found.used_range is found.ground is None
    np.testing.assert_array_equal(found.fitted, texture())


def test_scattered_missing_pixels_are_inpainted_and_those_of_more_than_a_tile_left_out():
    scattered = np.random.default_rng(0).random((48, 48)) < 0.1
    found = resized_image(texture(), SMALL, missing=scattered)
    assert found.layout is None
    np.testing.assert_array_equal(found.fitted_missing, scattered)
    for side in (8, 9):
        found = resized_image(texture(), SMALL, missing=square(side=side) | scattered)
        assert (found.layout is None) == (side == 8)
    large = resized_image(texture(), SMALL, missing=square() | scattered)
    assert large.layout.masked and large.layout.ignored[square()].all()
    np.testing.assert_array_equal(large.layout.valid, ~large.layout.ignored)
    # What is missing beyond a tile of the block is scattered, whatever touches what.
    assert not (large.layout.ignored & ~square())[:10].any()
    np.testing.assert_array_equal(large.fitted_missing | large.layout.ignored, square() | scattered)


def test_what_takes_no_part_is_filled_by_the_rest_mirrored():
    image = texture()
    spoilt = np.where(square(side=16)[..., None], 0.99, image).astype(np.float32)
    found = resized_image(spoilt, SMALL, ignored=square(side=16))
    np.testing.assert_array_equal(found.fitted[~square(side=16)], image[~square(side=16)])
    np.testing.assert_array_equal(found.fitted[20:28, 28], image[18:10:-1, 28])
    assert (found.pixels[square(side=16)] == np.float32(0.99)).all()
    assert not found.fitted_missing.any()


def test_ignored_sides_are_cropped_and_the_rest_is_whole():
    ignored = np.zeros((48, 60), bool)
    ignored[:, :12] = True
    image = np.concatenate([np.full((48, 12, 1), 0.5, np.float32), texture()], axis=1)
    found = resized_image(image, SMALL, ignored=ignored)
    assert not found.layout.masked
    np.testing.assert_array_equal(found.fitted, texture())
    placed = found.layout.place(found.fitted[..., 0])
    np.testing.assert_array_equal(np.isnan(placed), ignored)
    np.testing.assert_array_equal(placed[:, 12:], texture()[..., 0])
    picture = found.layout.place_picture(1 - found.fitted, image)
    np.testing.assert_array_equal(picture[:, :12], image[:, :12])
    np.testing.assert_array_equal(picture[:, 12:], 1 - texture())


def test_thin_ignored_lines_are_inpainted_and_not_judged():
    lines = np.zeros((48, 48), bool)
    lines[10:13] = True
    found = resized_image(texture(), SMALL, ignored=lines)
    assert not found.layout.masked
    np.testing.assert_array_equal(found.layout.ignored, lines)
    np.testing.assert_array_equal(found.fitted_missing, lines)


def test_a_map_of_what_was_analysed_is_not_blurred_with_what_takes_no_part():
    found = resized_image(texture(96), SMALL, ignored=square(96, at=40, side=30))
    values = np.where(found.layout.valid, 1.0, 50.0).astype(np.float32)
    placed = found.layout.place(values)
    assert np.nanmin(placed) == np.nanmax(placed) == 1
    np.testing.assert_array_equal(np.isnan(placed), square(96, at=40, side=30))


def test_ground_is_ignored_unless_it_is_to_be_kept():
    part = np.hypot(*(np.indices((96, 96)) - 47.5)) < 40
    image = np.where(part[..., None], texture(96), 0).astype(np.float32)
    found = resized_image(image, SMALL)
    assert found.ground == pytest.approx((~part).mean(), abs=0.05)
    assert found.layout.ignored[~part].all() and found.layout.masked
    assert found.layout.window_shape[0] < 82
    kept = resized_image(image, Config(image_size=48, ground="keep"))
    assert kept.layout is None and kept.ground is None


@pytest.mark.parametrize("bits", [10, 12])
def test_a_small_range_is_stretched_in_the_same_way_for_all_channels(bits):
    colour = np.concatenate([texture(), 0.5 * texture(), texture() ** 2], axis=-1)
    levels = np.round(colour * (2**bits - 1)).astype(np.uint16)
    found = resized_image(levels, SMALL)
    low, high = found.used_range
    assert low == levels.min() / np.float32(65535) and high == levels.max() / np.float32(65535)
    span = colour.max() - colour.min()
    np.testing.assert_allclose(found.fitted, (colour - colour.min()) / span, atol=2 / 2**bits)
    np.testing.assert_array_equal(found.pixels, levels / np.float32(65535))
    full = resized_image(levels, Config(image_size=48, range="full"))
    np.testing.assert_array_equal(full.fitted, full.pixels)
    fixed = resized_image(levels, Config(image_size=48, range="0,0.0625"))
    np.testing.assert_allclose(fixed.fitted, np.clip(16 * fixed.pixels, 0, 1), atol=1e-6)
    assert fixed.used_range == (0, 0.0625)


def test_a_hot_pixel_does_not_hold_the_range_open_and_a_dark_defect_is_kept():
    image = (0.4 + 0.1 * texture()).astype(np.float32)
    image[3, 3] = 1.0
    image[30:32, 30:32] = 0.38
    found = resized_image(image, SMALL)
    low, high = found.used_range
    assert low <= np.float32(0.38) and high < 0.6
    assert found.fitted[3, 3, 0] == 1


def test_an_image_of_which_too_little_is_left_is_refused():
    ignored = np.ones((48, 48), bool)
    ignored[20:24, 20:24] = False
    with pytest.raises(InputError, match=r"16 pixels are left.*at least 8 x 8"):
        resized_image(texture(), SMALL, ignored=ignored)
    with pytest.raises(InputError, match="every pixel is missing or ignored"):
        resized_image(texture(), SMALL, ignored=np.ones((48, 48), bool))
    with pytest.raises(InputError, match=r"mask of ignored pixels has shape \(9, 9\)"):
        resized_image(texture(), SMALL, ignored=np.zeros((9, 9), bool))


def test_what_is_left_of_an_image_is_analysed_at_about_its_scale():
    """With features of pixels, so that small images may be fitted."""
    values = dataclasses.asdict(PAPER) | {"image_size": 128, "ground": "keep"}
    config = from_config_dict(values)
    image = np.asarray(grid_texture((256, 256), period=9, seed=0))
    for width, shape in ((256, (128, 128)), (160, (128, 80)), (40, (416, 64))):
        ignored = np.ones((256, 256), bool)
        ignored[:, :width] = False
        found = resized_image(image, config, ignored=ignored)
        assert found.fitted.shape[:2] == pytest.approx(shape, rel=0.05)


def test_detail_is_the_image_at_twice_the_size_where_its_file_has_that_many_pixels():
    large = np.random.default_rng(0).random((96, 80, 1), np.float32)
    found = resized_image(large, Config(image_size=32), detailed=True)
    assert found.detail.shape == (2 * found.fitted.shape[0], 2 * found.fitted.shape[1], 1)
    np.testing.assert_array_equal(found.detail, found.detail.astype(np.float16))
    assert np.abs(found.detail.mean() - large.mean()) < 0.01
    assert resized_image(large, Config(image_size=32)).detail is None
    assert resized_image(large[:36, :36], Config(image_size=32), detailed=True).detail is None
    missing = large[..., 0] > 0.9
    incomplete = resized_image(large, Config(image_size=32), missing=missing, detailed=True)
    assert incomplete.detail is None and not incomplete.lacks_detail
    few = Config(image_size=32, tiling=TilingConfig(above=64 * 64))
    above = resized_image(large, few, detailed=True)  # of 36 x 32, and 72 x 64 with detail
    assert above.detail is None and above.lacks_detail
    assert not resized_image(large[:36, :36], few, detailed=True).lacks_detail
