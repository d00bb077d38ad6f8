"""Metrics of one image: a float score map against a bool mask.

They take `mask`, bool (H, W), True on the defect, and `score_map`, float (H, W), high on the
defect; any monotonic change of the scores leaves the result as it is. An image whose mask has one
class only has no such metric: the result is nan. A pixel whose score is NaN takes no part, as if it
were not in the image; infinite scores are an error. `ssdnet_jax.evaluation.pooled` has the same
metrics for the pixels of many images together.
"""

import math
from typing import NamedTuple

import numpy as np

AUPRO_LIMIT = 0.3  # false positive rate up to which AUPRO is integrated (Bergmann et al. 2021)


class PixelMetrics(NamedTuple):
    """Metrics of one image, equal to those of scikit-learn up to rounding of their sums.

    AUPRO: at each threshold, the share of a region's pixels that score at least as high, averaged
    over the regions (8-connected components of the mask), against the share of normal pixels that
    do: small defects count as much as large ones. Every score is a threshold; trapezoids, the
    curve interpolated at the limit. As in MVTec AD's evaluation code (Bergmann et al., IJCV 2021).
    """

    auroc: float  # see `auroc`
    auprc: float  # see `auprc`
    f1_max: float  # largest 2 precision recall / (precision + recall) of any threshold, in (0, 1]
    aupro: float  # area under the per-region overlap curve up to a false positive rate, over it, in
    # [0, 1]; of a constant map limit / 2


def pixel_metrics(
    mask: np.ndarray, score_map: np.ndarray, *, limit: float = AUPRO_LIMIT
) -> PixelMetrics:
    """All metrics of the pixels, at a fraction of their cost one by one.

    Normal pixels only count by how many score higher than a defective one, and how many the same.
    So they are sorted once, by value alone, which takes a fraction of the time of sorting all
    pixels with their labels for each curve anew, as scikit-learn does.

    `limit` is the false positive rate, in (0, 1], at which the integral of AUPRO ends. Another is a
    ValueError, as are arrays that do not have two axes.
    """
    check_limit(limit)
    mask, score_map = np.asarray(mask), np.asarray(score_map)
    labels, scores = _flatten(mask, score_map)
    known = ~np.isnan(score_map)
    weights, regions = region_weights(mask & known)
    if _is_one_class(labels):
        return PixelMetrics(*[float("nan")] * 4)
    normal = np.sort(scores[~labels])
    order = np.argsort(scores[labels])[::-1]
    defective, weights = scores[labels][order], weights[known][labels][order]
    first = np.flatnonzero(np.append(True, defective[1:] != defective[:-1]))
    thresholds = defective[first]
    steps = Steps(
        above=normal.size - np.searchsorted(normal, thresholds, side="right"),
        down_to=normal.size - np.searchsorted(normal, thresholds, side="left"),
        positives=np.diff(first, append=defective.size),
        weights=np.add.reduceat(weights, first),
    )
    sums = step_sums(steps, negatives=normal.size, positives=defective.size, limit=limit)
    return scaled(sums, normal.size, defective.size, regions, limit)


class Steps(NamedTuple):
    """The steps of the curves: what there is at each score that a defective pixel has, in order."""

    above: np.ndarray  # int (n,), normal pixels that score higher
    down_to: np.ndarray  # int (n,), normal pixels that score as high or higher
    positives: np.ndarray  # int (n,), defective pixels of this score
    weights: np.ndarray  # float (n,), sum of their `region_weights`


def step_sums(
    steps: Steps, *, negatives: int, positives: int, limit: float, true: int = 0
) -> np.ndarray:
    """What steps add to the areas, before `scaled`: float (4,), in the order of `PixelMetrics`.

    The third, F1-max, is the largest of these steps and not a sum.

    Args:
      steps: some of the curve's, highest score first.
      negatives: normal pixels of the whole curve.
      positives: defective pixels of the whole curve.
      limit: of AUPRO.
      true: defective pixels above these steps.
    """
    above, down_to = steps.above, steps.down_to
    found = true + np.cumsum(steps.positives)
    # Each defective pixel, or region, adds a curve that is 0 above its score and 1 below it,
    # linear over the normal pixels of the same score.
    roc = np.sum(steps.positives * (negatives - (above + down_to) / 2))
    precision = np.sum(steps.positives * (found / (found + down_to)))
    f1 = np.max(2 * found / (found + down_to + positives))
    end = limit * negatives
    clipped, share = clip_steps(steps, end)
    overlap = steps.weights * (np.maximum(end - down_to, 0) + share * (clipped - above) / 2)
    return np.array([roc, precision, f1, np.sum(overlap)])


def with_more_steps(sums: np.ndarray, more: np.ndarray) -> np.ndarray:
    """`step_sums` of two parts of a curve together: areas add up, the larger F1 is the largest."""
    together = sums + more
    together[2] = max(sums[2], more[2])
    return together


def clip_steps(steps: Steps, end: float) -> tuple[np.ndarray, np.ndarray]:
    """How far the steps go before so many normal pixels, and which share of each that is."""
    clipped = np.clip(end, steps.above, steps.down_to)
    width = steps.down_to - steps.above
    return clipped, np.where(width > 0, (clipped - steps.above) / np.maximum(width, 1), 1.0)


def scaled(
    sums: np.ndarray, negatives: int, positives: int, regions: int, limit: float
) -> PixelMetrics:
    """Metrics from the `step_sums` of a whole curve."""
    roc, precision, f1, overlap = map(float, sums)
    return PixelMetrics(
        auroc=roc / negatives / positives,
        auprc=precision / positives,
        f1_max=f1,
        aupro=overlap / (limit * negatives) / regions,
    )


def auroc(mask: np.ndarray, score_map: np.ndarray) -> float:
    """Area under the receiver operating characteristic of the pixels, in [0, 1].

    The chance that a defective pixel scores higher than a normal one, ties counting half: 0.5 for
    a constant map. Computed by `sklearn.metrics.roc_auc_score`. Of whole images: bool (N,), True
    for those with a defect, and their scores (N,), such as the maximum of each one's map.
    """
    from sklearn.metrics import roc_auc_score

    labels, scores = _flatten(mask, score_map)
    if _is_one_class(labels):
        return float("nan")
    return float(roc_auc_score(labels, scores))


def auprc(mask: np.ndarray, score_map: np.ndarray) -> float:
    """Area under the precision-recall curve of the pixels as average precision, in (0, 1].

    The step sum of precision over recall (`sklearn.metrics.average_precision_score`), not the
    trapezoid, which is larger. A constant map has the share of defective pixels.
    """
    from sklearn.metrics import average_precision_score

    labels, scores = _flatten(mask, score_map)
    if _is_one_class(labels):
        return float("nan")
    return float(average_precision_score(labels, scores))


def region_weights(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """1 / size of its region on each True pixel, 0 elsewhere, and the number of regions.

    Regions of the mask, bool (H, W), are 8-connected; the weights, float64 (H, W), sum to their
    number.
    """
    from scipy.ndimage import label

    mask = np.asarray(mask)
    if mask.ndim != 2:
        raise ValueError(f"mask has shape {mask.shape}; expected (H, W)")
    weights = np.zeros(mask.shape)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return weights, 0
    # Defects are small: labelling their bounding box alone is several times faster.
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    regions, count = label(mask[box], structure=np.ones((3, 3)))
    sizes = np.bincount(regions.ravel(), minlength=count + 1)
    weights[box] = np.append(0.0, 1.0 / sizes[1:])[regions]
    return weights, count


def finite_or_none(value: float) -> float | None:
    """A metric as tables have it: None where it does not exist, which is nan here."""
    return float(value) if math.isfinite(value) else None


def check_limit(limit: float) -> None:
    """Raises ValueError unless `limit` is a false positive rate in (0, 1]."""
    if not 0 < limit <= 1:
        raise ValueError(f"limit is {limit}; expected a false positive rate in (0, 1]")


def check_pair(mask: np.ndarray, score_map: np.ndarray) -> None:
    """Raises ValueError unless they are of one shape, bool and numbers without infinite ones."""
    if mask.shape != score_map.shape:
        raise ValueError(f"mask has shape {mask.shape}, score_map {score_map.shape}; expected one")
    if mask.dtype != bool:
        raise ValueError(f"mask has dtype {mask.dtype}; expected bool")
    bad = np.count_nonzero(np.isinf(score_map))
    if bad:
        raise ValueError(f"score_map has {bad} infinite values; expected finite scores, or NaN")


def _flatten(mask: np.ndarray, score_map: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels and scores of the pixels that take part."""
    mask, score_map = np.asarray(mask), np.asarray(score_map)
    check_pair(mask, score_map)
    known = ~np.isnan(score_map)
    return mask[known], score_map[known]


def _is_one_class(labels: np.ndarray) -> bool:
    """Whether there are no pixels of one kind to compare with those of the other."""
    return bool(labels.all() or not labels.any())
