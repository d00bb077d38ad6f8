"""Time and memory against the side of an image, lanes, patches and seeds.

Command:
  python benchmarks/scaling.py --json=benchmarks/results/scaling.json
  python benchmarks/scaling.py --json=... --axes=side,pictures,lanes

Every point is a process of its own. Its peak memory is the highest resident set of that process,
compilation included; JAX's compilation cache is off. A step's time is the median over blocks of
steps.

side        the default setting at the image's own size, by stage: processor seconds of preparing,
            encoding, a step of the fit, and scoring, programs warm. Above 1024 pixels a side the
            network is fitted to crops and the score is made in tiles, which are one stage here,
            programs compiled with it
pictures    a folder of so many pictures of 256 pixels through the whole run, with a few steps each
lanes       the default setting at 128 pixels, so many images side by side: processor seconds
side_grid, side_auto   the grid and the default setting at the image's own size, by the clock, and a
            step's memory: `localize` with a few steps, after the steps that are timed
patches     the grid setting at 256 pixels, patches at strides 16 to 1
seeds       the grid setting at 128 pixels, `localize` with so many fits of one image

Points that are in the file already are kept; the plot is drawn beside it.
"""

import argparse
import dataclasses
import functools
import io
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import jax
import jax.numpy as jnp
import numpy as np

import ssdnet_jax
from ssdnet_jax.config import AUTO, PAPER, Config
from ssdnet_jax.core.config import FitSettings
from ssdnet_jax.core.fit import fit_block, init_fit
from ssdnet_jax.core.lanes import fit_lanes, init_lanes
from ssdnet_jax.core.patches import patch_count
from ssdnet_jax.data.files import write_atomically
from ssdnet_jax.data.images import DecodedImage
from ssdnet_jax.data.synthetic import grid_texture
from ssdnet_jax.methods.base import Done, Job
from ssdnet_jax.methods.ssdnet import SSDnet, make_ssdnet
from ssdnet_jax.runner.batching import fit_stream
from ssdnet_jax.runner.run import run
from ssdnet_jax.runner.startup import (
    cores,
    device_name,
    make_cores_devices,
    use_compilation_cache,
)
from ssdnet_jax.runner.terminal import Terminal
from ssdnet_jax.runner.workdir import open_workdir, versions

AXES = {
    "side": [256, 512, 1024, 2048],
    "pictures": [1, 4, 16, 64],
    "lanes": [1, 4, 16, 64],
    "side_grid": [128, 256, 512, 1024],
    "side_auto": [128, 256, 512, 1024],
    "patches": [16, 8, 4, 2, 1],
    "seeds": [1, 2, 4, 8],
}
STEPS, BLOCKS = 2, 3
LOCALIZE_STEPS = 6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--axes", default=",".join(AXES))
    parser.add_argument("--most", type=int, default=2048, help="leave out points above")
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--point", help="internal: AXIS:VALUE, printed as JSON")
    arguments = parser.parse_args()
    if arguments.point:
        axis, value = arguments.point.split(":")
        print(json.dumps(measure(axis, int(value))))
        return
    report = json.loads(arguments.json.read_text()) if arguments.json.exists() else {}
    report["machine"] = {
        "device": device_name(),
        "cores_used": cores(),
        "versions": versions(),
    }
    for axis in arguments.axes.split(","):
        points = report.setdefault(axis, {})
        for value in AXES[axis]:
            if value > arguments.most or str(value) in points:
                continue
            command = [sys.executable, __file__, f"--json={arguments.json}"]
            done = subprocess.run([*command, f"--point={axis}:{value}"], capture_output=True)
            if done.returncode:
                raise SystemExit(done.stderr.decode())
            points[str(value)] = json.loads(done.stdout.splitlines()[-1])
            print(axis, value, points[str(value)], flush=True)
            text = json.dumps(report, indent=1) + "\n"
            write_atomically(arguments.json, lambda file, text=text: file.write(text.encode()))
    draw(report, arguments.json.with_suffix(".png"))


def measure(axis: str, value: int) -> dict[str, Any]:
    found = {
        "side_grid": lambda: measure_image(ssdnet_jax.load_config("grid_literal"), value),
        "side_auto": lambda: measure_image(AUTO, value),
        "side": lambda: measure_stages(value),
        "pictures": lambda: measure_pictures(value),
        "lanes": lambda: measure_lanes(value),
        "patches": lambda: measure_patches(value),
        "seeds": lambda: measure_seeds(value),
    }[axis]()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    # On a machine that does other work, times are longer than they need be; memory is not.
    load = round(os.getloadavg()[0] / (os.cpu_count() or 1), 2)
    return {**found, "peak_gib": round(peak, 3), "load_a_core": load}


def without_stop(settings: FitSettings) -> FitSettings:
    fit = dataclasses.replace(settings.fit, max_steps=10_000, stop_threshold=-1e9)
    return dataclasses.replace(settings, fit=fit)


def measure_image(config: Config, side: int, *, localize: bool = True) -> dict[str, Any]:
    """A step, and `localize` from end to end with a few steps."""
    config = config.resolve_features(has_vgg19=True)
    fit = dataclasses.replace(config.fit, max_steps=LOCALIZE_STEPS, stop_threshold=-1e9)
    config = dataclasses.replace(config, image_size=0, fit=fit)
    vgg19 = ssdnet_jax.load_vgg19_weights() if config.needs_vgg19 else None
    image = grid_texture((side, side), period=16, seed=0)
    key = jax.random.key(0)
    target = ssdnet_jax.encode(jnp.asarray(image)[None], vgg19, config.plan((side, side)))
    found = time_steps(without_stop(config.fit_settings), target.values[0])
    if localize:
        started = time.perf_counter()
        ssdnet_jax.localize(image, config, key, vgg19=vgg19)
        found["localize_s"] = round(time.perf_counter() - started, 3)
        found["localize_steps"] = LOCALIZE_STEPS
    return found


def time_steps(settings: FitSettings, image: np.ndarray) -> dict[str, Any]:
    image, known = jnp.asarray(image), jnp.ones(image.shape[:2])
    state = jax.jit(functools.partial(init_fit, settings=settings))(jax.random.key(0), image)
    block = jax.jit(functools.partial(fit_block, settings=settings), donate_argnums=0)
    program = block.lower(state, image, known, None, jnp.int32(1)).compile()
    times = []
    for _ in range(BLOCKS + 1):
        started = time.perf_counter()
        state = jax.block_until_ready(program(state, image, known, None, jnp.int32(STEPS)))
        times.append((time.perf_counter() - started) / STEPS)
    temporary = program.memory_analysis().temp_size_in_bytes / 2**30
    return {
        "step_s": round(statistics.median(times[1:]), 5),
        "step_temporary_gib": round(temporary, 4),
    }


def default_method(**changed: Any) -> SSDnet:
    """The default setting with few steps and VGG19's features."""
    fit = dataclasses.replace(AUTO.fit, max_steps=LOCALIZE_STEPS, stop_threshold=-1e9)
    config = dataclasses.replace(AUTO, fit=fit, **changed)
    return make_ssdnet(config, ssdnet_jax.load_vgg19_weights())


def measure_stages(side: int) -> dict[str, Any]:
    """Processor seconds of each stage of one image; a second image's, where it goes as a whole."""
    use_compilation_cache()
    method, found = default_method(image_size=0), {}
    image = DecodedImage(grid_texture((side, side), period=16, seed=0), None, ())

    def ended(stage: str, share: int = 1) -> None:
        nonlocal started
        found[f"{stage}_s"] = round((time.process_time() - started) / share, 4)
        started = time.process_time()

    for _ in range(2 if side**2 <= method.config.tiling.above else 1):
        started = time.process_time()
        prepared = method.prepare(image, jax.random.key(0))
        ended("prepare")
        (prepared,) = method.encode([prepared], 1)
        ended("encode")
        jobs = method.jobs(prepared, "")
        fits = tuple(fit_stream(functools.partial(next_job, iter(jobs))))
        ended("step", LOCALIZE_STEPS)
        (result,) = method.finish([Done("", prepared, fits)], 1)
        result()
        ended("score")
    if not fits:  # crops and tiles, which `finish` does together
        found = {"prepare_s": found["prepare_s"], "tiles_s": found["score_s"]}
    rest = (LOCALIZE_STEPS - 1) * found.get("step_s", 0)
    return {**found, "whole_s": round(sum(found.values()) + rest, 3)}


def next_job(jobs: Iterator[Job], most: int) -> list[Job]:
    """At most one, as `fit_stream` takes them."""
    return list(itertools.islice(jobs, min(most, 1)))


def measure_pictures(count: int) -> dict[str, Any]:
    """A run over a folder, its programs compiled before."""
    use_compilation_cache()
    make_cores_devices()
    method, silent = default_method(), Terminal(io.StringIO(), io.StringIO())
    with tempfile.TemporaryDirectory() as folder:
        for name, those in (("warm", min(count, cores())), ("timed", count)):
            readers = {f"{n}.png": functools.partial(drawn_picture, n) for n in range(those)}
            workdir = open_workdir(Path(folder) / name, method, root=None)
            clock, processors = time.perf_counter(), time.process_time()
            summary = run(method, readers, workdir, silent)
            assert summary.finished == those
            found = {
                "clock_s": round(time.perf_counter() - clock, 3),
                "processor_s": round(time.process_time() - processors, 3),
            }
    return {**found, "processor_s_an_image": round(found["processor_s"] / count, 4)}


def drawn_picture(seed: int) -> DecodedImage:
    return DecodedImage(grid_texture((256, 256), period=16, seed=seed), None, ())


def measure_lanes(count: int) -> dict[str, Any]:
    settings = without_stop(AUTO.fit_settings)
    images = np.random.default_rng(0).standard_normal((count, 64, 64, 27), np.float32)
    known, active = np.ones((count, 64, 64), np.float32), np.ones(count, bool)
    keys = jax.random.split(jax.random.key(0), count)
    start = jax.jit(functools.partial(init_lanes, settings=settings))
    lanes = start(keys, images, known, active)
    block = jax.jit(functools.partial(fit_lanes, settings=settings), donate_argnums=0)
    times = []
    for _ in range(BLOCKS + 1):
        started = time.process_time()
        lanes = jax.block_until_ready(block(lanes, None, jnp.int32(STEPS)))
        times.append((time.process_time() - started) / STEPS)
    step = statistics.median(times[1:])
    return {"step_s": round(step, 5), "step_s_an_image": round(step / count, 5)}


def measure_patches(stride: int) -> dict[str, Any]:
    config = PAPER
    loss = dataclasses.replace(config.loss, patch_strides=(stride,))
    config = dataclasses.replace(config, loss=loss)
    found = measure_image(config, 256, localize=False)
    return {"patches": patch_count((256, 256), size=16, stride=stride), **found}


def measure_seeds(count: int) -> dict[str, Any]:
    config = PAPER
    fit = dataclasses.replace(
        config.fit, seeds=count, max_steps=4 * LOCALIZE_STEPS, stop_threshold=-1e9
    )
    config = dataclasses.replace(config, image_size=128, fit=fit)
    image = grid_texture((128, 128), period=16, seed=0)
    seconds = []
    for _ in range(2):  # the first compiles
        started = time.perf_counter()
        ssdnet_jax.localize(image, config, jax.random.key(0))
        seconds.append(time.perf_counter() - started)
    return {"localize_s": round(seconds[-1], 3), "localize_steps": config.fit.max_steps}


def draw(report: dict[str, Any], path: Path) -> None:
    """Log-log plots of what has been measured."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 6.5), layout="constrained")
    panels = figure.subplots(2, 3)

    def line(panel, axis: str, field: str, label: str, along: str | None = None) -> None:
        points = [(int(v), found) for v, found in report.get(axis, {}).items() if field in found]
        points = sorted((found[along] if along else value, found[field]) for value, found in points)
        if points:
            panel.plot(*zip(*points, strict=True), "o-", label=label)
            panel.set_xticks([x for x, _ in points], [str(x) for x, _ in points], minor=False)

    for panel in panels.flat:
        panel.set_xscale("log", base=2)
        panel.set_yscale("log")
        panel.grid(alpha=0.3)
    for stage in ("prepare_s", "encode_s", "step_s", "score_s", "tiles_s"):
        line(panels[0, 0], "side", stage, stage.removesuffix("_s"))
    sides = [int(side) for side in report.get("side", {})]
    if sides:
        panels[0, 0].plot(
            sides, [(side / 1024) ** 2 for side in sides], "k:", label="as pixels grow"
        )
    line(panels[0, 1], "side", "peak_gib", "default")
    line(panels[0, 1], "side_grid", "peak_gib", "grid_literal")
    line(panels[0, 1], "side_grid", "step_temporary_gib", "grid_literal, a step")
    line(panels[0, 2], "pictures", "processor_s_an_image", "processor")
    line(panels[1, 0], "lanes", "step_s_an_image", "default")
    line(panels[1, 1], "lanes", "peak_gib", "whole process")
    line(panels[1, 2], "patches", "step_s", "a step, by patches", along="patches")
    line(panels[1, 2], "seeds", "localize_s", "localize, by seeds")
    titles = [
        ("processor seconds, default setting", "side, pixels"),
        ("memory, GiB", "side, pixels"),
        (f"seconds an image of a run, {LOCALIZE_STEPS} steps", "pictures"),
        ("processor seconds a step and image, 128 px", "lanes"),
        ("memory, GiB, 128 px", "lanes"),
        ("seconds, grid_literal", "patches of 16 px in 256 px, or seeds"),
    ]
    for panel, (title, label) in zip(panels.flat, titles, strict=True):
        panel.set_title(title, fontsize=10)
        panel.set_xlabel(label)
        if panel.get_legend_handles_labels()[0]:
            panel.legend(fontsize=8)
    for panel in (panels[0, 2], *panels[1, :2]):  # what hardly changes is to look so
        low, high = panel.get_ylim()
        panel.set_ylim(low / 3, high * 3)
    panels[0, 0].set_xticks(sides, [str(side) for side in sides])
    panels[1, 2].set_xticks([1, 8, 64, 512, 4096, 32768], ["1", "8", "64", "512", "4096", "32768"])
    figure.savefig(path, dpi=75)


if __name__ == "__main__":
    main()
