import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssdnet_jax.config import from_config_dict
from ssdnet_jax.core.fit import StopReason, fit, reconstruct
from ssdnet_jax.core.lanes import fit_lanes, init_lanes, lane_result, replace_lane
from ssdnet_jax.data.synthetic import grid_texture

pytestmark = pytest.mark.usefixtures("fast_compilation")

IMAGES = np.stack([grid_texture((32, 32), period=p, seed=p) for p in (5, 6, 7, 9)])
KEYS = jax.random.split(jax.random.key(3), 4)
KNOWN = np.ones((4, 32, 32), np.float32)


@pytest.fixture(scope="module")
def settings(tiny):
    # The threshold stops these pictures after different numbers of steps.
    values = {**tiny, "fit": {**tiny["fit"], "max_steps": 12, "stop_threshold": 0.03}}
    return from_config_dict(values).fit_settings


@pytest.fixture(scope="module")
def programs(settings):
    def jit(function):
        return jax.jit(functools.partial(function, settings=settings))

    return {f.__name__: jit(f) for f in (init_lanes, fit_lanes, replace_lane, lane_result)}


def run(programs, lanes, *, block=5):
    while bool(jnp.any(lanes.states.stop == StopReason.RUNNING)):
        lanes = programs["fit_lanes"](lanes, None, jnp.int32(block))
    return lanes


def start(programs, chosen, active=None):
    chosen = np.array(chosen)
    active = np.ones(len(chosen), bool) if active is None else np.array(active)
    return programs["init_lanes"](KEYS[chosen], IMAGES[chosen], KNOWN[chosen], active)


def result(programs, lanes, lane):
    return jax.device_get(programs["lane_result"](lanes, jnp.int32(lane)))


def assert_same(actual, expected):
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


def test_lanes_equal_fits_alone(programs, settings):
    lanes = run(programs, start(programs, [0, 1, 2, 3]))
    alone = jax.jit(functools.partial(fit, settings=settings))
    steps = set()
    for lane in range(4):
        state = alone(KEYS[lane], IMAGES[lane], KNOWN[lane], None)
        actual = result(programs, lanes, lane)
        steps.add(int(actual.step))
        assert (actual.step, actual.stop, actual.undone) == (state.step, state.stop, state.undone)
        mu = reconstruct(state, IMAGES[lane], KNOWN[lane], settings)
        np.testing.assert_allclose(actual.reconstruction, mu, rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(actual.history, state.history, rtol=1e-3)
    assert len(steps) > 1, "the pictures should stop at different steps"


def test_a_lane_does_not_depend_on_its_neighbours_bit_for_bit(programs):
    first = run(programs, start(programs, [0, 1, 2]))
    expected = result(programs, first, 1)
    for others in ([3, 1, 3], [2, 1, 0], [1, 1, 1]):
        assert_same(result(programs, run(programs, start(programs, others)), 1), expected)


def test_a_lane_does_not_depend_on_its_place_bit_for_bit(programs):
    expected = result(programs, run(programs, start(programs, [0, 1, 2])), 0)
    assert_same(result(programs, run(programs, start(programs, [2, 1, 0])), 2), expected)


def test_padding_lanes_change_nothing_and_take_no_step(programs):
    expected = result(programs, run(programs, start(programs, [0, 1, 2])), 0)
    lanes = run(programs, start(programs, [0, 3, 3], active=[True, False, False]))
    assert_same(result(programs, lanes, 0), expected)
    assert lanes.states.step.tolist()[1:] == [0, 0]


def test_the_length_of_blocks_changes_nothing(programs):
    expected = run(programs, start(programs, [0, 1, 2]), block=100)
    actual = run(programs, start(programs, [0, 1, 2]), block=1)
    for lane in range(3):
        assert_same(result(programs, actual, lane), result(programs, expected, lane))


def test_a_replaced_lane_is_a_fresh_fit_and_the_others_go_on(programs):
    expected = run(programs, start(programs, [0, 1, 2]))
    lanes = programs["fit_lanes"](start(programs, [3, 1, 2]), None, jnp.int32(2))
    lanes = programs["replace_lane"](lanes, jnp.int32(0), KEYS[0], IMAGES[0], KNOWN[0])
    lanes = run(programs, lanes)
    for lane in range(3):
        assert_same(result(programs, lanes, lane), result(programs, expected, lane))


def test_a_stopped_lane_is_left_untouched(programs):
    lanes = run(programs, start(programs, [0, 1, 2]))
    again = programs["fit_lanes"](lanes, None, jnp.int32(3))
    keys = [jax.random.key_data(each.states.key) for each in (lanes, again)]
    np.testing.assert_array_equal(*keys)
    for lane in range(3):
        assert_same(result(programs, again, lane), result(programs, lanes, lane))


def test_one_lane_is_the_plain_fit_bit_for_bit(programs, settings):
    lanes = run(programs, start(programs, [2]))
    state = jax.jit(functools.partial(fit, settings=settings))(KEYS[2], IMAGES[2], KNOWN[2], None)
    assert_same(result(programs, lanes, 0).params, np.asarray(state.current.params))


def test_lanes_compile_without_grouped_convolutions(programs):
    text = programs["fit_lanes"].lower(start(programs, [0, 1, 2]), None, jnp.int32(1)).as_text()
    assert "stablehlo.while" in text and "dot_general" in text
    assert "stablehlo.convolution" not in text
