import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssdnet_jax.config import Config
from ssdnet_jax.core.calibration import calibrated_score
from ssdnet_jax.core.config import DecisionConfig
from ssdnet_jax.core.decision import decide
from ssdnet_jax.data.images import resize_map
from ssdnet_jax.data.synthetic import grid_texture
from ssdnet_jax.methods.base import Member, Prepared, alone, gather, localization_of

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


def test_decisions_follow_from_the_map_at_the_size_of_the_image():
    raw = np.random.default_rng(0).exponential(size=(24, 24)).astype(np.float32)
    raw[10:13, 10:13] += 2000
    whole, fitted_whole = np.zeros((40, 56), bool), np.zeros((24, 24), bool)
    prepared = Prepared(jax.random.key(0), GREY, whole, raw[..., None], fitted_whole)
    for config in (DecisionConfig(), DecisionConfig(mask="otsu")):
        found = localization_of(raw, prepared, config)
        np.testing.assert_array_equal(found.score_map, resize_map(raw, (40, 56)))
        decision, defects = decide(found.score_map, config, resolution=24 * 24 / (40 * 56))
        np.testing.assert_array_equal(found.mask, decision.mask)
        assert found.defects == defects and found.defects[0].peak == found.calibrated_score
        assert found.score == found.score_map.max()
        assert (found.threshold, found.is_anomalous) == (decision.threshold, True)
        assert found.calibrated_score == pytest.approx(calibrated_score(found.score_map))
        assert found.image is GREY
