import jax
import numpy as np
import pytest

from ssdnet_jax.core.config import NetworkConfig
from ssdnet_jax.core.frozen_network import (
    alignment,
    apply_with_statistics,
    measure_statistics,
    receptive_margin,
)
from ssdnet_jax.core.skip_network import apply_skip_network, init_skip_network

CONFIGS = {
    "leaky ReLU": NetworkConfig(
        channels_down=(6, 8), channels_up=(6, 8), channels_skip=(4, 4), sigmoid=False
    ),
    "without a skip branch": NetworkConfig(
        channels_down=(4, 5),
        channels_up=(4, 5),
        channels_skip=(0, 2),
        activation="elu",
        upsampling="nearest",
        padding="zero",
        conv1x1_up=False,
        sigmoid=True,
    ),
}
apply = jax.jit(apply_skip_network, static_argnums=2)
measure = jax.jit(measure_statistics, static_argnums=2)
frozen = jax.jit(apply_with_statistics, static_argnums=3)


def drawn(config, shape):
    image = jax.random.uniform(jax.random.key(0), (1, *shape, 3))
    return init_skip_network(jax.random.key(1), config, channels=3), image


@pytest.mark.parametrize("name", CONFIGS)
def test_with_its_own_statistics_it_is_the_network(name):
    config = CONFIGS[name]
    for shape in ((48, 64), (45, 37)):
        params, image = drawn(config, shape)
        statistics = measure(params, image, config)
        np.testing.assert_allclose(
            frozen(params, statistics, image, config), apply(params, image, config), atol=1e-5
        )


def test_beyond_the_margin_a_tile_equals_the_whole_image():
    config = CONFIGS["leaky ReLU"]
    params, image = drawn(config, (96, 96))
    statistics = measure(params, image, config)
    whole = frozen(params, statistics, image, config)
    margin, start = receptive_margin(config), 5 * alignment(config)
    tile = frozen(params, statistics, image[:, start:, start:], config)
    inner = slice(margin, None)
    difference = np.abs(tile - whole[:, start:, start:])
    assert difference[:, inner, inner].max() < 1e-5
    assert difference.max() > 1e-2  # nearer to the cut it does see the missing rest
