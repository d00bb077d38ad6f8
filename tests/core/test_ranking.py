import numpy as np
import pytest
from scipy.stats import false_discovery_control

from ssdnet_jax.core.ranking import discoveries, merged, rank_p_values


def peaks(rng, count):
    """Scores of good images: their logarithms follow Gumbel's law."""
    return np.exp(2.5 + 0.3 * rng.gumbel(size=count))


@pytest.mark.parametrize("rate", [0.05, 0.2])
def test_discoveries_are_those_of_benjamini_and_hochberg(rate):
    rng = np.random.default_rng(0)
    for _ in range(20):
        p_values = rng.beta(0.3, 1, size=30)
        expected = false_discovery_control(p_values) <= rate
        np.testing.assert_array_equal(discoveries(p_values, rate), expected)
    assert not discoveries(np.ones(5), rate).any()


def test_false_discoveries_are_as_rare_as_is_stated_with_and_without_a_fifth_of_bad_images():
    rng = np.random.default_rng(0)
    share, found = [], []
    for _ in range(300):
        good, bad = peaks(rng, 80), 200 + 50 * rng.random(20)
        assert discoveries(rank_p_values(good), 0.05).sum() <= 6
        called = discoveries(rank_p_values(np.r_[good, bad]), 0.05)
        share.append(called[:80].sum() / max(1, called.sum()))
        found.append(called[80:].mean())
    assert np.mean(share) <= 0.05
    assert np.mean(found) > 0.9


def test_a_run_of_good_images_is_rarely_called_bad_at_all():
    rng = np.random.default_rng(1)
    any_called = [discoveries(rank_p_values(peaks(rng, 100)), 0.05).any() for _ in range(300)]
    assert np.mean(any_called) <= 0.1


def test_p_values_fall_with_the_score_and_equal_scores_are_no_discovery():
    scores = np.array([3.0, 9.0, 1.0, 5.0])
    assert np.argsort(rank_p_values(scores)).tolist() == [1, 3, 0, 2]
    assert not discoveries(rank_p_values(np.full(30, 4.0)), 0.05).any()
    assert discoveries(rank_p_values(np.r_[np.full(30, 4.0), 90.0]), 0.05).nonzero()[0] == [30]


def test_two_p_values_as_one_are_no_smaller_than_chance_however_they_depend():
    np.testing.assert_array_equal(merged(np.array([0.1, 0.9]), np.array([0.3, 0.6])), [0.2, 1.0])
    rng = np.random.default_rng(0)
    one = rng.random(20_000)
    for other in (one, 1 - one, rng.random(20_000)):
        for rate in (0.01, 0.05, 0.2):
            assert np.mean(merged(one, other) <= rate) <= rate + 3 * np.sqrt(rate / 20_000)
