import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssdnet_jax.baselines.dip import dip, init_generator
from ssdnet_jax.core.config import NetworkConfig
from ssdnet_jax.core.skip_module import SkipNetwork
from ssdnet_jax.core.skip_network import flatten_parameters
from ssdnet_jax.data.synthetic import grid_texture
from ssdnet_jax.errors import ConfigError, InputError
from ssdnet_jax.evaluation.metrics import auroc

SMALL = NetworkConfig(
    channels_down=(8,), channels_up=(8,), channels_skip=(2,), padding="zero", upsampling="nearest"
)


def texture():
    return np.array(grid_texture((24, 24), period=8))


def test_what_does_not_repeat_is_left_over():
    image, mask = texture(), np.zeros((24, 24), bool)
    mask[8:16, 4:12] = True
    image[mask] = np.random.default_rng(0).random((64, image.shape[-1]))
    residual = np.asarray(dip(image, steps=80, average_decay=0.9, network=SMALL))
    assert residual.shape == mask.shape
    assert auroc(mask, residual) > 0.75


def test_more_steps_explain_more():
    image = texture()
    few, many = (dip(image, steps=n, average_decay=0.5, network=SMALL).mean() for n in (5, 80))
    assert many < few / 2


def test_steps_end_at_the_threshold():
    image = texture()
    options = {"average_decay": 0.0, "network": SMALL}
    first = dip(image, steps=1, **options)
    stopped = dip(image, steps=50, stop_threshold=1e9, **options)
    np.testing.assert_array_equal(first, stopped)


def test_without_average_one_step_is_the_residual_of_the_first_output():
    image = texture()
    key = jax.random.key(7)
    parameter_key, z_key, _ = jax.random.split(key, 3)
    params = init_generator(parameter_key, SMALL, channels=image.shape[-1])
    z = 0.1 * jax.random.uniform(z_key, (1, 24, 24, 32))
    apply = jax.jit(SkipNetwork(SMALL, image.shape[-1]).apply)
    output = apply({"params": params}, z)[0]
    expected = np.mean((image - np.asarray(output)) ** 2, axis=-1)
    actual = dip(image, key=key, steps=1, input_noise=0.0, average_decay=0.0, network=SMALL)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-6)


def test_parameter_count_is_that_of_the_original_network():
    network = NetworkConfig(
        channels_down=(128,) * 5, channels_up=(128,) * 5, channels_skip=(4,) * 5
    )
    structure = jax.eval_shape(
        lambda key: init_generator(key, network, channels=3), jax.random.key(0)
    )
    vector = jax.eval_shape(flatten_parameters, structure)
    assert vector.shape == (2_217_831,)


def test_images_go_through_vmap_as_one_by_one():
    images = jnp.stack([grid_texture((24, 24), period=p) for p in (6, 8)])
    keys = jax.random.split(jax.random.key(0))
    options = {"steps": 2, "average_decay": 0.5, "network": SMALL}
    both = jax.vmap(lambda image, key: dip(image, key=key, **options))(images, keys)
    for image, key, result in zip(images, keys, both, strict=True):
        np.testing.assert_allclose(result, dip(image, key=key, **options), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"learning_rate": 0.0}, "learning_rate is 0"),
        ({"average_decay": 1.0}, "in \\[0, 1\\)"),
        ({"stop_threshold": -1.0}, "stop_threshold"),
        ({"input_noise": -0.1}, "input_noise"),
    ],
)
def test_wrong_options_are_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        dip(jnp.zeros((64, 64, 1)), **options)


def test_images_the_network_cannot_take_are_refused():
    with pytest.raises(InputError, match="at least 33 a side for 5 scales"):
        dip(jnp.zeros((32, 64, 3)))
    with pytest.raises(InputError, match="expected \\(H, W, 1\\)"):
        dip(jnp.zeros((64, 64, 2)))
