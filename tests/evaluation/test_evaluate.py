import csv
import dataclasses
import json

import numpy as np
import pytest
import tifffile
from PIL import Image
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from ssdnet_jax.data.datasets import Sample, read_dataset
from ssdnet_jax.data.images import resize_map
from ssdnet_jax.data.labels import EMPTY
from ssdnet_jax.data.score_maps import MAP_SUFFIXES, find_map, put_maps, read_map
from ssdnet_jax.errors import InputError
from ssdnet_jax.evaluation.evaluate import ALL, COLUMNS, MapSet, evaluate, write_metrics_csv
from ssdnet_jax.evaluation.summary import summarize, write_summary

SHAPE = (12, 16)


def put_png(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def root(tmp_path):
    """Two categories in MVTec layout; grid has two kinds of defects and two good images."""
    folder = tmp_path / "set"
    generator = np.random.default_rng(0)
    for name in ("grid/bent/0", "grid/bent/1", "grid/cut/0", "wood/hole/0"):
        category, defect, stem = name.split("/")
        mask = np.zeros(SHAPE, np.uint8)
        row, column = generator.integers(0, 8, 2)
        mask[row : row + 3, column : column + 4] = 255
        put_png(folder / category / "test" / defect / f"{stem}.png", mask // 2 + 60)
        put_png(folder / category / "ground_truth" / defect / f"{stem}_mask.png", mask)
    for stem in "01":
        put_png(folder / "grid" / "test" / "good" / f"{stem}.png", np.full(SHAPE, 60, np.uint8))
    return folder


@pytest.fixture
def samples(root):
    return read_dataset(root)


def masks(samples):
    """By path, what is expected to be read; all False for good images."""
    return {
        s.relative: np.asarray(Image.open(s.mask_path)) > 0
        if s.mask_path
        else np.zeros(SHAPE, bool)
        for s in samples
    }


def put_map_set(folder, samples, seed, method="maps"):
    """Maps that know something of the masks; returns their values by path, and the set."""
    generator = np.random.default_rng(seed)
    values = {}
    for sample, mask in zip(samples, masks(samples).values(), strict=True):
        scores = generator.normal(size=SHAPE).astype(np.float32) + 1.5 * mask
        values[sample.relative] = scores.astype(np.float32)
        path = folder / method / str(seed) / f"{sample.relative}.tiff"
        path.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(path, values[sample.relative])
    where = folder / method / str(seed)
    return values, MapSet(method, seed, lambda sample: find_map(where, sample))


def by_hand(mask, scores):
    precision, recall, _ = precision_recall_curve(mask, scores)
    return (
        roc_auc_score(mask, scores),
        average_precision_score(mask, scores),
        np.max(2 * precision * recall / np.maximum(precision + recall, 1e-12)),
    )


def test_each_image_is_measured_against_its_own_mask(tmp_path, samples):
    values, map_set = put_map_set(tmp_path, samples, 3)
    rows = {row.path: row for row in evaluate(samples, [map_set]).rows}
    assert list(rows) == [sample.relative for sample in samples]
    for path, mask in masks(samples).items():
        row = rows[path]
        assert (row.status, row.method, row.seed) == ("ok", "maps", 3)
        assert row.score == values[path].max()
        assert row.defective_fraction == mask.mean()
        assert (row.height, row.width) == SHAPE
        if row.good:
            assert (row.auroc, row.auprc, row.f1_max, row.aupro) == (None,) * 4
        else:
            expected = by_hand(mask.ravel(), values[path].ravel())
            assert (row.auroc, row.auprc, row.f1_max) == pytest.approx(expected)
            assert 0 < row.aupro <= 1
    assert sum(row.good for row in rows.values()) == 2


def test_summary_has_means_medians_and_pooled_metrics_of_each_seed(tmp_path, samples):
    truth = masks(samples)
    values, sets = zip(*(put_map_set(tmp_path, samples, seed) for seed in (0, 1)), strict=True)
    entries = summarize(evaluate(samples, sets))["maps"]
    assert list(entries) == ["grid", "wood", ALL]

    def pooled(paths, seed):
        mask = np.concatenate([truth[p].ravel() for p in paths])
        return by_hand(mask, np.concatenate([values[seed][p].ravel() for p in paths]))

    for category in ("grid", "wood", ALL):
        paths = [p for p in truth if category == ALL or p.startswith(category)]
        bad = [p for p in paths if truth[p].any()]
        entry = entries[category]
        assert entry["images"] == len(paths) and entry["defective"] == len(bad)
        assert (entry["good"], entry["failed"], entry["seeds"]) == (len(paths) - len(bad), 0, 2)
        for number, name in enumerate(("auroc", "auprc", "f1_max")):
            by_seed = [
                [by_hand(truth[p].ravel(), values[seed][p].ravel())[number] for p in bad]
                for seed in (0, 1)
            ]
            means = np.mean(by_seed, axis=1)
            assert entry[f"{name}_mean"] == pytest.approx(means.mean())
            assert entry[f"{name}_std_over_seeds"] == pytest.approx(means.std(ddof=1))
            assert entry[f"{name}_median"] == pytest.approx(np.median(by_seed, axis=1).mean())
            figures = [pooled(paths, seed)[number] for seed in (0, 1)]
            assert entry[f"{name}_pooled"] == pytest.approx(np.mean(figures))
            assert entry[f"{name}_pooled_std_over_seeds"] == pytest.approx(np.std(figures, ddof=1))
        assert 0 < entry["aupro_pooled"] <= 1
    for name in ("auroc", "aupro_pooled"):
        kind = name if name.endswith("pooled") else f"{name}_mean"
        expected = np.mean([entries["grid"][kind], entries["wood"][kind]])
        assert entries[ALL][f"{name}_macro"] == pytest.approx(expected)
    assert list(entries["grid"]["defects"]) == ["bent", "cut"]
    assert entries["grid"]["defects"]["bent"]["images"] == 2
    assert list(entries[ALL]["defects"]) == ["grid/bent", "grid/cut", "wood/hole"]


def test_image_auroc_compares_maxima_where_there_are_good_images(tmp_path, samples):
    values, map_set = put_map_set(tmp_path, samples, 0)
    entries = summarize(evaluate(samples, [map_set]))["maps"]
    grid = {p: v.max() for p, v in values.items() if p.startswith("grid")}
    expected = roc_auc_score(["good" not in p for p in grid], list(grid.values()))
    assert entries["grid"]["image_auroc"] == pytest.approx(expected)
    assert entries["wood"]["image_auroc"] is None
    assert entries["grid"]["image_auroc_std_over_seeds"] is None
    assert entries[ALL]["image_auroc_macro"] == pytest.approx(expected)


def test_image_auroc_compares_calibrated_scores_too(tmp_path, samples):
    # Good images of high contrast have higher maxima than the defective ones, in more of spread.
    values, map_set = put_map_set(tmp_path, samples, 0)
    for path in values:
        if "good" in path:
            tifffile.imwrite(tmp_path / "maps" / "0" / f"{path}.tiff", 50 * values[path])
    rows = {row.path: row for row in evaluate(samples, [map_set]).rows}
    for path, row in rows.items():
        median, high = np.quantile(values[path], [0.5, 0.75])
        expected = (values[path].max() - median) / (high - median)
        assert row.calibrated_score == pytest.approx(expected, rel=1e-5)
    entry = summarize(evaluate(samples, [map_set]))["maps"]["grid"]
    assert entry["image_auroc"] == 0.0
    grid = {p: row.calibrated_score for p, row in rows.items() if p.startswith("grid")}
    expected = roc_auc_score(["good" not in p for p in grid], list(grid.values()))
    assert entry["image_auroc_calibrated"] == pytest.approx(expected) and expected > 0.5


def remove_map(root, folder, relative):
    (folder / "maps" / "0" / f"{relative}.tiff").unlink()


def small_map(root, folder, relative):
    tifffile.imwrite(folder / "maps" / "0" / f"{relative}.tiff", np.zeros((5, 7), np.float32))


def infinite_map(root, folder, relative):
    tifffile.imwrite(folder / "maps" / "0" / f"{relative}.tiff", np.full(SHAPE, np.inf))


def broken_map(root, folder, relative):
    (folder / "maps" / "0" / f"{relative}.tiff").write_bytes(b"II*\0 and no more")


def mask_of(root, relative):
    return root / relative.replace("/test/", "/ground_truth/").replace(".png", "_mask.png")


def remove_mask(root, folder, relative):
    mask_of(root, relative).unlink()


def small_mask(root, folder, relative):
    put_png(mask_of(root, relative), np.full((6, 8), 255, np.uint8))


def full_mask(root, folder, relative):
    put_png(mask_of(root, relative), np.full(SHAPE, 255, np.uint8))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (remove_map, ["found no map", "bent/0.png.tiff", "bent/0.tiff"]),
        (small_map, ["0.png.tiff", "5 x 7", "12 x 16"]),
        (infinite_map, ["0.png.tiff", "infinite"]),
        (broken_map, ["0.png.tiff", "expected"]),
        (remove_mask, ["0_mask.png", "no such file"]),
        (small_mask, ["0_mask.png", "6 x 8", "12 x 16", "size of its image"]),
        (full_mask, ["0_mask.png", "every pixel defective"]),
    ],
)
def test_what_cannot_be_compared_is_a_row_and_counts_nowhere(root, tmp_path, samples, spoil, words):
    spoiled = "grid/test/bent/0.png"
    _, map_set = put_map_set(tmp_path, samples, 0)
    others = [sample for sample in samples if sample.relative != spoiled]
    expected = summarize(evaluate(others, [map_set]))["maps"]["grid"]
    spoil(root, tmp_path, spoiled)
    evaluation = evaluate(samples, [map_set])
    rows = {row.path: row for row in evaluation.rows}
    bad = rows.pop(spoiled)
    assert bad.status == "error" and bad.auroc is None and bad.score is None
    assert all(word in bad.error for word in words), bad.error
    assert all(row.status == "ok" for row in rows.values())
    found = summarize(evaluation)["maps"]["grid"]
    assert (found["images"], found["failed"]) == (5, 1)
    for name in ("auroc_mean", "auprc_median", "aupro_pooled", "image_auroc"):
        assert found[name] == pytest.approx(expected[name])


def test_a_map_of_a_good_image_must_have_its_size_too(tmp_path, samples):
    _, map_set = put_map_set(tmp_path, samples, 0)
    small_map(None, tmp_path, "grid/test/good/1.png")
    rows = {row.path: row for row in evaluate(samples, [map_set]).rows}
    assert "5 x 7" in rows["grid/test/good/1.png"].error


def test_images_without_masks_are_compared_as_a_whole(tmp_path, samples):
    _, map_set = put_map_set(tmp_path, samples, 0)
    expected = summarize(evaluate(samples, [map_set]))["maps"]["grid"]
    unmasked = [dataclasses.replace(s, mask_path=None) for s in samples]
    evaluation = evaluate(unmasked, [map_set])
    assert all(row.status == "ok" and row.auroc is None for row in evaluation.rows)
    assert all(0 <= row.p_value <= 1 for row in evaluation.rows)
    assert [row.defective_fraction for row in evaluation.rows] == [None] * 3 + [0.0] * 2 + [None]
    assert evaluation.pooled["maps", 0, ALL] is None
    found = summarize(evaluation)["maps"]["grid"]
    assert found["image_auroc"] == expected["image_auroc"]
    assert (found["auroc_mean"], found["auroc_pooled"]) == (None, None)
    json.dumps(summarize(evaluation), allow_nan=False)


def test_an_empty_mask_means_a_good_image_whatever_the_folder_is_called(root, tmp_path, samples):
    _, map_set = put_map_set(tmp_path, samples, 0)
    black = root / "black.png"
    put_png(black, np.zeros(SHAPE, np.uint8))
    bent, *others = samples
    good = others[2]
    assert good.good
    changed = [dataclasses.replace(bent, mask_path=black), *others[:2]]
    changed += [dataclasses.replace(good, mask_path=black), *others[3:]]
    rows = {row.path: row for row in evaluate(changed, [map_set]).rows}
    assert (rows[bent.relative].defect, rows[bent.relative].notes) == ("good", (EMPTY,))
    assert (rows[good.relative].defect, rows[good.relative].notes) == ("good", ())
    assert all(row.status == "ok" for row in rows.values())
    put_png(black, np.eye(*SHAPE, dtype=bool))
    rows = {row.path: row for row in evaluate(changed, [map_set]).rows}
    assert "defective pixels in the mask of a good image" in rows[good.relative].error


def test_pixels_without_a_score_take_no_part(tmp_path, samples):
    values, map_set = put_map_set(tmp_path, samples, 0)
    truth = masks(samples)
    for path, scores in values.items():
        scores[:, -2:] = np.nan
        tifffile.imwrite(tmp_path / "maps" / "0" / f"{path}.tiff", scores)
    evaluation = evaluate(samples, [map_set])
    for row in evaluation.rows:
        assert row.status == "ok" and row.score == np.nanmax(values[row.path])
        if not row.good:
            kept = truth[row.path][:, :-2].ravel(), values[row.path][:, :-2].ravel()
            assert (row.auroc, row.auprc, row.f1_max) == pytest.approx(by_hand(*kept))
    together = [np.concatenate([d[p][:, :-2].ravel() for p in truth]) for d in (truth, values)]
    pooled = evaluation.pooled["maps", 0, ALL]
    assert (pooled.auroc, pooled.auprc, pooled.f1_max) == pytest.approx(by_hand(*together))


def test_maps_of_another_size_are_resized_where_that_is_asked_for(tmp_path, samples):
    _, map_set = put_map_set(tmp_path, samples, 0)
    large = np.random.default_rng(0).random((24, 32)).astype(np.float32)
    large[:, :8] = np.nan
    path = tmp_path / "maps" / "0" / f"{samples[0].relative}.tiff"
    tifffile.imwrite(path, large)
    row = evaluate(samples[:1], [map_set]).rows[0]
    assert "24 x 32" in row.error and "--resize_maps" in row.error
    row = evaluate(samples[:1], [dataclasses.replace(map_set, resized=True)]).rows[0]
    small = resize_map(large, SHAPE)
    assert (row.status, row.height, row.width) == ("ok", *SHAPE)
    assert np.isnan(small[:, :4]).all() and not np.isnan(small[:, 4:]).any()
    known = ~np.isnan(small)
    truth = masks(samples)[samples[0].relative]
    assert row.auroc == pytest.approx(roc_auc_score(truth[known], small[known]))


def test_grey_pngs_are_maps_and_pictures_are_not(tmp_path, samples):
    _, map_set = put_map_set(tmp_path, samples[:1], 0)
    sample = samples[0]
    folder = tmp_path / "maps" / "0"
    (folder / f"{sample.relative}.tiff").unlink()
    scores = np.random.default_rng(0).integers(0, 65536, SHAPE).astype(np.uint16)
    put_png(folder / f"{sample.relative}.png", scores)
    np.testing.assert_array_equal(read_map(map_set.find(sample)), scores)
    assert evaluate([sample], [map_set]).rows[0].status == "ok"
    put_png(
        folder / f"{sample.relative}.png",
        np.dstack([scores % 256, scores // 256] * 2)[..., :3].astype(np.uint8),
    )
    assert "found a picture in colours" in evaluate([sample], [map_set]).rows[0].error
    with pytest.raises(InputError, match="found no map"):
        find_map(sample.path.parents[3], sample)  # the image itself is none


def test_an_empty_mask_of_an_unnamed_defect_means_a_good_image(tmp_path):
    # Sets in plain folders often have a black mask for every good image.
    for name, value in (("a", 0), ("b", 255)):
        put_png(tmp_path / "images" / f"{name}.png", np.full(SHAPE, 60, np.uint8))
        mask = np.zeros(SHAPE, np.uint8)
        mask[2:5, 3:9] = value
        put_png(tmp_path / "masks" / f"{name}.png", mask)
    samples = read_dataset(tmp_path / "images", masks=tmp_path / "masks")
    _, map_set = put_map_set(tmp_path, samples, 0)
    good, bad = evaluate(samples, [map_set]).rows
    assert (good.defect, good.status, good.auroc) == ("good", "ok", None)
    assert (bad.defect, bad.status) == ("defect", "ok") and bad.auroc is not None


def test_a_category_called_as_the_sum_is_refused(samples):
    odd = [Sample(s.path, s.relative, ALL, s.defect, s.mask_path) for s in samples]
    with pytest.raises(InputError, match="all"):
        evaluate(odd, [])


def test_tables_are_written_in_the_order_promised(tmp_path, samples):
    _, map_set = put_map_set(tmp_path, samples, 0)
    remove_map(None, tmp_path, "wood/test/hole/0.png")
    evaluation = evaluate(samples, [map_set])
    write_metrics_csv(tmp_path / "metrics.csv", evaluation.rows)
    write_summary(tmp_path / "summary.json", summarize(evaluation))
    with (tmp_path / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert COLUMNS[:6] == ("method", "category", "defect", "path", "auroc", "auprc")
    assert float(rows[0]["auroc"]) == pytest.approx(evaluation.rows[0].auroc)
    assert [row["auroc"] for row in rows if row["defect"] == "good"] == ["", ""]
    assert rows[-1]["status"] == "error" and rows[-1]["error"]

    def no_constants(text):
        raise AssertionError(text)

    text = (tmp_path / "summary.json").read_text()
    entries = json.loads(text, parse_constant=no_constants)["maps"]
    assert entries["wood"]["auroc_mean"] is None and entries["wood"]["auroc_pooled"] is None


@pytest.mark.parametrize("suffix", MAP_SUFFIXES)
@pytest.mark.parametrize("name", ["a/b.c/7.png", "a/b.c/7", "grid/test/bent/7"])
def test_maps_are_found_by_any_of_their_names(tmp_path, suffix, name):
    sample = Sample(tmp_path / "7.png", "a/b.c/7.png", "grid", "bent", None)
    path = tmp_path / f"{name}{suffix}"
    path.parent.mkdir(parents=True)
    values = np.arange(6.0).reshape(2, 3)
    if suffix == ".npy":
        np.save(path, values)
    elif suffix == ".npz":
        np.savez(path, anything=values)
    elif suffix == ".png":
        Image.fromarray(values.astype(np.uint8)).save(path)
    else:
        tifffile.imwrite(path, values)
    assert find_map(tmp_path, sample) == path
    np.testing.assert_array_equal(read_map(path), values)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.zeros((2, 3, 3)), "shape \\(2, 3, 3\\)"),
        (np.zeros(4), "shape \\(4,\\)"),
        (np.zeros((2, 2), complex), "complex"),
        (np.array([["a"]]), "<U1"),
        (np.full((2, 2), 1e300), "4 values that are infinite"),
        (np.full((2, 2), np.nan), "NaN everywhere"),
        (np.array([[None]]), "cannot be read"),
    ],
)
def test_what_is_no_map_is_refused_by_name(tmp_path, values, words):
    np.save(tmp_path / "m.npy", values)
    with pytest.raises(InputError, match=f"m.npy: .*{words}"):
        read_map(tmp_path / "m.npy")


def test_one_channel_maps_lose_their_channel_and_several_arrays_are_refused(tmp_path):
    np.save(tmp_path / "m.npy", np.ones((2, 3, 1)))
    assert read_map(tmp_path / "m.npy").shape == (2, 3)
    np.savez(tmp_path / "m.npz", a=np.ones((2, 3)), b=np.ones((2, 3)))
    with pytest.raises(InputError, match="2 arrays \\(a, b\\)"):
        read_map(tmp_path / "m.npz")


def test_maps_are_laid_out_as_links_under_names_of_their_own(tmp_path):
    samples = [
        Sample(tmp_path / name, name, "grid", "bent", None)
        for name in ("grid/test/bent/0.png", "x/1.png", "x/1.jpg", "y/1.png", "gone.png")
    ]
    for sample in samples[:-1]:
        path = tmp_path / "maps" / f"{sample.relative}.tiff"
        path.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(path, np.ones((2, 2), np.float32))
    out = tmp_path / "out"
    for _ in range(2):  # a second time nothing changes
        put_maps(out, samples, lambda sample: find_map(tmp_path / "maps", sample))
        found = sorted(p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file())
        assert found == [f"grid/test/bent/{n}.tiff" for n in ("0", "x_1.jpg", "x_1.png", "y_1.png")]
    first = tmp_path / "maps" / "grid/test/bent/0.png.tiff"
    assert (out / "grid/test/bent/0.tiff").samefile(first)
    # A map that was scored again replaces the old one.
    first.unlink()
    tifffile.imwrite(first, np.zeros((2, 2), np.float32))
    put_maps(out, samples, lambda sample: find_map(tmp_path / "maps", sample))
    assert (out / "grid/test/bent/0.tiff").samefile(first)


def test_maps_are_copied_where_links_cannot_be(tmp_path, monkeypatch):
    def refuse(self, target):
        raise OSError("other file system")

    monkeypatch.setattr("pathlib.Path.hardlink_to", refuse)
    sample = Sample(tmp_path / "0.png", "0.png", "grid", "bent", None)
    tifffile.imwrite(tmp_path / "0.tiff", np.ones((2, 2), np.float32))
    put_maps(tmp_path / "out", [sample], lambda sample: tmp_path / "0.tiff")
    np.save(tmp_path / "0.npy", np.full((2, 2), 3.0))
    copy = tmp_path / "out" / "grid/test/bent/0.tiff"
    assert copy.read_bytes() == (tmp_path / "0.tiff").read_bytes()
    put_maps(tmp_path / "out", [sample], lambda sample: tmp_path / "0.npy")
    np.testing.assert_array_equal(tifffile.imread(copy), np.full((2, 2), 3, np.float32))


@pytest.mark.parametrize("name", ["../../x", "/etc", "a/../../b"])
def test_maps_are_never_laid_out_outside_of_their_folder(tmp_path, samples, name):
    _, map_set = put_map_set(tmp_path, samples, 0)
    odd = [dataclasses.replace(samples[0], category=name)]
    with pytest.raises(InputError, match="expected a relative path"):
        put_maps(tmp_path / "deep" / "out", odd, map_set.find)
    assert not (tmp_path / "deep").exists()
