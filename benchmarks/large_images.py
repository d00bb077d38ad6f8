"""Seconds and memory of large images at their own size, and whether a planted defect is found.

Command:
  python benchmarks/large_images.py --vgg19_weights=FILE --texture=FILE --workdir=DIR \
    --json=benchmarks/results/large_images.json --figure=benchmarks/results/large_images.png

Protocol: an RGB picture of 4:3 is made of a good texture, mirrored again and again, each part with
its own light and grain, and written as a TIFF of tiles. A stain of 28 pixels is planted into it. A
process of its own reads the file, localizes at the file's size and writes all results. Memory is
the peak of resident memory as the kernel keeps it (VmHWM of /proc/self/status), set back after each
stage. Seconds are of the clock and of the processor (user and system). Sizes that are in the JSON
already are kept. Linux only.
"""

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

TILE = 256  # pixels, of the TIFF
DEFECT = 28  # pixels, diameter
PLACE = (0.6, 0.3)  # of the picture, where the defect is


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megapixels", default="1,4,12,50,100")
    parser.add_argument("--steps", type=int, default=0, help="0: as many as the setting has")
    parser.add_argument("--vgg19_weights", type=Path)
    parser.add_argument("--texture", type=Path, help="a good picture; default: bricks")
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(json.dumps(measured(given.child, given.vgg19_weights, given.steps, given.workdir)))
        return
    given.workdir.mkdir(parents=True, exist_ok=True)
    report = json.loads(given.json.read_text()) if given.json and given.json.exists() else {}
    for megapixels in given.megapixels.split(","):
        if megapixels not in report.get("sizes", {}):
            path = given.workdir / f"{megapixels}.tif"
            if not path.exists():
                write_picture(path, float(megapixels), given.texture)
            found = in_a_process(path, given)
            if found is None:
                continue  # the next run tries again
            report.setdefault("sizes", {})[megapixels] = found
            print(megapixels, json.dumps(found), flush=True)
            if given.json:
                save(report, given.json)
    if given.figure and "sizes" in report:
        draw(report["sizes"], given.figure)


def save(report: dict[str, Any], path: Path) -> None:
    from ssdnet_jax.data.files import write_atomically
    from ssdnet_jax.runner.workdir import versions

    report["machine"] = {"processor_cores": os.cpu_count(), "versions": versions()}
    text = json.dumps(report, indent=1) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))


def write_picture(path: Path, megapixels: float, texture: Path | None) -> None:
    import tifffile

    pixels = good_texture(texture)
    height = round((megapixels * 1e6 * 0.75) ** 0.5)
    width = round(megapixels * 1e6 / height)
    unfinished = path.with_suffix(".part")
    tifffile.imwrite(
        unfinished,
        tiles(pixels, (height, width)),
        shape=(height, width, 3),
        dtype=np.uint8,
        tile=(TILE, TILE),
        photometric="rgb",
    )
    unfinished.replace(path)


def good_texture(path: Path | None) -> np.ndarray:
    """A picture without defects: scikit-image's brick at 256 pixels, unless another is given."""
    import skimage

    from ssdnet_jax.data.images import read_image, resize_image

    if path:
        return read_image(path).pixels
    brick = read_image(Path(skimage.__file__).parent / "data" / "brick.png").pixels
    return resize_image(brick, (256, 256))


def tiles(texture: np.ndarray, shape: tuple[int, int]) -> Iterator[np.ndarray]:
    """The picture's tiles, row by row."""
    texture = np.broadcast_to(texture, (*texture.shape[:2], 3))
    block = np.concatenate([texture, texture[::-1]])
    block = np.concatenate([block, block[:, ::-1]], axis=1)
    middle = [share * side for share, side in zip(PLACE, shape, strict=True)]
    generator = np.random.default_rng(0)
    for top in range(0, shape[0], TILE):
        for left in range(0, shape[1], TILE):
            rows, columns = top + np.arange(TILE), left + np.arange(TILE)
            found = block[rows[:, None] % block.shape[0], columns % block.shape[1]]
            light = 0.97 + 0.03 * np.sin((top + 2 * left) / 3000)
            found = found * light + generator.normal(0, 0.01, found.shape)
            away = np.hypot(rows[:, None] - middle[0], columns - middle[1])
            stain = 1 / (1 + np.exp(np.minimum(away - DEFECT / 2, 50)))
            found = found * (1 - stain[..., None] * np.array([0.2, 0.5, 0.5]))
            yield (255 * np.clip(found, 0, 1)).round().astype(np.uint8)


def in_a_process(path: Path, given: argparse.Namespace) -> dict[str, Any] | None:
    command = [sys.executable, __file__, f"--child={path}", f"--steps={given.steps}"]
    command += [f"--workdir={given.workdir / path.stem}"]
    if given.vgg19_weights:
        command.append(f"--vgg19_weights={given.vgg19_weights}")
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        print(f"{path.name}: the process ended with {done.returncode}", file=sys.stderr)
        return None
    return json.loads(done.stdout.splitlines()[-1])


class Stages:
    """Seconds and peak memory of stages, each of which is told of when a part of it has ended."""

    def __init__(self) -> None:
        self.found: dict[str, dict[str, float]] = {}
        self._clock, self._processor = time.monotonic(), 0.0

    def ended(self, name: str) -> None:
        clock, processor = time.monotonic(), time.process_time()
        if name not in self.found:
            print(json.dumps(self.found), file=sys.stderr, flush=True)
        stage = self.found.setdefault(
            name, {"seconds": 0.0, "processor_seconds": 0.0, "peak_gib": 0.0}
        )
        stage["seconds"] = round(stage["seconds"] + clock - self._clock, 2)
        stage["processor_seconds"] = round(
            stage["processor_seconds"] + processor - self._processor, 2
        )
        stage["peak_gib"] = max(stage["peak_gib"], round(peak_memory(), 2))
        Path("/proc/self/clear_refs").write_text("5")  # sets the peak back
        self._clock, self._processor = clock, processor


def peak_memory() -> float:
    """Largest resident memory since it was set back, GiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith("VmHWM"))
    return int(line.split()[1]) / 2**20


def measured(path: Path, weights: Path | None, steps: int, workdir: Path) -> dict[str, Any]:
    stages = Stages()
    import ssdnet_jax
    from ssdnet_jax.runner.record import write_result
    from ssdnet_jax.runner.workdir import Workdir

    vgg19 = ssdnet_jax.load_vgg19_weights(weights) if weights else None
    config = dataclasses.replace(ssdnet_jax.load_config("auto"), image_size=0)
    if steps:
        config = dataclasses.replace(config, fit=dataclasses.replace(config.fit, max_steps=steps))
    stages.ended("start")
    pixels = ssdnet_jax.read_image(path).pixels
    shape = pixels.shape
    stages.ended("read")
    result = ssdnet_jax.localize(
        pixels, config, vgg19=vgg19, report=lambda progress: stages.ended(progress.stage)
    )
    stages.ended("decide")  # quartiles and the verdict
    del pixels
    write_result(Workdir(workdir, {}), path.name, result)
    stages.ended("write")
    return {
        "pixels": shape[:2],
        "steps": result.steps,
        "seconds": round(sum(stage["seconds"] for stage in stages.found.values()), 1),
        "processor_seconds": round(time.process_time(), 1),
        "peak_gib": max(stage["peak_gib"] for stage in stages.found.values()),
        "stages": stages.found,
        **finding(result, shape),
    }


def finding(result: Any, shape: tuple[int, ...]) -> dict[str, Any]:
    """What was found of the planted defect."""
    middle = [int(share * side) for share, side in zip(PLACE, shape[:2], strict=True)]
    half = DEFECT // 2
    box = tuple(slice(place - half, place + half) for place in middle)
    inside = [d for d in result.defects if covers(d, middle)]
    return {
        "anomalous": bool(result.is_anomalous),
        "p_value": result.decision.p_value,
        "score": round(result.calibrated_score, 2),
        "score_of_the_defect": round(float(result.decision.calibrated[box].max()), 2),
        "defects": len(result.defects),
        "number_of_the_planted_one": inside[0].number if inside else None,
        "its_box": [inside[0].height, inside[0].width] if inside else None,
    }


def covers(defect: Any, place: list[int]) -> bool:
    rows = defect.y <= place[0] < defect.y + defect.height
    return bool(rows and defect.x <= place[1] < defect.x + defect.width)


def draw(sizes: dict[str, Any], path: Path) -> None:
    from matplotlib.figure import Figure

    numbers = sorted(sizes, key=float)
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    seconds, memory = figure.subplots(1, 2)
    where = [float(number) for number in numbers]
    bottom = np.zeros(len(numbers))
    for name in ("read", "features", "fit", "score", "marks", "guide", "decide", "write"):
        values = [sizes[n]["stages"].get(name, {}).get("processor_seconds", 0) for n in numbers]
        seconds.bar(range(len(where)), values, bottom=bottom, label=name)
        bottom += values
    seconds.set_xticks(range(len(where)), [f"{n:g}" for n in where])
    seconds.set(xlabel="megapixels", ylabel="processor seconds")
    seconds.legend(frameon=False)
    memory.plot(where, [sizes[number]["peak_gib"] for number in numbers], "o-")
    memory.axhline(6, color="grey", linewidth=1, linestyle="--")
    memory.set(xlabel="megapixels", ylabel="peak resident memory, GiB", ylim=(0, None))
    figure.savefig(path, dpi=90)


if __name__ == "__main__":
    main()
