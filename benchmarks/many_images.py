"""Memory, open files and speed of one run over very many small images.

Command:
  python benchmarks/many_images.py --images=5000 --json=benchmarks/results/many_images.json \
    --figure=benchmarks/results/many_images.png

Protocol: synthetic 48 x 48 pictures, scored by `spectral_residual`, which fits nothing, so that
what is measured is the runner: reading, hashing, writing maps, heat maps, masks and rows.
`ssdnet` runs as a process of its own; of it resident memory, open descriptors and threads are
read from /proc, and the rows of results.csv are counted, about a hundred times in all. The same
command again then has nothing left to do; its time is that of comparing all files with their rows
and of the verdicts.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ssdnet_jax.data.files import write_atomically
from ssdnet_jax.data.synthetic import grid_texture
from ssdnet_jax.runner.workdir import versions

FLAGS = ["--method=spectral_residual", "--image_size=48"]
SAMPLES = 100  # measurements of a run, about


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--figure", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_pictures(folder / "in", arguments.images)
        samples, seconds = measured_run(folder, arguments.images)
        _, again = measured_run(folder, arguments.images)
    report = {
        "machine": {"processor_cores": os.cpu_count(), "versions": versions()},
        "images": arguments.images,
        "seconds": round(seconds, 1),
        "seconds_with_nothing_left": round(again, 1),
        **trends(samples),
        "samples": samples,
    }
    print(json.dumps({k: v for k, v in report.items() if k != "samples"}, indent=1))
    if arguments.json:
        text = json.dumps(report, indent=1) + "\n"
        write_atomically(arguments.json, lambda file: file.write(text.encode()))
    if arguments.figure:
        draw(arguments.figure, samples)


def write_pictures(folder: Path, count: int) -> None:
    folder.mkdir()
    for number in range(count):
        pixels = grid_texture((48, 48), period=5 + number % 7, seed=number)[..., 0]
        Image.fromarray((pixels * 255).astype(np.uint8)).save(folder / f"{number:05d}.png")


def measured_run(folder: Path, images: int) -> tuple[list[dict[str, Any]], float]:
    """Measurements of a run over all pictures, and its seconds."""
    command = [sys.executable, "-m", "ssdnet_jax", *FLAGS]
    command += [f"--input={folder / 'in'}", f"--workdir={folder / 'out'}"]
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    table = folder / "out" / "results.csv"
    samples: list[dict[str, Any]] = []
    while process.poll() is None:
        rows = table.read_bytes().count(b"\n") - 1 if table.exists() else 0
        if rows >= len(samples) * images / SAMPLES:
            samples.append({"images": rows, "seconds": round(time.monotonic() - started, 2)})
            samples[-1] |= of_process(process.pid)
        time.sleep(0.05)
    assert process.returncode == 0, f"the run ended with {process.returncode}"
    return samples, time.monotonic() - started


def of_process(number: int) -> dict[str, int]:
    """Resident memory in MiB, open descriptors and threads of a process."""
    try:
        status = dict(
            line.split(":", 1) for line in Path(f"/proc/{number}/status").read_text().splitlines()
        )
        descriptors = len(list(Path(f"/proc/{number}/fd").iterdir()))
        resident = int(status.get("VmRSS", "0 kB").split()[0]) // 1024
        return {"mib": resident, "descriptors": descriptors, "threads": int(status["Threads"])}
    except (OSError, KeyError):  # it has just ended
        return {"mib": 0, "descriptors": 0, "threads": 0}


def trends(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """First against last quarter, the first twentieth, in which programs are compiled, left out."""
    steady = [s for s in samples[len(samples) // 20 :] if s["mib"]]
    quarter = len(steady) // 4
    first, last = steady[:quarter], steady[-quarter:]

    def rate(part: list[dict[str, Any]]) -> float:
        seconds = part[-1]["seconds"] - part[0]["seconds"]
        return round((part[-1]["images"] - part[0]["images"]) / seconds, 2)

    def most(name: str, part: list[dict[str, Any]]) -> int:
        return max(s[name] for s in part)

    return {
        "images_a_second": {"first_quarter": rate(first), "last_quarter": rate(last)},
        **{
            name: {"first_quarter": most(name, first), "last_quarter": most(name, last)}
            for name in ("mib", "descriptors", "threads")
        },
    }


def draw(path: Path, samples: list[dict[str, Any]]) -> None:
    """Images, memory and descriptors over the run."""
    from matplotlib.figure import Figure

    found = [s for s in samples if s["mib"]]
    figure = Figure(figsize=(8, 2.4), layout="constrained")
    axes = figure.subplots(1, 3)
    parts = {
        "images a second": [
            (b["images"] - a["images"]) / max(b["seconds"] - a["seconds"], 1e-3)
            for a, b in itertools.pairwise(found)
        ],
        "resident memory, MiB": [s["mib"] for s in found],
        "open descriptors": [s["descriptors"] for s in found],
    }
    for axis, (title, values) in zip(axes, parts.items(), strict=True):
        axis.plot([s["images"] for s in found][-len(values) :], values, linewidth=1)
        axis.set_title(title, fontsize=9)
        axis.set_ylim(0, 1.2 * max(values))
        axis.set_xlabel("images done", fontsize=8)
        axis.tick_params(labelsize=7)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
