"""The network of a fit, chosen by name: the skip encoder-decoder, or one that has been registered.

To add one: `registry.NETWORKS.register("mine")(Network(init, apply, smallest_side))`.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from ssdnet_jax.core.config import NetworkConfig
from ssdnet_jax.core.frozen_network import (
    apply_with_statistics,
    measure_statistics,
    receptive_margin,
)
from ssdnet_jax.core.registry import NETWORKS
from ssdnet_jax.core.skip_network import (
    apply_skip_network,
    init_skip_network,
    smallest_image_side,
)


class Network(NamedTuple):
    """f_theta as pure functions.

    Attributes:
      init: (key, NetworkConfig, *, channels) -> parameters, a tree of float32 arrays.
      apply: (parameters, images (b, h, w, c), NetworkConfig) -> (b, h, w, c).
      smallest_side: (NetworkConfig) -> pixels that the shorter side of an image must have.
      measure: (parameters, images, NetworkConfig) -> statistics that the network normalizes by.
      with_statistics: (parameters, statistics, images, NetworkConfig) -> (b, h, w, c), `apply` in
        which each pixel depends on its surroundings alone. Without these three an image must be
        small enough to be fitted whole.
      receptive_margin: (NetworkConfig) -> how far these surroundings reach, in pixels.
    """

    init: Callable[..., PyTree]
    apply: Callable[..., Float[Array, "b h w c"]]
    smallest_side: Callable[[NetworkConfig], int]
    measure: Callable[..., PyTree] | None = None
    with_statistics: Callable[..., Float[Array, "b h w c"]] | None = None
    receptive_margin: Callable[[NetworkConfig], int] | None = None


NETWORKS.register_own("skip")(
    Network(
        init_skip_network,
        apply_skip_network,
        smallest_image_side,
        measure_statistics,
        apply_with_statistics,
        receptive_margin,
    )
)


def init_network(
    key: PRNGKeyArray, config: NetworkConfig, *, channels: int
) -> PyTree[Float[Array, "..."]]:
    """Parameters of the network that `config.kind` names, for images of `channels`."""
    return NETWORKS[config.kind].init(key, config, channels=channels)


def apply_network(
    params: PyTree[Float[Array, "..."]], images: Float[Array, "b h w c"], config: NetworkConfig
) -> Float[Array, "b h w c"]:
    """Reconstructs a batch, which is one lane; see `apply_skip_network`."""
    return NETWORKS[config.kind].apply(params, images, config)


def smallest_side(config: NetworkConfig) -> int:
    """Pixels that the shorter side of an image must have."""
    return NETWORKS[config.kind].smallest_side(config)


@functools.lru_cache(maxsize=64)  # every fit asks, and some networks take long to trace
def network_structure(config: NetworkConfig, *, channels: int) -> PyTree[jax.ShapeDtypeStruct]:
    """Names and shapes of the parameters."""
    init = NETWORKS[config.kind].init
    return jax.eval_shape(lambda key: init(key, config, channels=channels), jax.random.key(0))
