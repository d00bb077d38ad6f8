"""Memory and time of the pooled pixel metrics over many images, and their equality to scikit-learn.

Command:
  python benchmarks/metrics_memory.py --images=100000 --json=FILE

Each image is made from its number when it is read, and forgotten: nothing is stored, so the growth
of the process is that of the metrics. Scores are log-normal, 256 x 256 float32 over 13 powers of
two; two images of three have one to three rectangles with scores three times as high. Times of the
metrics alone are processor time, which other programs on the machine do not stretch as much. A
last part puts --check images into one array and compares with scikit-learn. Unix only.
"""

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ssdnet_jax.data.files import write_atomically
from ssdnet_jax.evaluation.pooled import pooled_metrics
from ssdnet_jax.runner.workdir import versions

SIZE = 256  # pixels a side


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--memory", type=int, default=512, help="MiB for counts")
    parser.add_argument("--check", type=int, default=20, help="images compared with scikit-learn")
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()

    pooled_metrics(Source(3), memory=2**20)  # imports
    report = {"machine": {"processor_cores": os.cpu_count(), "versions": versions()}}
    report |= measure(arguments.images, arguments.memory)
    report["check"] = check(arguments.check)
    text = json.dumps(report, indent=1)
    print(text)
    if arguments.json:
        write_atomically(arguments.json, lambda file: file.write(text.encode()))


def measure(images: int, memory: int) -> dict:
    source = Source(images)
    before, started, busy = peak_memory(), time.monotonic(), time.process_time()
    result = pooled_metrics(source, memory=memory * 2**20)
    seconds, busy = time.monotonic() - started, time.process_time() - busy
    counting, pixels = busy - source.seconds, images * SIZE**2
    return {
        "images": images,
        "pixels": pixels,
        "memory_bound_mib": memory,
        "memory_growth_mib": round(peak_memory() - before, 1),
        "float32_scores_mib": round(pixels * 4 / 2**20, 1),
        "passes": source.passes,
        "seconds": round(seconds, 2),
        "processor_seconds": round(busy, 2),
        "processor_seconds_without_making_images": round(counting, 2),
        "milliseconds_an_image_a_pass": round(1e3 * counting / images / source.passes, 3),
        "auroc": result.auroc,
        "auprc": result.auprc,
        "f1_max": result.f1_max,
        "aupro": result.aupro,
    }


def check(images: int) -> dict:
    """Largest differences to scikit-learn on all pixels in one array."""
    from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

    masks, scores = (
        np.concatenate([a.ravel() for a in arrays])
        for arrays in zip(*Source(images)(), strict=True)
    )
    precision, recall, _ = precision_recall_curve(masks, scores)
    expected = {
        "auroc": roc_auc_score(masks, scores),
        "auprc": average_precision_score(masks, scores),
        "f1_max": np.max(2 * precision * recall / np.maximum(precision + recall, 1e-300)),
    }
    differences = {"images": images}
    for name, memory in (("whole", 2**30), ("4 MiB", 4 * 2**20)):
        source = Source(images)
        result = pooled_metrics(source, memory=memory)
        differences[name] = {"passes": source.passes} | {
            metric: float(abs(getattr(result, metric) - value))
            for metric, value in expected.items()
        }
    return differences


class Source:
    """Images made anew in each pass; counts passes and processor seconds of making images."""

    def __init__(self, images: int):
        self.images, self.passes, self.seconds = images, 0, 0.0

    def __call__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        self.passes += 1
        for number in range(self.images):
            started = time.process_time()
            pair = scene(number)
            self.seconds += time.process_time() - started
            yield pair


def scene(number: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(number)
    scores = np.exp(generator.standard_normal((SIZE, SIZE), np.float32))
    mask = np.zeros((SIZE, SIZE), bool)
    if number % 3 != 2:
        for _ in range(generator.integers(1, 4)):
            row, column = generator.integers(0, SIZE - 40, 2)
            height, width = generator.integers(3, 40, 2)
            mask[row : row + height, column : column + width] = True
        scores[mask] *= 3
    return mask, scores


def peak_memory() -> float:
    """Largest resident memory of this process so far, MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


if __name__ == "__main__":
    main()
