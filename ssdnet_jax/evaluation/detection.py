"""Which images are called anomalous at a stated false-alarm rate, and does that rate hold?

An image is called anomalous where the p-value of its decision (`core.decision`) is at most the
stated rate. On good images p-values are to be uniform: the share of them at or below each rate is
that rate. That share against the rate is the calibration curve.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ssdnet_jax.evaluation.evaluate import ALL, ImageMetrics

LEVEL = 0.95  # of the intervals


@dataclasses.dataclass(frozen=True)
class Rate:
    """A share of images, with its interval of Clopper and Pearson (Biometrika 1934)."""

    share: float  # in [0, 1]
    low: float  # lower end of the interval
    high: float  # upper end of it
    count: int  # how many images it is of


@dataclasses.dataclass(frozen=True)
class Detection:
    """What calling images bad at one stated rate does."""

    stated: float  # false-alarm rate
    false_alarms: Rate | None  # of good images; None where there is none
    detected: Rate | None  # of defective ones; None where there is none


@dataclasses.dataclass(frozen=True)
class CalibrationCurve:
    """Shares of images that are called anomalous at each stated rate: steps."""

    stated: np.ndarray  # float64 (n,), rising, from the smallest p-value to 1
    false_alarms: np.ndarray  # float64 (n,), share of good images with a p-value of at most that
    detected: np.ndarray  # float64 (n,), share of defective ones; nan where there is none


def detection(rows: Sequence[ImageMetrics], stated: float) -> Detection:
    """Detections and false alarms of one method's images, all seeds together."""
    good, bad = _p_values(rows)
    return Detection(stated, _rate(good <= stated), _rate(bad <= stated))


def with_detection(
    summary: Mapping[str, Mapping[str, Mapping[str, Any]]],
    rows: Sequence[ImageMetrics],
    stated: float,
) -> dict[str, dict[str, dict[str, Any]]]:
    """A `summarize`d evaluation with the entry "detection": the fields of a `Detection`."""
    return {
        method: {
            category: {
                **entry,
                "detection": dataclasses.asdict(
                    detection(
                        [r for r in rows if r.method == method and category in (ALL, r.category)],
                        stated,
                    )
                ),
            }
            for category, entry in entries.items()
        }
        for method, entries in summary.items()
    }


def calibration_curve(rows: Sequence[ImageMetrics]) -> CalibrationCurve | None:
    """The curve of one method's images; None without a good one."""
    good, bad = _p_values(rows)
    if not good.size:
        return None
    stated = np.unique(np.concatenate([good, bad, [1.0]]))
    return CalibrationCurve(
        stated,
        np.searchsorted(good, stated, side="right") / good.size,
        np.searchsorted(bad, stated, side="right") / bad.size
        if bad.size
        else np.full(stated.shape, np.nan),
    )


def _p_values(rows: Sequence[ImageMetrics]) -> tuple[np.ndarray, np.ndarray]:
    """The p-values of good and of defective images, each sorted; images without one left out."""
    known = [row for row in rows if row.p_value is not None]
    good = [row.p_value for row in known if row.good]
    bad = [row.p_value for row in known if not row.good]
    return np.sort(np.array(good, float)), np.sort(np.array(bad, float))


def _rate(called: np.ndarray) -> Rate | None:
    from scipy.stats import beta

    count, number = len(called), int(np.count_nonzero(called))
    if not count:
        return None
    tail = (1 - LEVEL) / 2
    low = beta.ppf(tail, number, count - number + 1) if number else 0.0
    high = beta.ppf(1 - tail, number + 1, count - number) if number < count else 1.0
    return Rate(number / count, float(low), float(high), count)
