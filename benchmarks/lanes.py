"""Time and memory of lanes, and what the runner costs beside fitting and scoring.

Command:
  python benchmarks/lanes.py --lanes=1,2,4,8 --json=benchmarks/results/lanes.json

Protocol, lanes: the default network on random 256 x 256 grey images; programs with different
numbers of lanes take turns, three steps a turn, and a lane count's ratio is the median over turns
of its time for one image and step over that of one lane in the same turn. Memory is what the
compiled program says it needs for temporaries.

Protocol, devices: the same with one lane on each of one and of all local devices, which of a CPU
are its cores: blocks of ten steps take turns.

Protocol, runner: `run` on --images synthetic pictures with --steps steps each, after one picture
a device that compiles; the share of wall time in which neither a program of the fit (start, steps,
result) nor the one that scores runs. Scoring and writing go on beside the fits, in their own
thread: reading, writing and drawing count only where nothing is fitted or scored meanwhile.
"""

import argparse
import dataclasses
import functools
import io
import json
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import jax
import jax.numpy as jnp
import numpy as np

from ssdnet_jax.config import PAPER
from ssdnet_jax.core.lanes import fit_lanes, init_lanes
from ssdnet_jax.data.files import write_atomically
from ssdnet_jax.data.images import DecodedImage
from ssdnet_jax.data.synthetic import grid_texture
from ssdnet_jax.methods.ssdnet import SSDnet
from ssdnet_jax.runner import devices
from ssdnet_jax.runner.run import run
from ssdnet_jax.runner.startup import device_name, make_cores_devices, use_compilation_cache
from ssdnet_jax.runner.terminal import Terminal
from ssdnet_jax.runner.workdir import open_workdir, versions

STEPS, STEPS_ON_DEVICES = 3, 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lanes", default="1,2,4,8")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--size", type=int, default=256, help="pixels, side of the images")
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    use_compilation_cache()
    make_cores_devices()
    report = {
        "machine": {"device": device_name(), "versions": versions()},
        "lanes": time_lanes([int(n) for n in arguments.lanes.split(",")], arguments),
        "devices": time_devices(arguments),
        "runner": time_runner(arguments),
    }
    print(json.dumps(report, indent=1))
    if arguments.json:
        text = json.dumps(report, indent=1) + "\n"
        write_atomically(arguments.json, lambda file: file.write(text.encode()))


def time_lanes(counts: list[int], arguments: argparse.Namespace) -> dict[str, dict]:
    settings = PAPER.fit_settings
    block = jax.jit(functools.partial(fit_lanes, settings=settings))
    programs, lanes, report = {}, {}, {}
    for count in counts:
        lanes[count] = fresh_lanes(count, arguments.size, settings)
        started = time.monotonic()
        programs[count] = block.lower(lanes[count], None, jnp.int32(STEPS)).compile()
        memory = programs[count].memory_analysis().temp_size_in_bytes
        report[str(count)] = {
            "compile_seconds": round(time.monotonic() - started, 1),
            "temporary_mib": round(memory / 2**20),
        }
    seconds = {count: [] for count in counts}
    for turn in range(arguments.turns + 1):
        for count in counts:
            started = time.monotonic()
            jax.block_until_ready(programs[count](lanes[count], None, jnp.int32(STEPS)))
            if turn:  # the first warms up
                seconds[count].append((time.monotonic() - started) / STEPS / count)
    for count, times in ratios(seconds).items():
        report[count] |= times
    return report


def ratios(seconds: dict[int, list[float]]) -> dict[str, dict[str, float]]:
    """Medians over turns: seconds of an image and step, and their ratio to the first count's."""
    alone = np.array(next(iter(seconds.values())))
    return {
        str(count): {
            "seconds_an_image_and_step": round(float(np.median(each)), 4),
            "ratio": round(float(np.median(np.array(each) / alone)), 3),
        }
        for count, each in seconds.items()
    }


def time_devices(arguments: argparse.Namespace) -> dict[str, dict]:
    settings = PAPER.fit_settings
    counts = sorted({1, jax.local_device_count()})
    steps = jnp.int32(STEPS_ON_DEVICES)
    seconds = {count: [] for count in counts}
    for turn in range(arguments.turns + 1):
        for count in counts:
            start = devices.init_program(count, settings)
            lanes = start(*lane_arguments(count, arguments.size))
            program = devices.fit_program(count, settings)
            jax.block_until_ready(lanes)
            started = time.monotonic()
            jax.block_until_ready(program(lanes, None, steps))
            if turn:  # the first compiles
                seconds[count].append((time.monotonic() - started) / STEPS_ON_DEVICES / count)
    return ratios(seconds)


def fresh_lanes(count: int, size: int, settings):
    start = jax.jit(functools.partial(init_lanes, settings=settings))
    return start(*lane_arguments(count, size))


def lane_arguments(count: int, size: int):
    """Keys, images, known pixels, and which lanes are active."""
    images = np.random.default_rng(0).random((count, size, size, 1), np.float32)
    known = np.ones((count, size, size), np.float32)
    keys = jax.random.split(jax.random.key(0), count)
    return keys, images, known, np.ones(count, bool)


def time_runner(arguments: argparse.Namespace) -> dict:
    config = PAPER
    fit = dataclasses.replace(config.fit, max_steps=arguments.steps, stop_threshold=0.0)
    config = dataclasses.replace(config, fit=fit)

    def pictures(count: int):
        return {
            f"{n}.png": lambda n=n: DecodedImage(grid_texture((512, 512), seed=n), None, ())
            for n in range(count)
        }

    working = watch_programs()
    with tempfile.TemporaryDirectory() as folder:
        warm = min(jax.local_device_count(), arguments.images)  # compiles what the others run
        for name, count in (("warm", warm), ("timed", arguments.images)):
            working.clear()
            method = Watched(config, working=working)
            workdir = open_workdir(Path(folder, name), method, root=None)
            summary = run(method, pictures(count), workdir, Terminal(io.StringIO(), io.StringIO()))
    return {
        "images": arguments.images,
        "steps": arguments.steps,
        "seconds": round(summary.seconds, 2),
        "seconds_fitting": round(covered(working, "fit"), 2),
        "seconds_fitting_or_scoring": round(covered(working, "fit", "score"), 2),
        "overhead": round(1 - covered(working, "fit", "score") / summary.seconds, 4),
    }


def watch_programs() -> list[tuple[str, float, float]]:
    """Makes the programs that fit note when they run: what, from when, until when."""
    working = []

    def watched(what, program):
        def call(*rest):
            started = time.monotonic()
            result = jax.block_until_ready(program(*rest))
            working.append((what, started, time.monotonic()))
            return result

        call.load = program.load
        return call

    def watch(name):
        program_of = getattr(devices, name)
        setattr(devices, name, lambda *arguments: watched("fit", program_of(*arguments)))

    for name in ("init_program", "fit_program", "replace_program", "result_program"):
        watch(name)
    return working


@dataclasses.dataclass(frozen=True)
class Watched(SSDnet):
    """SSDnet that notes when it scores."""

    working: list = dataclasses.field(default_factory=list)

    def finish(self, group, size, *more):
        started = time.monotonic()
        result = super().finish(group, size, *more)
        self.working.append(("score", started, time.monotonic()))
        return result


def covered(working: list[tuple[str, float, float]], *kinds: str) -> float:
    """Seconds in which at least one program of these kinds ran."""
    total, reached = 0.0, 0.0
    for what, start, end in sorted(working, key=lambda entry: entry[1]):
        if what in kinds and end > reached:
            total += end - max(start, reached)
            reached = end
    return total


if __name__ == "__main__":
    main()
