"""The perceptual loss as the paper writes it, on resized patches, against VGG19 on the whole image.

Commands:
  python benchmarks/perceptual.py --parts=speed --json=benchmarks/results/perceptual.json
  python benchmarks/perceptual.py --parts=quality --dataset=DATASET --every=4 --json=...

The setting is `fabric` in its paper form (`loss.perceptual_view=patch`: four 16-pixel patches a
step, each resized to 224 pixels) and with VGG19 on the image as it is (`image`: all patches at
every step, cut from its features), both with VGG19's arithmetic in float32 and in bfloat16.

Protocol, speed: blocks of steps of a 256 x 256 picture, the four variants in turn; median over
turns of the seconds a step. Protocol, quality: that of `ssdnet-evaluate --evaluate_at=256`, which
this starts, with its --dataset, --every and --seeds.
"""

import argparse
import dataclasses
import functools
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import jax
import jax.numpy as jnp

import ssdnet_jax
from ssdnet_jax.core.fit import fit_block, init_fit
from ssdnet_jax.data.files import write_atomically
from ssdnet_jax.data.synthetic import grid_texture
from ssdnet_jax.runner.startup import cores, device_name, use_compilation_cache
from ssdnet_jax.runner.workdir import read_rows, versions

VARIANTS = [(view, kind) for view in ("patch", "image") for kind in ("float32", "bfloat16")]
SUMMARY = (
    *("images", "seeds", "auroc_mean", "auroc_std_over_seeds"),
    *("auprc_mean", "auprc_std_over_seeds", "seconds_median"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", default="speed,quality")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2, help="of a block")
    parser.add_argument("--dataset", type=Path)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--vgg19_weights", default=None)
    parser.add_argument("--json", type=Path, required=True)
    arguments = parser.parse_args()
    report = json.loads(arguments.json.read_text()) if arguments.json.exists() else {}
    report["machine"] = {
        "device": device_name(),
        "cores_used": cores(),
        "versions": versions(),
    }
    parts = {"speed": time_variants, "quality": score_variants}
    for part in arguments.parts.split(","):
        report[part] = parts[part](arguments)
        text = json.dumps(report, indent=1) + "\n"
        write_atomically(arguments.json, lambda file, text=text: file.write(text.encode()))
        print(json.dumps(report[part], indent=1))


def time_variants(arguments: argparse.Namespace) -> dict[str, Any]:
    use_compilation_cache()
    vgg19 = ssdnet_jax.load_vgg19_weights(arguments.vgg19_weights)
    image = jnp.asarray(grid_texture((256, 256), period=16, seed=0))
    known = jnp.ones(image.shape[:2])
    fabric = ssdnet_jax.load_config("fabric").fit_settings
    blocks, seconds = {}, {variant: [] for variant in VARIANTS}
    for view, precision in VARIANTS:
        loss = dataclasses.replace(
            fabric.loss, perceptual_view=view, perceptual_precision=precision
        )
        fit = dataclasses.replace(fabric.fit, max_steps=10_000, stop_threshold=-1e9)
        settings = dataclasses.replace(fabric, loss=loss, fit=fit)
        state = jax.jit(functools.partial(init_fit, settings=settings))(jax.random.key(0), image)
        block = jax.jit(functools.partial(fit_block, settings=settings))
        blocks[view, precision] = functools.partial(block, state, image, known, vgg19)
    for turn in range(arguments.turns + 1):
        for variant, block in blocks.items():
            started = time.perf_counter()
            jax.block_until_ready(block(jnp.int32(arguments.steps)))
            if turn:  # the first compiles
                seconds[variant].append((time.perf_counter() - started) / arguments.steps)
    return {
        "steps_of_a_block": arguments.steps,
        "turns": arguments.turns,
        "seconds_a_step": {
            "_".join(variant): round(statistics.median(found), 4)
            for variant, found in seconds.items()
        },
    }


def score_variants(arguments: argparse.Namespace) -> dict[str, Any]:
    """Starts `ssdnet-evaluate` for each variant; its work folders stay beside --json until done."""
    report = {"dataset": arguments.dataset.name, "every": arguments.every, "seeds": arguments.seeds}
    folders = []
    for view, precision in VARIANTS:
        name = f"{view}_{precision}"
        folders.append(arguments.json.with_suffix(f".{name}.partial"))
        command = [sys.executable, "-c", "from ssdnet_jax.cli.evaluate import console; console()"]
        command += ["--config=fabric", "--evaluate_at=256", f"--workdir={folders[-1]}"]
        command += [f"--dataset={arguments.dataset}", f"--every={arguments.every}"]
        command += ["--only_defective"]
        command += [f"--seeds={arguments.seeds}", f"--config.loss.perceptual_view={view}"]
        command += [f"--config.loss.perceptual_precision={precision}"]
        if arguments.vgg19_weights:
            command += [f"--vgg19_weights={arguments.vgg19_weights}"]
        subprocess.run(command, check=True, stdout=sys.stderr)
        found = json.loads((folders[-1] / "summary.json").read_text())["ssdnet"]["all"]
        tables = [read_rows(path) for path in folders[-1].glob("runs/ssdnet/*/*/results.csv")]
        report[name] = {key: found[key] for key in SUMMARY} | {
            "steps_median": statistics.median(row.steps for table in tables for row in table)
        }
    for folder in folders:
        shutil.rmtree(folder)
    return report


if __name__ == "__main__":
    main()
