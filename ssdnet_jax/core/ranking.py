"""Which of many images stand out among them, most of which are good.

Images of one kind are one another's scale. Peaks of maps follow an extreme value law with a heavy
tail, so that their logarithms follow Gumbel's, whose location and scale are taken from two
quantiles of the run: with a fifth of bad images among them, which lie above, both quantiles are
still those of good images, only a little high, and p-values a little too large. What an image's
own map says of it counts as well (`merged`), for a run may have many bad images, or images of
several kinds. Which images are then called anomalous controls the false discovery rate (Benjamini
and Hochberg 1995).
"""

import math

import numpy as np
from jaxtyping import Bool, Float

FEWEST = 20  # images from which a run can be its own scale
_QUANTILES = (0.2, 0.6)


def rank_p_values(scores: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    """The chance that a good image of the run scores as much, for each.

    Args:
      scores: calibrated, most of them of good images; none NaN.
    """
    logs = np.log1p(np.maximum(scores, 0.0))
    low, high = np.quantile(logs, _QUANTILES)
    low_z, high_z = (-math.log(-math.log(p)) for p in _QUANTILES)
    scale = (high - low) / (high_z - low_z)
    if not scale > 0:  # most scores are equal: what is above stands out, by however little
        return np.where(logs > high, 0.0, 1.0)
    reduced = (logs - high) / scale + high_z
    return -np.expm1(-np.exp(-reduced))


def merged(one: Float[np.ndarray, "n"], other: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    """One p-value of two, however they depend on one another (Bonferroni)."""
    return np.minimum(1.0, 2 * np.minimum(one, other))


def discoveries(p_values: Float[np.ndarray, "n"], rate: float) -> Bool[np.ndarray, "n"]:
    """Which p-values are discoveries, of which a share of at most `rate` is expected to be false.

    Benjamini and Hochberg's step-up procedure: the largest k with p_(k) <= rate k / n.
    """
    count = len(p_values)
    ordered = np.sort(p_values)
    passing = np.flatnonzero(ordered <= rate * np.arange(1, count + 1) / count)
    if not passing.size:
        return np.zeros(count, bool)
    return p_values <= ordered[passing[-1]]
