import numpy as np
import pytest

from ssdnet_jax.evaluation.detection import calibration_curve, detection, with_detection
from ssdnet_jax.evaluation.evaluate import ALL, ImageMetrics


def row(defect, p_value, number, category="c"):
    return ImageMetrics("m", category, defect, f"{number}.png", p_value=p_value, score=1.0)


ROWS = [
    *(row("good", p, number) for number, p in enumerate([0.004, 0.2, 0.5, 0.9])),
    *(row("hole", p, number) for number, p in enumerate([0.001, 0.01, 0.3], start=10)),
    ImageMetrics("m", "c", "hole", "x.png", status="error"),
]


def test_images_are_called_bad_at_or_below_the_stated_rate():
    found = detection(ROWS, 0.01)
    assert (found.false_alarms.share, found.false_alarms.count) == (0.25, 4)
    assert (found.detected.share, found.detected.count) == (pytest.approx(2 / 3), 3)
    # Clopper and Pearson's interval of 1 in 4, from their tables.
    assert found.false_alarms.low == pytest.approx(0.0063, abs=1e-4)
    assert found.false_alarms.high == pytest.approx(0.8059, abs=1e-4)
    none = detection([r for r in ROWS if not r.good], 0.01)
    assert none.false_alarms is None and none.detected.count == 3
    sure = detection(ROWS, 0.003).false_alarms
    assert sure.low == 0 and 0 < sure.high < 1


def test_the_calibration_curve_is_the_share_at_each_rate():
    curve = calibration_curve(ROWS)
    at = dict(zip(curve.stated.tolist(), curve.false_alarms.tolist(), strict=True))
    assert at == {0.001: 0, 0.004: 0.25, 0.01: 0.25, 0.2: 0.5, 0.3: 0.5, 0.5: 0.75, 0.9: 1, 1: 1}
    assert curve.detected[curve.stated == 0.01] == pytest.approx(2 / 3)
    assert calibration_curve([r for r in ROWS if not r.good]) is None
    assert np.isnan(calibration_curve(ROWS[:4]).detected).all()


def test_each_category_gets_its_own_rates():
    rows = [*ROWS, row("good", 0.001, 20, category="d")]
    summary = {"m": {"c": {}, "d": {}, ALL: {"images": 9}}}
    entries = with_detection(summary, rows, 0.01)["m"]
    assert entries["d"]["detection"]["detected"] is None
    assert entries["d"]["detection"]["false_alarms"]["share"] == 1
    assert entries[ALL]["detection"]["false_alarms"]["count"] == 5
    assert entries[ALL]["images"] == 9 and entries[ALL]["detection"]["stated"] == 0.01
