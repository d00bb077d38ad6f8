"""A whole run over a folder: images a second, how busy the device is, and what the host does.

Commands:
  python benchmarks/throughput.py --device=none --json=benchmarks/results/throughput_host.json
  python benchmarks/throughput.py --input=FOLDER --lanes=16,64,256 --json=FILE

Protocol: `run` into an empty work folder with all of its outputs, on the images of --input or on
--images synthetic textures of --side pixels, once a number of lanes, after as many images as warm
it up. Without --lanes the run chooses them. The device is busy while at least one of the programs
that encode, fit and score runs; seconds of each stage of the host are of processors, summed over
threads, and of waiting (for the disk, for a core, for Python's lock), which is the rest of its
wall time. Peak memory is that of the process so far.

With --device=none the programs of the device are replaced by results that lie ready: what is
measured is what the host alone can carry, from file to written row.
"""

import argparse
import collections
import contextlib
import dataclasses
import functools
import io
import json
import os
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import jax
import numpy as np
from lanes import covered, watch_programs
from PIL import Image

from ssdnet_jax.config import AUTO
from ssdnet_jax.core.fit import StopReason
from ssdnet_jax.data.files import write_atomically
from ssdnet_jax.data.images import find_images
from ssdnet_jax.data.synthetic import grid_texture, plant_defect
from ssdnet_jax.figures import heatmap
from ssdnet_jax.methods.base import Fitted, JobName, Member
from ssdnet_jax.methods.ssdnet import SSDnet, make_ssdnet
from ssdnet_jax.runner import record
from ssdnet_jax.runner.page import Page
from ssdnet_jax.runner.run import Options, run
from ssdnet_jax.runner.sources import file_sources
from ssdnet_jax.runner.startup import (
    device_name,
    make_cores_devices,
    use_compilation_cache,
    with_weights,
)
from ssdnet_jax.runner.terminal import Terminal
from ssdnet_jax.runner.workdir import Workdir, open_workdir, versions

DRAWN = 16  # different synthetic textures, which take turns


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("auto", "none"), default="auto")
    parser.add_argument("--input", help="folder of images; by default synthetic textures")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--side", type=int, default=256, help="pixels of synthetic textures")
    parser.add_argument("--lanes", default="0", help="with commas between; 0: the run's choice")
    parser.add_argument("--steps", type=int, help="of a fit; by default those of the setting")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--heatmaps", choices=record.HEATMAPS, default="all")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    use_compilation_cache()
    make_cores_devices()
    method = with_weights(method_of(arguments), vgg19_path=None, clip_path=None, report=print)
    host = Stages()
    rows = []
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        root = Path(arguments.input) if arguments.input else draw(folder / "in", arguments)
        stack.enter_context(host.watch())
        for lanes in map(int, arguments.lanes.split(",")):
            rows.append(measure(method, root, folder / f"out{lanes}", lanes, arguments, host))
            print(json.dumps(rows[-1]), flush=True)
    result = {
        "device": "none" if arguments.device == "none" else device_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "input": arguments.input or f"{arguments.side} px synthetic textures, PNG",
        "steps": method.config.fit.max_steps,
        "precision": arguments.precision,
        "versions": versions(),
        "rows": rows,
    }
    if arguments.json:
        text = json.dumps(result, indent=1) + "\n"
        write_atomically(arguments.json, lambda file: file.write(text.encode()))


def method_of(arguments: argparse.Namespace) -> SSDnet:
    fit = dataclasses.replace(AUTO.fit, precision=arguments.precision)
    fit = dataclasses.replace(fit, max_steps=arguments.steps or fit.max_steps)
    config = dataclasses.replace(AUTO, fit=fit)
    config = make_ssdnet(config, None).config if arguments.device == "none" else config
    return (Ready if arguments.device == "none" else Watched)(config)


def draw(folder: Path, arguments: argparse.Namespace) -> Path:
    """A folder of textures as PNG files in colour, every fourth with a defect."""
    folder.mkdir()
    side = arguments.side
    drawn = []
    for seed in range(min(DRAWN, arguments.images)):
        pixels = grid_texture((side, side), period=max(8, side // 16), seed=seed)
        if seed % 4 == 0:
            middle, size = (side // 2, side // 3), side // 16
            pixels, _ = plant_defect(pixels, kind="blob", center=middle, size=size, seed=seed)
        colour = np.clip(pixels * np.array([1.0, 0.9, 0.8]), 0, 1)
        buffer = io.BytesIO()
        Image.fromarray(np.round(255 * colour).astype(np.uint8)).save(buffer, "PNG")
        drawn.append(buffer.getvalue())
    for number in range(arguments.images):
        (folder / f"{number:05d}.png").write_bytes(drawn[number % len(drawn)])
    return folder


def measure(
    method: SSDnet, root: Path, out: Path, lanes: int, arguments: argparse.Namespace, host: "Stages"
) -> dict[str, Any]:
    root, names = find_images(root)
    names = names[: arguments.images]
    sources = {n: host.timed("read", read) for n, read in file_sources(root, names).items()}
    options = Options(lanes=lanes, heatmaps=arguments.heatmaps)
    working = watch_programs() if arguments.device != "none" else []
    if isinstance(method, Watched):
        method = dataclasses.replace(method, working=working)
    method = dataclasses.replace(method, host=host)
    warm = dict(list(sources.items())[: max(2, lanes * jax.local_device_count())])
    silent = Terminal(io.StringIO(), io.StringIO())
    for kind, those in (("warm", warm), ("timed", sources)):
        host.clear()
        working.clear()
        workdir = open_workdir(out / kind, method, root=None)
        processors = time.process_time()
        summary = run(method, those, workdir, silent, options=options)
        processors = time.process_time() - processors
    assert summary.finished == len(sources), summary
    count, stages = summary.finished, host.seconds()
    busy = covered(working, "encode", "fit", "score") / summary.seconds
    return {
        "lanes": lanes,
        "images": count,
        "seconds": round(summary.seconds, 2),
        "images_per_second": round(count / summary.seconds, 2),
        "device_busy": None if arguments.device == "none" else round(busy, 3),
        "processor_seconds_an_image": round(processors / count, 4),
        "host_processor_seconds_an_image": round(sum(p for p, _ in stages.values()) / count, 4),
        "host_milliseconds_an_image": {
            name: {"processor": round(1e3 * p / count, 2), "waiting": round(1e3 * w / count, 2)}
            for name, (p, w) in stages.items()
        },
        "megabytes_written_an_image": round(written(workdir) / count / 1e6, 3),
        "peak_memory_host_mb": round(peak_memory() / 1e6),
        "peak_memory_device_mb": device_memory(),
    }


def written(workdir: Workdir) -> int:
    return sum(path.stat().st_size for path in workdir.path.rglob("*") if path.is_file())


def peak_memory() -> float:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def device_memory() -> float | None:
    """Megabytes of the first device at most, where it tells."""
    found = (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    return None if found is None else round(found / 1e6)


class Stages:
    """Seconds that threads spend in the stages of the host."""

    def __init__(self):
        self._lock = threading.Lock()
        self.clear()

    def clear(self) -> None:
        self._spent = collections.defaultdict(lambda: [0.0, 0.0])

    def seconds(self) -> dict[str, tuple[float, float]]:
        """Of each stage those of processors, and of waiting."""
        return {name: (cpu, wall - cpu) for name, (cpu, wall) in self._spent.items()}

    def timed(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*values: Any, **named: Any) -> Any:
            cpu, wall = time.thread_time(), time.monotonic()
            try:
                return function(*values, **named)
            finally:
                with self._lock:
                    spent = self._spent[stage]
                    spent[0] += time.thread_time() - cpu
                    spent[1] += time.monotonic() - wall

        return call

    @contextlib.contextmanager
    def watch(self) -> Iterator[None]:
        """Times what writes results, for as long as the context lasts."""
        places = [
            ("fits", record, "write_fits"),
            ("map", record, "write_tiff_map"),
            ("mask", record, "write_mask_png"),
            ("decision", record, "write_decision"),
            ("figure drawn", heatmap, "heatmap_figure"),
            ("figure written", heatmap, "write_heatmap_figure"),
            ("thumbnail drawn", heatmap, "thumbnail"),
            ("thumbnail written", record, "write_thumbnail"),
            ("row", Workdir, "append"),
            ("page", Page, "add"),
        ]
        originals = [(place, name, getattr(place, name)) for _, place, name in places]
        for (stage, place, name), (_, _, function) in zip(places, originals, strict=True):
            setattr(place, name, self.timed(stage, function))
        try:
            yield
        finally:
            for place, name, function in originals:
                setattr(place, name, function)


@dataclasses.dataclass(frozen=True)
class Timed(SSDnet):
    """SSDnet whose work on the host is timed."""

    host: Stages = dataclasses.field(default_factory=Stages, compare=False)

    def prepare(self, source, key):
        return self.host.timed("prepared", super().prepare)(source, key)


@dataclasses.dataclass(frozen=True)
class Watched(Timed):
    """The same on a device, whose programs note when they run."""

    working: list = dataclasses.field(default_factory=list, compare=False)

    def encode(self, group, size):
        started = time.monotonic()
        result = super().encode(group, size)
        self.working.append(("encode", started, time.monotonic()))
        return result

    def finish(self, group, size, *more):
        started = time.monotonic()
        result = super().finish(group, size, *more)
        self.working.append(("score", started, time.monotonic()))
        return [self.host.timed("decided", finish) for finish in result]


@dataclasses.dataclass(frozen=True)
class Ready(Timed):
    """The same without a device: what its programs would give lies ready."""

    def _planned(self, prepared):
        plan = self.config.plan(prepared.fitted_missing.shape, noise=0.0)
        return dataclasses.replace(prepared, plan=plan)

    def bucket(self, prepared):
        return super().bucket(prepared)._replace(stage="score", settings=None)

    def load(self, prepared, size, load_fits):
        """Nothing: no program of a device runs."""

    def encode(self, group, size):
        return list(group)

    def jobs(self, prepared, name):
        return []

    def finish(self, group, size, *more):
        return [self.host.timed("decided", self._result(done)) for done in group]

    def _result(self, done):
        height, width, _ = done.prepared.fitted.shape
        raw, reconstructions = ready(height, width)
        losses = np.linspace(1, 0.1, 60, dtype=np.float32)
        fit = Fitted(JobName(done.name, 0), Member(None, 0), losses, StopReason.MAX_STEPS, 0)
        done = dataclasses.replace(done, fits=(fit,))
        pictures = done.prepared.fitted[None]
        return functools.partial(self._localization, done, raw, raw, pictures, reconstructions)


@functools.cache
def ready(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """A map with a defect, and 27 features of half the size, as the default setting fits them."""
    from scipy.ndimage import gaussian_filter

    generator = np.random.default_rng(0)
    raw = gaussian_filter(generator.exponential(size=(height, width)), 3)
    raw[height // 3 : height // 3 + 12, width // 2 : width // 2 + 20] += 10 * raw.std()
    features = generator.random((1, height // 2, width // 2, 27), np.float32)
    return raw[None].astype(np.float32), features


if __name__ == "__main__":
    main()
