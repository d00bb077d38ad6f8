"""Devices: how many lanes they hold, and lanes sharded over several of them."""

import functools
from collections.abc import Callable, Hashable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ssdnet_jax.core import lanes as lane_programs
from ssdnet_jax.core.fit import FitSettings
from ssdnet_jax.core.lanes import Lanes
from ssdnet_jax.core.vgg19 import VGG19Weights
from ssdnet_jax.programs import program

_LANES = PartitionSpec("lanes")
_SHARED = PartitionSpec()
_MOST_LANES = 64  # on one device: more do not make a full device faster
_USABLE = 0.8  # share of a device's memory that lanes may take


@functools.cache
def init_program(devices: int, settings: FitSettings) -> Callable[..., Lanes]:
    """`core.lanes.init_lanes` for lanes spread evenly over the first `devices` local devices."""
    function = functools.partial(lane_programs.init_lanes, settings=settings)
    if devices == 1:
        return _kept(lane_programs.init_lanes, settings)
    return jax.jit(function, out_shardings=_sharding(devices, _LANES))


@functools.cache
def replace_program(devices: int, settings: FitSettings) -> Callable[..., Lanes]:
    """`core.lanes.replace_lane`, likewise."""
    if devices == 1:
        return _kept(lane_programs.replace_lane, settings, donate=(0,))
    function = functools.partial(lane_programs.replace_lane, settings=settings)
    return jax.jit(function, out_shardings=_sharding(devices, _LANES), donate_argnums=0)


@functools.cache
def fit_program(devices: int, settings: FitSettings) -> Callable[..., Lanes]:
    """`core.lanes.fit_lanes`, likewise: each device loops on its own, until its lanes stop."""
    if devices == 1:
        return _kept(lane_programs.fit_lanes, settings, donate=(0,))
    function = jax.shard_map(
        functools.partial(lane_programs.fit_lanes, settings=settings),
        mesh=_mesh(devices),
        in_specs=(_LANES, _SHARED, _SHARED),
        out_specs=_LANES,
        check_vma=False,
    )
    return jax.jit(function, donate_argnums=0)


@functools.cache
def result_program(devices: int, settings: FitSettings) -> Callable[..., Any]:
    """`core.lanes.lane_result`, likewise; the result is whole on every device."""
    if devices == 1:
        return _kept(lane_programs.lane_result, settings)
    function = functools.partial(lane_programs.lane_result, settings=settings)
    return jax.jit(function, out_shardings=_sharding(devices, _SHARED))


def lanes_that_fit(
    shape: tuple[int, int, int], settings: FitSettings, vgg19: VGG19Weights | None = None
) -> int:
    """Lanes for one device: on a CPU one, elsewhere as many as memory holds, a power of two.

    On a CPU more lanes make an image hardly faster (`benchmarks/results/lanes.json`), and the last
    images of a run would keep all lanes busy for fewer pictures.

    Args:
      shape: of the images.
      settings: of the fits.
      vgg19: weights of phi, if the loss has a perceptual term.
    """
    device = jax.local_devices()[0]
    limit = (device.memory_stats() or {}).get("bytes_limit")
    if device.platform == "cpu" or not limit:
        return 1
    analysis = _compiled(shape, settings, vgg19).memory_analysis()
    lane = analysis.temp_size_in_bytes + analysis.argument_size_in_bytes
    most = int(_USABLE * limit // lane)
    return 2 ** int(np.log2(np.clip(most, 1, _MOST_LANES)))


def _compiled(
    shape: tuple[int, int, int], settings: FitSettings, vgg19: VGG19Weights | None = None
) -> Any:
    """The program of one lane, for its memory."""
    key = jax.random.split(jax.random.key(0), 1)
    image, known = jnp.zeros((1, *shape)), jnp.ones((1, *shape[:2]))
    function = functools.partial(lane_programs.init_lanes, settings=settings)
    lanes = jax.eval_shape(function, key, image, known, jnp.ones(1, bool))
    block = functools.partial(lane_programs.fit_lanes, settings=settings)
    return jax.jit(block).lower(lanes, vgg19, jnp.int32(1)).compile()


def _kept(
    function: Callable[..., Any], settings: Hashable, donate: tuple[int, ...] = ()
) -> Callable[..., Any]:
    """A program that is traced once a machine; which one, the arguments decide."""

    def call(*arguments: Any) -> Any:
        return program(function, *arguments, settings=settings, donate=donate)(*arguments)

    return call


def _mesh(devices: int) -> Mesh:
    return Mesh(np.array(jax.local_devices()[:devices]), ("lanes",))


def _sharding(devices: int, spec: PartitionSpec) -> NamedSharding:
    return NamedSharding(_mesh(devices), spec)
