import csv
import dataclasses

import numpy as np
import pytest
from PIL import Image

from ssdnet_jax.errors import ConfigError
from ssdnet_jax.evaluation.evaluate import ImageMetrics
from ssdnet_jax.experiments.sweep import (
    figures_of,
    folder_name,
    load_sweep,
    product,
    sweep_names,
    table,
    write_figure,
    write_sweep_csv,
)


def row(variant, seed, path, auprc, auroc=0.9):
    empty = {field.name: None for field in dataclasses.fields(ImageMetrics)}
    known = {"method": variant, "seed": seed, "path": path, "auprc": auprc, "auroc": auroc}
    return ImageMetrics(**{**empty, **known, "category": "c", "defect": "d", "status": "ok"})


ROWS = [row("a", s, p, 0.5 + 0.1 * s + 0.2 * (p == "y")) for s in (0, 1) for p in ("x", "y")]
ROWS += [row("b", 0, p, 0.25) for p in ("x", "y")]


@pytest.mark.parametrize("name", sweep_names())
def test_shipped_sweeps_are_legal(name):
    sweep, configs = load_sweep(name)
    assert list(configs) == list(sweep.variants)
    assert len(set(configs.values())) >= len(configs) - 3  # "as shipped" may be one of a series
    assert configs[next(iter(configs))] is not None


def test_a_product_is_all_combinations():
    variants = product({"fit.mask_ratio": [0.0, 0.5], "loss.patch_sizes": [(8,), (8, 16)]})
    assert len(variants) == 4
    assert variants["mask_ratio=0.5, patch_sizes=8+16"] == {
        "fit.mask_ratio": 0.5,
        "loss.patch_sizes": (8, 16),
    }


def test_figures_are_means_over_images_then_over_seeds():
    a, b = figures_of(ROWS)
    assert (a.variant, a.images, a.failed) == ("a", 2, 0)
    assert a.mean["auprc"] == pytest.approx(np.mean([0.6, 0.7]))
    assert a.spread["auprc"] == pytest.approx(np.std([0.6, 0.7], ddof=1))
    assert (b.mean["auprc"], b.spread["auprc"]) == (0.25, None)
    assert "| a | 0.650 ± 0.071 | 0.900 | 2 |" in table([a, b])
    assert "| b | 0.250 | 0.900 | 2 |" in table([a, b])


def test_images_without_metrics_are_counted_and_left_out():
    lost = dataclasses.replace(ROWS[0], path="z", auprc=None, status="error")
    (figure,) = figures_of([*ROWS[:2], lost])
    assert (figure.images, figure.failed) == (3, 1)
    assert figure.mean["auprc"] == pytest.approx(0.6)


def test_the_table_of_rows_is_tidy(tmp_path):
    write_sweep_csv(tmp_path / "sweep.csv", ROWS)
    with (tmp_path / "sweep.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["variant"], r["seed"], r["path"]) for r in rows[:2]] == [
        ("a", "0", "x"),
        ("a", "0", "y"),
    ]
    assert float(rows[1]["auprc"]) == pytest.approx(0.7)


def test_the_figure_grows_with_the_variants(tmp_path):
    figures = figures_of(ROWS)
    write_figure(tmp_path / "two.png", ROWS, figures, label="two $variants_")
    write_figure(tmp_path / "one.png", ROWS[:4], figures[:1], label="one")
    one, two = (Image.open(tmp_path / f"{name}.png").size for name in ("one", "two"))
    assert two[1] > one[1] and two[0] == one[0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1 / 0", ["ZeroDivisionError", "get_sweep"]),
        ("x = 1", ["found no function get_sweep"]),
        ("def get_sweep(): return {}", ["get_sweep that returns {}", "expected a Sweep"]),
        ("VARIANTS = {}", ["get_sweep"]),
        ("VARIANTS = {'v': {'fit.mask_ratio': 2.0}}", ["variant 'v'", "config.fit.mask_ratio"]),
        ("VARIANTS = {'v': {'fit.mask_rat': 0.1}}", ["variant 'v'", "mask_rat"]),
        ("VARIANTS = {'a b': {}, 'a/b': {}}", ["'a b'", "'a/b'", "share"]),
    ],
)
def test_a_sweep_that_cannot_be_used_is_refused_by_name(tmp_path, text, words):
    if text.startswith("VARIANTS"):
        text += (
            "\nfrom ssdnet_jax.experiments.sweep import Sweep\n"
            "def get_sweep(): return Sweep(base='grid', variants=VARIANTS)"
        )
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_sweep(str(tmp_path / "mine.py"))
    message = str(caught.value)
    assert "\n" not in message
    for word in ["mine.py", *words]:
        assert word in message


def test_an_unknown_sweep_is_refused_with_those_that_there_are():
    with pytest.raises(ConfigError, match=r"no sweep 'nothing'.*auto_preset"):
        load_sweep("nothing")


def test_folders_are_named_after_variants():
    assert folder_name("mask_ratio=0.5, 3/4") == "mask_ratio=0.5__3_4"
    assert folder_name("..") == "_"
