import numpy as np
import pytest
from PIL import Image

from ssdnet_jax.evaluation.evaluate import Evaluation, ImageMetrics
from ssdnet_jax.experiments.reproduce import Protocol, Results
from ssdnet_jax.methods.registry import METHODS, run_folder
from ssdnet_jax.reports.reproduce_figures import (
    STYLES,
    method_styles,
    write_box_plots,
    write_curves,
)
from ssdnet_jax.reports.reproduce_pictures import chosen_rows
from ssdnet_jax.reports.reproduce_text import (
    METHOD_NAMES,
    PUBLISHED,
    Setting,
    curve_rows,
    method_name,
    table_rows,
    write_markdown,
)


def row(method, path, auprc, *, seed=0, category="grid", auroc=0.9, **others):
    return ImageMetrics(method, category, "bent", path, auroc, auprc, seed=seed, **others)


def test_tables_hold_means_over_images_and_their_spread_over_seeds():
    rows = [row("fca", path, auprc, seed=s) for s, path, auprc in
            ((0, "a", 0.2), (0, "b", 0.4), (1, "a", 0.4), (1, "b", 0.8))]  # fmt: skip
    rows += [row("fca", "c", 0.9, seed=s, category="tile") for s in (0, 1)]
    table = table_rows(Evaluation(tuple(rows), {}))
    assert [(r["category"], r["images"]) for r in table] == [("grid", 2), ("tile", 1), ("all", 3)]
    assert table[0]["auprc"] == pytest.approx(0.45)  # of 0.3 and 0.6
    assert table[0]["auprc_std_over_seeds"] == pytest.approx(0.3 / np.sqrt(2))
    assert table[2]["auprc"] == pytest.approx((1.5 + 2.1) / 6)
    assert table[0]["auprc_published"] is None


def test_published_numbers_stand_beside_those_of_their_method_and_data():
    rows = tuple(
        row(method, "a", 0.5, category=category)
        for method in ("ssdnet", "spectral_residual", "rpca")
        for category in ("grid", "wood")
    )
    found = {
        (r["category"], r["method"]): (r["auprc_published"], r["auroc_published"])
        for r in table_rows(Evaluation(rows, {}))
    }
    assert found["grid", "ssdnet"] == (0.60, 0.99)
    assert found["grid", "spectral_residual"] == (0.45, 0.97)
    named = Evaluation((row("ssdnet:configs/auto.py", "a", 0.5),), {})
    assert table_rows(named)[0]["auroc_published"] == 0.99
    assert found["grid", "rpca"] == found["wood", "ssdnet"] == (None, None)


def test_every_method_has_a_name_and_a_look_of_its_own():
    assert set(METHODS) <= METHOD_NAMES.keys() == STYLES.keys()
    assert len(set(STYLES.values())) == len({color for color, _ in STYLES.values()}) == len(STYLES)
    assert all(numbers.keys() <= METHOD_NAMES.keys() for _, _, numbers in PUBLISHED.values())


def test_ssdnet_by_several_configurations_has_a_name_a_folder_and_a_look_for_each():
    assert method_name("fca:border=a.b:sigma=0.5") == "FCA (border=a.b, sigma=0.5)"
    methods = ["ssdnet:grid", "fca", "ssdnet:configs/auto.py", "ssdnet"]
    assert [method_name(m) for m in methods] == ["SSDnet (grid)", "FCA", "SSDnet (auto)", "SSDnet"]
    assert [run_folder(m) for m in methods] == ["ssdnet-grid", "fca", "ssdnet-auto", "ssdnet"]
    styles = method_styles(methods)
    assert styles["ssdnet:grid"] == STYLES["ssdnet"] and styles["fca"] == STYLES["fca"]
    assert len({*styles.values(), *STYLES.values()}) == len(STYLES) + 2


def test_best_middle_and_worst_images_are_shown_once_each():
    rows = [row("ssdnet", str(n), auprc) for n, auprc in enumerate((0.3, 0.9, 0.1, 0.5, 0.7))]
    found = {word: r.auprc for word, r in chosen_rows(rows).items()}
    assert found == {"best": 0.9, "middle": 0.5, "worst": 0.1}
    assert [r.auprc for r in chosen_rows(rows[:2]).values()] == [0.9, 0.3]
    assert chosen_rows([row("ssdnet", "a", None)]) == {}


@pytest.fixture
def results():
    rows = tuple(
        row(method, f"{category}{n}", 0.1 * n + 0.05 * s, seed=s, category=category,
            height=128, width=128)
        for method in ("ssdnet", "fca") for category in ("grid", "$a|b")
        for n in range(5) for s in (0, 1)
    )  # fmt: skip
    bad = ImageMetrics("fca", "grid", "bent", "grid0", seed=0, status="error", error="no *map*")
    clean = Evaluation(rows, {})
    curves = {
        (kind, level): Evaluation((*rows, bad), {})
        for kind in ("noise", "missing")
        for level in (0.0, 0.1)
    }
    return Results(clean, curves, (), {"glcm": "no [weights]"})


def test_the_text_says_what_was_done_what_differs_and_what_failed(results, tmp_path):
    protocol = Protocol(("ssdnet", "fca", "glcm"), (0, 1))
    setting = Setting(
        "set_1", protocol, 256, ("fabric seed=2", "auto"), "hand-drawn masks", {"Command": "x"}
    )
    table, curves = table_rows(results.clean), curve_rows(results)
    write_markdown(
        tmp_path / "r.md", setting, results, table, curves, {"Fig. 3: x": "figures/3.png"}
    )
    text = (tmp_path / "r.md").read_text(encoding="utf-8")
    for words in (
        r"# The paper's comparison on set\_1",
        "10 defective images, seeds 0, 1, SSDnet by the configurations `fabric seed=2` and `auto`",
        "- SSDnet by `fabric seed=2`: the paper's setting for fabric (section 4.2).",
        "- SSDnet by `auto`: this project's one setting",
        "baselines get the nearest known value",
        "| grid (5) | SSDnet | **0.225 ± 0.035** | **0.900 ± 0.000** | 0.60 | 0.99 |",
        r"| $a\|b (5) | SSDnet |",
        "0.34 / 0.92",  # the paper's table
        "Of this data: hand-drawn masks.",
        "128 x 128",
        "are enlarged",
        "In the paper, not here: PG-LSR, WinCLIP, SR.",
        "Here, not in the paper: FCA.",
        "first image of each kind of defect",
        "![Fig. 3: x](figures/3.png)",
        "| data (images) | method | 0 | 0.1 |",
        r"GLCM: no \[weights\]",
        r"FCA, grid0: no \*map\*",
        "- Command: x",
    ):
        assert words in text, words


def test_figures_are_pictures_of_their_rows(results, tmp_path):
    label = "Data: a set with a long name, " * 8
    write_box_plots(tmp_path / "box.png", results.clean, "auprc", label=label)
    rows = [r for r in curve_rows(results) if r["corruption"] == "noise"]
    write_curves(tmp_path / "curve.png", rows, "auroc", "noise", label=label)
    for name in ("box", "curve"):
        pixels = np.asarray(Image.open(tmp_path / f"{name}.png").convert("RGB")).reshape(-1, 3)
        for method in ("ssdnet", "fca"):
            color = np.array(bytearray.fromhex(STYLES[method][0][1:]))
            assert (np.abs(pixels - color.astype(int)).max(axis=1) < 12).sum() > 50
    assert sorted(path.name for path in tmp_path.iterdir()) == ["box.png", "curve.png"]
