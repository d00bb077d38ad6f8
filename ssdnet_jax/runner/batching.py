"""Fitting a stream of images in lanes: filled, run in blocks of steps, emptied, filled again.

A slow image holds its own lane only: whenever lanes have stopped, their results leave and the next
images take their places. The programs are those of `core.lanes`.
"""

import dataclasses
from collections.abc import Callable, Hashable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from ssdnet_jax.core.fit import FitSettings, StopReason, total_steps
from ssdnet_jax.core.lanes import Lanes
from ssdnet_jax.core.vgg19 import VGG19Weights
from ssdnet_jax.runner import devices as on_devices


class Bucket(NamedTuple):
    """Jobs of one bucket can be lanes of one compiled program."""

    stage: str
    shape: tuple[int, int, int]
    settings: FitSettings


@dataclasses.dataclass(frozen=True)
class Job:
    """One fit to be done.

    Attributes:
      name: given back with the result.
      stage: "inpaint" or "fit".
      key: source of the fit's randomness.
      image: float32 (h, w, c), what is fitted: pixels in [0, 1], or features of them.
      known: float32 (h, w), 0 where a pixel is missing.
      settings: what is compiled into the fit.
    """

    name: Hashable
    stage: str
    key: PRNGKeyArray
    image: np.ndarray
    known: np.ndarray
    settings: FitSettings

    @property
    def bucket(self) -> Bucket:
        """What it shares with other jobs that can be its neighbours."""
        return Bucket(self.stage, self.image.shape, self.settings)


@dataclasses.dataclass(frozen=True)
class Fitted:
    """One finished fit.

    Attributes:
      name: the job's.
      reconstruction: float32 (h, w, c), mu = f_theta(y).
      losses: float32 (steps,), the loss of each step.
      stop: why the fit ended.
      restorations: how often the guard undid a blow-up.
      params: float32 (parameters,), theta as one vector after the last step.
    """

    name: Hashable
    reconstruction: np.ndarray
    losses: np.ndarray
    stop: StopReason
    restorations: int
    params: np.ndarray


@dataclasses.dataclass(frozen=True)
class Failed:
    """A job that the device could not do even alone, with what it said."""

    name: Hashable
    error: Exception


@dataclasses.dataclass(frozen=True)
class Progress:
    """Where a fit, or the lanes together, stand after a block.

    Attributes:
      stage: "inpaint", "fit" or "score".
      step: steps taken, the mean over the lanes that run.
      total: most steps a fit of this stage can take.
      loss: loss of the last step, likewise a mean; nan before the first.
    """

    stage: str
    step: int
    total: int
    loss: float


Take = Callable[[], Job | None]
Report = Callable[[Progress], None]


def fit_stream(
    take: Take,
    *,
    lanes: int = 1,
    devices: int = 1,
    vgg19: VGG19Weights | None = None,
    report: Report = lambda progress: None,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[Fitted | Failed]:
    """Fits the jobs that `take` gives, all of one bucket, until it gives None and no lane runs.

    Args:
      take: called whenever a lane is free, between blocks.
      lanes: fits on each device at once, >= 1. Halved when a device cannot hold them; the fits
        that were under way begin again.
      devices: local devices that share the lanes, >= 1.
      vgg19: weights of phi, if the loss has a perceptual term.
      report: called after each block.
      stop: asked before each block; True ends the stream, and fits under way are given up.

    Yields:
      Results, in the order in which fits end.
    """
    again: list[Job] = []

    def following() -> Job | None:
        return again.pop(0) if again else take()

    running: dict[int, Job] = {}
    while True:
        try:
            yield from _run_lanes(following, running, lanes, devices, vgg19, report, stop)
        except jax.errors.JaxRuntimeError as error:
            # The lanes went with the failed program: their fits begin again, among fewer.
            begun = [running.pop(lane) for lane in sorted(running)]
            if lanes * devices > 1:
                again[:0] = begun
                lanes, devices = (lanes // 2, devices) if lanes > 1 else (1, 1)
            else:
                yield from (Failed(job.name, error) for job in begun)
        else:
            return


def _run_lanes(
    take: Take,
    running: dict[int, Job],
    lanes: int,
    devices: int,
    vgg19: VGG19Weights | None,
    report: Report,
    stop: Callable[[], bool],
) -> Iterator[Fitted]:
    """`fit_stream` with a fixed number of lanes; `running` tells the caller what is under way."""
    count = lanes * devices
    for lane in range(count):
        if (job := take()) is None:
            break
        running[lane] = job
    if not running:
        return
    settings = running[0].settings
    total = total_steps(running[0].image.shape[:2], settings)
    report(Progress(running[0].stage, 0, total, float("nan")))
    # Lanes without a job repeat the first one's picture and take no steps.
    jobs = [running.get(lane, running[0]) for lane in range(count)]
    state = on_devices.init_program(devices, settings)(
        jnp.stack([job.key for job in jobs]),
        np.stack([job.image for job in jobs]),
        np.stack([job.known for job in jobs]),
        np.arange(count) < len(running),
    )
    # One step first, so that something is seen to move as soon as compilation is over.
    steps = 1
    while running and not stop():
        state = on_devices.fit_program(devices, settings)(state, vgg19, jnp.int32(steps))
        steps = settings.fit.block_steps
        reasons = np.asarray(state.states.stop)
        report(_progress(state, running, total))
        ended = [lane for lane in running if reasons[lane] != StopReason.RUNNING]
        for lane in ended:
            result = _result(state, lane, running[lane], devices)
            del running[lane]
            yield result
        for lane in sorted(set(range(count)) - set(running)) if ended else ():
            if (job := take()) is None:
                break
            running[lane] = job
            state = on_devices.replace_program(devices, settings)(
                state, jnp.int32(lane), job.key, job.image, job.known
            )


def _progress(state: Lanes, running: dict[int, Job], total: int) -> Progress:
    lanes = list(running)
    steps = np.asarray(state.states.step)[lanes]
    losses = np.asarray(state.states.history)[lanes, np.maximum(steps, 1) - 1]
    return Progress(running[lanes[0]].stage, round(steps.mean()), total, float(losses.mean()))


def _result(state: Lanes, lane: int, job: Job, devices: int) -> Fitted:
    found = jax.device_get(on_devices.result_program(devices, job.settings)(state, jnp.int32(lane)))
    return Fitted(
        name=job.name,
        reconstruction=found.reconstruction,
        losses=found.history[: int(found.step)],
        stop=StopReason(int(found.stop)),
        restorations=int(found.undone),
        params=found.params,
    )
