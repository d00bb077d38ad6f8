"""From maps on disk to metrics: a row an image, pooled curves, means and their spread over seeds.

Nothing here holds more than one map at a time; pooled metrics read the files again.
"""

import dataclasses
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ssdnet_jax.core.calibration import calibrated_score
from ssdnet_jax.data.datasets import DEFECT, GOOD, Sample
from ssdnet_jax.data.files import write_atomically
from ssdnet_jax.data.images import read_image, read_mask, resize_image, resize_map
from ssdnet_jax.data.score_maps import read_map
from ssdnet_jax.data.tables import write_table
from ssdnet_jax.errors import InputError, SSDnetError
from ssdnet_jax.evaluation import metrics
from ssdnet_jax.evaluation.pooled import PooledMetrics, pooled_metrics

ALL = "all"  # beside the categories: every image
METRICS = ("auroc", "auprc", "f1_max", "aupro")
Summary = Mapping[str, Mapping[str, Mapping[str, Any]]]  # of `summarize`
IMAGE_METRICS = {"image_auroc": "score", "image_auroc_calibrated": "calibrated_score"}


@dataclasses.dataclass(frozen=True)
class MapSet:
    """The maps that one method made of a dataset with one seed."""

    method: str  # its name in tables
    seed: int | None  # None where it is not known
    find: Callable[[Sample], Path]  # the file of a sample's map; raises InputError
    size: int = 0  # side of the square to which masks are brought, in pixels; maps have it. 0: maps
    # are compared with the masks as they are
    resized: bool = False  # whether maps of another size are brought to the mask's, not refused
    seconds: Mapping[str, float] = dataclasses.field(default_factory=dict)  # by image, of scoring


@dataclasses.dataclass(frozen=True)
class ImageMetrics:
    """One line of metrics.csv; None where a number does not exist."""

    method: str  # as in its `MapSet`
    category: str  # of the image
    defect: str  # of the image, "good" for one without
    path: str  # the image, relative to the dataset's root
    auroc: float | None = None  # of the pixels, None for good images, as the next three
    auprc: float | None = None  # average precision of the pixels
    f1_max: float | None = None  # largest F1 of the pixels over all thresholds
    aupro: float | None = None  # area under per-region overlap to a false positive rate of 0.3
    seed: int | None = None  # as in its `MapSet`
    score: float | None = None  # the image's score, the maximum of its raw map
    calibrated_score: float | None = None  # of any texture, without a unit (`core.calibration`)
    defective_fraction: float | None = None  # share of defective pixels in the mask, chance's AUPRC
    height: int | None = None  # of the map, in pixels
    width: int | None = None  # of the map, in pixels
    seconds: float | None = None  # what scoring took, reading and writing included
    status: str = "ok"  # "ok" or "error"
    error: str = ""  # why there are no metrics; empty for "ok"

    @property
    def good(self) -> bool:
        """Whether the image has no defect."""
        return self.defect == GOOD


COLUMNS = tuple(field.name for field in dataclasses.fields(ImageMetrics))


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Everything measured on a dataset."""

    rows: tuple[ImageMetrics, ...]  # an entry an image and map set
    pooled: Mapping[tuple[str, int | None, str], PooledMetrics | None]  # by method, seed and
    # category (or "all"), metrics of all pixels together; without the images whose row is an error.
    # None where no defective image is left


def evaluate(
    samples: Sequence[Sample],
    map_sets: Sequence[MapSet],
    *,
    report: Callable[[str, int], object] = lambda name, done: None,
) -> Evaluation:
    """Compares maps with masks, at the size of the image or that of the map set.

    A sample whose map or mask cannot be used gets a row with status "error"; the others go on. An
    image of no named kind of defect whose mask is empty counts as good: some sets have such masks.

    Args:
      samples: the images and their masks; no category may be called "all".
      map_sets: of different method or seed.
      report: called with what comes next and how many maps are done.

    Raises:
      InputError: a category is called "all".
    """
    categories = sorted({sample.category for sample in samples})
    if ALL in categories:
        raise InputError(f"found a category named {ALL!r}; expected another name, it means a sum")
    rows: list[ImageMetrics] = []
    pooled: dict[tuple[str, int | None, str], PooledMetrics | None] = {}
    for map_set in map_sets:
        usable: list[tuple[Sample, ImageMetrics]] = []
        for sample in samples:
            report(sample.relative, len(rows))
            rows.append(row := _measure(sample, map_set))
            if row.status == "ok":
                usable.append((sample, row))
        for category in categories:
            report(f"all pixels of {category}", len(rows))
            chosen = [pair for pair in usable if pair[0].category == category]
            pooled[map_set.method, map_set.seed, category] = _pool(chosen, map_set)
        key = (map_set.method, map_set.seed)
        if len(categories) == 1:
            pooled[*key, ALL] = pooled[*key, categories[0]]
        else:
            report("all pixels", len(rows))
            pooled[*key, ALL] = _pool(usable, map_set)
    return Evaluation(tuple(rows), pooled)


def read_pair(sample: Sample, map_set: MapSet) -> tuple[np.ndarray | None, np.ndarray]:
    """Reads a sample's mask, None for a good image, and its map, at the size of the comparison.

    Raises:
      InputError: either cannot be read or has a wrong size.
    """
    path = map_set.find(sample)
    score_map = read_map(path)
    mask = read_mask(sample.mask_path) if sample.mask_path else None
    if mask is None and sample.defect != GOOD:
        raise InputError(f"{sample.relative}: found no mask for this defective image")
    shape = None if mask is None else mask.shape
    if map_set.size or map_set.resized or shape != score_map.shape:
        shape = read_image(sample.path).pixels.shape[:2]
        if sample.mask_path:
            read_mask(sample.mask_path, shape=shape)  # says so, if it is the mask that differs
    if map_set.size:
        shape = (map_set.size, map_set.size)
    if score_map.shape != shape and not map_set.resized:
        raise InputError(
            f"{path}: found a map of {score_map.shape[0]} x {score_map.shape[1]} (height x width); "
            f"expected {shape[0]} x {shape[1]}, the size "
            f"{'of the evaluation' if map_set.size else 'of its image'}"
        )
    return _at_size(mask, score_map, shape)


def _at_size(
    mask: np.ndarray | None, score_map: np.ndarray, shape: tuple[int, int]
) -> tuple[np.ndarray | None, np.ndarray]:
    if mask is not None and mask.shape != shape:
        mask = resize_image(mask[..., None].astype(np.float32), shape)[..., 0] > 0.5
    return mask, score_map if score_map.shape == shape else resize_map(score_map, shape)


def _measure(sample: Sample, map_set: MapSet) -> ImageMetrics:
    row = ImageMetrics(
        method=map_set.method,
        category=sample.category,
        defect=sample.defect,
        path=sample.relative,
        seed=map_set.seed,
    )
    try:
        mask, score_map = read_pair(sample, map_set)
        if mask is not None and not mask.any():
            if sample.defect != DEFECT:
                raise InputError(f"{sample.mask_path}: found no defective pixel; expected some")
            row, mask = dataclasses.replace(row, defect=GOOD), None
    except (SSDnetError, OSError, MemoryError) as error:
        return dataclasses.replace(row, status="error", error=" ".join(str(error).split()))
    values: dict[str, Any] = {}
    if mask is not None:
        found = metrics.pixel_metrics(mask, score_map)
        values = {name: _or_none(getattr(found, name)) for name in METRICS}
    return dataclasses.replace(
        row,
        **values,
        score=float(score_map.max()),
        calibrated_score=calibrated_score(score_map),
        defective_fraction=0.0 if mask is None else float(mask.mean()),
        height=score_map.shape[0],
        width=score_map.shape[1],
        seconds=map_set.seconds.get(sample.relative),
    )


def _pool(usable: Sequence[tuple[Sample, ImageMetrics]], map_set: MapSet) -> PooledMetrics | None:
    if all(row.good for _, row in usable):
        return None

    def pairs() -> Iterator[tuple[np.ndarray | None, np.ndarray]]:
        for sample, row in usable:  # sizes were checked
            mask = read_mask(sample.mask_path) if sample.mask_path and not row.good else None
            yield _at_size(mask, read_map(map_set.find(sample)), (row.height or 0, row.width or 0))

    return pooled_metrics(pairs)


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
        values = [_or_none(getattr(p, name)) for p in pooled]
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
    """Of each method and image that has the metric a row, and the mean over seeds."""
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
    return _or_none(
        metrics.auroc(
            np.array([not row.good for row in scored], bool),
            np.array([getattr(row, score) for row in scored], float),
        )
    )


def _or_none(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _numbers(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _mean(values: Iterable[float | None]) -> float | None:
    return float(np.mean(numbers)) if (numbers := _numbers(values)) else None


def _median(values: Iterable[float | None]) -> float | None:
    return float(np.median(numbers)) if (numbers := _numbers(values)) else None


def _spread(values: Iterable[float | None]) -> float | None:
    numbers = _numbers(values)
    return float(np.std(numbers, ddof=1)) if len(numbers) > 1 else None


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes a table atomically; all rows have the keys of the first, None is an empty cell."""
    columns = list(rows[0])
    write_table(path, columns, ([row[name] for name in columns] for row in rows))


def write_metrics_csv(path: Path, rows: Sequence[ImageMetrics], *, method: str = "method") -> None:
    """`write_csv`, a line an image; columns are the fields of `ImageMetrics`, the first renamed."""
    columns = (method, *COLUMNS[1:])
    write_csv(path, [dict(zip(columns, dataclasses.astuple(row), strict=True)) for row in rows])


def write_summary(path: Path, summary: Mapping[str, Any]) -> None:
    """Writes summary.json atomically."""
    text = json.dumps(summary, indent=1, allow_nan=False) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))
