import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssdnet_jax.config import PAPER
from ssdnet_jax.core.config import FitSettings, LossConfig
from ssdnet_jax.core.fit import (
    StopReason,
    fit_block,
    init_fit,
    network_parameters,
    reconstruct,
    total_steps,
)
from ssdnet_jax.core.skip_network import apply_skip_network
from ssdnet_jax.data.synthetic import grid_texture
from ssdnet_jax.data.weights import random_vgg19_weights

KEY = jax.random.key(0)
SIDE = 32
KNOWN = jnp.ones((SIDE, SIDE))
IMAGE = jnp.asarray(grid_texture((SIDE, SIDE), period=8.0))
SETTINGS = FitSettings(
    network=dataclasses.replace(
        PAPER.network, channels_down=(12,), channels_up=(12,), channels_skip=(2,)
    ),
    loss=LossConfig(patch_sizes=(8,), patch_strides=(4,), patches_per_step=10),
    fit=dataclasses.replace(PAPER.fit, max_steps=40, stop_threshold=0.0),
)


def fit(key, image, known, vgg19, settings):
    """All steps in one block."""
    state = init_fit(key, image, settings)
    return fit_block(state, image, known, vgg19, state.history.shape[0], settings)


fit_jit = jax.jit(fit, static_argnames="settings")
apply = jax.jit(apply_skip_network, static_argnames="config")
block_jit = jax.jit(fit_block, static_argnames="settings")
reconstruct_jit = jax.jit(reconstruct)
init_jit = jax.jit(init_fit, static_argnames="settings")


def changed(**fields):
    return dataclasses.replace(SETTINGS, fit=dataclasses.replace(SETTINGS.fit, **fields))


@functools.cache
def fitted(settings=SETTINGS):
    return fit_jit(KEY, IMAGE, KNOWN, None, settings=settings)


def test_the_loss_falls_and_is_kept_for_every_step():
    state = fitted()
    assert state.history.shape == (40,)
    assert np.isfinite(state.history).all()
    assert np.median(state.history[-5:]) < 0.2 * state.history[0]
    assert int(state.stop) == StopReason.MAX_STEPS


def test_the_reconstruction_is_near_the_image():
    mu = reconstruct_jit(fitted())
    assert mu.shape == IMAGE.shape
    assert np.mean((mu - IMAGE) ** 2) < 0.3 * np.var(IMAGE)


def test_steps_come_from_epochs_unless_they_are_given():
    patches = 7 * 7
    by_epochs = changed(max_steps=0, epochs=3)
    assert total_steps((SIDE, SIDE), by_epochs) == 3 * -(-patches // 10)
    assert total_steps((SIDE, SIDE), SETTINGS) == 40


def test_blocks_give_the_same_fit_as_one_call():
    state = init_jit(KEY, IMAGE, settings=SETTINGS)
    for steps in (1, 20, 7, 100):
        state = block_jit(state, IMAGE, KNOWN, None, settings=SETTINGS, steps=steps)
    assert int(state.step) == 40
    np.testing.assert_allclose(state.history, fitted().history, rtol=1e-3)
    again = block_jit(state, IMAGE, KNOWN, None, settings=SETTINGS, steps=5)
    jax.tree.map(np.testing.assert_array_equal, again._replace(key=0), state._replace(key=0))


def test_the_fit_stops_below_the_threshold_and_says_so():
    threshold = float(np.median(fitted().history[10:20]))
    state = fit_jit(KEY, IMAGE, KNOWN, None, settings=changed(stop_threshold=threshold))
    steps = int(state.step)
    assert int(state.stop) == StopReason.THRESHOLD
    assert 0 < steps < 40
    assert state.history[steps - 1] < threshold
    assert (state.history[: steps - 1] >= threshold).all()
    assert np.isnan(state.history[steps:]).all()


def test_the_parameters_after_a_stop_are_those_that_met_the_threshold():
    quiet = dict(input_noise=0.0, stop_threshold=float(np.median(fitted().history[10:20])))
    settings = changed(**quiet)
    state = fit_jit(KEY, IMAGE, KNOWN, None, settings=settings)
    params = network_parameters(state, settings)
    output = apply(params, IMAGE[None], config=SETTINGS.network)
    error = np.mean((output[0] - IMAGE) ** 2)
    assert error == pytest.approx(float(state.history[int(state.step) - 1]), rel=0.3)


def test_a_lane_equals_a_fit_alone_and_does_not_see_its_neighbour():
    settings = changed(stop_threshold=float(np.median(fitted().history[10:20])))
    lanes = jax.jit(jax.vmap(lambda key, image: fit(key, image, KNOWN, None, settings)))
    keys = jnp.stack([KEY, jax.random.key(7)])
    busy = lanes(keys, jnp.stack([IMAGE, jax.random.uniform(KEY, IMAGE.shape)]))
    calm = lanes(keys, jnp.stack([IMAGE, jnp.full_like(IMAGE, 0.5)]))
    # The neighbours stop at other times; the lane that has stopped waits unchanged.
    assert int(busy.step[0]) < int(busy.step[1])
    assert int(calm.step[1]) != int(busy.step[1])
    for name in set(busy._fields) - {"key"}:
        jax.tree.map(
            lambda a, b: np.testing.assert_array_equal(a[0], b[0]),
            getattr(busy, name),
            getattr(calm, name),
        )
    alone = fit_jit(KEY, IMAGE, KNOWN, None, settings=settings)
    np.testing.assert_allclose(busy.history[0, :8], alone.history[:8], rtol=1e-2)


def test_a_blow_up_is_undone():
    steps = 15
    state = init_jit(KEY, IMAGE, settings=SETTINGS)
    state = block_jit(state, IMAGE, KNOWN, None, settings=SETTINGS, steps=steps)
    wrecked = state._replace(current=state.current._replace(params=10.0 * state.current.params))
    after = block_jit(wrecked, IMAGE, KNOWN, None, settings=SETTINGS, steps=2)
    level = float(np.median(state.history[:steps][-5:]))
    assert after.history[steps] > 5 * level
    assert after.history[steps + 1] < 3 * level
    assert int(after.undone) == 1
    assert float(after.rate) < 1
    # The wrecked output is not part of the reconstruction.
    careless = block_jit(wrecked, IMAGE, KNOWN, None, settings=changed(blowup_factor=0.0), steps=2)
    assert int(careless.undone) == 0
    errors = [float(np.mean((reconstruct_jit(s) - IMAGE) ** 2)) for s in (after, careless)]
    assert errors[0] < errors[1]


def test_parameters_that_are_not_finite_are_replaced_by_good_ones():
    state = init_jit(KEY, IMAGE, settings=SETTINGS)
    state = block_jit(state, IMAGE, KNOWN, None, settings=SETTINGS, steps=15)
    wrecked = state._replace(
        current=state.current._replace(params=state.current.params.at[3].set(jnp.nan))
    )
    after = block_jit(wrecked, IMAGE, KNOWN, None, settings=SETTINGS, steps=3)
    assert np.isnan(after.history[15])
    assert np.isfinite(after.history[16])
    assert np.isfinite(after.current.params).all()


def test_a_fit_that_is_never_finite_says_so():
    state = fit_jit(KEY, IMAGE.at[0, 0].set(jnp.nan), KNOWN, None, settings=SETTINGS)
    assert int(state.stop) == StopReason.UNSTABLE
    assert int(state.step) == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"mask_ratio": 0.3, "mask_block": 4},
        {"permute_ratio": 0.5},
        {"input_noise": 0.1},
        {"average_decay": 0.0},
    ],
    ids=str,
)
def test_each_variant_fits_and_differs_from_the_default(fields):
    state = fitted(changed(**fields))
    assert np.isfinite(state.history).all()
    mu = reconstruct_jit(state)
    assert mu.shape == IMAGE.shape
    assert np.isfinite(mu).all()
    plain = reconstruct_jit(fitted())
    assert np.abs(mu - plain).max() > 1e-4
    permuted = "permute_ratio" in fields
    assert state.history[-1] < (1.2 if permuted else 0.7) * state.history[0]


def test_permuting_outputs_makes_the_identity_costly():
    noise = jax.random.uniform(KEY, IMAGE.shape)  # nothing is shared between patches
    plain, permuted = (
        fit_jit(KEY, noise, KNOWN, None, settings=changed(permute_ratio=ratio)).history[-1]
        for ratio in (0.0, 0.5)
    )
    assert permuted > 1.5 * plain


def test_missing_pixels_never_reach_the_fit():
    known = KNOWN.at[5:9, 5:9].set(0.0)
    first, second = (
        fit_jit(KEY, IMAGE.at[5:9, 5:9].set(value), known, None, settings=SETTINGS)
        for value in (0.0, 1e6)
    )
    np.testing.assert_array_equal(first.history, second.history)
    np.testing.assert_array_equal(first.current.params, second.current.params)


def test_the_perceptual_loss_is_maximized():
    vgg19 = random_vgg19_weights(0, channels=(3, 4, 5, 6))
    loss = dataclasses.replace(SETTINGS.loss, w_rec=0.0, w_perc=1.0, perceptual_size=16)
    settings = dataclasses.replace(changed(max_steps=15, stop_threshold=-1e9), loss=loss)
    state = fit_jit(KEY, IMAGE, KNOWN, vgg19, settings=settings)
    assert np.isfinite(state.history).all()
    assert np.median(state.history[-3:]) < state.history[0]


def test_vmapped_fits_compile_without_convolutions():
    def lanes(keys, images):
        return jax.vmap(lambda key, image: fit(key, image, KNOWN, None, SETTINGS))(keys, images)

    keys = jax.random.split(KEY, 2)
    text = jax.jit(lanes).lower(keys, jnp.stack([IMAGE, IMAGE])).as_text()
    assert "stablehlo.dot_general" in text
    assert "convolution" not in text
