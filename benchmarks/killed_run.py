"""A run of many images, killed at random moments, against the same run left alone.

Command:
  python benchmarks/killed_run.py --images=200 --kills=5 --json=benchmarks/results/killed_run.json

Protocol: synthetic 32 x 32 pictures, a one-scale network and a few steps, so that 200 images take
about a minute; `ssdnet` as a process, killed with SIGKILL after a random time and started again,
until it has been killed --kills times and then ends by itself. All maps, masks and fits must have
the same bytes as those of an uninterrupted run, and the same rows but for seconds; no image may
have been fitted twice (one row an image at every kill, and those rows stay).
"""

import argparse
import csv
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from ssdnet_jax.data.files import write_atomically
from ssdnet_jax.data.synthetic import grid_texture
from ssdnet_jax.runner.workdir import versions

FLAGS = [
    "--config=grid_literal",  # fits pixels, so that no weights are needed
    "--image_size=32",
    "--config.network.channels_down=4",
    "--config.network.channels_up=4",
    "--config.network.channels_skip=1",
    "--config.loss.patch_sizes=8",
    "--config.loss.patch_strides=4",
    "--config.score.patch_sizes=8",
    "--config.fit.max_steps=20",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--lanes", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    generator = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_pictures(folder / "in", arguments.images)
        started = time.monotonic()
        whole = start(folder, "whole", arguments.lanes)
        assert whole.wait() == 0, "the uninterrupted run failed"
        seconds = time.monotonic() - started
        rows_at_kills = kill_often(folder, arguments, generator, seconds)
        compare(folder)
    report = {
        "machine": {"processor_cores": os.cpu_count(), "versions": versions()},
        "images": arguments.images,
        "lanes": arguments.lanes,
        "seconds_uninterrupted": round(seconds, 1),
        "finished_rows_at_each_kill": rows_at_kills,
        "equal": True,
    }
    print(json.dumps(report, indent=1))
    if arguments.json:
        text = json.dumps(report, indent=1) + "\n"
        write_atomically(arguments.json, lambda file: file.write(text.encode()))


def write_pictures(folder: Path, count: int) -> None:
    folder.mkdir()
    for number in range(count):
        pixels = grid_texture((32, 32), period=5 + number % 7, seed=number)[..., 0]
        Image.fromarray((pixels * 255).astype(np.uint8)).save(folder / f"{number:03d}.png")


def start(folder: Path, workdir: str, lanes: int) -> subprocess.Popen:
    command = [sys.executable, "-m", "ssdnet_jax", f"--input={folder}/in", f"--lanes={lanes}"]
    return subprocess.Popen(
        [*command, f"--workdir={folder / workdir}", *FLAGS], stdout=subprocess.DEVNULL
    )


def kill_often(
    folder: Path, arguments: argparse.Namespace, generator: random.Random, seconds: float
) -> list[int]:
    """Kills the run again and again, then lets it end; the finished rows at each kill."""
    counts: list[int] = []
    kept: dict[str, dict] = {}
    table = folder / "parts" / "results.csv"
    while True:
        process = start(folder, "parts", arguments.lanes)
        if len(counts) < arguments.kills:
            wait_for_more_rows(process, table, len(kept) + 1)
            time.sleep(generator.uniform(0, seconds / (arguments.kills + 2)))
            process.send_signal(signal.SIGKILL)
        status = process.wait()
        found = rows(table)
        for path, row in kept.items():
            assert found[path] == row, f"{path}: its row changed"
        if status == 0:
            assert len(counts) == arguments.kills, f"ended after {len(counts)} kills: more images"
            return counts
        kept = found
        counts.append(len(found))


def wait_for_more_rows(process: subprocess.Popen, table: Path, count: int) -> None:
    while process.poll() is None and (not table.exists() or len(rows(table)) < count):
        time.sleep(0.02)


def rows(table: Path) -> dict[str, dict]:
    """Complete lines by path, the seconds included: a row that stays was not made twice."""
    lines = table.read_text().splitlines(keepends=True)
    complete = [line for line in lines if line.endswith("\n")]
    return {row["path"]: row for row in csv.DictReader(complete)}


def compare(folder: Path) -> None:
    def files(name: str) -> dict[str, bytes]:
        kinds = ("maps", "masks", "fits", "heatmaps")
        root = folder / name
        found = [p for kind in kinds for p in (root / kind).rglob("*") if p.is_file()]
        return {p.relative_to(root).as_posix(): p.read_bytes() for p in found}

    whole, parts = files("whole"), files("parts")
    stray = {name for name in parts if Path(name).name.startswith(".")}  # of killed writes
    assert whole == {name: data for name, data in parts.items() if name not in stray}
    tables = [rows(folder / name / "results.csv") for name in ("whole", "parts")]
    for table in tables:
        for row in table.values():
            del row["seconds"]
    assert tables[0] == tables[1] and list(tables[0]) == list(tables[1])


if __name__ == "__main__":
    main()
