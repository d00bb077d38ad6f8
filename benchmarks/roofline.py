"""How near a step comes to the machine's limits, and what its time goes to.

Command:
  taskset -c 0 python benchmarks/roofline.py --json=benchmarks/results/roofline.json

Protocol: a step of the grid setting at 256 x 256 pixels and of the default setting at the
128 x 128 x 27 features of such a picture. Operations and bytes are XLA's cost analysis of the
compiled block of steps, whose loop body it counts once; bytes are those that each fusion reads and
writes, caches or not. The matrix ceiling is the best of some products, square ones and shapes that
the networks have. The bandwidth is that of a
sum of two arrays, of 256 MiB each, which comes from memory, and of 4 MiB, the size of the network's
largest activations, which caches may hold; the memory floor is by the latter. Both are measured in
compiled programs on all cores that the process may use. The roof is the longer of the two times
that follow. On one core times are the processor's, so that other work on the machine does not
count. The profile is JAX's, of other blocks: the time of each instruction of the compiled program,
the least of the blocks, by what it does. Instructions that do not wait for one another may run at
the same time, so the kinds together can be longer than the step.
"""

import argparse
import dataclasses
import json
import os
import re
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import jax
import jax.numpy as jnp
import numpy as np
from jax.profiler import ProfileData

import ssdnet_jax
from ssdnet_jax.config import AUTO
from ssdnet_jax.core.fit import FitSettings, fit_block, init_fit
from ssdnet_jax.data.files import write_atomically
from ssdnet_jax.data.synthetic import grid_texture
from ssdnet_jax.runner.startup import cores, device_name, use_compilation_cache
from ssdnet_jax.runner.workdir import versions

AUTO_CHANNELS = 27  # of VGG19's features with 24 components
SHAPES = [  # rows, columns in, columns out: what products of the two networks look like
    (65536, 36, 16),
    (16900, 32, 144),
    (4356, 64, 288),
    (16384, 144, 48),
    (4096, 192, 288),
]
STEPS = 5  # of a block
TRACES = 6  # blocks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--settings", default="grid,auto")
    parser.add_argument("--blocks", type=int, default=9)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    use_compilation_cache()
    report: dict[str, Any] = {
        "machine": {
            "device": device_name(),
            "cores_used": cores(),
            "versions": versions(),
        },
        "ceilings": ceilings(),
    }
    for name in arguments.settings.split(","):
        report[name] = measure(*example(name), arguments.blocks, report["ceilings"])
    print_table(report)
    if arguments.json:
        text = json.dumps(report, indent=1) + "\n"
        write_atomically(arguments.json, lambda file: file.write(text.encode()))


def example(name: str) -> tuple[FitSettings, np.ndarray]:
    """A setting that never stops, and what it is fitted to."""
    if name == "auto":
        config = AUTO
        image = np.random.default_rng(0).standard_normal((128, 128, AUTO_CHANNELS), np.float32)
    else:
        config, image = ssdnet_jax.load_config(name), grid_texture((256, 256), period=16, seed=0)
    fit = dataclasses.replace(config.fit, max_steps=100_000, stop_threshold=-1e9)
    return FitSettings(config.network, config.loss, fit), image


def ceilings() -> dict[str, Any]:
    """Matrix rates in GFLOP/s and bandwidth in GB/s."""
    rates = {}
    for m, k, n in [(1024, 1024, 1024), (2048, 2048, 2048), *SHAPES]:
        seconds = best_time(jnp.matmul, jnp.ones((m, k)), jnp.ones((k, n)))
        rates[f"{m}x{k}x{n}"] = round(2 * m * k * n / seconds / 1e9, 1)
    bandwidths = {}
    for mebibytes in (4, 256):
        words = mebibytes * 2**18
        seconds = best_time(jnp.add, jnp.ones(words), jnp.ones(words), donate=True)
        bandwidths[f"{mebibytes}_mib"] = round(3 * 4 * words / seconds / 1e9, 1)
    return {
        "gflops": max(rates.values()),
        "gbytes_a_second": bandwidths,
        "products_gflops": rates,
    }


def best_time(function: Any, a: jax.Array, b: jax.Array, *, donate: bool = False) -> float:
    """Seconds of the quickest of several calls; the result may take the memory of `a`."""
    program = jax.jit(function, donate_argnums=0 if donate else ())
    result = jax.block_until_ready(program(a, b))
    times = []
    for _ in range(15):
        started = now()
        result = jax.block_until_ready(program(result if donate else a, b))
        times.append(now() - started)
    return min(times)


def measure(
    settings: FitSettings, image: np.ndarray, blocks: int, limits: dict[str, Any]
) -> dict[str, Any]:
    known = jnp.ones(image.shape[:2])
    image = jnp.asarray(image)
    state = jax.jit(init_fit, static_argnums=2)(jax.random.key(0), image, settings)
    block = jax.jit(fit_block, static_argnums=5, donate_argnums=0)
    program = block.lower(state, image, known, None, jnp.int32(1), settings).compile()

    def run(state):
        return jax.block_until_ready(program(state, image, known, None, jnp.int32(STEPS)))

    state, times = run(state), []
    for _ in range(blocks):
        started = now()
        state = run(state)
        times.append((now() - started) / STEPS)
    step = statistics.median(times)
    kinds, traces = instruction_kinds(program.as_text()), []
    for _ in range(TRACES):
        with tempfile.TemporaryDirectory() as folder:
            with jax.profiler.trace(folder):
                state = run(state)
            traces.append(by_instruction(Path(folder), kinds))
    profile = by_kind(traces, kinds)
    costs = program.cost_analysis()
    arithmetic = costs["flops"] / limits["gflops"] / 1e9
    memory = costs["bytes accessed"] / limits["gbytes_a_second"]["4_mib"] / 1e9
    return {
        "step_s": step,
        "instructions": sum(map(bool, traces[0].values())),
        "gflop": costs["flops"] / 1e9,
        "gbyte": costs["bytes accessed"] / 1e9,
        "gflops": costs["flops"] / step / 1e9,
        "share_of_matrix_ceiling": arithmetic / step,
        "arithmetic_floor_s": arithmetic,
        "memory_floor_s": memory,
        "roof_s": max(arithmetic, memory),
        "temporary_mib": program.memory_analysis().temp_size_in_bytes / 2**20,
        "profile_s": profile,
    }


def now() -> float:
    return time.process_time() if cores() == 1 else time.perf_counter()


def by_instruction(folder: Path, kinds: dict[str, str]) -> Counter[str]:
    """Seconds a step of each instruction, from a trace of a block of steps."""
    seconds: Counter[str] = Counter()
    for path in folder.glob("**/*.xplane.pb"):
        for plane in ProfileData.from_file(str(path)).planes:
            for line in plane.lines:
                for event in line.events:
                    if event.name in kinds:
                        seconds[event.name] += event.duration_ns / 1e9 / STEPS
    return seconds


def by_kind(traces: list[Counter[str]], kinds: dict[str, str]) -> dict[str, float]:
    """Seconds a step of each kind of instruction, the least that each instruction has taken."""
    seconds: Counter[str] = Counter()
    for name, kind in kinds.items():
        seconds[kind] += min(trace[name] for trace in traces)
    return dict(seconds.most_common())


def instruction_kinds(program: str) -> dict[str, str]:
    """What each instruction of a compiled program does; those that hold others are left out."""
    bodies, name = {}, ""
    for line in program.splitlines():
        if header := re.match(r"(?:ENTRY )?%?([\w.\-]+) .*\{$", line):
            name, bodies[header.group(1)] = header.group(1), []
        elif name:
            bodies[name].append(line)
    kinds = {}
    for line in program.splitlines():
        found = re.match(r"\s*(?:ROOT )?%?([\w.\-]+) = .*?[\]})] ([\w\-]+)\(", line)
        if not found or found.group(2) in ("while", "call", "parameter", "tuple", "bitcast"):
            continue
        called = re.search(r"calls=%?([\w.\-]+)", line)
        text = "\n".join(bodies.get(called.group(1), [])) if called else line
        kinds[found.group(1)] = kind_of(text, line)
    return kinds


def kind_of(text: str, line: str) -> str:
    """The kind of an instruction from its text, or that of the computation that it calls."""
    if " conditional(" in line or not re.search(r"jvp|transpose\(", line):
        return "optimizer, guard, noise, loss"
    if " dot(" in text or "custom-call(" in text:
        return "matrix products"
    if " reduce(" in text:
        return "sums over pixels"
    if re.search(r" (concatenate|pad|slice|transpose|copy|dynamic-update-slice)\(", text):
        return "gathering and moving pixels"
    return "other elementwise"


def print_table(report: dict[str, Any]) -> None:
    limits = report["ceilings"]
    print(f"matrix ceiling {limits['gflops']:.0f} GFLOP/s")
    for size, rate in limits["gbytes_a_second"].items():
        print(f"  bandwidth, arrays of {size:8} {rate:7.1f} GB/s")
    for shape, rate in limits["products_gflops"].items():
        print(f"  product {shape:20} {rate:7.1f} GFLOP/s")
    for name in [name for name in report if name not in ("machine", "ceilings")]:
        found = report[name]
        print(f"{name}: step {found['step_s']:.4f} s, {found['gflop']:.2f} GFLOP", end=", ")
        print(f"{found['gbyte']:.2f} GB; {found['share_of_matrix_ceiling']:.0%} of the ceiling")
        print(f"  floors: arithmetic {found['arithmetic_floor_s']:.4f} s", end=", ")
        print(f"memory {found['memory_floor_s']:.4f} s")
        for kind, seconds in found["profile_s"].items():
            share = seconds / sum(found["profile_s"].values())
            print(f"  {kind:34} {1e3 * seconds:7.2f} ms  {share:4.0%}")


if __name__ == "__main__":
    main()
