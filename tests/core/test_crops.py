import functools

import jax
import jax.numpy as jnp
import numpy as np

from ssdnet_jax.core.config import FitConfig, FitSettings, LossConfig, NetworkConfig
from ssdnet_jax.core.crops import averaged_parameters, fit_crops, init_crop_fit
from ssdnet_jax.core.fit import StopReason, init_fit, network_parameters
from ssdnet_jax.core.fit import fit_block as fit_image

SETTINGS = FitSettings(
    network=NetworkConfig(channels_down=(3,), channels_up=(3,), channels_skip=(1,)),
    loss=LossConfig(patch_sizes=(8,), patch_strides=(8,)),
    fit=FitConfig(max_steps=6, average_decay=0.5, learning_rate=0.01),
)
run = jax.jit(fit_crops, static_argnames="settings")


def crops(count):
    values = jax.random.uniform(jax.random.key(3), (count, 16, 16, 2))
    return values, jnp.ones((count, 16, 16))


def started():
    init = jax.jit(functools.partial(init_crop_fit, settings=SETTINGS))
    return init(jax.random.key(0), jnp.zeros((16, 16, 2)))


def test_steps_on_one_repeated_crop_are_those_of_an_image():
    values, known = crops(1)
    repeated = (jnp.repeat(values, 6, axis=0), jnp.repeat(known, 6, axis=0))
    fit = run(started(), *repeated, settings=SETTINGS)
    image = jax.jit(functools.partial(fit_image, vgg19=None, steps=6, settings=SETTINGS))(
        init_fit(jax.random.key(0), values[0], SETTINGS), values[0], known[0]
    )
    np.testing.assert_allclose(fit.state.history, image.history, rtol=1e-5)
    assert int(fit.state.stop) == StopReason.MAX_STEPS


def test_the_same_crops_in_two_calls_give_the_same_fit():
    values, known = crops(6)
    at_once = run(started(), values, known, settings=SETTINGS)
    halves = run(started(), values[:3], known[:3], settings=SETTINGS)
    halves = run(halves, values[3:], known[3:], settings=SETTINGS)
    np.testing.assert_allclose(at_once.state.history, halves.state.history, rtol=1e-6)
    np.testing.assert_allclose(at_once.average, halves.average, rtol=1e-5, atol=1e-7)


def test_the_averaged_parameters_lie_between_those_of_the_steps():
    values, known = crops(6)
    fit = run(started(), values, known, settings=SETTINGS)
    average = averaged_parameters(fit, SETTINGS, channels=2)
    last = network_parameters(fit.state, SETTINGS)
    assert jax.tree.structure(average) == jax.tree.structure(last)
    assert np.isclose(float(fit.weight), 1 - 0.5**6)
    kernel = average["output"]["kernel"]
    assert 0 < float(jnp.abs(kernel - last["output"]["kernel"]).max()) < 0.1


def test_a_crop_that_is_not_finite_is_left_out_of_the_average():
    values, known = crops(6)
    fit = run(started(), values.at[3].set(jnp.nan), known, settings=SETTINGS)
    assert np.isfinite(fit.average).all() and int(fit.state.undone) == 1
