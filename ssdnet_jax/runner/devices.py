"""Devices: how many lanes they hold, and lanes sharded over several of them."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from ssdnet_jax.core import lanes as lane_programs
from ssdnet_jax.core.config import FitSettings
from ssdnet_jax.core.lanes import LaneResult, Lanes
from ssdnet_jax.core.vgg19 import VGG19Weights
from ssdnet_jax.errors import InputError
from ssdnet_jax.runner.memory import memory_limit
from ssdnet_jax.runner.programs import LANES, SHARED, Placement, program

_MOST_LANES = 64  # on one device: more do not make a full device faster
_USABLE = 0.8  # share of a device's memory that lanes may take
_USABLE_ON_CPU = 0.25  # of the machine's, which other programs use as well
_LEAST = 0.9  # of what a lane is taken to need on a CPU: it used that when it was measured
_VALUES_A_CHANNEL = 12  # kept by a step, of each pixel (`benchmarks/results/scaling.json`: 10)


def init_program(devices: int, settings: FitSettings) -> Callable[..., Lanes]:
    """`core.lanes.init_lanes` for lanes spread evenly over the first `devices` local devices."""
    return _kept(lane_programs.init_lanes, settings, devices, 4 * (LANES,), LANES)


def replace_program(devices: int, settings: FitSettings) -> Callable[..., Lanes]:
    """`core.lanes.replace_lane`, likewise."""
    arguments = (LANES, *4 * (SHARED,))
    return _kept(lane_programs.replace_lane, settings, devices, arguments, LANES, donate=(0,))


def fit_program(devices: int, settings: FitSettings) -> Callable[..., Lanes]:
    """`core.lanes.fit_lanes`, likewise: each device loops on its own, until its lanes stop."""
    arguments = (LANES, SHARED, SHARED)
    return _kept(
        lane_programs.fit_lanes, settings, devices, arguments, LANES, donate=(0,), on_each=True
    )


def result_program(devices: int, settings: FitSettings) -> Callable[..., LaneResult]:
    """`core.lanes.lane_results`, likewise; the result is whole on every device."""
    return _kept(lane_programs.lane_results, settings, devices, (LANES, SHARED), SHARED)


def lanes_that_fit(
    shape: tuple[int, int, int], settings: FitSettings | None, vgg19: VGG19Weights | None = None
) -> int:
    """Lanes for one device: on a CPU one, elsewhere as many as memory holds, a power of two.

    On a CPU more lanes make an image hardly faster (`benchmarks/results/lanes.json`), and the last
    images of a run would keep all lanes busy for fewer pictures.

    Args:
      shape: of the images.
      settings: of the fits; None where there is nothing to fit, which takes one.
      vgg19: weights of phi, if the loss has a perceptual term.
    """
    device = jax.local_devices()[0]
    limit = (device.memory_stats() or {}).get("bytes_limit")
    if settings is None or device.platform == "cpu" or not limit:
        return 1
    most = int(_USABLE * limit // lane_bytes(shape, settings, vgg19))
    return 2 ** int(np.log2(np.clip(most, 1, _MOST_LANES)))


def devices_that_fit(shape: tuple[int, int, int], settings: FitSettings) -> int:
    """Local devices that share the fits of a run: all, but of a CPU as many as memory holds.

    The devices of a CPU are its cores (`startup.make_cores_devices`), and its memory is that of
    all. Fits whose steps are large products keep all cores busy one at a time, and are not shared
    out: those with a perceptual term.

    Args:
      shape: of the images.
      settings: of the fits.
    """
    devices = jax.local_devices()
    if devices[0].platform != "cpu" or len(devices) == 1:
        return len(devices)
    if settings.loss.w_perc:
        return 1
    lane = _lane_bytes_on_cpu(shape, settings)
    return int(np.clip(_USABLE_ON_CPU * memory_limit() // lane, 1, len(devices)))


def check_memory(shape: tuple[int, int, int], settings: FitSettings) -> None:
    """Raises InputError for a fit that is too large for the memory of a CPU.

    The system would give the memory, and end the process once it is used. Other devices say so
    themselves.

    Args:
      shape: of what is fitted.
      settings: of the fit.
    """
    if jax.local_devices()[0].platform != "cpu":
        return
    needed, limit = _LEAST * _lane_bytes_on_cpu(shape, settings), memory_limit()
    if needed > limit:
        raise InputError(
            f"a fit of {shape[0]} x {shape[1]} takes at least {needed / 2**30:.1f} GiB of memory; "
            f"found {limit / 2**30:.1f} GiB, expected a smaller --image_size"
        )


def _lane_bytes_on_cpu(shape: tuple[int, int, int], settings: FitSettings) -> int:
    network = settings.network
    channels = shape[2] + sum(
        width[0] for width in (network.channels_down, network.channels_up, network.channels_skip)
    )
    return 4 * _VALUES_A_CHANNEL * channels * shape[0] * shape[1]


def lane_bytes(
    shape: tuple[int, int, int], settings: FitSettings, vgg19: VGG19Weights | None = None
) -> int:
    """Memory that the program of one lane takes of a device; see `lanes_that_fit`."""
    key = jax.random.split(jax.random.key(0), 1)
    image, known = jnp.zeros((1, *shape)), jnp.ones((1, *shape[:2]))
    function = functools.partial(lane_programs.init_lanes, settings=settings)
    lanes = jax.eval_shape(function, key, image, known, jnp.ones(1, bool))
    block = functools.partial(lane_programs.fit_lanes, settings=settings)
    compiled = jax.jit(block).lower(lanes, vgg19, jnp.int32(1)).compile()
    analysis: Any = compiled.memory_analysis()
    return analysis.temp_size_in_bytes + analysis.argument_size_in_bytes


def _kept(
    function: Callable[..., Any],
    settings: FitSettings,
    devices: int,
    arguments: tuple[PartitionSpec, ...],
    result: PartitionSpec,
    *,
    donate: tuple[int, ...] = (),
    on_each: bool = False,
) -> Callable[..., Any]:
    """A program that is traced once a machine; which one, the arguments decide."""
    placement = Placement(devices, arguments, result, on_each) if devices > 1 else None

    def call(*given: Any) -> Any:
        kept = program(function, *given, settings=settings, donate=donate, placement=placement)
        return kept(*given)

    return call
