"""Continuous batching: a stream of fits through the lanes of one program.

Lanes run in blocks of steps. A lane that finishes is refilled with the next fit, so that a slow
image holds its own lane only. The programs are those of `core.lanes`.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ssdnet_jax.core.fit import StopReason, total_steps
from ssdnet_jax.core.lanes import Lanes
from ssdnet_jax.core.vgg19 import VGG19Weights
from ssdnet_jax.methods.base import Fitted, Job, JobName, Member, Progress, Report, gather
from ssdnet_jax.runner import devices as on_devices


@dataclasses.dataclass(frozen=True)
class Failed:
    """A job that the device could not do even alone, with what it said."""

    name: JobName
    error: Exception


Take = Callable[[int], Sequence[Job]]


def fit_stream(
    take: Take,
    *,
    lanes: int = 1,
    devices: int = 1,
    vgg19: VGG19Weights | None = None,
    report: Report = lambda progress: None,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[Fitted | Failed]:
    """Fits the jobs that `take` gives, all of one bucket, until it gives none and no lane runs.

    Args:
      take: called between blocks with the number of free lanes; gives at most so many jobs.
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

    def following(most: int) -> Sequence[Job]:
        jobs = again[:most]
        del again[:most]
        return [*jobs, *(take(most - len(jobs)) if len(jobs) < most else ())]

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
    # One step first, so that something is seen to move as soon as compilation is over.
    steps = 1
    while jobs := take(count):
        running |= enumerate(jobs)
        settings = jobs[0].settings
        total = total_steps(jobs[0].known.shape, settings)
        if steps == 1:
            report(Progress(jobs[0].stage, 0, total, float("nan")))
        state = _start(jobs, count, devices)
        while running and not stop():
            state = on_devices.fit_program(devices, settings)(state, vgg19, np.int32(steps))
            steps = settings.fit.block_steps
            at = _Standing.of(state)
            report(at.progress(running, total))
            ended = [lane for lane in running if at.stop[lane] != StopReason.RUNNING]
            if not ended:
                continue
            yield from _results(state, at, {lane: running.pop(lane) for lane in ended}, devices)
            if not running:
                break  # all lanes are free: they start together
            free = sorted(set(range(count)) - set(running))
            for lane, job in zip(free, take(len(free)), strict=False):
                running[lane] = job
                state = on_devices.replace_program(devices, settings)(
                    state, np.int32(lane), job.key, job.values.value, job.known
                )
        if stop():
            return


@dataclasses.dataclass(frozen=True)
class _Standing:
    """Where each lane stands; see `core.fit.FitState`."""

    stop: np.ndarray
    step: np.ndarray
    history: np.ndarray
    undone: np.ndarray

    @classmethod
    def of(cls, lanes: Lanes) -> "_Standing":
        s = lanes.states
        return cls(*jax.device_get((s.stop, s.step, s.history, s.undone)))

    def progress(self, running: dict[int, Job], total: int) -> Progress:
        lanes = list(running)
        steps = self.step[lanes]
        losses = self.history[lanes, np.maximum(steps, 1) - 1]
        return Progress(running[lanes[0]].stage, round(steps.mean()), total, float(losses.mean()))


def _start(jobs: Sequence[Job], count: int, devices: int) -> Lanes:
    """Lanes with a new fit in each; those without a job repeat the first one's and take no step."""
    filled = [*jobs, *[jobs[0]] * (count - len(jobs))]
    return on_devices.init_program(devices, jobs[0].settings)(
        jnp.stack([job.key for job in filled]),
        gather([job.values for job in jobs], count),
        np.stack([job.known for job in filled]),
        np.arange(count) < len(jobs),
    )


def _results(lanes: Lanes, at: _Standing, ended: dict[int, Job], devices: int) -> Iterator[Fitted]:
    """What the lanes that have ended came to, which stays on the device if there is one only."""
    chosen = np.zeros(len(at.stop), np.int32)
    chosen[: len(ended)] = list(ended)
    settings = next(iter(ended.values())).settings
    found = on_devices.result_program(devices, settings)(lanes, chosen)
    if devices > 1:
        found = jax.device_get(found)
    for place, (lane, job) in enumerate(ended.items()):
        yield Fitted(
            name=job.name,
            reconstruction=Member(found.reconstruction, place),
            losses=at.history[lane, : at.step[lane]],
            stop=StopReason(int(at.stop[lane])),
            restorations=int(at.undone[lane]),
            params=Member(found.params, place),
        )
