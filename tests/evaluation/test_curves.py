import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from ssdnet_jax.evaluation.curves import Curves
from ssdnet_jax.evaluation.metrics import Steps

LIMIT = 0.3


def scores_and_labels(seed, count=400, levels=60):
    """Rounded scores, so that some are equal, and labels that they tell something about."""
    generator = np.random.default_rng(seed)
    labels = generator.random(count) < 0.2
    labels[:2] = True, False
    scores = np.round((generator.standard_normal(count) + labels) * levels / 6)
    return scores, labels


def steps_of(scores, labels):
    """The steps by their definition, defective pixels being one region."""
    thresholds = np.unique(scores[labels])[::-1]
    normal, defective = scores[~labels], scores[labels]
    positives = np.array([(defective == t).sum() for t in thresholds])
    return Steps(
        above=np.array([(normal > t).sum() for t in thresholds]),
        down_to=np.array([(normal >= t).sum() for t in thresholds]),
        positives=positives,
        weights=positives / positives.sum(),
    )


def curves_of(steps, labels, cuts=()):
    curves = Curves((~labels).sum(), labels.sum(), 1, LIMIT)
    edges = [0, *sorted(cuts), len(steps.above)]
    for start, end in itertools.pairwise(edges):
        if end > start:
            curves.add(Steps(*(part[start:end] for part in steps)))
    return curves


@pytest.mark.parametrize("seed", range(3))
def test_areas_are_those_of_scikit_learn(seed):
    scores, labels = scores_and_labels(seed)
    areas = curves_of(steps_of(scores, labels), labels).areas()
    assert areas.auroc == pytest.approx(roc_auc_score(labels, scores))
    assert areas.auprc == pytest.approx(average_precision_score(labels, scores))
    # With one region, its curve is the ROC up to the limit.
    partial = roc_auc_score(labels, scores, max_fpr=LIMIT)  # standardized (McClish)
    low, high = LIMIT**2 / 2, LIMIT
    assert areas.aupro * LIMIT == pytest.approx(low + (2 * partial - 1) * (high - low))


@given(st.lists(st.integers(0, 30), max_size=6), st.integers(0, 5))
def test_steps_added_in_parts_are_steps_added_at_once(cuts, seed):
    scores, labels = scores_and_labels(seed)
    steps = steps_of(scores, labels)
    cuts = [min(cut, len(steps.above)) for cut in cuts]
    parts, whole = curves_of(steps, labels, cuts), curves_of(steps, labels)
    np.testing.assert_allclose(parts.areas(), whole.areas(), rtol=1e-12)
    for part, at_once in zip(parts.thinned(), whole.thinned(), strict=True):
        # Thinned again with each part, other points may stay; the curve is the same.
        np.testing.assert_allclose(part[0][[0, -1]], at_once[0][[0, -1]])
        np.testing.assert_allclose(
            np.trapezoid(part[1], part[0]), np.trapezoid(at_once[1], at_once[0]), atol=5e-3
        )


def test_the_largest_f1_is_kept_when_later_steps_are_worse():
    labels = np.array([True, True, False, False, False, True])
    scores = np.array([9.0, 8, 7, 6, 5, 4])
    assert curves_of(steps_of(scores, labels), labels, cuts=[1, 2]).areas().f1_max == 0.8
