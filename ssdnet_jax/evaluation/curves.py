"""Curves of very many pixels from their steps: areas exactly, a few hundred points to draw."""

from collections.abc import Callable

import numpy as np

from ssdnet_jax.evaluation.metrics import (
    PixelMetrics,
    Steps,
    clip_steps,
    scaled,
    step_sums,
    with_more_steps,
)

Curve = tuple[np.ndarray, np.ndarray]

_BUCKETS = 254  # of a thinned curve; two points each and two ends make at most 510


class Curves:
    """Areas and thinned curves, from steps that come from the highest score to the lowest.

    The whole curve has so many normal and so many defective pixels, which fall into regions;
    AUPRO is integrated up to the false positive rate `limit`.
    """

    def __init__(self, negatives: int, positives: int, regions: int, limit: float):
        self._negatives, self._positives, self._regions = negatives, positives, regions
        self._limit = limit
        self._sums = np.zeros(4)  # see `step_sums`
        self._true = 0  # defective pixels so far
        self._overlap = 0.0  # sum over regions of the share so far
        self._roc = self._precision_recall = self._pro = np.empty((0, 2))

    def add(self, steps: Steps) -> None:
        """Adds steps, those of higher scores first."""
        above, down_to, positives, weights = steps
        end = self._limit * self._negatives
        sums = step_sums(
            steps,
            negatives=self._negatives,
            positives=self._positives,
            limit=self._limit,
            true=self._true,
        )
        self._sums = with_more_steps(self._sums, sums)
        clipped, share = clip_steps(steps, end)
        true = self._true + np.cumsum(positives)
        overlap = self._overlap + np.cumsum(weights)
        precision = true / (true + down_to)

        roc = _vertices(
            (above / self._negatives, (true - positives) / self._positives),
            (down_to / self._negatives, true / self._positives),
        )
        self._roc = _thin(self._roc, roc, lambda rate, recall: (rate + recall) / 2)
        points = np.stack([true / self._positives, precision], axis=1)
        self._precision_recall = _thin(self._precision_recall, points, lambda recall, _: recall)
        seen = above <= end
        pro = _vertices(
            (above / self._negatives, (overlap - weights) / self._regions),
            (clipped / self._negatives, (overlap - (1 - share) * weights) / self._regions),
        ).reshape(-1, 2, 2)[seen]
        self._pro = _thin(
            self._pro, pro.reshape(-1, 2), lambda rate, value: (rate / self._limit + value) / 2
        )
        self._true, self._overlap = int(true[-1]), float(overlap[-1])

    def areas(self) -> PixelMetrics:
        """The metrics of the whole curves."""
        return scaled(self._sums, self._negatives, self._positives, self._regions, self._limit)

    def thinned(self) -> tuple[Curve, Curve, Curve]:
        """ROC, precision-recall and PRO, with their ends."""
        chance = self._positives / (self._positives + self._negatives)
        reached = self._pro[-1, 1] if len(self._pro) else 0.0
        return (
            _with_ends((0.0, 0.0), self._roc, (1.0, 1.0)),
            _with_ends((0.0, 1.0), self._precision_recall, (1.0, chance)),
            _with_ends((0.0, 0.0), self._pro, (self._limit, reached)),
        )


def _with_ends(first: tuple, points: np.ndarray, last: tuple) -> Curve:
    x, y = np.concatenate([[first], points, [last]]).T
    return x.copy(), y.copy()


def _vertices(
    before: tuple[np.ndarray, np.ndarray], after: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    """(2 n, 2): the points before and after each of n steps in turn."""
    return np.stack([*before, *after], axis=1).reshape(-1, 2)


def _thin(
    kept: np.ndarray,
    points: np.ndarray,
    position: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> np.ndarray:
    """The first and the last point of each stretch of a curve; position in [0, 1] along it."""
    points = np.concatenate([kept, points])
    if not len(points):
        return points
    bucket = np.clip(position(*points.T) * _BUCKETS, 0, _BUCKETS - 1).astype(int)
    last = np.append(bucket[1:] != bucket[:-1], True)
    first = np.append(True, last[:-1])
    return points[first | last]
