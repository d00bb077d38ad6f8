import numpy as np
import pytest
import tifffile
from PIL import Image

from ssdnet_jax.data.datasets import read_dataset
from ssdnet_jax.data.score_maps import find_map
from ssdnet_jax.evaluation.bootstrap import bin_pixels, metrics_of_draws, with_intervals
from ssdnet_jax.evaluation.evaluate import ALL, METRICS, MapSet, evaluate
from ssdnet_jax.evaluation.metrics import auroc, pixel_metrics
from ssdnet_jax.evaluation.summary import summarize

SHAPE = (24, 30)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Two categories of eight defective and six good images; samples, map set, maps and masks."""
    root = tmp_path_factory.mktemp("bootstrap")
    generator = np.random.default_rng(0)
    scenes = {}
    for category in ("grid", "wood"):
        for number in range(14):
            good = number >= 8
            defect, stem = ("good" if good else "bent"), f"{number:02d}"
            mask = np.zeros(SHAPE, bool)
            if not good:
                row, column = generator.integers(0, 14, 2)
                mask[row : row + 6, column : column + 5] = mask[0, 28:] = True
            scores = generator.normal(size=SHAPE) + generator.uniform(0.5, 2.5) * mask
            scores = np.where(np.arange(30) == 3, np.nan, scores).astype(np.float32)
            relative = f"{category}/test/{defect}/{stem}.png"
            scenes[relative] = (mask, scores)
            files = {relative: np.zeros(SHAPE, np.uint8)}
            if not good:
                files[f"{category}/ground_truth/bent/{stem}_mask.png"] = (255 * mask).astype("u1")
            for name, pixels in files.items():
                (root / "set" / name).parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(root / "set" / name)
            path = root / "maps" / f"{relative}.tiff"
            path.parent.mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(path, scores)
    samples = read_dataset(root / "set")
    return samples, MapSet("maps", None, lambda sample: find_map(root / "maps", sample)), scenes


@pytest.fixture(scope="module")
def entries(measured):
    samples, map_set, _ = measured
    evaluation = evaluate(samples, [map_set])
    binned = bin_pixels(samples, [map_set], evaluation)
    return with_intervals(summarize(evaluation), evaluation, binned)["maps"]


def literally(scenes, draws=400):
    """Metrics of drawn images, one draw after another, by what evaluates images."""
    generator = np.random.default_rng(5)
    bad = [pair for path, pair in scenes.items() if "bent" in path]
    good = [pair for path, pair in scenes.items() if "good" in path]
    single = [pixel_metrics(*pair).auprc for pair in bad]
    found = {"auprc_mean": [], "image_auroc": []} | {f"{name}_pooled": [] for name in METRICS}
    for _ in range(draws):
        chosen_bad = generator.integers(len(bad), size=len(bad))
        chosen_good = generator.integers(len(good), size=len(good))
        pairs = [bad[i] for i in chosen_bad] + [good[i] for i in chosen_good]
        found["auprc_mean"].append(np.mean([single[i] for i in chosen_bad]))
        gap = np.zeros((1, SHAPE[1]), bool), np.full((1, SHAPE[1]), np.nan)  # regions stay apart
        masks = np.concatenate([each for mask, _ in pairs for each in (mask, gap[0])])
        maps = np.concatenate([each for _, scores in pairs for each in (scores, gap[1])])
        together = pixel_metrics(masks, maps)
        for name in METRICS:
            found[f"{name}_pooled"].append(getattr(together, name))
        maxima = np.array([np.nanmax(scores) for _, scores in pairs])
        found["image_auroc"].append(auroc(np.arange(len(pairs)) < len(bad), maxima))
    return found


def test_intervals_are_those_of_drawing_images_literally(measured, entries):
    scenes = {path: pair for path, pair in measured[2].items() if path.startswith("grid")}
    for name, values in literally(scenes).items():
        low, high = np.quantile(values, [0.025, 0.975])
        tolerance = 0.15 * (high - low)  # 400 draws of another generator
        assert entries["grid"][f"{name}_interval"] == pytest.approx([low, high], abs=tolerance), (
            name
        )
        assert entries["grid"][f"{name}_interval"][0] < entries["grid"][name]


def test_intervals_of_more_images_are_narrower_and_hold_the_figure(entries):
    for name in (*(f"{m}_{k}" for m in METRICS for k in ("mean", "pooled")), "image_auroc"):
        low, high = entries[ALL][f"{name}_interval"]
        assert 0 <= low <= entries[ALL][name] <= high <= 1
        widths = [np.diff(entries[c][f"{name}_interval"])[0] for c in ("grid", "wood")]
        assert high - low < 1.1 * max(widths)
    low, high = entries[ALL]["aupro_pooled_macro_interval"]
    assert low < entries[ALL]["aupro_pooled_macro"] < high


def test_bins_give_the_exact_metrics_where_each_score_has_its_own(measured):
    samples, map_set, scenes = measured
    chosen = [sample for sample in samples if sample.category == "grid"]
    evaluation = evaluate(chosen, [map_set])
    binned = bin_pixels(chosen, [map_set], evaluation)["maps", None]
    exact = evaluation.pooled["maps", None, "grid"]
    assert binned.defective.sum() == sum(
        (mask & ~np.isnan(scores)).sum()
        for path, (mask, scores) in scenes.items()
        if path.startswith("grid")
    )
    once = np.ones((1, len(binned.paths)), np.float32)
    found = metrics_of_draws(once, binned.normal, binned.defective, binned.overlap)
    for name in METRICS:
        assert found[name][0] == pytest.approx(getattr(exact, name), abs=2e-3)


def test_what_a_single_image_decides_has_no_interval(measured):
    samples, map_set, _ = measured
    bad = [sample for sample in samples if not sample.good]
    chosen = [*bad[:3], *[sample for sample in bad if sample.category == "wood"][:1]]
    chosen += [sample for sample in samples if sample.good and sample.category == "grid"][:1]
    evaluation = evaluate(chosen, [map_set])
    binned = bin_pixels(chosen, [map_set], evaluation)
    found = with_intervals(summarize(evaluation), evaluation, binned)["maps"]
    assert found["grid"]["auroc_mean_interval"] and found["grid"]["auprc_pooled_interval"]
    assert found["grid"]["image_auroc"] is not None
    for category, name in (
        ("grid", "image_auroc"),
        ("wood", "auroc_mean"),
        (ALL, "auroc_mean"),
        (ALL, "auprc_pooled"),
        (ALL, "auprc_macro"),
    ):
        assert found[category][name] is not None and found[category][f"{name}_interval"] is None


def test_a_single_image_has_no_interval(measured):
    samples, map_set, _ = measured
    evaluation = evaluate(samples[:1], [map_set])
    binned = bin_pixels(samples[:1], [map_set], evaluation)
    entry = with_intervals(summarize(evaluation), evaluation, binned)["maps"][ALL]
    assert entry["auroc_mean"] is not None and entry["auroc_mean_interval"] is None
    assert entry["auroc_pooled_interval"] is None and entry["image_auroc_interval"] is None
