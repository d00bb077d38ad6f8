"""A step of a fit compiled for an NVIDIA H100 on a machine without one: bytes, launches, memory.

Command:
  python benchmarks/compiled_for_gpu.py --lanes=1,16,64 \
    --json=benchmarks/results/compiled_for_gpu.json

Needs JAX's CUDA plugin (pip install jax-cuda12-plugin jax-cuda12-pjrt, of the version of jax), and
neither a GPU nor a driver: XLA compiles for a device that is described to it. Without a GPU it
cannot try which kernels are fastest, so that a program on a real one has other tiles and may have
library calls for some products; how operations are fused, and so what is moved, is the same.

Protocol: `core.lanes.fit_lanes` with the default setting (128 x 128 x 27 features, what is fitted
of an image of 256 x 256 pixels) and the paper's (256 x 256 pixels), each in float32 and with
`fit.precision` bfloat16. Bytes and operations are XLA's cost analysis of the compiled program, in
which a loop counts once, so they are those of one step; launches are the instructions of its loop
that run something; memory is what the program holds beside its arguments. `argued_milliseconds`
are these bytes at --bandwidth, 2.1 TB/s by default, which a step of 64 lanes was measured to reach
on an H100 (copying reached 2.36): no measurement.
"""

import argparse
import dataclasses
import functools
import json
import os
import re
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jaxlib import _jax

from ssdnet_jax.config import AUTO, PAPER, Config
from ssdnet_jax.core.config import FitSettings
from ssdnet_jax.core.lanes import fit_lanes, init_lanes
from ssdnet_jax.data.files import write_atomically
from ssdnet_jax.runner.workdir import versions

SETTINGS: dict[str, tuple[Config, tuple[int, int, int]]] = {
    "auto": (AUTO, (128, 128, 27)),
    "grid": (PAPER, (256, 256, 1)),
}
# What XLA is told of the device, of NVIDIA's data sheet and CUDA's device properties.
H100 = """
gpu_device_info {
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: 233472
  threads_per_core_limit: 2048
  core_count: 132
  fpus_per_core: 128
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000
  l2_cache_size: 52428800
  clock_rate_ghz: 1.98
  device_memory_size: 84942979072
  shared_memory_per_block_optin: 232448
  cuda_compute_capability { major: 9 }
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  runtime_version: "12.8.0"
  driver_version: "12.8.0"
  compile_time_toolkit_version: "12.8.0"
  dnn_version: "9.10.0"
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""
_NO_LAUNCH = {"parameter", "get-tuple-element", "tuple", "bitcast", "constant", "after-all"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lanes", default="1,16,64", help="with commas between")
    parser.add_argument("--settings", default=",".join(SETTINGS), help="with commas between")
    parser.add_argument("--bandwidth", type=float, default=2.1e12, help="bytes a second")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    found: dict[str, Any] = {
        "device": "NVIDIA H100 80GB, described; no GPU",
        "versions": versions(),
    }
    for name in arguments.settings.split(","):
        for precision in ("float32", "bfloat16"):
            for lanes in map(int, arguments.lanes.split(",")):
                key = f"{name}, {precision}, {lanes} lanes"
                found[key] = step(name, precision, lanes, arguments.bandwidth)
                print(key, json.dumps(found[key]), flush=True)
                if arguments.json:  # each takes a minute
                    text = json.dumps(found, indent=1) + "\n"
                    write_atomically(arguments.json, lambda f, text=text: f.write(text.encode()))


def step(name: str, precision: str, lanes: int, bandwidth: float) -> dict[str, Any]:
    """Figures of one step of all lanes."""
    config, shape = SETTINGS[name]
    fit = dataclasses.replace(config.fit, precision=precision)
    settings = dataclasses.replace(config, fit=fit).fit_settings
    started = time.monotonic()
    executable = compiled(settings, lanes, shape)
    seconds = time.monotonic() - started
    module = executable.hlo_modules()[0]
    cost = _jax.hlo_module_cost_analysis(jax.devices("cpu")[0].client, module)
    moved = cost["bytes accessed"]
    return {
        "gigabytes": round(moved / 1e9, 3),
        "gigabytes_an_image": round(moved / 1e9 / lanes, 3),
        "argued_milliseconds_an_image": round(1e3 * moved / lanes / bandwidth, 3),
        "gflop": round(cost["flops"] / 1e9, 2),
        "launches": launches(module.to_string()),
        "temporary_mib": round(executable.get_compiled_memory_stats().temp_size_in_bytes / 2**20),
        "compile_seconds": round(seconds, 1),
    }


def compiled(settings: FitSettings, lanes: int, shape: tuple[int, int, int]) -> Any:
    """`fit_lanes` for the described device."""
    (device,) = topologies.get_topology_desc(
        "h100", "cuda", topology="1x1x1", target_config=H100
    ).devices
    there = jax.sharding.SingleDeviceSharding(device)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), lanes))
    images = jax.ShapeDtypeStruct((lanes, *shape), jnp.float32)
    known = jax.ShapeDtypeStruct((lanes, *shape[:2]), jnp.float32)
    active = jax.ShapeDtypeStruct((lanes,), bool)
    start = functools.partial(init_lanes, settings=settings)
    state = jax.eval_shape(start, keys, images, known, active)
    block = jax.jit(
        functools.partial(fit_lanes, settings=settings),
        in_shardings=there,
        out_shardings=there,
        donate_argnums=0,
    )
    traced = block.trace(state, None, jax.ShapeDtypeStruct((), jnp.int32))
    lowered = traced.lower(lowering_platforms=("cuda",))
    return lowered.compile({"xla_gpu_autotune_level": 0})._executable.xla_executable


def launches(text: str) -> int:
    """Instructions that run something in the computation with most of them, a step's."""
    most = 0
    for computation in text.split("\n}\n"):
        if "fused_computation" in computation.split("{", 1)[0]:
            continue
        found = re.findall(r"^\s+(?:ROOT )?%[\w.\-]+ = .*? ([a-z][\w\-]*)\(", computation, re.M)
        if any(operation == "fusion" for operation in found):
            most = max(most, sum(operation not in _NO_LAUNCH for operation in found))
    return most


if __name__ == "__main__":
    main()
