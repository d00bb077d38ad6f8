"""What the rows of an evaluation say together: means, medians and pooled metrics, over seeds."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ssdnet_jax.data.files import write_bytes
from ssdnet_jax.evaluation import metrics
from ssdnet_jax.evaluation.evaluate import ALL, METRICS, Evaluation, ImageMetrics

Summary = Mapping[str, Mapping[str, Mapping[str, Any]]]  # of `summarize`
IMAGE_METRICS = {"image_auroc": "score", "image_auroc_calibrated": "calibrated_score"}


def summarize(evaluation: Evaluation) -> dict[str, dict[str, dict[str, Any]]]:
    """Means, medians and pooled metrics by method and category; the content of summary.json.

    A seed's figure is the mean (or median) over its images; the result is the mean of the seeds'
    figures, and `_std_over_seeds` their standard deviation (n - 1 in the denominator; None for
    one seed). `_pooled` takes the pixels of all images of a seed together. In "all",
    `auroc_mean` is over images, and `auroc_macro`, `auroc_pooled_macro`, `image_auroc_macro` are
    means over categories. `image_auroc` takes the maximum of the raw map as an image's score, and
    `image_auroc_calibrated` the calibrated one. None stands for what does not exist.

    Returns:
      method -> category or "all" -> name -> number, and "defects" -> defect -> name -> number; in
      "all" a defect is called CATEGORY/DEFECT.
    """
    result: dict[str, dict[str, dict[str, Any]]] = {}
    for method in dict.fromkeys(row.method for row in evaluation.rows):
        rows = [row for row in evaluation.rows if row.method == method]
        groups = {
            category: [row for row in rows if row.category == category]
            for category in sorted({row.category for row in rows})
        }
        entries = {
            category: _summarize_category(method, category, group, evaluation)
            for category, group in groups.items()
        }
        everything = _summarize_category(method, ALL, rows, evaluation)
        for name in (*METRICS, *IMAGE_METRICS):
            for kind in ("",) if name in IMAGE_METRICS else ("_mean", "_pooled"):
                values = [entry[f"{name}{kind}"] for entry in entries.values()]
                macro = f"{name}{kind.replace('_mean', '')}_macro"
                everything[macro] = _mean(values)
        result[method] = {**entries, ALL: everything}
    return result


def _summarize_category(
    method: str, category: str, rows: Sequence[ImageMetrics], evaluation: Evaluation
) -> dict[str, Any]:
    entry = _summarize_images(rows)
    seeds = sorted({row.seed for row in rows}, key=str)
    pooled = [p for seed in seeds if (p := evaluation.pooled.get((method, seed, category)))]
    for name in METRICS:
        values = [metrics.finite_or_none(getattr(p, name)) for p in pooled]
        entry[f"{name}_pooled"] = _mean(values)
        entry[f"{name}_pooled_std_over_seeds"] = _spread(values)
    for name, score in IMAGE_METRICS.items():
        values = [_image_auroc([row for row in rows if row.seed == seed], score) for seed in seeds]
        entry[name] = _mean(values)
        entry[f"{name}_std_over_seeds"] = _spread(values)
    groups: dict[str, list[ImageMetrics]] = {}
    for row in rows:
        if not row.good:
            name = f"{row.category}/{row.defect}" if category == ALL else row.defect
            groups.setdefault(name, []).append(row)
    entry["defects"] = {name: _summarize_images(groups[name]) for name in sorted(groups)}
    return entry


def _summarize_images(rows: Sequence[ImageMetrics]) -> dict[str, Any]:
    """Metrics of single images and how many there are, of any group of rows of one method."""
    seeds = sorted({row.seed for row in rows}, key=str)
    good = {row.path for row in rows if row.good}
    entry: dict[str, Any] = {
        "images": len({row.path for row in rows}),
        "defective": len({row.path for row in rows} - good),
        "good": len(good),
        "failed": len({row.path for row in rows if row.status != "ok"}),
        "seeds": len(seeds),
        "seconds_median": _median([row.seconds for row in rows]),
    }
    for name in METRICS:
        by_seed = [[getattr(row, name) for row in rows if row.seed == seed] for seed in seeds]
        means = [_mean(values) for values in by_seed]
        entry[f"{name}_mean"] = _mean(means)
        entry[f"{name}_median"] = _mean([_median(values) for values in by_seed])
        entry[f"{name}_std_over_seeds"] = _spread(means)
    return entry


def means_over_seeds(rows: Sequence[ImageMetrics], metric: str) -> list[tuple[ImageMetrics, float]]:
    """A row of each method and image that has the metric, with its mean over seeds."""
    images: dict[tuple[str, str], list[ImageMetrics]] = {}
    for row in rows:
        if getattr(row, metric) is not None:
            images.setdefault((row.method, row.path), []).append(row)
    return [
        (of_image[0], float(np.mean([getattr(row, metric) for row in of_image])))
        for of_image in images.values()
    ]


def _image_auroc(rows: Sequence[ImageMetrics], score: str) -> float | None:
    scored = [row for row in rows if row.score is not None]
    return metrics.finite_or_none(
        metrics.auroc(
            np.array([not row.good for row in scored], bool),
            np.array([getattr(row, score) for row in scored], float),
        )
    )


def _numbers(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _mean(values: Iterable[float | None]) -> float | None:
    return float(np.mean(numbers)) if (numbers := _numbers(values)) else None


def _median(values: Iterable[float | None]) -> float | None:
    return float(np.median(numbers)) if (numbers := _numbers(values)) else None


def _spread(values: Iterable[float | None]) -> float | None:
    numbers = _numbers(values)
    return float(np.std(numbers, ddof=1)) if len(numbers) > 1 else None


def write_summary(path: Path, summary: Mapping[str, Any]) -> None:
    """Writes summary.json atomically."""
    text = json.dumps(summary, indent=1, allow_nan=False) + "\n"
    write_bytes(path, text.encode())
