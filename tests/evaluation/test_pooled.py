import dataclasses
import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    average_precision_score,
    precision_recall_curve,
    roc_auc_score,
    roc_curve,
)

from ssdnet_jax.evaluation.metrics import pixel_metrics
from ssdnet_jax.evaluation.pooled import pooled_metrics

METRICS = ("auroc", "auprc", "f1_max", "aupro")


class Pairs:
    """Gives the same pairs each time, and counts how often."""

    def __init__(self, pairs):
        self.pairs = list(pairs)
        self.passes = 0

    def __call__(self):
        self.passes += 1
        return iter(self.pairs)


def joined(pairs):
    masks = [np.zeros(s.shape, bool) if m is None else m for m, s in pairs]
    scores = [np.asarray(s, np.float32).ravel() for _, s in pairs]
    return np.concatenate([m.ravel() for m in masks]), np.concatenate(scores)


def reference(pairs, limit=0.3):
    """All pixels in one array, by scikit-learn; AUPRO by going through the thresholds."""
    from skimage.measure import label

    labels, scores = joined(pairs)
    precision, recall, _ = precision_recall_curve(labels, scores)
    regions = []
    for mask, score_map in pairs:
        if mask is not None:
            numbers = label(mask, connectivity=2)
            regions += [
                np.asarray(score_map, np.float32)[numbers == i] for i in range(1, numbers.max() + 1)
            ]
    x, y = [0.0], [0.0]
    normal = np.sort(scores[~labels])
    for threshold in np.unique(scores)[::-1]:
        x.append(1 - np.searchsorted(normal, threshold) / len(normal))
        y.append(np.mean([(region >= threshold).mean() for region in regions]))
    x, y = np.array(x), np.array(y)
    x, y = (
        np.append(x[x <= limit], limit),
        np.append(y[x <= limit], np.interp(limit, x, y)),
    )
    return (
        roc_auc_score(labels, scores),
        average_precision_score(labels, scores),
        np.max(2 * precision * recall / np.maximum(precision + recall, 1e-300)),
        np.trapezoid(y, x) / limit,
    )


def values(result):
    return [getattr(result, name) for name in METRICS]


def assert_equals_reference(pairs, *, memory=2**29, limit=0.3):
    result = pooled_metrics(Pairs(pairs), limit=limit, memory=memory)
    np.testing.assert_allclose(values(result), reference(pairs, limit), rtol=0, atol=1e-12)
    return result


def scenes(count, size=24, seed=0):
    """Smooth-tailed scores over several powers of two, raised on rectangles; every third good."""
    generator = np.random.default_rng(seed)
    for number in range(count):
        scores = np.exp(generator.normal(0, 1.5, (size, size))).astype(np.float32)
        if number % 3 == 2:
            yield None, scores
            continue
        mask = np.zeros(scores.shape, bool)
        for _ in range(2):
            row, column = generator.integers(0, size - 4, 2)
            mask[row : row + 3, column : column + generator.integers(1, 5)] = True
        scores[mask] *= 3
        yield mask, scores


def test_pixels_of_all_images_are_ranked_together():
    """By hand: 2 defective and 3 normal pixels in two images of different shapes."""
    pairs = [
        (np.array([[True, False]]), np.array([[4.0, 3.0]])),
        (np.array([[False], [True], [False]]), np.array([[1.0], [2.0], [2.0]])),
    ]
    result = pooled_metrics(Pairs(pairs))
    assert result.auroc == pytest.approx((3 + 1.5) / 6)
    assert result.auprc == pytest.approx(1 / 2 * 1 + 1 / 2 * 2 / 4)
    assert result.f1_max == pytest.approx(2 / 3)
    assert result.aupro == pytest.approx(1 / 2)
    assert pooled_metrics(Pairs(pairs), limit=0.5).aupro == pytest.approx(
        (1 / 3 * 1 / 2 + 1 / 6 * (1 / 2 + 3 / 4) / 2) / 0.5
    )
    np.testing.assert_allclose(result.roc[0], [0, 0, 0, 1 / 3, 2 / 3, 1])
    np.testing.assert_allclose(result.roc[1], [0, 0, 1 / 2, 1 / 2, 1, 1])
    np.testing.assert_allclose(result.precision_recall[0], [0, 1 / 2, 1, 1])
    np.testing.assert_allclose(result.precision_recall[1], [1, 1, 1 / 2, 2 / 5])


def test_many_images_equal_scikit_learn_on_all_pixels():
    assert_equals_reference(list(scenes(9, size=16)))


@pytest.mark.parametrize("limit", [0.01, 0.3, 1.0])
def test_one_image_equals_its_own_metrics(limit):
    (mask, scores), *_ = scenes(1)
    result = assert_equals_reference([(mask, scores)], limit=limit)
    assert result.aupro == pytest.approx(pixel_metrics(mask, scores, limit=limit).aupro, abs=1e-12)


EDGES = [
    0.0,
    -0.0,
    1e-45,
    -1e-45,
    1e-38,
    3.4e38,
    -3.4e38,
    1.0,
    np.nextafter(1, 2, dtype="f4"),
    -1.0,
]


@st.composite
def any_pairs(draw):
    """Pairs of any finite float32 values, with many ties and with neighbours one step apart."""
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    pool = draw(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=8))
    pool = np.array(pool + EDGES[: draw(st.integers(1, len(EDGES)))], np.float32)
    pairs = []
    for _ in range(draw(st.integers(1, 4))):
        shape = tuple(generator.integers(1, 9, 2))
        mask = generator.random(shape) < draw(st.sampled_from([0.05, 0.3, 0.8]))
        pairs.append((mask, generator.choice(pool, shape)))
    pairs.append((np.array([[True, False]]), generator.choice(pool, (1, 2))))
    return pairs


@settings(max_examples=60)
@given(any_pairs(), st.sampled_from([1, 200, 2**29]), st.sampled_from([0.05, 0.3, 1.0]))
def test_any_finite_scores_are_exact_in_any_memory(pairs, memory, limit):
    with np.errstate(over="ignore", invalid="ignore"):  # scikit-learn adds scores up
        assert_equals_reference(pairs, memory=memory, limit=limit)


def test_both_zeros_tie_and_neighbours_do_not():
    mask = np.array([[True, False]])
    assert pooled_metrics(Pairs([(mask, np.array([[0.0, -0.0]]))])).auroc == 0.5
    assert pooled_metrics(Pairs([(mask, np.array([[-0.0, 0.0]]))])).auroc == 0.5
    above = np.nextafter(np.float32(1), np.float32(2))
    assert pooled_metrics(Pairs([(mask, np.array([[above, 1]]))])).auroc == 1.0
    assert pooled_metrics(Pairs([(mask, np.array([[1e-45, -1e-45]]))])).auroc == 1.0


def test_constant_maps_are_chance():
    mask = np.arange(100).reshape(10, 10) < 20
    result = pooled_metrics(Pairs([(mask, np.full((10, 10), 3.0))]))
    np.testing.assert_allclose(values(result), [0.5, 0.2, 2 * 0.2 / 1.2, 0.15])
    np.testing.assert_allclose(np.unique(result.roc, axis=1), [[0, 1], [0, 1]])
    np.testing.assert_allclose(np.unique(result.pro, axis=1), [[0, 0.3], [0, 0.3]])


@pytest.mark.parametrize("mask", [None, np.zeros((4, 4), bool), np.ones((4, 4), bool)])
@pytest.mark.filterwarnings("error")
def test_one_class_gives_nan_in_one_pass(mask):
    pairs = Pairs([(mask, np.arange(16.0).reshape(4, 4))] * 3)
    result = pooled_metrics(pairs)
    assert all(math.isnan(value) for value in values(result))
    assert pairs.passes == 1
    assert result.roc[0].size == result.precision_recall[0].size == result.pro[0].size == 0
    assert math.isnan(pooled_metrics(Pairs([])).auroc)


def test_less_memory_takes_more_passes_to_the_same_result():
    pairs = list(scenes(9))
    whole, narrow = Pairs(pairs), Pairs(pairs)
    expected = pooled_metrics(whole)
    result = pooled_metrics(narrow, memory=100)
    assert whole.passes == 2
    assert narrow.passes > 20
    np.testing.assert_allclose(values(result), values(expected), rtol=0, atol=1e-13)


@pytest.mark.parametrize(("mebibytes", "passes"), [(1, 4), (2, 3), (8, 2)])
def test_bins_of_many_pixels_are_counted_exactly(mebibytes, passes):
    """Two bins of more pixels than their 65536 scores, and above them three of few pixels."""
    generator = np.random.default_rng(0)
    pairs = []
    for _ in range(3):
        scores = 1 + generator.random((300, 300), np.float32) / 64
        scores[:2] = generator.choice(np.array([2, 2.5, 3], np.float32), (2, 300))
        mask = np.zeros(scores.shape, bool)
        mask[1:4, 5:60] = mask[10:200, 50:200] = mask[210:280, 20:290] = True
        scores[mask & (generator.random(mask.shape) < 0.2)] += np.float32(1 / 256)
        pairs.append((mask, scores))
    calls = Pairs(pairs)
    result = pooled_metrics(calls, memory=mebibytes * 2**20)
    assert calls.passes == passes
    labels, scores = joined(pairs)
    precision, recall, _ = precision_recall_curve(labels, scores)
    expected = [
        roc_auc_score(labels, scores),
        average_precision_score(labels, scores),
        np.max(2 * precision * recall / (precision + recall)),
    ]
    np.testing.assert_allclose(values(result)[:3], expected, rtol=0, atol=1e-12)
    # The images side by side, no two regions touching, are one image with the same regions.
    side_by_side = [np.concatenate(arrays, axis=1) for arrays in zip(*pairs, strict=True)]
    assert result.aupro == pytest.approx(pixel_metrics(*side_by_side).aupro, abs=1e-12)


@pytest.mark.parametrize(("mebibytes", "powers"), [(4, 6), (16, 6), (4, 1 / 16)])
def test_memory_stays_within_the_bound_and_a_fixed_rest(mebibytes, powers):
    """24 MiB of scores, spread over many bins or crowded in few."""
    image_bytes = 512 * 512 * 4

    def pairs():
        for seed in range(24):
            generator = np.random.default_rng(seed)
            mask = np.zeros((512, 512), bool)
            mask[100:150, 100:200] = True
            yield mask, np.exp2(powers * generator.random((512, 512), np.float32)) * (1 + mask / 64)

    pooled_metrics(lambda: list(scenes(2)))  # imports
    tracemalloc.start()
    pooled_metrics(pairs, memory=mebibytes * 2**20)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < mebibytes * 2**20 + 20 * 2**20 + 4 * image_bytes


def test_curves_are_thinned_but_close_to_all_points():
    pairs = list(scenes(60, size=40))
    result = pooled_metrics(Pairs(pairs), memory=50_000)
    labels, scores = joined(pairs)
    for x, y in (result.roc, result.precision_recall, result.pro):
        assert x.shape == y.shape
        assert 200 < len(x) <= 512
        assert (np.diff(x) >= 0).all()
    rate, recall, _ = roc_curve(labels, scores)
    assert np.abs(np.interp(rate, *result.roc) - recall).max() < 0.02
    np.testing.assert_allclose(np.trapezoid(result.roc[1], result.roc[0]), result.auroc, atol=1e-4)
    assert (result.roc[0][0], result.roc[1][0]) == (0, 0)
    assert (result.roc[0][-1], result.roc[1][-1]) == (1, 1)
    x, y = result.pro
    assert (x[0], y[0], x[-1]) == (0, 0, 0.3)
    assert np.trapezoid(y, x) / 0.3 == pytest.approx(result.aupro, abs=2e-4)
    recall, precision = result.precision_recall
    assert (recall[0], precision[0], recall[-1]) == (0, 1, 1)
    assert precision[-1] == pytest.approx(labels.mean())
    area = np.sum(np.diff(recall) * precision[1:])
    assert area == pytest.approx(result.auprc, abs=5e-3)


def test_points_of_the_curves_are_points_of_the_exact_curves():
    pairs = list(scenes(6))
    result = pooled_metrics(Pairs(pairs))
    labels, scores = joined(pairs)
    exact = roc_curve(labels, scores, drop_intermediate=False)[:2]
    assert {tuple(p) for p in np.round(np.transpose(result.roc), 9)} <= {
        tuple(p) for p in np.round(np.transpose(exact), 9)
    }
    precision, recall, _ = precision_recall_curve(labels, scores)
    assert {tuple(p) for p in np.round(np.transpose(result.precision_recall), 9)} <= {
        tuple(p) for p in np.round(np.transpose([recall, precision]), 9)
    }


def test_maps_of_float64_are_compared_as_float32():
    mask = np.array([[True, False]])
    assert pooled_metrics(Pairs([(mask, np.array([[1 + 1e-12, 1.0]]))])).auroc == 0.5


def test_what_cannot_be_scored_is_a_clear_error():
    mask, scores = np.eye(4, dtype=bool), np.ones((4, 4))
    good = (mask, scores)

    def fails(match, *pairs, **options):
        with pytest.raises(ValueError, match=match):
            pooled_metrics(Pairs(pairs), **options)

    fails("pair 1: score_map has 1 infinite", good, (mask, np.where(mask & mask[0], np.inf, 1)))
    fails("pair 0: score_map has 4 infinite", (mask, np.where(mask, 1e39, 1.0)))
    fails("pair 0: score_map has 16 infinite", (None, np.full((4, 4), -np.inf)))
    fails(r"pair 1: .*\(4, 4\).*\(4, 3\)", good, (mask, scores[:, :3]))
    fails("pair 0: .*bool", (mask.astype(np.uint8), scores))
    fails(r"pair 0: .*\(H, W\)", (mask[0], scores[0]))
    fails("limit", good, limit=0.0)


def test_other_images_in_a_later_pass_are_an_error():
    once = iter(list(scenes(3)))
    with pytest.raises(ValueError, match="other images"):
        pooled_metrics(lambda: once)
    more = iter([scenes(3), scenes(6)])
    with pytest.raises(ValueError, match="other images"):
        pooled_metrics(lambda: next(more))
    generator = np.random.default_rng(0)
    mask = np.arange(600**2).reshape(600, 600) % 3 == 0
    with pytest.raises(ValueError, match="other images"):
        pooled_metrics(lambda: [(mask, 1 + generator.random((600, 600)) / 100)], memory=2**20)


def test_errors_of_the_images_themselves_come_through():
    def pairs():
        yield from scenes(1)
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        pooled_metrics(pairs)


def test_result_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        pooled_metrics(Pairs(scenes(1))).auroc = 1.0


@pytest.mark.parametrize("memory", [512 * 2**20, 2**21])
def test_pixels_without_a_score_are_as_if_they_were_not_there(memory):
    pairs = list(scenes(3))
    cut = [(None if m is None else m[:, :-3], s[:, :-3]) for m, s in pairs]
    with_nan = [(m, np.concatenate([s[:, :-3], s[:, -3:] * np.nan], axis=1)) for m, s in pairs]
    expected = pooled_metrics(Pairs(cut), memory=memory)
    found = pooled_metrics(Pairs(with_nan), memory=memory)
    assert values(found) == pytest.approx(values(expected))
    np.testing.assert_array_equal(found.pro, expected.pro)
