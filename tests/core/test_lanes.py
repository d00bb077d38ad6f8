import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssdnet_jax.config import from_config_dict
from ssdnet_jax.core.fit import StopReason, fit_block, init_fit, reconstruct
from ssdnet_jax.core.lanes import fit, fit_lanes, init_lanes, lane_results, replace_lane
from ssdnet_jax.core.networks import apply_network
from ssdnet_jax.core.target import encode
from ssdnet_jax.data.synthetic import grid_texture

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

    return {f.__name__: jit(f) for f in (init_lanes, fit_lanes, replace_lane, lane_results)}


def run(programs, lanes, *, block=5):
    while bool(jnp.any(lanes.states.stop == StopReason.RUNNING)):
        lanes = programs["fit_lanes"](lanes, None, jnp.int32(block))
    return lanes


def start(programs, chosen, active=None):
    chosen = np.array(chosen)
    active = np.ones(len(chosen), bool) if active is None else np.array(active)
    return programs["init_lanes"](KEYS[chosen], IMAGES[chosen], KNOWN[chosen], active)


def result(programs, lanes, lane):
    """All that a lane has come to."""
    chosen = np.full(len(lanes.images), lane)
    found = programs["lane_results"](lanes, chosen)
    states = lanes.states
    parts = (found, states.history, states.step, states.stop, states.undone)
    found, *rest = jax.device_get(parts)
    return jax.tree.map(lambda leaf: leaf[0], found), *(leaf[lane] for leaf in rest)


def alone(key, image, known, settings):
    state = init_fit(key, image, settings)
    return fit_block(state, image, known, None, state.history.shape[0], settings)


def assert_same(actual, expected):
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


def test_lanes_equal_fits_alone(programs, settings):
    lanes = run(programs, start(programs, [0, 1, 2, 3]))
    one = jax.jit(functools.partial(alone, settings=settings))
    seen = set()
    for lane in range(4):
        state = one(KEYS[lane], IMAGES[lane], KNOWN[lane])
        found, history, *counts = result(programs, lanes, lane)
        assert counts == [state.step, state.stop, state.undone]
        seen.add(int(state.step))
        mu = jax.jit(reconstruct)(state)
        np.testing.assert_allclose(found.reconstruction, mu, rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(history, state.history, rtol=1e-3)
    assert len(seen) > 1, "the images should stop at different steps"


def test_results_come_in_the_order_that_is_asked_for(programs):
    lanes = run(programs, start(programs, [0, 1, 2]))
    found = programs["lane_results"](lanes, np.array([2, 0, 0]))
    for place, lane in enumerate((2, 0, 0)):
        expected, *_ = result(programs, lanes, lane)
        assert_same(jax.tree.map(lambda leaf, i=place: leaf[i], found), expected)


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
    state = jax.jit(functools.partial(alone, settings=settings))(KEYS[2], IMAGES[2], KNOWN[2])
    found, *_ = result(programs, lanes, 0)
    assert_same(found.params, np.asarray(state.current.params))


def test_the_fit_of_a_batch_is_its_lanes_with_named_parameters(programs, tiny, settings):
    config = from_config_dict(tiny)
    plan = dataclasses.replace(config.plan((32, 32)), fit=settings)
    target = jax.jit(encode, static_argnames="plan")(IMAGES[:3], None, plan=plan)
    apply = jax.jit(functools.partial(apply_network, config=settings.network))
    fitted = jax.jit(functools.partial(fit, vgg19=None, plan=plan))(KEYS[:3], target)
    lanes = run(programs, start(programs, [0, 1, 2]), block=100)
    for lane in range(3):
        found, history, step, stop, undone = result(programs, lanes, lane)
        np.testing.assert_allclose(fitted.reconstruction[lane], found.reconstruction, atol=1e-5)
        np.testing.assert_allclose(fitted.losses[lane], history, rtol=1e-4)
        counts = (fitted.steps[lane], fitted.stop[lane], fitted.restorations[lane])
        assert counts == (step, stop, undone)
        params = jax.tree.map(lambda leaf, i=lane: leaf[i], fitted.params)
        assert set(params) == {"scale0", "output"}
        shown = np.asarray(apply(params, IMAGES[lane][None]))
        assert float(np.mean((shown - IMAGES[lane]) ** 2)) < 0.2


def test_lanes_compile_without_grouped_convolutions(programs):
    text = programs["fit_lanes"].lower(start(programs, [0, 1, 2]), None, jnp.int32(1)).as_text()
    assert "stablehlo.while" in text and "dot_general" in text
    assert "stablehlo.convolution" not in text
