"""Ours against a plain PyTorch loop: a step, a whole process, eight images, a cold start.

Command (torch in this environment, `pip install '.[benchmark]'`, or in another one):
  python benchmarks/speed.py --json=FILE [--dataset=MVTEC --categories=grid,carpet]
  python benchmarks/speed.py --json=FILE --torch_python=OTHER/bin/python

Both sides fit the grid setting at 256 x 256 pixels: the same network, loss, noise, Adam and
stopping rule, at most --max_steps steps, and write raw maps whose AUROC and AUPRC are noted. Images
are the first eight defective ones of --dataset, or eight synthetic grids with planted stains.

step_ratio_vs_torch        seconds of blocks of steps, taken in turn by two processes that wait
                           for each other; median of the ratios of neighbouring blocks
process_ratio_vs_torch     from the start of the process to the map of one image, warm cache
batch8_ratio_vs_torch      the same for eight images in one process
cold_minus_warm_s          one image with an empty cache less with a warm one

A ratio is our time over PyTorch's; the rounds are interleaved and medians are taken.
"""

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import jax
import numpy as np
from PIL import Image

import ssdnet_jax
from ssdnet_jax.data.files import write_atomically
from ssdnet_jax.data.images import read_image, read_mask, resize_image
from ssdnet_jax.data.layouts.mvtec import read_mvtec_layout
from ssdnet_jax.data.score_maps import read_map
from ssdnet_jax.data.synthetic import grid_texture, plant_defect
from ssdnet_jax.evaluation.metrics import auprc, auroc
from ssdnet_jax.runner.startup import cores, device_name
from ssdnet_jax.runner.workdir import versions

SIDE, IMAGES = 256, 8
HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--dataset", type=Path)
    parser.add_argument("--categories", default="")
    parser.add_argument("--torch_python", default=sys.executable)
    parser.add_argument("--max_steps", type=int, default=100)
    parser.add_argument("--block", type=int, default=5, help="steps between turns")
    parser.add_argument("--turns", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--serve", type=Path, help="internal: an image, steps on standard input")
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve)
        return
    with tempfile.TemporaryDirectory() as folder:
        report = measure(arguments, Path(folder))
    text = json.dumps(report, indent=1)
    write_atomically(arguments.json, lambda file: file.write(text.encode()))
    for name, value in report.items():
        if isinstance(value, float):
            print(f"{name:28} {value:.3f}")


def measure(arguments: argparse.Namespace, folder: Path) -> dict:
    threads = cores()
    names, masks = put_images(arguments, folder)
    torch_loop = [
        arguments.torch_python,
        str(HERE / "torch_loop.py"),
        f"--max_steps={arguments.max_steps}",
        f"--threads={threads}",
    ]
    report = {
        "protocol": {
            "side": SIDE,
            "max_steps": arguments.max_steps,
            "images": names,
            "dataset": arguments.dataset.name if arguments.dataset else "synthetic grids",
            "rounds": arguments.rounds,
            "turns": arguments.turns,
        },
        "machine": {
            "device": device_name(),
            "cores_used": threads,
            "cpu": cpu_model(),
            "versions": versions(),
        },
    }
    report |= measure_steps(arguments, folder / f"{names[0]}.npy", torch_loop)
    report |= measure_processes(arguments, folder, names, masks, torch_loop)
    return report


def put_images(arguments: argparse.Namespace, folder: Path) -> tuple[list[str], list[np.ndarray]]:
    """Eight images as PNG in folder/one or folder/eight and as .npy, and their masks."""
    pairs = []
    if arguments.dataset:
        categories = arguments.categories.split(",") if arguments.categories else None
        samples = read_mvtec_layout(arguments.dataset, categories=categories)
        for sample in [s for s in samples if s.mask_path][:IMAGES]:
            image = resize_image(read_image(sample.path).pixels, (SIDE, SIDE))
            mask = read_mask(sample.mask_path)[..., None].astype(np.float32)
            mask = resize_image(mask, (SIDE, SIDE))[..., 0] > 0.5
            pairs.append((sample.relative.replace("/", "_").removesuffix(".png"), image, mask))
    for number in range(len(pairs), IMAGES):
        image, mask = plant_defect(
            grid_texture((SIDE, SIDE), period=16, seed=number),
            kind="blob",
            center=(60.0 + 15 * number, 180.0 - 12 * number),
            size=28,
            seed=number,
        )
        pairs.append((f"grid{number}", image, mask))
    names = []
    for number, (name, image, _) in enumerate(pairs):
        pixels = np.round(255 * image).astype(np.uint8)
        for place in ["eight"] + ["one"] * (number == 0):
            (folder / place).mkdir(exist_ok=True)
            Image.fromarray(pixels.squeeze()).save(folder / place / f"{name}.png")
        np.save(folder / f"{name}.npy", pixels.astype(np.float32) / 255)
        names.append(name)
    return names, [mask for _, _, mask in pairs]


def measure_steps(arguments: argparse.Namespace, image: Path, torch_loop: list[str]) -> dict:
    ours = [sys.executable, __file__, f"--json={arguments.json}", f"--serve={image}"]
    workers = [
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        for command in (ours, [*torch_loop, "--serve", str(image)])
    ]
    for worker in workers:
        assert worker.stdout.readline().strip() == "ready"
    seconds: list[list[float]] = [[], []]
    for turn in range(arguments.turns):
        for side in (0, 1) if turn % 2 else (1, 0):
            workers[side].stdin.write(f"{arguments.block}\n")
            seconds[side].append(float(workers[side].stdout.readline()) / arguments.block)
    for worker in workers:
        worker.stdin.close()
        worker.wait()
    ratios = [a / b for a, b in zip(*seconds, strict=True)]
    return {
        "step_ratio_vs_torch": statistics.median(ratios),
        "step_s": statistics.median(seconds[0]),
        "torch_step_s": statistics.median(seconds[1]),
        "step_ratios": [round(ratio, 3) for ratio in ratios],
    }


def serve(path: Path) -> None:
    """For each number of steps on standard input, the seconds they take, after a first block."""
    from ssdnet_jax.core.fit import FitSettings, fit_block, init_fit
    from ssdnet_jax.runner.startup import use_compilation_cache

    use_compilation_cache()
    config = ssdnet_jax.load_config("grid_literal")
    fit = dataclasses.replace(config.fit, max_steps=100_000, stop_threshold=-1.0)
    settings = FitSettings(config.network, config.loss, fit)
    image = np.load(path)
    known = np.ones(image.shape[:2], np.float32)
    state = jax.jit(init_fit, static_argnums=2)(jax.random.key(0), image, settings)
    block = jax.jit(fit_block, static_argnums=5, donate_argnums=0)
    state = jax.block_until_ready(block(state, image, known, None, 1, settings))
    print("ready", flush=True)
    for line in sys.stdin:
        started = time.perf_counter()
        state = jax.block_until_ready(block(state, image, known, None, int(line), settings))
        print(time.perf_counter() - started, flush=True)


def measure_processes(
    arguments: argparse.Namespace,
    folder: Path,
    names: list[str],
    masks: list[np.ndarray],
    torch_loop: list[str],
) -> dict:
    cold = run_ours(arguments, folder, "one", cache=folder / "cache")
    run_ours(arguments, folder, "eight", cache=folder / "cache")
    times: dict[str, list[float]]
    times = {key: [] for key in ("one", "torch_one", "eight", "torch_eight")}
    for _ in range(arguments.rounds):
        for place, count in (("one", 1), ("eight", IMAGES)):
            times[place].append(run_ours(arguments, folder, place, cache=folder / "cache"))
            images = [str(folder / f"{name}.npy") for name in names[:count]]
            started = time.perf_counter()
            subprocess.run(
                [*torch_loop, f"--out={folder / 'torch'}", *images],
                check=True,
                capture_output=True,
            )
            times[f"torch_{place}"].append(time.perf_counter() - started)

    def ratio(place: str) -> float:
        pairs = zip(times[place], times[f"torch_{place}"], strict=True)
        return statistics.median(a / b for a, b in pairs)

    quality = {}
    for side, find in (
        ("ours", lambda name: read_map(folder / "out_eight" / "maps" / f"{name}.png.tiff")),
        ("torch", lambda name: np.load(folder / "torch" / f"{name}.npy")),
    ):
        pairs = [(mask, find(name)) for name, mask in zip(names, masks, strict=True)]
        quality[side] = {
            "auroc": float(np.mean([auroc(*pair) for pair in pairs])),
            "auprc": float(np.mean([auprc(*pair) for pair in pairs])),
        }
    return {
        "process_ratio_vs_torch": ratio("one"),
        "batch8_ratio_vs_torch": ratio("eight"),
        "cold_minus_warm_s": cold - statistics.median(times["one"]),
        "cold_s": cold,
        **{f"{place}_s": statistics.median(values) for place, values in times.items()},
        "quality": quality,
        "seconds": {k: [round(v, 2) for v in values] for k, values in times.items()},
    }


def run_ours(arguments: argparse.Namespace, folder: Path, place: str, *, cache: Path) -> float:
    """Seconds of the `ssdnet` command on a folder of images, into a new work folder."""
    (folder / "torch").mkdir(exist_ok=True)
    out = folder / f"out_{place}"
    subprocess.run(["rm", "-rf", str(out)], check=True)
    command = [
        sys.executable,
        "-m",
        "ssdnet_jax",
        "--config=grid_literal",
        f"--input={folder / place}",
    ]
    command += [f"--workdir={out}", f"--config.fit.max_steps={arguments.max_steps}"]
    started = time.perf_counter()
    environment = {**os.environ, "SSDNET_CACHE": str(cache)}
    subprocess.run(command, check=True, capture_output=True, env=environment)
    return time.perf_counter() - started


def cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((x.split(":", 1)[1].strip() for x in lines if x.startswith("model name")), "?")


if __name__ == "__main__":
    main()
