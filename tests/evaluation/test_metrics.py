import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssdnet_jax.evaluation.metrics import auprc, auroc, f1_max

METRICS = [auroc, auprc, f1_max]


@st.composite
def labelled_scores(draw):
    """Few levels, so that ties are common; at least one pixel of each class."""
    count = draw(st.integers(2, 14))
    levels = st.lists(st.integers(0, 5), min_size=count, max_size=count)
    labels = draw(st.lists(st.booleans(), min_size=count, max_size=count))
    labels[:2] = [True, False]
    return np.array(labels)[None], np.array(draw(levels), float)[None]


@settings(max_examples=80, deadline=None)
@given(labelled_scores())
def test_auroc_is_the_share_of_rightly_ordered_pairs(case):
    mask, scores = case
    difference = scores[mask][:, None] - scores[~mask][None]
    assert auroc(mask, scores) == pytest.approx(((difference > 0) + 0.5 * (difference == 0)).mean())


@settings(max_examples=80, deadline=None)
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


def test_values_by_hand():
    mask = np.array([[True, False], [True, False]])
    scores = np.array([[4.0, 3.0], [2.0, 1.0]])
    assert auroc(mask, scores) == pytest.approx(3 / 4)
    assert auprc(mask, scores) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert f1_max(mask, scores) == pytest.approx(2 * (2 / 3) * 1 / (2 / 3 + 1))


@pytest.mark.parametrize("metric", METRICS)
def test_a_perfect_map_scores_one(metric):
    mask = np.arange(100).reshape(10, 10) % 7 == 0
    assert metric(mask, mask.astype(np.float32)) == 1.0


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
    scores[1, 2] = np.nan
    scores[0, 0] = np.inf
    with pytest.raises(ValueError, match="2 NaN or infinite"):
        metric(mask, scores)
    with pytest.raises(ValueError, match="NaN"):
        metric(np.zeros((4, 4), bool), scores)
