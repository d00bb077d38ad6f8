"""Pixel metrics of one image: a float score map against a bool mask.

All take `mask`, bool (H, W), True on the defect, and `score_map`, float (H, W), high on the
defect; any monotonic change of the scores leaves the result as it is. An image whose mask has one
class only has no such metric: the result is nan. NaN or infinite scores are an error.
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


def _flatten(mask: np.ndarray, score_map: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mask, score_map = np.asarray(mask), np.asarray(score_map)
    if mask.shape != score_map.shape:
        raise ValueError(f"mask has shape {mask.shape}, score_map {score_map.shape}; expected one")
    if mask.dtype != bool:
        raise ValueError(f"mask has dtype {mask.dtype}; expected bool")
    bad = np.count_nonzero(~np.isfinite(score_map))
    if bad:
        raise ValueError(f"score_map has {bad} NaN or infinite values; expected finite scores")
    return mask.ravel(), score_map.ravel()
