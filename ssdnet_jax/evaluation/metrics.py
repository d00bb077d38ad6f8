"""Metrics of one image: a float score map against a bool mask; and of whole images.

All but `image_auroc` take `mask`, bool (H, W), True on the defect, and `score_map`, float (H, W),
high on the defect; any monotonic change of the scores leaves the result as it is. An image whose
mask has one class only has no such metric: the result is nan. NaN or infinite scores are an error.
`ssdnet_jax.evaluation.pooled` has the same metrics for the pixels of many images together.
"""

import numpy as np


def auroc(mask: np.ndarray, score_map: np.ndarray) -> float:
    """Area under the receiver operating characteristic of the pixels, in [0, 1].

    The chance that a defective pixel scores higher than a normal one, ties counting half: 0.5 for
    a constant map. Computed by `sklearn.metrics.roc_auc_score`.
    """
    from sklearn.metrics import roc_auc_score

    labels, scores = _flatten(mask, score_map)
    if labels.all() or not labels.any():
        return float("nan")
    return float(roc_auc_score(labels, scores))


def auprc(mask: np.ndarray, score_map: np.ndarray) -> float:
    """Area under the precision-recall curve of the pixels as average precision, in (0, 1].

    The step sum of precision over recall (`sklearn.metrics.average_precision_score`), not the
    trapezoid, which is larger. A constant map has the share of defective pixels.
    """
    from sklearn.metrics import average_precision_score

    labels, scores = _flatten(mask, score_map)
    if labels.all() or not labels.any():
        return float("nan")
    return float(average_precision_score(labels, scores))


def f1_max(mask: np.ndarray, score_map: np.ndarray) -> float:
    """Largest F1 that any threshold on the scores reaches, in (0, 1].

    F1 = 2 precision recall / (precision + recall), from the points of
    `sklearn.metrics.precision_recall_curve`.
    """
    from sklearn.metrics import precision_recall_curve

    labels, scores = _flatten(mask, score_map)
    if labels.all() or not labels.any():
        return float("nan")
    precision, recall, _ = precision_recall_curve(labels, scores)
    total = precision + recall
    return float(np.max(2 * precision * recall / np.where(total > 0, total, 1.0)))


def aupro(mask: np.ndarray, score_map: np.ndarray, *, limit: float = 0.3) -> float:
    """Area under the per-region overlap curve up to a false positive rate, over it, in [0, 1].

    At each threshold, the share of a region's pixels that score at least as high, averaged over
    the regions (8-connected components of the mask), against the share of normal pixels that do:
    small defects count as much as large ones. Every score is a threshold; trapezoids, the curve
    interpolated at the limit. As in MVTec AD's evaluation code (Bergmann et al., IJCV 2021). A
    constant map has `limit` / 2.

    Args:
        mask: as above.
        score_map: as above.
        limit: false positive rate at which the integral ends, in (0, 1].

    Raises:
        ValueError: a limit outside (0, 1], or arrays that do not have two axes.
    """
    from sklearn.metrics import auc, roc_curve

    check_limit(limit)
    labels, scores = _flatten(mask, score_map)
    weights, _ = region_weights(mask)
    if labels.all() or not labels.any():
        return float("nan")
    # Each region weighs one: the curve is the ROC of pixels weighted by 1 / size of the region.
    rate, overlap, _ = roc_curve(
        labels,
        scores,
        sample_weight=np.where(labels, weights.ravel(), 1.0),
        drop_intermediate=False,
    )
    inside = int(np.searchsorted(rate, limit, side="right"))
    rate, overlap = (
        np.append(rate[:inside], limit),
        np.append(overlap[:inside], np.interp(limit, rate, overlap)),
    )
    return float(auc(rate, overlap) / limit)


def image_auroc(is_defective: np.ndarray, scores: np.ndarray) -> float:
    """Area under the receiver operating characteristic of whole images, in [0, 1].

    The chance that a defective image scores higher than a good one, ties counting half
    (`sklearn.metrics.roc_auc_score`); nan without images of both kinds.

    Args:
        is_defective: bool (N,), True for images with a defect.
        scores: finite float (N,), one number an image, such as the maximum of its map.
    """
    return auroc(is_defective, scores)


def region_weights(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """1 / size of its region on each True pixel, 0 elsewhere, and the number of regions.

    Args:
        mask: bool (H, W); its regions are 8-connected.

    Returns:
        float64 (H, W) that sums to the number of regions, and that number.
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


def check_limit(limit: float) -> None:
    """Raises ValueError unless `limit` is a false positive rate in (0, 1]."""
    if not 0 < limit <= 1:
        raise ValueError(f"limit is {limit}; expected a false positive rate in (0, 1]")


def check_pair(mask: np.ndarray, score_map: np.ndarray) -> None:
    """Raises ValueError unless the two are one bool and one finite array of the same shape."""
    if mask.shape != score_map.shape:
        raise ValueError(f"mask has shape {mask.shape}, score_map {score_map.shape}; expected one")
    if mask.dtype != bool:
        raise ValueError(f"mask has dtype {mask.dtype}; expected bool")
    bad = np.count_nonzero(~np.isfinite(score_map))
    if bad:
        raise ValueError(f"score_map has {bad} NaN or infinite values; expected finite scores")


def _flatten(mask: np.ndarray, score_map: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mask, score_map = np.asarray(mask), np.asarray(score_map)
    check_pair(mask, score_map)
    return mask.ravel(), score_map.ravel()
