import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssdnet_jax.core.config import NetworkConfig
from ssdnet_jax.core.networks import (
    apply_network,
    init_network,
    network_structure,
    smallest_side,
)
from ssdnet_jax.core.skip_network import (
    apply_skip_network,
    init_skip_network,
    parameter_structure,
    smallest_image_side,
)

TINY = NetworkConfig(channels_down=(2, 3), channels_up=(2, 3), channels_skip=(1, 0))


def test_the_network_named_skip_is_the_skip_network():
    key, images = jax.random.key(0), jnp.linspace(0, 1, 2 * 16 * 16).reshape(2, 16, 16, 1)
    init, init_skip = (
        jax.jit(function, static_argnames=("config", "channels"))
        for function in (init_network, init_skip_network)
    )
    apply, apply_skip = (
        jax.jit(function, static_argnames="config")
        for function in (apply_network, apply_skip_network)
    )
    params = init(key, config=TINY, channels=1)
    expected = init_skip(key, config=TINY, channels=1)
    assert jax.tree.all(jax.tree.map(np.array_equal, params, expected))
    np.testing.assert_array_equal(
        apply(params, images, config=TINY), apply_skip(expected, images, config=TINY)
    )
    assert smallest_side(TINY) == smallest_image_side(TINY)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_structure_is_that_of_the_parameters(channels):
    structure = network_structure(TINY, channels=channels)
    expected = parameter_structure(TINY, channels=channels)
    assert jax.tree.structure(structure) == jax.tree.structure(expected)
    assert [x.shape for x in jax.tree.leaves(structure)] == [
        x.shape for x in jax.tree.leaves(expected)
    ]
