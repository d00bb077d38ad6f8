import dataclasses

import numpy as np
import pytest
from PIL import Image

from ssdnet_jax.evaluation.evaluate import ALL, Evaluation, ImageMetrics
from ssdnet_jax.evaluation.summary import summarize
from ssdnet_jax.reports.sweep import table, write_figure


def row(variant, seed, path, auprc, auroc=0.9):
    return ImageMetrics(variant, "c", "d", path, seed=seed, auprc=auprc, auroc=auroc)


ROWS = [row("a", s, p, 0.5 + 0.1 * s + 0.2 * (p == "y")) for s in (0, 1) for p in ("x", "y")]
ROWS += [row("b", 0, p, 0.25) for p in ("x", "y")]


def entries(rows):
    return {variant: entry[ALL] for variant, entry in summarize(Evaluation(rows, {})).items()}


def test_the_table_has_means_over_images_then_over_seeds():
    a = entries(ROWS)["a"]
    assert a["auprc_mean"] == pytest.approx(np.mean([0.6, 0.7]))
    assert a["auprc_std_over_seeds"] == pytest.approx(np.std([0.6, 0.7], ddof=1))
    assert table(entries(ROWS)).splitlines()[2:] == [
        "| a | 0.650 ± 0.071 | 0.900 ± 0.000 | 2 |",
        "| b | 0.250 | 0.900 | 2 |",
    ]


def test_images_without_metrics_are_counted_and_left_out():
    lost = dataclasses.replace(ROWS[0], path="z", auprc=None, status="error")
    (entry,) = entries([*ROWS[:2], lost]).values()
    assert (entry["images"], entry["failed"]) == (3, 1)
    assert entry["auprc_mean"] == pytest.approx(0.6)


def test_the_figure_grows_with_the_variants(tmp_path):
    lost = dataclasses.replace(row("c", 0, "x", None, None), status="error")
    for name, rows in (("two", [*ROWS, lost]), ("one", ROWS[:4])):
        write_figure(tmp_path / f"{name}.png", rows, entries(rows), label=f"{name} $variants_")
    one, two = (Image.open(tmp_path / f"{name}.png").size for name in ("one", "two"))
    assert two[1] > one[1] and two[0] == one[0]
