"""Pixel metrics of many images together: exact, in bounded memory, without sorting all pixels.

A score only matters by its rank, and float32 has 2^32 of them, which an order-preserving integer
names. The first pass over the images counts pixels by the upper 16 bits of that integer. A
threshold between two scores of normal pixels moves the curves along a straight horizontal line,
so only bins with a defective pixel need detail. Later passes look at as many of those bins as fit
in memory, at full resolution: pixel by pixel where there are few, else as counts of all 65536
scores of the bin.

Everything then follows from the steps of the curves: at each score that a defective pixel has, how
many normal pixels score higher, how many the same, and how many defective pixels have it.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from ssdnet_jax.evaluation.curves import Curve, Curves
from ssdnet_jax.evaluation.metrics import (
    AUPRO_LIMIT,
    Steps,
    check_limit,
    check_pair,
    region_weights,
)

Pairs = Callable[[], Iterable[tuple[np.ndarray | None, np.ndarray]]]

_BINS = 2**16  # upper halves of a score's integer; a bin has as many scores
_NEGATIVE_BYTES = 4  # a normal pixel kept as it is: its integer, sorted in place
_POSITIVE_BYTES = 40  # a defective one: integer and weight, twice while sorting, and the order
_CHUNK = 2**17  # steps worked on at once; bounds memory, changes no value


@dataclasses.dataclass(frozen=True)
class PooledMetrics:
    """Metrics of the pixels of all images together; nan where there is one class only.

    A curve is x and y, float64 (n,) each, of at most 512 points of the exact curve in order: the
    first and the last in each of 254 stretches of it (of the sum of both axes, so that straight
    lines are within 1 / 127 of either full axis; of recall for precision and recall). Without
    both classes it has no points.
    """

    auroc: float  # area under the receiver operating characteristic, in [0, 1]
    auprc: float  # average precision, in [0, 1]
    f1_max: float  # largest F1 of any threshold, in [0, 1]
    aupro: float  # area under the per-region overlap curve up to the limit, over it, in [0, 1];
    # regions of all images weigh the same
    roc: Curve  # false positive rate and true positive rate, from (0, 0) to (1, 1)
    precision_recall: Curve  # recall and precision, from (0, 1) to all pixels chosen
    pro: Curve  # false positive rate and mean per-region overlap, from (0, 0) to the limit


def pooled_metrics(
    pairs: Pairs, *, limit: float = AUPRO_LIMIT, memory: int = 512 * 2**20
) -> PooledMetrics:
    """AUROC, AUPRC, F1-max and AUPRO of the pixels of all images together, exactly.

    Equal to scikit-learn's `roc_auc_score`, `average_precision_score` and best F1 of
    `precision_recall_curve` on all scores as float32 in one array, up to rounding of the sums, and
    to MVTec AD's evaluation code for AUPRO. Scores of other types are rounded to float32 first.

    The images are read one at a time, 1 + W times: once to count, then once for each of W windows
    of scores. W is 1 while 4 bytes for each normal and 40 for each defective pixel fit in
    `memory`, counted over the bins of scores (128 to each power of two) that hold a defective
    pixel. Of more images each such bin takes up to 1 MiB (1.5 MiB from 2^32 pixels in one bin), so
    W is at most the MiB of defective bins over those of `memory`: with 512 MiB one window for every
    four powers of two that defective scores span, however many the images. W is 0 if there is one
    class only.

    Args:
      pairs: called once a pass; gives the same (mask, score_map) of all images each time. mask:
        bool (H, W), True on the defect, or None for an image without; score_map: float
        (H, W), high on the defect, NaN where a pixel takes no part. Sizes may differ.
      limit: false positive rate up to which AUPRO is integrated, in (0, 1].
      memory: bytes for counts, at least one bin of scores. Some 20 MB and what one image takes
        come on top.

    Raises:
      ValueError: a mask and a map that do not fit, infinite scores (also beyond the range of
        float32), a limit outside (0, 1], or other images in a later pass.
    """
    check_limit(limit)
    counts = _count(pairs)
    if not counts.positives.any() or not counts.negatives.any():
        none, nan = (np.empty(0), np.empty(0)), float("nan")
        return PooledMetrics(nan, nan, nan, nan, none, none, none)
    curves = Curves(
        int(counts.negatives.sum()), int(counts.positives.sum()), counts.regions, float(limit)
    )
    for bins in _windows(counts, memory):
        for steps in _steps(pairs, bins, counts):
            curves.add(steps)
    return PooledMetrics(*curves.areas(), *curves.thinned())


# One read of the images


@dataclasses.dataclass(frozen=True)
class _Pixels:
    """The pixels of an image that take part."""

    integers: np.ndarray  # uint32 (n,), of their scores
    defective: np.ndarray  # bool (n,)
    mask: np.ndarray  # bool (H, W), the defective ones among them
    known: np.ndarray  # bool (H, W), which they are

    def regions(self) -> tuple[np.ndarray, int]:
        """`region_weights`, float64 (n,), and the number of regions."""
        weights, count = region_weights(self.mask)
        return weights[self.known], count


def _read(pairs: Pairs) -> Iterator[_Pixels]:
    for number, (mask, score_map) in enumerate(pairs()):
        with np.errstate(over="ignore"):  # becomes infinite, which the check reports
            score_map = np.ascontiguousarray(score_map, np.float32)
        mask = np.zeros(score_map.shape, bool) if mask is None else np.asarray(mask)
        try:
            check_pair(mask, score_map)
            if mask.ndim != 2:
                raise ValueError(f"score_map has shape {score_map.shape}; expected (H, W)")
        except ValueError as error:
            raise ValueError(f"pair {number}: {error}") from None
        known = ~np.isnan(score_map)
        integers = _descending_integers(score_map[known])
        yield _Pixels(integers, mask[known], mask & known, known)


def _descending_integers(scores: np.ndarray) -> np.ndarray:
    """uint32 that is smaller the higher the float32 score, and equal for equal scores."""
    bits = scores.view(np.uint32)
    negative_zeros = bits == 0x8000_0000
    if negative_zeros.any():
        bits = np.where(negative_zeros, np.uint32(0), bits)  # equal to 0.0
    # Read as integers, positive floats rise with the score and negative ones fall.
    negative = bits.view(np.int32) >> 31  # all bits of it
    return bits ^ (~negative & 0x7FFF_FFFF).view(np.uint32)


@dataclasses.dataclass
class _Counts:
    """Normal and defective pixels by bin, highest scores first, and what else one pass tells."""

    negatives: np.ndarray
    positives: np.ndarray
    regions: int = 0


def _count(pairs: Pairs) -> _Counts:
    counts = _Counts(np.zeros(_BINS, np.int64), np.zeros(_BINS, np.int64))
    for pixels in _read(pairs):
        bins = (pixels.integers >> 16).astype(np.intp)
        counts.negatives += np.bincount(bins, minlength=_BINS)
        if pixels.defective.any():
            np.add.at(counts.positives, bins[pixels.defective], 1)
            counts.regions += pixels.regions()[1]
    counts.negatives -= counts.positives
    return counts


# Windows of scores at full resolution


def _windows(counts: _Counts, memory: int) -> Iterator[np.ndarray]:
    """Bins with a defective pixel, highest first, as many together as fit in memory."""
    bins = np.flatnonzero(counts.positives)
    sparse_bytes = np.cumsum(_sparse_bytes(bins, counts))
    start = 0
    while start < len(bins):
        used = sparse_bytes[start - 1] if start else 0
        stop = max(
            start + 1,
            start + memory // (_dense_bytes(bins, counts) // len(bins)),
            int(np.searchsorted(sparse_bytes, used + memory, side="right")),
        )
        yield bins[start:stop]
        start = stop


def _sparse_bytes(bins: np.ndarray, counts: _Counts) -> np.ndarray:
    return _NEGATIVE_BYTES * counts.negatives[bins] + _POSITIVE_BYTES * counts.positives[bins]


def _dense_bytes(bins: np.ndarray, counts: _Counts) -> int:
    return len(bins) * _BINS * (2 * _count_type(counts).itemsize + np.dtype(float).itemsize)


def _count_type(counts: _Counts) -> np.dtype:
    """The smallest that holds the pixels of any bin."""
    return np.min_scalar_type(int((counts.negatives + counts.positives).max()))


def _steps(pairs: Pairs, bins: np.ndarray, counts: _Counts) -> Iterator[Steps]:
    """Reads the images once and gives the steps of the curves in these bins, highest first."""
    if _sparse_bytes(bins, counts).sum() <= _dense_bytes(bins, counts):
        return _sparse_steps(pairs, bins, counts)
    return _dense_steps(pairs, bins, counts)


def _pixels_in(pairs: Pairs, bins: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
    """For each image: integers of normal and of defective pixels in the bins, and the weights."""
    wanted = np.zeros(_BINS, bool)
    wanted[bins] = True
    first, last = np.uint32(bins[0] << 16), np.uint32((bins[-1] << 16) + _BINS - 1)
    gaps = bins[-1] - bins[0] >= len(bins)
    for pixels in _read(pairs):
        integers = pixels.integers
        inside = (integers >= first) & (integers <= last)
        negatives = integers[inside & ~pixels.defective]
        if gaps:
            negatives = negatives[wanted[negatives >> 16]]
        # No gap holds a defective pixel.
        positives = np.flatnonzero(inside & pixels.defective)
        weights = pixels.regions()[0][positives] if positives.size else np.empty(0)
        yield negatives, integers[positives], weights


def _sparse_steps(pairs: Pairs, bins: np.ndarray, counts: _Counts) -> Iterator[Steps]:
    """Keeps the pixels of the bins and sorts them."""
    negatives = np.empty(counts.negatives[bins].sum(), np.uint32)
    positives = np.empty(counts.positives[bins].sum(), np.uint32)
    weights = np.empty(len(positives))
    n = p = 0
    for image_negatives, image_positives, image_weights in _pixels_in(pairs, bins):
        n_end, p_end = n + len(image_negatives), p + len(image_positives)
        _check_same(n_end <= len(negatives) and p_end <= len(positives))
        negatives[n:n_end] = image_negatives
        positives[p:p_end] = image_positives
        weights[p:p_end] = image_weights
        n, p = n_end, p_end
    _check_same(n == len(negatives) and p == len(positives))

    negatives.sort()
    order = np.argsort(positives)
    positives, weights = positives[order], weights[order]
    del order
    # Normal pixels above a bin, less those of its window, which `negatives` counts.
    above = np.zeros(_BINS, np.int64)
    above[bins] = _exclusive_sum(counts.negatives)[bins] - _exclusive_sum(counts.negatives[bins])
    starts = np.flatnonzero(np.append(True, positives[1:] != positives[:-1]))
    for chunk in range(0, len(starts), _CHUNK):
        first = starts[chunk : chunk + _CHUNK]
        end = starts[chunk + _CHUNK] if chunk + _CHUNK < len(starts) else len(positives)
        scores = positives[first]
        offset = above[scores >> 16]
        yield Steps(
            offset + np.searchsorted(negatives, scores, side="left"),
            offset + np.searchsorted(negatives, scores, side="right"),
            np.diff(first, append=end),
            np.add.reduceat(weights[first[0] : end], first - first[0]),
        )


def _dense_steps(pairs: Pairs, bins: np.ndarray, counts: _Counts) -> Iterator[Steps]:
    """Counts the pixels of each score in the bins."""
    kind = _count_type(counts)
    size = len(bins) * _BINS
    negatives, positives, weights = np.zeros(size, kind), np.zeros(size, kind), np.zeros(size)
    rows = np.zeros(_BINS, np.int64)
    rows[bins] = np.arange(len(bins))

    def cells(integers: np.ndarray) -> np.ndarray:
        return (rows[integers >> 16] << 16) | (integers & (_BINS - 1))

    for image_negatives, image_positives, image_weights in _pixels_in(pairs, bins):
        np.add.at(negatives, cells(image_negatives), kind.type(1))
        if image_positives.size:
            cell = cells(image_positives)
            np.add.at(positives, cell, kind.type(1))
            np.add.at(weights, cell, image_weights)

    above = _exclusive_sum(counts.negatives)[bins]
    for row, number in enumerate(bins):
        chosen = slice(row * _BINS, (row + 1) * _BINS)
        down_to = above[row] + np.cumsum(negatives[chosen], dtype=np.int64)
        _check_same(down_to[-1] - above[row] == counts.negatives[number])
        _check_same(positives[chosen].sum(dtype=np.int64) == counts.positives[number])
        cell = np.flatnonzero(positives[chosen])
        yield Steps(
            down_to[cell] - negatives[chosen][cell],
            down_to[cell],
            positives[chosen][cell].astype(np.int64),
            weights[chosen][cell],
        )


def _exclusive_sum(values: np.ndarray) -> np.ndarray:
    return np.cumsum(values) - values


def _check_same(same: bool) -> None:
    if not same:
        raise ValueError(
            "pairs() gave other images in a later pass; expected a function that starts anew and "
            "gives the same each time it is called"
        )
