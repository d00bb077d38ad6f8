"""From maps on disk to metrics: a row an image, and pooled metrics of all pixels.

Nothing here holds more than one map at a time; pooled metrics read the files again.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ssdnet_jax.core.config import DecisionConfig
from ssdnet_jax.core.decision import decide
from ssdnet_jax.data.images import resize_image, resize_map
from ssdnet_jax.data.labels import EMPTY, UNSEEN, image_shape, read_label
from ssdnet_jax.data.layouts.sample import DEFECT, GOOD, Sample
from ssdnet_jax.data.score_maps import read_map
from ssdnet_jax.data.tables import write_table
from ssdnet_jax.errors import InputError, SSDnetError
from ssdnet_jax.evaluation import metrics
from ssdnet_jax.evaluation.pooled import PooledMetrics, pooled_metrics

ALL = "all"  # beside the categories: every image
METRICS = ("auroc", "auprc", "f1_max", "aupro")


@dataclasses.dataclass(frozen=True)
class MapSet:
    """The maps that one method made of a dataset with one seed."""

    method: str  # its name in tables
    seed: int | None  # None where it is not known
    find: Callable[[Sample], Path]  # the file of a sample's map; raises InputError
    size: int = 0  # side of the square to which masks are brought, in pixels; maps have it. 0: maps
    # are compared with the masks as they are
    resized: bool = False  # whether maps of another size are brought to the mask's, not refused
    decision: DecisionConfig = DecisionConfig()  # how images are judged by their maps
    analysed: int = 256  # shorter side at which images were analysed, pixels; 0: their own
    seconds: Mapping[str, float] = dataclasses.field(default_factory=dict)  # by image, of scoring


@dataclasses.dataclass(frozen=True)
class ImageMetrics:
    """One line of metrics.csv; None where a number does not exist."""

    method: str  # as in its `MapSet`
    category: str  # of the image
    defect: str  # of the image, "good" for one without
    path: str  # the image, relative to the dataset's root
    auroc: float | None = None  # of the pixels, None for good images and those whose pixels have no
    # label, as the next three
    auprc: float | None = None  # average precision of the pixels
    f1_max: float | None = None  # largest F1 of the pixels over all thresholds
    aupro: float | None = None  # area under per-region overlap to a false positive rate of 0.3
    seed: int | None = None  # as in its `MapSet`
    score: float | None = None  # the image's score, the maximum of its raw map
    calibrated_score: float | None = None  # of any texture, without a unit (`core.calibration`)
    p_value: float | None = None  # chance of such a score on a good image (`core.decision`)
    defective_fraction: float | None = None  # share of defective pixels in the mask, chance's
    # AUPRC; None where the pixels have no label
    height: int | None = None  # of the map, in pixels
    width: int | None = None  # of the map, in pixels
    seconds: float | None = None  # what scoring took, reading and writing included
    notes: tuple[str, ...] = ()  # what a person should know of the mask
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
    image whose mask is empty counts as good: some sets have such masks. A defective one without a
    mask has no metrics of its pixels, but counts where whole images are compared.

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
    """Reads a sample's mask and its map, at the size of the comparison.

    The mask is None for a good image without a mask, and for one that is labelled as a whole only.

    Raises:
      InputError: either cannot be read or has a wrong size.
    """
    mask, score_map, _ = _read(sample, map_set)
    return mask, score_map


def _read(sample: Sample, map_set: MapSet) -> tuple[np.ndarray | None, np.ndarray, tuple[str, ...]]:
    """`read_pair`, and what is to be said of the mask."""
    path = map_set.find(sample)
    score_map = read_map(path)
    shape = image_shape(sample.path)
    label = read_label(sample, shape)
    if map_set.size:
        shape = (map_set.size, map_set.size)
    if score_map.shape != shape and not map_set.resized:
        raise InputError(
            f"{path}: found a map of {score_map.shape[0]} x {score_map.shape[1]} (height x width); "
            f"expected {shape[0]} x {shape[1]}, the size "
            f"{'of the evaluation' if map_set.size else 'of its image'}; maps of others can be "
            f"resized by --resize_maps"
        )
    if label is None:
        return (None, _map_at(score_map, shape), ())
    return _mask_at(label.mask, shape), _map_at(score_map, shape), label.notes


def _mask_at(mask: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    if mask.shape == shape:
        return mask
    return resize_image(mask[..., None].astype(np.float32), shape)[..., 0] > 0.5


def _map_at(score_map: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    return score_map if score_map.shape == shape else resize_map(score_map, shape)


def _measure(sample: Sample, map_set: MapSet) -> ImageMetrics:
    row = ImageMetrics(
        method=map_set.method,
        category=sample.category,
        defect=sample.defect,
        path=sample.relative,
        seed=map_set.seed,
    )
    try:
        mask, score_map, notes = _read(sample, map_set)
    except (SSDnetError, OSError, MemoryError) as error:
        return dataclasses.replace(row, status="error", error=" ".join(str(error).split()))
    if mask is not None and not mask.any():
        if sample.defect not in (DEFECT, GOOD):
            notes = (*notes, EMPTY)
        row, mask = dataclasses.replace(row, defect=GOOD), None
    values: dict[str, Any] = {}
    if mask is not None:
        if 2 * np.count_nonzero(mask & np.isnan(score_map)) > np.count_nonzero(mask):
            notes = (*notes, UNSEEN)
        found = metrics.pixel_metrics(mask, score_map)
        values = {name: metrics.finite_or_none(getattr(found, name)) for name in METRICS}
    share = 0.0 if row.good else None
    scale = map_set.analysed / min(score_map.shape) if map_set.analysed else 1.0
    decision, _ = decide(score_map, map_set.decision, resolution=scale**2)
    return dataclasses.replace(
        row,
        **values,
        score=float(np.nanmax(score_map)),
        calibrated_score=decision.score,
        p_value=decision.p_value,
        defective_fraction=share if mask is None else float(mask.mean()),
        height=score_map.shape[0],
        width=score_map.shape[1],
        seconds=map_set.seconds.get(sample.relative),
        notes=notes,
    )


Pair = tuple[np.ndarray | None, np.ndarray]


def labelled_pairs(
    usable: Sequence[tuple[Sample, ImageMetrics]], map_set: MapSet
) -> Callable[[], Iterator[Pair]]:
    """What `pooled_metrics` reads: mask and map of the images whose pixels have a label.

    `usable` are samples with their rows, which have status "ok".
    """

    def pairs() -> Iterator[Pair]:
        for sample, row in usable:
            if row.defective_fraction is not None:
                mask, score_map = read_pair(sample, map_set)
                yield None if row.good else mask, score_map

    return pairs


def _pool(usable: Sequence[tuple[Sample, ImageMetrics]], map_set: MapSet) -> PooledMetrics | None:
    if all(row.good or row.defective_fraction is None for _, row in usable):
        return None
    return pooled_metrics(labelled_pairs(usable, map_set))


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes a table atomically; all rows have the keys of the first, None is an empty cell."""
    write_table(path, list(rows[0]), (row.values() for row in rows))


def write_metrics_csv(path: Path, rows: Sequence[ImageMetrics], *, method: str = "method") -> None:
    """`write_csv`, a line an image; columns are the fields of `ImageMetrics`, the first renamed."""
    columns = (method, *COLUMNS[1:])

    def cells(row: ImageMetrics) -> Iterator[Any]:
        for name in COLUMNS:
            value = getattr(row, name)
            yield "; ".join(value) if isinstance(value, tuple) else value

    write_csv(path, [dict(zip(columns, cells(row), strict=True)) for row in rows])
