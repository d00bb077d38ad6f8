"""How sure are the figures of a set? Confidence intervals by bootstrap over its images.

Images are drawn with replacement, as many of each category, defective and good ones apart, as there
are (Efron and Tibshirani, An Introduction to the Bootstrap, 1993; percentile intervals). Pooled
metrics of a draw follow from counts of pixels, which add up over images: each image is read twice,
and a thousand draws are a few matrix products. Counts are over bins of scores; what binning costs
is taken off by the difference to the exact metric.
"""

import dataclasses
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ssdnet_jax.data.layouts.sample import Sample
from ssdnet_jax.evaluation.evaluate import (
    ALL,
    METRICS,
    Evaluation,
    ImageMetrics,
    MapSet,
    labelled_pairs,
)
from ssdnet_jax.evaluation.metrics import AUPRO_LIMIT, region_weights
from ssdnet_jax.evaluation.summary import IMAGE_METRICS

DRAWS = 1000  # of the bootstrap
LEVEL = 0.95  # of the intervals
SEED = 0  # of the draws

_POSITIVES = 512  # scores of an image's defective pixels that bins are made of
_EDGES = 2048  # bins of scores, at most
_ROWS = 64  # draws worked on at once; bounds memory, changes no value


@dataclasses.dataclass(frozen=True)
class BinnedPixels:
    """Counts of the pixels of images by score, highest first, one row an image."""

    paths: tuple[str, ...]  # of the images, in the order of the rows
    normal: np.ndarray  # float32 (images, bins), normal pixels
    defective: np.ndarray  # float32 (images, bins), defective pixels
    overlap: np.ndarray  # float32 (images, bins), sum of their `region_weights`


Binned = Mapping[tuple[str, int | None], BinnedPixels]  # by method and seed


def bin_pixels(
    samples: Sequence[Sample],
    map_sets: Sequence[MapSet],
    evaluation: Evaluation,
    *,
    report: Callable[[str, int], object] = lambda name, done: None,
) -> dict[tuple[str, int | None], BinnedPixels]:
    """Reads the maps of an evaluation again and counts their pixels; `report` as for `evaluate`."""
    by_path = {sample.relative: sample for sample in samples}
    result = {}
    for done, map_set in enumerate(map_sets):
        key = (map_set.method, map_set.seed)
        report(f"intervals of {map_set.method}", done)
        rows = [
            row
            for row in evaluation.rows
            if (row.method, row.seed) == key
            and row.status == "ok"
            and row.defective_fraction is not None
        ]
        pairs = labelled_pairs([(by_path[row.path], row) for row in rows], map_set)
        result[key] = _binned(tuple(row.path for row in rows), pairs)
    return result


def _binned(paths: tuple[str, ...], pairs: Callable[[], Any]) -> BinnedPixels:
    chosen = [np.empty(0, np.float32)]
    for mask, score_map in pairs():
        if mask is not None:
            scores = np.sort(score_map[mask & ~np.isnan(score_map)])
            at = np.linspace(0, max(len(scores) - 1, 0), min(len(scores), _POSITIVES))
            chosen.append(scores[np.round(at).astype(int)])
    edges = np.unique(np.concatenate(chosen))
    if len(edges) > _EDGES:
        edges = np.unique(edges[np.round(np.linspace(0, len(edges) - 1, _EDGES)).astype(int)])
    bins = len(edges) + 1
    counts = np.zeros((3, len(paths), bins), np.float32)
    for number, (mask, score_map) in enumerate(pairs()):
        known = ~np.isnan(score_map)
        # Bin 0 is above all edges; a score equal to an edge lies in the bin that begins with it.
        place = (bins - 1 - np.searchsorted(edges, score_map[known], side="right")).astype(int)
        defective = np.zeros(len(place), bool) if mask is None else mask[known]
        counts[0, number] = np.bincount(place[~defective], minlength=bins)
        if mask is not None:
            weights, _ = region_weights(mask & known)
            counts[1, number] = np.bincount(place[defective], minlength=bins)
            weights = weights[known][defective]
            counts[2, number] = np.bincount(place[defective], weights, minlength=bins)
    return BinnedPixels(paths, *counts)


def with_intervals(
    summary: Mapping[str, Mapping[str, Mapping[str, Any]]], evaluation: Evaluation, binned: Binned
) -> dict[str, dict[str, dict[str, Any]]]:
    """A `summarize`d evaluation with a confidence interval beside its figures.

    For each category and "all", NAME_interval is [low, high] of `LEVEL` for NAME of auroc_mean,
    auroc_pooled and so on, image_auroc and image_auroc_calibrated; in "all" also of their macro
    means over categories. None where there is no figure, and where a category has a single
    defective image (of image_auroc: or a single good one), which all draws have in common.
    """
    result = {}
    for method, entries in summary.items():
        drawn = {
            category: _drawn(method, category, entry, evaluation, binned)
            for category, entry in entries.items()
        }
        categories = [category for category in entries if category != ALL]
        for name in drawn[ALL].copy():
            macro = f"{name.removesuffix('_mean')}_macro"
            parts = [drawn[c][name] for c in categories if entries[c][name] is not None]
            drawn[ALL][macro] = _mean_of(parts) if all(p is not None for p in parts) else None
        result[method] = {
            category: {
                **entry,
                **{f"{n}_interval": _interval(v, entry[n]) for n, v in drawn[category].items()},
            }
            for category, entry in entries.items()
        }
    return result


def _drawn(
    method: str,
    category: str,
    entry: Mapping[str, Any],
    evaluation: Evaluation,
    binned: Binned,
) -> dict[str, np.ndarray | None]:
    """The figures of an entry in each draw, means over seeds, by name; None where there is none."""
    rows = [
        row
        for row in evaluation.rows
        if row.method == method and row.status == "ok" and category in (ALL, row.category)
    ]
    by_seed: dict[int | None, dict[str, ImageMetrics]] = {}
    for row in rows:
        by_seed.setdefault(row.seed, {})[row.path] = row
    images = {row.path: row for row in rows}
    draws = _draws(list(images.values()))
    names = [*(f"{name}_{kind}" for name in METRICS for kind in ("mean", "pooled")), *IMAGE_METRICS]
    drawn: dict[str, list[np.ndarray | None]] = {name: [] for name in names}
    for seed, of_seed in by_seed.items():
        for name in METRICS:
            values = [getattr(of_seed.get(path), name, None) for path in images]
            drawn[f"{name}_mean"].append(_means(values, draws))
        for name, score in IMAGE_METRICS.items():
            drawn[name].append(_image_aurocs([of_seed.get(path) for path in images], score, draws))
        exact = evaluation.pooled[method, seed, category]
        if exact is not None:
            pixels = binned[method, seed]
            rows_of = {path: number for number, path in enumerate(pixels.paths)}
            here = [number for number, path in enumerate(images) if path in rows_of]
            chosen = [rows_of[path] for path in images if path in rows_of]
            parts = [each[chosen] for each in (pixels.normal, pixels.defective, pixels.overlap)]
            found = metrics_of_draws(draws[:, here], *parts)
            whole = metrics_of_draws(np.ones((1, len(here)), np.float32), *parts)
            for name in METRICS:
                drawn[f"{name}_pooled"].append(found[name] + (getattr(exact, name) - whole[name]))
    alone = {
        good for (_, good), members in _groups(list(images.values())).items() if len(members) < 2
    }
    return {
        name: None if False in alone or (alone and name in IMAGE_METRICS) else _mean_of(values)
        for name, values in drawn.items()
    }


def _groups(images: Sequence[ImageMetrics]) -> dict[tuple[str, bool], list[int]]:
    """The images by number that are drawn from one another: by category, and whether good."""
    groups: dict[tuple[str, bool], list[int]] = {}
    for number, row in enumerate(images):
        groups.setdefault((row.category, row.good), []).append(number)
    return groups


def _draws(images: Sequence[ImageMetrics]) -> np.ndarray:
    """How often each image is in each draw, float32 (DRAWS, images)."""
    draws = np.zeros((DRAWS, len(images)), np.float32)
    for (category, good), members in _groups(images).items():
        # Of categories of one size the draws are to differ.
        name = zlib.crc32(category.encode("utf-8", "surrogateescape"))
        generator = np.random.default_rng([SEED, name, good])
        shares = np.full(len(members), 1 / len(members))
        draws[:, members] = generator.multinomial(len(members), shares, size=DRAWS)
    return draws


def _means(values: Sequence[float | None], draws: np.ndarray) -> np.ndarray:
    known = np.array([value is not None for value in values], bool)
    numbers = np.array([0.0 if value is None else value for value in values])
    count = draws[:, known].sum(axis=1)
    total = draws[:, known] @ numbers[known]
    return np.divide(total, count, out=np.full(len(draws), np.nan), where=count > 0)


def _image_aurocs(rows: Sequence[ImageMetrics | None], score: str, draws: np.ndarray) -> np.ndarray:
    """AUROC of whole images in each draw: the share of defective-good pairs in right order."""
    known = [(n, row) for n, row in enumerate(rows) if row and getattr(row, score) is not None]
    bad = [(n, getattr(row, score)) for n, row in known if not row.good]
    good = [(n, getattr(row, score)) for n, row in known if row.good]
    if not bad or not good:
        return np.full(len(draws), np.nan)
    above = np.array([[(b > g) + (b == g) / 2 for _, g in good] for _, b in bad])
    of_bad, of_good = draws[:, [n for n, _ in bad]], draws[:, [n for n, _ in good]]
    wins = np.einsum("db,bg,dg->d", of_bad, above, of_good, optimize=True)
    return wins / of_bad.sum(axis=1) / of_good.sum(axis=1)


def metrics_of_draws(
    draws: np.ndarray, normal: np.ndarray, defective: np.ndarray, overlap: np.ndarray
) -> dict[str, np.ndarray]:
    """Metrics of the pixels of each draw together, by name; nan where a draw has one class.

    Args:
      draws: how often each image is in each draw, float32 (draws, images).
      normal: as the other two a field of `BinnedPixels`, of these images.
      defective: likewise.
      overlap: likewise.
    """
    parts: dict[str, list[np.ndarray]] = {name: [] for name in METRICS}
    for start in range(0, len(draws), _ROWS):
        weights = draws[start : start + _ROWS]
        counts = (weights @ part for part in (normal, defective, overlap))
        curves = [np.cumsum(each, axis=1, dtype=np.float64) for each in counts]
        with np.errstate(divide="ignore", invalid="ignore"):
            for name, values in _areas(*curves).items():
                parts[name].append(values)
    return {name: np.concatenate(values) for name, values in parts.items()}


def _areas(false: np.ndarray, true: np.ndarray, overlap: np.ndarray) -> dict[str, np.ndarray]:
    """Areas under the curves of running counts (draws, bins), which begin at the highest scores."""
    rate = np.insert(false / false[:, -1:], 0, 0, axis=1)
    recall = np.insert(true / true[:, -1:], 0, 0, axis=1)
    found = np.insert(overlap / overlap[:, -1:], 0, 0, axis=1)
    precision = true / np.maximum(true + false, 1)
    f1 = 2 * true / (true + false + true[:, -1:])
    # The curve of overlap, cut at the limit by straight lines.
    left, right = np.minimum(rate[:, :-1], AUPRO_LIMIT), np.minimum(rate[:, 1:], AUPRO_LIMIT)
    width = np.diff(rate, axis=1)
    slope = np.divide(np.diff(found, axis=1), width, out=np.zeros_like(width), where=width > 0)
    middle = found[:, :-1] + slope * ((left + right) / 2 - rate[:, :-1])
    return {
        "auroc": np.sum((recall[:, 1:] + recall[:, :-1]) / 2 * width, axis=1),
        "auprc": np.sum(precision * np.diff(recall, axis=1), axis=1),
        "f1_max": f1.max(axis=1),
        "aupro": np.sum((right - left) * middle, axis=1) / AUPRO_LIMIT,
    }


def _mean_of(values: Sequence[np.ndarray | None]) -> np.ndarray | None:
    """The mean of the figures that there are, draw by draw."""
    known = [each for each in values if each is not None and not np.isnan(each).all()]
    return np.mean(known, axis=0) if known else None


def _interval(values: np.ndarray | None, figure: float | None) -> list[float] | None:
    """[low, high], which hold the figure itself; None without figure."""
    if figure is None or values is None:
        return None
    values = values[~np.isnan(values)]
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(np.clip(values, 0, 1), [tail, 1 - tail])
    return [float(min(low, figure)), float(max(high, figure))]
