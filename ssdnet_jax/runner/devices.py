"""Devices: how many lanes they hold, and lanes sharded over several of them."""

import dataclasses
from collections.abc import Callable, Hashable
from typing import Any

import jax
import numpy as np
from jax.sharding import PartitionSpec

from ssdnet_jax.core import lanes as lane_programs
from ssdnet_jax.core.config import FitSettings
from ssdnet_jax.core.networks import network_structure
from ssdnet_jax.core.patch_statistics import WORKING_BYTES
from ssdnet_jax.core.skip_network import parameter_count
from ssdnet_jax.core.vgg19 import VGG19Weights
from ssdnet_jax.errors import InputError
from ssdnet_jax.programs import LANES, SHARED, Placement, Program, program
from ssdnet_jax.runner.memory import memory_limit

_MOST_LANES = 64  # on one device: more do not make a full device faster
_USABLE = 0.8  # share of a device's memory that lanes may take
_USABLE_ON_CPU = 0.25  # of the machine's, which other programs use as well
_LEAST = 0.9  # of what a lane is taken to need on a CPU: it used that when it was measured
_VALUES_A_CHANNEL = 12  # kept by a step, of each pixel (`benchmarks/results/scaling.json`: 11)
_VALUES_A_PARAMETER = 8  # with its gradient, Adam's two averages, and the last good state
_VGG19_VALUES = 2 * (64 + 64 + 64 // 4 + 128 // 4 + 128 // 4)  # of each pixel that phi sees: each
# layer up to conv2_2 with its cotangent


@dataclasses.dataclass(frozen=True)
class LaneProgram:
    """A function of `core.lanes` on one device or several, traced once a machine."""

    function: Callable[..., Any]
    settings: Hashable
    donate: tuple[int, ...]
    placement: Placement | None

    def load(self, *arguments: Any) -> Any:
        """Compiles it for arguments of these shapes and types; those of its result."""
        return self._program(arguments).result

    def __call__(self, *arguments: Any) -> Any:
        """What the function returns."""
        found = self._program(arguments)
        return found(*(self.placement.placed(arguments) if self.placement else arguments))

    def _program(self, arguments: tuple[Any, ...]) -> Program:
        return program(
            self.function,
            *arguments,
            settings=self.settings,
            donate=self.donate,
            placement=self.placement,
        )


def init_program(devices: int, settings: FitSettings) -> LaneProgram:
    """`core.lanes.init_lanes` for lanes spread evenly over the first `devices` local devices."""
    return _lane_program(lane_programs.init_lanes, settings, devices, 4 * (LANES,), LANES)


def replace_program(devices: int, settings: FitSettings) -> LaneProgram:
    """`core.lanes.replace_lane`, likewise."""
    arguments = (LANES, *4 * (SHARED,))
    return _lane_program(
        lane_programs.replace_lane, settings, devices, arguments, LANES, donate=(0,)
    )


def fit_program(devices: int, settings: FitSettings) -> LaneProgram:
    """`core.lanes.fit_lanes`, likewise: each device loops on its own, until its lanes stop."""
    arguments = (LANES, SHARED, SHARED)
    return _lane_program(
        lane_programs.fit_lanes, settings, devices, arguments, LANES, donate=(0,), on_each=True
    )


def result_program(devices: int, settings: FitSettings) -> LaneProgram:
    """`core.lanes.lane_results`, likewise; the result is whole on every device."""
    return _lane_program(lane_programs.lane_results, settings, devices, (LANES, SHARED), SHARED)


def load_fits(
    shape: tuple[int, ...],
    *,
    lanes: int,
    devices: int,
    settings: FitSettings,
    keys: Any,
    vgg19: VGG19Weights | None,
) -> None:
    """Compiles, or loads, the programs of `runner.batching` in the order of their use.

    Args:
      shape: (h, w, c) of what is fitted.
      lanes: of each device.
      devices: local devices that share the lanes.
      settings: of the fits.
      keys: type of their keys.
      vgg19: as the fits take it.
    """

    def each(of_one: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((lanes * devices, *of_one), dtype)

    state = init_program(devices, settings).load(
        each((), keys), each(shape, np.float32), each(shape[:2], np.float32), each((), np.bool_)
    )
    steps = jax.ShapeDtypeStruct((), np.int32)
    fit_program(devices, settings).load(state, vgg19, steps)
    result_program(devices, settings).load(state, each((), np.int32))


def lanes_that_fit(
    shape: tuple[int, int, int], settings: FitSettings | None, fits: int = _MOST_LANES
) -> int:
    """Lanes for one device: on a CPU one, elsewhere as many as memory holds, a power of two.

    No more than the fits need, but again a power of two: runs of few images then share their
    programs, which take longer to compile than lanes without a fit cost.

    As many images are scored at once, which may take more memory than to fit them. On a CPU more
    lanes make an image hardly faster (`benchmarks/results/lanes.json`), and the last images of a
    run would keep all lanes busy for fewer images.

    Args:
      shape: of the images.
      settings: of the fits; None where there is nothing to fit, which takes one.
      fits: of the whole run, those that the device gets.
    """
    device = jax.local_devices()[0]
    limit = (device.memory_stats() or {}).get("bytes_limit")
    if settings is None or device.platform == "cpu" or not limit:
        return 1
    most = int(_USABLE * limit // max(lane_bytes(shape, settings), WORKING_BYTES))
    needed = 1 << (fits - 1).bit_length()
    return min(2 ** int(np.log2(np.clip(most, 1, _MOST_LANES))), needed)


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
    lane = lane_bytes(shape, settings)
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
    limit = memory_limit()
    needed = _LEAST * (_image_bytes(shape, settings) + _parameter_bytes(shape[2], settings))
    if needed > limit:
        raise InputError(
            f"a fit of {shape[0]} x {shape[1]} takes at least {needed / 2**30:.1f} GiB of memory; "
            f"found {limit / 2**30:.1f} GiB, expected a smaller --image_size or a narrower network"
        )


def _image_bytes(shape: tuple[int, int, int], settings: FitSettings) -> int:
    """What a step of the network keeps of an image; nearly all of it at the finest scale."""
    network = settings.network
    channels = shape[2] + sum(
        width[0] for width in (network.channels_down, network.channels_up, network.channels_skip)
    )
    return 4 * _VALUES_A_CHANNEL * channels * shape[0] * shape[1]


def _parameter_bytes(channels: int, settings: FitSettings) -> int:
    """What a fit keeps of the network's parameters; more than of the image in wide networks."""
    structure = network_structure(settings.network, channels=channels)
    return 4 * _VALUES_A_PARAMETER * parameter_count(structure)


def lane_bytes(shape: tuple[int, int, int], settings: FitSettings) -> int:
    """Memory that one lane takes of a device, rather too much than too little.

    A formula: to compile a program and read its memory took seconds at every start. XLA's own
    figures are between a third and all of it (`tests/runner/test_devices.py`).

    Args:
      shape: of the images.
      settings: of the fits.
    """
    loss, (height, width, channels) = settings.loss, shape
    values = 0
    if loss.w_perc:
        seen = height * width
        if loss.perceptual_view == "patch":
            seen = loss.patches_per_step * loss.perceptual_size**2 * len(loss.patch_sizes)
        values += _VGG19_VALUES * seen
    return _image_bytes(shape, settings) + _parameter_bytes(channels, settings) + 4 * values


def _lane_program(
    function: Callable[..., Any],
    settings: FitSettings,
    devices: int,
    arguments: tuple[PartitionSpec, ...],
    result: PartitionSpec,
    *,
    donate: tuple[int, ...] = (),
    on_each: bool = False,
) -> LaneProgram:
    placement = Placement(devices, arguments, result, on_each) if devices > 1 else None
    return LaneProgram(function, settings, donate, placement)
