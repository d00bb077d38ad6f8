import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import auc, precision_recall_curve, roc_curve

from ssdnet_jax.evaluation.metrics import auprc, auroc, pixel_metrics, region_weights


def f1_max(mask, scores):
    return pixel_metrics(mask, scores).f1_max


def aupro(mask, scores, *, limit=0.3):
    return pixel_metrics(mask, scores, limit=limit).aupro


def of_scikit_learn(mask, scores, limit=0.3):
    """All four; each region weighs one in the ROC of pixels weighted by 1 / size of the region."""
    labels, values = mask.ravel(), scores.ravel()
    precision, recall, _ = precision_recall_curve(labels, values)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-300)
    weights = np.where(labels, region_weights(mask)[0].ravel(), 1.0)
    rate, overlap, _ = roc_curve(labels, values, sample_weight=weights, drop_intermediate=False)
    inside = int(np.searchsorted(rate, limit, side="right"))
    end = np.interp(limit, rate, overlap)
    area = auc(np.append(rate[:inside], limit), np.append(overlap[:inside], end))
    return [auroc(mask, scores), auprc(mask, scores), f1.max(), area / limit]


def of_all(name):
    """One of the metrics that are computed together."""

    def metric(mask, scores):
        return getattr(pixel_metrics(mask, scores), name)

    metric.__name__ = f"pixel_metrics_{name}"
    return metric


METRICS = [auroc, auprc, *map(of_all, ("auroc", "auprc", "f1_max", "aupro"))]


@st.composite
def labelled_scores(draw):
    """Few levels, so that ties are common; at least one pixel of each class."""
    count = draw(st.integers(2, 14))
    levels = st.lists(st.integers(0, 5), min_size=count, max_size=count)
    labels = draw(st.lists(st.booleans(), min_size=count, max_size=count))
    labels[:2] = [True, False]
    return np.array(labels)[None], np.array(draw(levels), float)[None]


@settings(max_examples=80)
@given(labelled_scores())
def test_auroc_is_the_share_of_rightly_ordered_pairs(case):
    mask, scores = case
    difference = scores[mask][:, None] - scores[~mask][None]
    assert auroc(mask, scores) == pytest.approx(((difference > 0) + 0.5 * (difference == 0)).mean())


@settings(max_examples=80)
@given(labelled_scores())
def test_auprc_is_the_step_sum_and_f1_the_best_threshold(case):
    mask, scores = case
    total, previous, best = 0.0, 0.0, 0.0
    for threshold in sorted(set(scores.ravel()), reverse=True):
        chosen = scores >= threshold
        precision, recall = mask[chosen].mean(), (chosen & mask).sum() / mask.sum()
        total += (recall - previous) * precision
        previous = recall
        if precision + recall:
            best = max(best, 2 * precision * recall / (precision + recall))
    assert auprc(mask, scores) == pytest.approx(total)
    assert f1_max(mask, scores) == pytest.approx(best)


@settings(max_examples=150)
@given(labelled_scores(), st.sampled_from([0.05, 0.3, 1.0]))
def test_metrics_together_are_those_of_scikit_learn(case, limit):
    mask, scores = case
    found = pixel_metrics(mask, scores, limit=limit)
    assert found == pytest.approx(of_scikit_learn(mask, scores, limit), abs=1e-12)


@pytest.mark.parametrize("levels", [2, 50, None])
def test_metrics_together_are_those_of_scikit_learn_on_large_maps(levels):
    generator = np.random.default_rng(1)
    scores = np.exp(3 * generator.standard_normal((120, 150), np.float32)) - 1
    mask = np.zeros(scores.shape, bool)
    mask[10:30, 20:50], mask[70:73, 5:140], mask[100, 100] = True, True, True
    scores[mask] *= 2
    scores[5, :9], scores[5, 9:20] = 0.0, -0.0  # equal scores
    if levels:
        scores = np.floor(levels * np.tanh(scores))
    found = pixel_metrics(mask, scores)
    expected = of_scikit_learn(mask, scores)
    assert min(expected) > 0.05 and max(expected) < 0.9
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_values_by_hand():
    mask = np.array([[True, False], [True, False]])
    scores = np.array([[4.0, 3.0], [2.0, 1.0]])
    assert auroc(mask, scores) == pytest.approx(3 / 4)
    assert auprc(mask, scores) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert f1_max(mask, scores) == pytest.approx(2 * (2 / 3) * 1 / (2 / 3 + 1))


@pytest.mark.parametrize("metric", METRICS)
def test_a_perfect_map_scores_one(metric):
    mask = np.arange(100).reshape(10, 10) % 7 == 0
    assert metric(mask, mask.astype(np.float32)) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("metric", METRICS)
def test_monotonic_changes_of_the_scores_change_nothing(metric):
    generator = np.random.default_rng(0)
    scores = generator.random((20, 20))
    mask = scores + generator.random((20, 20)) > 1.2
    assert metric(mask, scores) == pytest.approx(metric(mask, np.exp(3 * scores) - 7))


def test_constant_maps_are_chance():
    mask = np.arange(100).reshape(10, 10) < 20
    constant = np.full((10, 10), 3.0)
    assert auroc(mask, constant) == 0.5
    assert auprc(mask, constant) == pytest.approx(0.2)
    assert f1_max(mask, constant) == pytest.approx(2 * 0.2 / 1.2)
    assert aupro(mask, constant) == pytest.approx(0.3 / 2)
    assert aupro(mask, constant, limit=1.0) == pytest.approx(1 / 2)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("value", [False, True])
@pytest.mark.filterwarnings("error")
def test_one_class_gives_nan_without_a_warning(metric, value):
    assert math.isnan(metric(np.full((4, 4), value), np.random.default_rng(0).random((4, 4))))


@pytest.mark.parametrize("metric", METRICS)
def test_what_cannot_be_scored_is_a_clear_error(metric):
    mask = np.eye(4, dtype=bool)
    scores = np.ones((4, 4))
    with pytest.raises(ValueError, match=r"\(4, 4\).*\(4, 3\)"):
        metric(mask, scores[:, :3])
    with pytest.raises(ValueError, match="bool"):
        metric(mask.astype(np.uint8) * 255, scores)
    scores[1, 2] = -np.inf
    scores[0, 0] = np.inf
    with pytest.raises(ValueError, match="2 infinite"):
        metric(mask, scores)
    with pytest.raises(ValueError, match="infinite"):
        metric(np.zeros((4, 4), bool), scores)


@pytest.mark.parametrize("metric", METRICS)
def test_pixels_without_a_score_are_as_if_they_were_not_there(metric):
    generator = np.random.default_rng(3)
    mask = np.zeros((9, 12), bool)
    mask[2:5, 3:8] = True
    scores = generator.normal(size=mask.shape) + mask
    known = np.ones(mask.shape, bool)
    known[:, -4:] = False  # cuts the region
    cut = metric(mask[:, :-4], scores[:, :-4])
    assert metric(mask, np.where(known, scores, np.nan)) == pytest.approx(cut)
    assert math.isnan(metric(mask, np.where(mask, np.nan, scores)))
    assert math.isnan(metric(mask, np.full(mask.shape, np.nan)))


def test_aupro_by_hand():
    """A region of one pixel and one of two; rates of false positives are thirds."""
    mask = np.array([[True, False, True, True, False, False]])
    scores = np.array([[5.0, 4.0, 3.0, 1.0, 2.0, 0.0]])
    assert aupro(mask, scores) == pytest.approx(1 / 2)
    assert aupro(mask, scores, limit=1 / 3) == pytest.approx(1 / 2)
    assert aupro(mask, scores, limit=0.5) == pytest.approx((1 / 3 * 1 / 2 + 1 / 6 * 3 / 4) / 0.5)
    assert aupro(mask, scores, limit=1.0) == pytest.approx((1 / 2 + 3 / 4 + 1) / 3)


def test_aupro_is_interpolated_where_the_limit_falls_between_two_scores():
    """At a false positive rate of 1/4 the overlap is half way to that of 1/2, which is 1."""
    mask = np.array([[True, False, False, False, False]])
    scores = np.array([[1.0, 1.0, 1.0, 0.0, 0.0]])
    assert aupro(mask, scores, limit=0.25) == pytest.approx((0 + 1 / 2) / 2)


def test_regions_touch_at_their_corners():
    mask = np.zeros((5, 6), bool)
    mask[[1, 2, 3], [1, 2, 1]] = True
    mask[4, 4] = True
    weights, count = region_weights(mask)
    assert count == 2
    np.testing.assert_allclose(weights[[1, 2, 3, 4], [1, 2, 1, 4]], [1 / 3, 1 / 3, 1 / 3, 1])
    assert np.count_nonzero(weights) == 4
    assert region_weights(np.zeros((2, 2), bool))[1] == 0


def test_aupro_counts_each_region_the_same_whatever_its_size():
    mask = np.zeros((20, 20), bool)
    mask[2:12, 2:12] = True
    mask[18, 18] = True
    found_large = np.where(mask & (np.arange(20) < 15), 1.0, 0.0)
    found_small = np.where(mask & (np.arange(20) >= 15), 1.0, 0.0)
    # Beside the region found at no false positive, the other is found along the diagonal.
    expected = (1 + 0.3 / 2) / 2
    assert aupro(mask, found_large) == pytest.approx(expected)
    assert aupro(mask, found_small) == pytest.approx(expected)


def literal_aupro(mask, scores, limit):
    """Every threshold, region by region; regions grown pixel by pixel."""
    regions, left = [], set(zip(*np.nonzero(mask), strict=True))
    while left:
        region = [left.pop()]
        for row, column in region:
            near = {(row + i, column + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} & left
            left -= near
            region.extend(near)
        regions.append(tuple(np.transpose(region)))
    area, x, y = 0.0, 0.0, 0.0
    for threshold in sorted(set(scores.ravel()), reverse=True):
        new_x = (scores[~mask] >= threshold).mean()
        new_y = np.mean([(scores[region] >= threshold).mean() for region in regions])
        if new_x > limit:
            new_x, new_y = limit, y + (new_y - y) * (limit - x) / (new_x - x)
            return (area + (new_x - x) * (y + new_y) / 2) / limit
        area += (new_x - x) * (y + new_y) / 2
        x, y = new_x, new_y
    return area / limit


@st.composite
def small_maps(draw):
    height, width = draw(st.integers(1, 6)), draw(st.integers(2, 6))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    mask = generator.random((height, width)) < draw(st.sampled_from([0.1, 0.3, 0.6]))
    mask.ravel()[:2] = [True, False]
    return mask, generator.integers(0, draw(st.integers(1, 12)), mask.shape).astype(float)


@settings(max_examples=100)
@given(small_maps(), st.sampled_from([0.05, 0.3, 0.5, 1.0]))
def test_aupro_is_the_literal_integral(case, limit):
    assert aupro(*case, limit=limit) == pytest.approx(literal_aupro(*case, limit), abs=1e-12)


@settings(max_examples=60)
@given(small_maps(), st.floats(0.1, 10), st.floats(-5, 5))
def test_aupro_depends_on_the_order_of_scores_alone(case, scale, shift):
    mask, scores = case
    assert aupro(mask, np.exp(scale * scores / 12) + shift) == pytest.approx(aupro(mask, scores))


@pytest.mark.parametrize("limit", [0.0, -1.0, 1.5, math.nan])
def test_aupro_refuses_a_limit_that_is_no_rate(limit):
    with pytest.raises(ValueError, match="limit"):
        aupro(np.eye(3, dtype=bool), np.ones((3, 3)), limit=limit)


def test_auroc_of_images_is_the_share_of_rightly_ordered_pairs_of_images():
    defective = np.array([True, False, True, False])
    assert auroc(defective, np.array([3.0, 2.0, 1.0, 1.0])) == pytest.approx(2.5 / 4)
    assert math.isnan(auroc(defective | True, np.arange(4.0)))
    assert math.isnan(auroc(np.empty(0, bool), np.empty(0)))
    with pytest.raises(ValueError, match="infinite"):
        auroc(defective, np.array([1.0, 2.0, np.inf, 0.0]))
