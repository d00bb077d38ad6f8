import csv
import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

import ssdnet_jax
from ssdnet_jax.baselines.spectral_residual import spectral_residual
from ssdnet_jax.cli.evaluate import Arguments, help_text, main, parse
from ssdnet_jax.config import from_config_dict
from ssdnet_jax.data.images import read_image, read_mask, resize_image, resize_map
from ssdnet_jax.evaluation.metrics import auprc, auroc
from ssdnet_jax.experiments.conditions import PLAIN, Condition, corrupt
from ssdnet_jax.methods.images import fill_nearest
from ssdnet_jax.runner import executors
from ssdnet_jax.runner.run import image_key

pytestmark = pytest.mark.usefixtures("quick_figures")
SHAPE = (40, 56)


def put_png(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def ssdnet_evaluate(tiny, flags_of, capsys):
    """Calls the command in this process: exit status, standard output, standard error."""
    quick = flags_of({**tiny, "fit": {"max_steps": 2, "block_steps": 2}})

    def call(*flags):
        status = main(["ssdnet-evaluate", *quick, *map(str, flags)])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


@pytest.fixture
def maps(tmp_path, dataset):
    """Maps of all images in MVTec AD's evaluation layout."""
    for number, path in enumerate(sorted(dataset.glob("grid/test/*/*.png"))):
        scores = np.random.default_rng(number).normal(size=SHAPE).astype(np.float32)
        target = tmp_path / "theirs" / path.relative_to(dataset).with_suffix(".tiff")
        target.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(target, scores)
    return tmp_path / "theirs"


def rows(workdir):
    with (workdir / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def summary(workdir):
    return json.loads((workdir / "summary.json").read_text())


def test_a_dataset_is_scored_with_each_seed_and_evaluated(
    ssdnet_evaluate, dataset, tmp_path, monkeypatch
):
    out = tmp_path / "out"
    flags = (f"--dataset={dataset}", f"--workdir={out}", "--seeds=0,1")
    status, stdout, stderr = ssdnet_evaluate(*flags)
    assert (status, stderr) == (0, "")
    entry = summary(out)["ssdnet"]["grid"]
    assert (entry["defective"], entry["good"], entry["seeds"]) == (2, 1, 2)
    assert stdout == (
        f"ssdnet: 3 images, AUROC {entry['auroc_mean']:.3f}, AUPRC {entry['auprc_mean']:.3f} "
        f"(pooled {entry['auroc_pooled']:.3f} / {entry['auprc_pooled']:.3f}); "
        f"report in {out}/report.html\n"
    )
    table = rows(out)
    assert [(row["path"], row["seed"]) for row in table] == [
        (f"grid/test/{name}.png", seed) for seed in "01" for name in ("blob/0", "blob/1", "good/0")
    ]
    for row in table:
        run = out / "runs" / "ssdnet" / f"seed{row['seed']}"
        score_map = tifffile.imread(run / "maps" / f"{row['path']}.tiff")
        assert np.float32(row["score"]) == score_map.max()
        assert float(row["seconds"]) > 0
        if row["defect"] == "blob":
            mask = read_mask(dataset / "grid/ground_truth/blob" / f"{row['path'][-5]}_mask.png")
            assert float(row["auroc"]) == pytest.approx(auroc(mask, score_map))
    assert table[0]["auroc"] != table[3]["auroc"]
    link = out / "anomaly_maps" / "ssdnet" / "grid/test/blob/1.tiff"
    assert link.samefile(out / "runs/ssdnet/seed0/maps/grid/test/blob/1.png.tiff")
    note = json.loads((out / "runs/ssdnet/seed1/run.json").read_text())
    assert note["config"]["seed"] == 1 and note["command"].startswith("ssdnet-evaluate --config")
    assert "<svg" in (out / "report.html").read_text(encoding="utf-8")

    # A second time nothing is fitted, and the numbers are the same.
    monkeypatch.setattr(executors, "run", lambda *a, **k: pytest.fail("scored again"))
    before = summary(out)
    assert ssdnet_evaluate(*flags) == (0, stdout, "")
    again = summary(out)
    for found in (before, again):
        assert 0 < found["ssdnet"]["all"].pop("peak_memory_gib") < 100
    assert again == before
    # Another configuration is refused, one line.
    status, stdout, stderr = ssdnet_evaluate(*flags, "--config.fit.max_steps=1")
    assert (status, stdout) == (2, "") and "config.fit.max_steps: 2 there, 1 here" in stderr


def by_hand(dataset, name, options, *, size, noise, missing, zero):
    """AUROC and AUPRC of spectral residual on one image, step by step."""
    relative = f"grid/test/blob/{name}.png"
    decoded = read_image(dataset / relative)
    small = dataclasses.replace(decoded, pixels=resize_image(decoded.pixels, (size, size)))
    corrupted = corrupt(corrupt(small, "noise", noise, relative), "missing", missing, relative)
    pixels = corrupted.pixels
    if not zero:
        pixels = fill_nearest(pixels, corrupted.missing)
    mask = read_mask(dataset / f"grid/ground_truth/blob/{name}_mask.png")
    mask = resize_image(mask[..., None].astype(np.float32), (size, size))[..., 0] > 0.5
    score_map = np.asarray(spectral_residual(pixels, **options))
    return auroc(mask, score_map), auprc(mask, score_map)


@pytest.mark.parametrize("values", ["nearest", "zero"])
def test_at_a_given_size_image_and_mask_are_resized_before_anything_else(dataset, tmp_path, values):
    out = tmp_path / "out"
    flags = [f"--dataset={dataset}", f"--workdir={out}", "--only_defective", "--evaluate_at=24"]
    flags += ["--methods=spectral_residual,spectral_residual:width=None:border=reflect"]
    flags += ["--noise=0.05", "--missing=0.1", f"--missing_values={values}"]
    # The configuration's own size is that of SSDnet alone.
    assert main(["ssdnet-evaluate", "--config=grid", *flags]) == 0
    table = rows(out)
    assert [(r["path"][-5], r["method"], r["height"]) for r in table] == [
        (name, f"spectral_residual{options}", "24")
        for options in ("", ":width=None:border=reflect")
        for name in "01"
    ]
    how = {"size": 24, "noise": 0.05, "missing": 0.1, "zero": values == "zero"}
    for row in table:
        options = {"width": None, "border": "reflect"} if ":" in row["method"] else {}
        found = by_hand(dataset, row["path"][-5], options, **how)
        assert (float(row["auroc"]), float(row["auprc"])) == pytest.approx(found, rel=1e-6)
    entry = summary(out)["spectral_residual"]["all"]
    assert (entry["defective"], entry["good"], entry["seeds"]) == (2, 0, 1)
    name = f"at24-noise0.05-missing0.1{'-zero' * (values == 'zero')}"
    assert (out / "runs/spectral_residual-width=None_border=reflect" / name / "seed0").is_dir()
    assert not (out / "anomaly_maps").exists()
    assert "at 24 px, noise 0.05, missing 0.1" in (out / "report.html").read_text(encoding="utf-8")


def test_ssdnet_fits_at_the_size_of_its_configuration_whatever_the_size_of_the_evaluation(
    ssdnet_evaluate, dataset, tmp_path, tiny
):
    flags = [f"--dataset={dataset}", f"--workdir={tmp_path / 'out'}", "--seeds=3"]
    flags += ["--only_defective", "--every=2"]
    assert ssdnet_evaluate(*flags, "--evaluate_at=40", "--noise_of_original=0.1")[0] == 0
    (row,) = rows(tmp_path / "out")
    config = from_config_dict({**tiny, "fit": {"max_steps": 2, "block_steps": 2}})
    relative = "grid/test/blob/0.png"
    noisy = corrupt(read_image(dataset / relative), "noise", 0.1, relative)
    image = resize_image(noisy.pixels, (40, 40))
    result = ssdnet_jax.localize(image, config, image_key(3, relative))
    mask = read_mask(dataset / "grid/ground_truth/blob/0_mask.png")[..., None]
    mask = resize_image(mask.astype(np.float32), (40, 40))[..., 0] > 0.5
    assert float(row["auroc"]) == pytest.approx(auroc(mask, result.score_map), abs=1e-3)
    assert float(row["auprc"]) == pytest.approx(auprc(mask, result.score_map), abs=1e-3)


def test_maps_of_corrupted_images_are_compared_at_the_size_of_the_image(
    ssdnet_evaluate, dataset, tmp_path
):
    out = tmp_path / "out"
    flags = [f"--dataset={dataset}", f"--workdir={out}", "--methods=spectral_residual"]
    assert ssdnet_evaluate(*flags, "--noise=0.1")[0] == 0
    score_map = tifffile.imread(
        out / "runs/spectral_residual/noise0.1/seed0/maps/grid/test/blob/0.png.tiff"
    )
    assert score_map.shape == (32, 44)
    mask = read_mask(dataset / "grid/ground_truth/blob/0_mask.png")
    row = rows(out)[0]
    assert (row["height"], row["width"]) == ("40", "56")
    assert float(row["auroc"]) == pytest.approx(auroc(mask, resize_map(score_map, SHAPE)))
    assert summary(out)["spectral_residual"]["all"]["auroc_pooled"] is not None


def test_existing_maps_can_be_of_the_size_of_the_evaluation(ssdnet_evaluate, dataset, tmp_path):
    for number in range(2):
        path = tmp_path / "theirs/grid/test/blob" / f"{number}.tiff"
        path.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(path, np.random.default_rng(number).random((20, 20), np.float32))
    flags = [f"--dataset={dataset}", f"--workdir={tmp_path}/out", f"--maps={tmp_path}/theirs"]
    assert ssdnet_evaluate(*flags, "--only_defective", "--evaluate_at=20")[0] == 0
    status, _, stderr = ssdnet_evaluate(*flags, "--only_defective", "--evaluate_at=16")
    assert status == 1 and "expected 16 x 16, the size of the evaluation" in stderr


def test_an_image_that_cannot_be_scored_is_an_error_row_with_the_reason(
    ssdnet_evaluate, dataset, tmp_path
):
    (dataset / "grid/test/blob/1.png").write_bytes(b"")
    flags = (f"--dataset={dataset}", f"--workdir={tmp_path / 'o'}", "--methods=spectral_residual")
    status, stdout, stderr = ssdnet_evaluate(*flags)
    assert status == 1
    assert stdout.startswith("spectral_residual: 3 images, 1 failed, AUROC 0.")
    of_fields, problem = stderr.splitlines()
    assert "change nothing here, since only ssdnet takes such fields" in of_fields
    assert "the file is empty" in problem
    bad = rows(tmp_path / "o")[1]
    assert bad["status"] == "error" and "the file is empty" in bad["error"]
    assert not (tmp_path / "o/anomaly_maps/spectral_residual/grid/test/blob/1.tiff").exists()


def test_existing_maps_are_evaluated_without_scoring(
    ssdnet_evaluate, dataset, maps, tmp_path, monkeypatch
):
    monkeypatch.setattr(executors, "run", lambda *a, **k: pytest.fail("scored"))
    out = tmp_path / "out"
    flags = (f"--dataset={dataset}", f"--workdir={out}", f"--maps={maps}")
    status, stdout, stderr = ssdnet_evaluate(*flags, "--methods=Their method")
    assert (status, stderr) == (0, "") and stdout.startswith("Their method: 3 images, AUROC 0.")
    row = rows(out)[0]
    mask = read_mask(dataset / "grid/ground_truth/blob/0_mask.png")
    expected = auroc(mask, tifffile.imread(maps / "grid/test/blob/0.tiff"))
    assert (row["method"], row["seed"]) == ("Their method", "")
    assert float(row["auroc"]) == pytest.approx(expected)
    assert not (out / "runs").exists()

    # The command reads its own layout of maps as well.
    again = tmp_path / "again"
    own = out / "anomaly_maps" / "Their method"
    ssdnet_evaluate(f"--dataset={dataset}", f"--workdir={again}", f"--maps={own}")
    assert list(summary(again)) == ["maps"]
    assert summary(again)["maps"] == summary(out)["Their method"]


def test_a_folder_of_ssdnet_is_a_folder_of_maps(ssdnet_evaluate, dataset, maps, tmp_path):
    folder = tmp_path / "run"
    for path in maps.rglob("*.tiff"):
        target = folder / "maps" / path.relative_to(maps).with_suffix(".png.tiff")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    (folder / "results.csv").touch()
    (folder / "run.json").touch()
    flags = (f"--dataset={dataset}", f"--workdir={tmp_path / 'out'}", f"--maps={folder}")
    assert ssdnet_evaluate(*flags)[0] == 0


def test_what_cannot_be_compared_is_named_and_the_others_go_on(
    ssdnet_evaluate, dataset, maps, tmp_path
):
    (maps / "grid/test/blob/0.tiff").unlink()
    put_png(dataset / "grid/ground_truth/blob/1_mask.png", np.ones((3, 4), np.uint8))
    out = tmp_path / "out"
    status, stdout, stderr = ssdnet_evaluate(
        f"--dataset={dataset}", f"--workdir={out}", f"--maps={maps}"
    )
    assert status == 1
    assert stdout.startswith("maps: 3 images, 2 failed, AUROC none, AUPRC none")
    first, second = stderr.splitlines()
    assert "blob/0.png: found no map" in first and "1_mask.png: found a mask of 3 x 4" in second
    assert [row["status"] for row in rows(out)] == ["error", "error", "ok"]
    assert (out / "report.html").exists()


def test_many_problems_are_summed_up(ssdnet_evaluate, tmp_path):
    for number in range(13):
        put_png(tmp_path / "set/c/test/good" / f"{number}.png", np.zeros((4, 4), np.uint8))
    (tmp_path / "none").mkdir()
    flags = [f"--{name}={tmp_path / folder}" for name, folder in (("dataset", "set"),)]
    status, _, stderr = ssdnet_evaluate(
        *flags, f"--workdir={tmp_path / 'out'}", f"--maps={tmp_path / 'none'}"
    )
    assert status == 1
    lines = stderr.splitlines()
    assert len(lines) == 11 and "3 more without metrics; see" in lines[-1]


def test_results_inside_a_plain_folder_are_not_taken_for_images(
    ssdnet_evaluate, dataset, maps, tmp_path
):
    plain = tmp_path / "plain"
    shutil.copytree(dataset / "grid/test", plain)
    shutil.copytree(dataset / "grid/ground_truth", tmp_path / "masks")
    put_png(plain / "out" / "runs/ssdnet/seed0/heatmaps/0.png", np.ones((4, 4), np.uint8))
    flags = (f"--dataset={plain}", f"--masks={tmp_path / 'masks'}", f"--workdir={plain / 'out'}")
    status, stdout, _ = ssdnet_evaluate(*flags, f"--maps={maps / 'grid/test'}")
    assert status == 0 and stdout.startswith("maps: 3 images, ")


def make_sets(tmp_path):
    """A set of each of three layouts, 16 pixels a side, and maps that know something of them."""
    generator = np.random.default_rng(0)
    names = {
        "one": ["grid/test/good/0.png", "grid/test/bent/1.png", "grid/test/bent/2.png"],
        "two": [f"Class1/Test/{number}.PNG" for number in range(4)],
        "three": [f"x/test/{kind}/{number}.png" for kind in ("good", "bad") for number in range(3)],
    }
    masks = {
        "one": {f"grid/test/bent/{n}.png": f"grid/ground_truth/bent/{n}_mask.png" for n in (1, 2)},
        "two": {f"Class1/Test/{n}.PNG": f"Class1/Test/Label/{n}_label.PNG" for n in (1, 3)},
    }
    for name, images in names.items():
        for image in images:
            pixels = generator.integers(0, 99, (16, 16)).astype(np.uint8)
            put_png(tmp_path / "sets" / name / image, pixels)
            scores = generator.normal(size=(16, 16)).astype(np.float32)
            if mask := masks.get(name, {}).get(image):
                truth = np.zeros((16, 16), np.uint8)
                truth[3:9, 4:8] = 255
                put_png(tmp_path / "sets" / name / mask, truth)
                scores += truth / 200
            if "bad" in image:
                scores[4:6, 4:6] += 9
            path = tmp_path / "maps" / name / f"{image}.tiff"
            path.parent.mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(path, scores)
    return tmp_path / "sets", tmp_path / "maps"


def test_several_sets_are_evaluated_by_one_command_and_compared(ssdnet_evaluate, tmp_path):
    sets, maps = make_sets(tmp_path)
    put_png(sets / "notes/picture.png", np.zeros((4, 4), np.uint8))  # no set
    out = tmp_path / "out"
    status, stdout, stderr = ssdnet_evaluate(
        f"--dataset={sets}", f"--workdir={out}", f"--maps={maps}", "--methods=theirs"
    )
    assert (status, stderr) == (0, "")
    table = stdout[stdout.index("set ") :].splitlines()
    assert table[0].split()[:3] == ["set", "method", "images"]
    assert [line.split()[0] for line in table[1:4]] == ["one", "three", "two"]
    found = summary(out)
    assert list(found) == ["one", "three", "two"]
    for name in found:
        assert summary(out / name) == found[name]
        text = (out / name / "report.html").read_text(encoding="utf-8")
        assert "<dt>Layout</dt>" in text
    entry = found["one"]["theirs"]["all"]
    low, high = entry["auprc_mean_interval"]
    assert low <= entry["auprc_mean"] <= high
    assert f"{entry['auprc_mean']:.3f} [{low:.3f}, {high:.3f}]" in table[1]
    page = (out / "report.html").read_text(encoding="utf-8")
    assert 'href="three/report.html"' in page and f"{entry['aupro_pooled_macro']:.3f}" in page

    # Labels of whole images are enough to compare whole images.
    entry = found["three"]["theirs"]["all"]
    assert entry["auroc_mean"] is None and entry["auroc_pooled"] is None
    assert entry["image_auroc_calibrated"] == 1.0
    assert entry["detection"]["detected"]["count"] == entry["detection"]["false_alarms"]["count"]
    report = (out / "three/report.html").read_text(encoding="utf-8")
    assert "Whole images" in report and "stated false-alarm rate" in report


def test_halves_have_no_image_in_common_and_make_the_whole(ssdnet_evaluate, tmp_path):
    sets, maps = make_sets(tmp_path)
    flags = [f"--dataset={sets / 'two'},{sets / 'three'}", f"--maps={maps}"]
    paths = []
    for offset in (0, 1):
        out = tmp_path / f"half{offset}"
        part = ["--every=2", f"--offset={offset}"]
        assert ssdnet_evaluate(*flags, f"--workdir={out}", *part)[0] == 0
        paths.append([row["path"] for name in ("two", "three") for row in rows(out / name)])
    assert [sum("good" in path for path in half) for half in paths] == [2, 1]
    assert len(set(paths[0]) & set(paths[1])) == 0 and len(paths[0]) + len(paths[1]) == 10


def test_what_is_odd_about_masks_is_said_once(ssdnet_evaluate, dataset, maps, tmp_path):
    for number in range(2):
        path = dataset / f"grid/ground_truth/blob/{number}_mask.png"
        mask = Image.open(path)
        path.unlink()
        mask.save(path.with_suffix(".jpg"), quality=70)
    flags = (f"--dataset={dataset}", f"--workdir={tmp_path / 'out'}", f"--maps={maps}")
    status, _, stderr = ssdnet_evaluate(*flags)
    assert status == 0
    (line,) = stderr.splitlines()
    assert "grid/test/blob/0.png (and 1 other): has many values" in line
    assert rows(tmp_path / "out")[0]["notes"].startswith("has many values")


def test_defects_where_maps_have_no_score_are_told_of(ssdnet_evaluate, dataset, maps, tmp_path):
    for number in range(2):
        mask = np.asarray(Image.open(dataset / f"grid/ground_truth/blob/{number}_mask.png")) > 0
        path = maps / f"grid/test/blob/{number}.tiff"
        tifffile.imwrite(path, np.where(mask, np.nan, tifffile.imread(path)).astype(np.float32))
    flags = (f"--dataset={dataset}", f"--workdir={tmp_path / 'out'}", f"--maps={maps}")
    status, stdout, stderr = ssdnet_evaluate(*flags)
    assert status == 0 and stdout.startswith("maps: 3 images, AUROC none, AUPRC none")
    (line,) = stderr.splitlines()
    assert "grid/test/blob/0.png (and 1 other): more than half of its defective pixels" in line
    assert (tmp_path / "out/report.html").is_file()


@pytest.mark.parametrize("name", ["../../..", "/tmp/elsewhere", "a/../../../../b"])
def test_a_table_cannot_have_maps_written_elsewhere(ssdnet_evaluate, dataset, maps, tmp_path, name):
    table = dataset / "list.csv"
    masks = "grid/ground_truth/blob/0_mask.png"
    table.write_text(f"image,mask,category\ngrid/test/blob/0.png,{masks},{name}\n")
    before = sorted(tmp_path.rglob("*"))
    flags = (f"--dataset={table}", f"--workdir={tmp_path / 'a/b/out'}", f"--maps={maps}")
    status, stdout, stderr = ssdnet_evaluate(*flags)
    assert (status, stdout) == (2, "")
    assert f"list.csv, line 2: category: found {name!r}; expected a relative path" in stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_maps_of_another_size_are_resized_if_asked(ssdnet_evaluate, dataset, maps, tmp_path):
    for path in maps.rglob("*.tiff"):
        tifffile.imwrite(path, tifffile.imread(path)[::2, ::2])
    flags = (f"--dataset={dataset}", f"--workdir={tmp_path / 'out'}", f"--maps={maps}")
    status, _, stderr = ssdnet_evaluate(*flags)
    assert status == 1 and "a map of 20 x 28" in stderr and "--resize_maps" in stderr
    assert ssdnet_evaluate(*flags, "--resize_maps")[0] == 0
    assert {(row["height"], row["width"]) for row in rows(tmp_path / "out")} == {("40", "56")}


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--workdir=w"], ["--dataset: found none"]),
        (["--dataset=d"], ["--workdir: found none"]),
        (["--dataset=d", "--workdir=w"], ["d", "no such folder"]),
        (["--dataset", "set", "--workdir=w", "--maps=m"], ["m: no such folder", "--maps"]),
        (["--dataset", "set", "--workdir=w", "--categories=tile"], ["tile", "grid"]),
        (["--methods=padim"], ["--methods", "'padim'", "ssdnet"]),
        (["--maps=m", "--methods=a,b"], ["--methods", "'a,b'", "one name"]),
        (["--maps=m", "--methods=a/b"], ["--methods", "'a/b'", "slashes"]),
        (["--maps=m", "--methods=.."], ["--methods", "'..'"]),
        (["--maps=m", "--seeds=1"], ["--seeds", "--maps"]),
        (["--maps=m", "--noise=0.1"], ["--noise", "--maps"]),
        (["--noise=0.1,0.2"], ["--noise", "'0.1,0.2'", "one number from 0 to 1"]),
        (["--missing=1"], ["--missing", "'1'", "0.99"]),
        (["--missing_values=mean"], ["--missing_values", "'mean'", "nearest or zero"]),
        (["--dataset=set", "--workdir=w", "--layout=coco3"], ["--layout", "'coco3'", "mvtec"]),
        (["--every=2", "--offset=2"], ["--offset", "'2'", "below that of --every"]),
        (["--offset=1"], ["--offset", "'1'"]),
        (["--resize_maps"], ["--resize_maps", "--maps"]),
        (["--false_alarms=2"], ["false_alarms", "2"]),
        (["--dataset=set,set/grid/..", "--workdir=w", "--maps=m2"], ["another set", "set"]),
        (["--evaluate_at=0"], ["--evaluate_at", "'0'", "whole number"]),
        (["--methods=fca:size=3"], ["--methods", "'size'", "border"]),
        (["--seeds=1,x"], ["--seeds", "'1,x'", "0,1,2"]),
        (["--seeds="], ["--seeds", "''"]),
        (["--dataset=set", "--workdir=w", "--seeds=4294967296"], ["config.seed", "4294967296"]),
        (["set"], ["'set'", "--dataset=set"]),
        (["--data=set"], ["--data", "nearest is --dataset"]),
        (["--config.fit.max_step=3"], ["--config.fit.max_steps"]),
        (["--dataset=set", "--workdir=set/grid/test/blob/0.png", "--maps=m2"], ["0.png", "folder"]),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(
    dataset, maps, tmp_path, monkeypatch, capsys, flags, words
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m2").mkdir()
    assert main(["ssdnet-evaluate", *flags]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    *_, message = captured.err.splitlines()
    for word in words:
        assert word in message


def test_flags_become_arguments():
    command = ["ssdnet-evaluate", "--dataset=a", "--workdir=b"]
    words = "--categories=x,y --seeds=2,0,2 --image_size=64 --config.seed=3"
    parsed = parse([*command, *words.split()])
    assert (str(parsed.dataset), str(parsed.workdir)) == ("a", "b")
    assert (parsed.categories, parsed.seeds, parsed.methods) == (("x", "y"), (2, 0), ("ssdnet",))
    assert (parsed.config.image_size, parsed.condition, parsed.every) == (64, PLAIN, 0)
    assert parse([*command, "--dataset=c,d"]).sets == (Path("a"), Path("c"), Path("d"))
    assert parse([*command, "--config.seed=3"]).seeds == (3,)
    assert parse([*command, "--maps=m"]).methods == ("maps",)
    methods = [*command, "--methods=ssdnet:grid,fca:border=corrected", "--evaluate_at=128"]
    configs = parse(methods).configs
    assert {m: c.image_size for m, c in configs.items()} == {
        "ssdnet:grid": 256,
        "fca:border=corrected": 0,
    }
    assert "fca:border=corrected" not in parse([*methods, "--image_size=64"]).configs


def test_a_list_of_sets_may_be_longer_than_a_path():
    sets = [f"/sets/{number}/{'a' * 200}" for number in range(30)]
    parsed = parse(["ssdnet-evaluate", f"--dataset={','.join(sets)}", "--workdir=out"])
    assert [str(path) for path in parsed.sets] == sets


def test_help_names_every_flag(capsys):
    assert main(["ssdnet-evaluate", "--help"]) == 0
    text = capsys.readouterr().out
    assert text == help_text()
    fields = Arguments.__dataclass_fields__.keys() | Condition.__dataclass_fields__.keys()
    for name in fields - {"configs", "condition", "sets"}:
        assert f"--{name}" in text
    assert max(map(len, text.splitlines())) <= 100
    assert main(["ssdnet-evaluate", "--help_config", "--config.seed=7"]) == 0
    assert "--config.seed=7" in capsys.readouterr().out
