"""Milliseconds of a step of each lane, and images scored a second, by the number of lanes.

Command:
  python benchmarks/lane_steps.py --lanes=1,16,64 --precision=bfloat16 --json=FILE

Protocol: `core.lanes.fit_lanes` of the default setting on 128 x 128 x 27 random features, compiled,
then the median of three blocks of --steps; `core.score.score` of as many images of 256 x 256
pixels with features of the filter bank, the median of three calls. On whatever device there is.
"""

import argparse
import dataclasses
import functools
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from ssdnet_jax import AUTO, encode, score
from ssdnet_jax.core.lanes import fit_lanes, init_lanes
from ssdnet_jax.data.files import write_atomically
from ssdnet_jax.runner.startup import device_name, matmul_precision, use_compilation_cache
from ssdnet_jax.runner.workdir import versions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lanes", default="1,16,64", help="with commas between")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--side", type=int, default=256, help="pixels of images")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    use_compilation_cache()
    result: dict[str, Any] = {
        "device": device_name(),
        "matmul_precision": matmul_precision(),
        "precision": arguments.precision,
        "versions": versions(),
        "lanes": {},
    }
    for lanes in map(int, arguments.lanes.split(",")):
        result["lanes"][lanes] = measure(lanes, arguments)
        print(lanes, json.dumps(result["lanes"][lanes]), flush=True)
        if arguments.json:
            text = json.dumps(result, indent=1) + "\n"
            write_atomically(arguments.json, lambda file, text=text: file.write(text.encode()))


def measure(lanes: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Figures of so many lanes."""
    fit = dataclasses.replace(AUTO.fit, precision=arguments.precision)
    config = dataclasses.replace(AUTO, fit=fit).resolve_features(has_vgg19=False)
    settings, half = config.fit_settings, arguments.side // 2
    keys = jax.random.split(jax.random.key(0), lanes)
    values = jax.random.normal(jax.random.key(1), (lanes, half, half, 27))
    start = jax.jit(functools.partial(init_lanes, settings=settings))
    state = start(keys, values, jnp.ones((lanes, half, half)), jnp.ones(lanes, bool))
    steps = jnp.int32(arguments.steps)
    block = jax.jit(functools.partial(fit_lanes, settings=settings))
    compiling = time.monotonic()
    compiled = block.lower(state, None, steps).compile()
    compiling = time.monotonic() - compiling
    step = median_seconds(lambda: compiled(state, None, steps)) / arguments.steps

    plan = config.plan((arguments.side, arguments.side))
    images = jax.random.uniform(jax.random.key(2), (lanes, arguments.side, arguments.side, 3))
    target = jax.jit(lambda images: encode(images, None, plan))(images)
    scored = jax.jit(lambda target: score(target, target.values, None, plan))
    memory = compiled.memory_analysis()
    return {
        "milliseconds_a_step": round(1e3 * step, 3),
        "milliseconds_an_image_and_step": round(1e3 * step / lanes, 4),
        "compile_seconds": round(compiling, 1),
        "temporary_mib": round(memory.temp_size_in_bytes / 2**20),
        "images_scored_a_second": round(lanes / median_seconds(lambda: scored(target)), 2),
    }


def median_seconds(call: Callable[[], Any]) -> float:
    """Of three calls, after one that does not count."""
    jax.block_until_ready(call())
    taken = []
    for _ in range(3):
        started = time.perf_counter()
        jax.block_until_ready(call())
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


if __name__ == "__main__":
    main()
