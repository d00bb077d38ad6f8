import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssdnet_jax.config import Config
from ssdnet_jax.core.calibration import calibrated_score, decision_threshold
from ssdnet_jax.data.images import resize_map
from ssdnet_jax.data.synthetic import grid_texture
from ssdnet_jax.errors import InputError
from ssdnet_jax.methods.base import Member, alone, gather, localization_of, resized_image

GREY = np.asarray(grid_texture((40, 56), period=8, seed=1))
OWN_SIZE = Config(image_size=0)


@pytest.fixture(scope="module")
def batch():
    """A tree of arrays, three entries long."""
    return {"a": jnp.arange(6.0).reshape(3, 2), "b": (jnp.arange(3),)}


def members(batch, *places):
    return [Member(batch, place) for place in places]


def assert_rows(found, batch, places):
    expected = jax.tree.map(lambda leaf: leaf[np.array(places)], batch)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_a_whole_batch_in_order_is_the_batch_itself(batch):
    assert gather(members(batch, 0, 1, 2), 3) is batch


@pytest.mark.parametrize("places", [(1, 0, 2), (0, 1), (2,), (0, 1, 2, 0), (1, 1, 1)])
def test_other_members_are_stacked_in_their_order(batch, places):
    found = gather(members(batch, *places), len(places))
    assert found is not batch
    assert_rows(found, batch, places)


def test_a_batch_is_filled_up_with_its_first_member(batch):
    assert_rows(gather(members(batch, 2, 1), 5), batch, [2, 1, 2, 2, 2])
    # As long as the batch and in order, but for what fills it.
    assert_rows(gather(members(batch, 0, 1), 3), batch, [0, 1, 0])


def test_members_may_be_of_several_batches(batch):
    double = jax.tree.map(lambda leaf: 2 * leaf, batch)
    found = gather([Member(batch, 0), Member(double, 1), Member(batch, 2)], 3)
    np.testing.assert_array_equal(found["a"], [[0, 1], [4, 6], [4, 5]])


def test_one_value_is_a_batch_of_one(batch):
    member = alone(batch)
    jax.tree.map(np.testing.assert_array_equal, member.value, batch)
    assert gather([member], 1) is member.batch


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


def test_decisions_follow_from_the_map_and_the_size_it_was_made_at():
    raw = np.random.default_rng(0).exponential(size=(24, 24)).astype(np.float32)
    raw[10:13, 10:13] += 40
    found = localization_of(raw, GREY, size=raw.size)
    np.testing.assert_array_equal(found.score_map, resize_map(raw, (40, 56)))
    np.testing.assert_array_equal(found.mask, found.score_map > found.threshold)
    assert found.score == found.score_map.max()
    assert found.calibrated_score == calibrated_score(found.score_map)
    assert found.is_anomalous == (found.calibrated_score > decision_threshold(24 * 24))
    assert found.is_anomalous and found.image is GREY
