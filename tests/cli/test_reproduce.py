import csv
import dataclasses
import json

import numpy as np
import pytest
import tifffile
from PIL import Image

from ssdnet_jax.baselines.spectral_residual import spectral_residual
from ssdnet_jax.cli.reproduce import help_text, main, parse
from ssdnet_jax.config_files import load_config, with_overrides
from ssdnet_jax.data.datasets import read_dataset
from ssdnet_jax.data.images import read_image, read_mask, resize_image, resize_map
from ssdnet_jax.data.score_maps import find_map
from ssdnet_jax.evaluation.evaluate import MapSet, evaluate
from ssdnet_jax.evaluation.metrics import auprc, auroc
from ssdnet_jax.evaluation.summary import summarize
from ssdnet_jax.experiments.conditions import corrupt
from ssdnet_jax.methods.registry import METHODS
from ssdnet_jax.runner import executors

pytestmark = pytest.mark.usefixtures("quick_figures")
SHAPE = (40, 56)
COMMAND = ["ssdnet-reproduce", "--dataset=d", "--workdir=w"]
METHOD_FLAG = "--methods=ssdnet,spectral_residual"


@pytest.fixture
def ssdnet_reproduce(tiny, flags_of, capsys):
    """Calls the command in this process: exit status, standard output, standard error."""
    fit = {"max_steps": 2, "block_steps": 2}
    quick = flags_of({**tiny, "fit": fit, "inpaint": {"max_steps": 2}})

    def call(*flags):
        status = main(["ssdnet-reproduce", *quick, *map(str, flags)])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


def rows(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def fail_if_scored(monkeypatch):
    monkeypatch.setattr(executors, "run", lambda *a, **k: pytest.fail("scored again"))


def test_one_command_writes_tables_and_figures_and_a_second_one_scores_nothing(
    ssdnet_reproduce, dataset, tmp_path, monkeypatch
):
    out = tmp_path / "out"
    flags = [f"--dataset={dataset}", f"--workdir={out}", METHOD_FLAG, "--seeds=0,1"]
    levels = ["--noise=0,0.1", "--missing=0,0.05", "--every=2", "--note=drawn here"]
    status, stdout, stderr = ssdnet_reproduce(*flags, *levels)
    assert (status, stderr) == (0, "")
    *lines, last = stdout.splitlines()
    assert last == f"results in {out}/reproduce.md"
    assert [line.split(":")[0] for line in lines] == ["ssdnet", "spectral_residual"]

    # The numbers are those that the dataset's evaluation gives for the runs' maps.
    # What draws no random numbers has one seed.
    seeds = {"ssdnet": (0, 1), "spectral_residual": (0,)}
    map_sets = [
        MapSet(method, n, lambda s, f=out / f"runs/{method}/seed{n}/maps": find_map(f, s))
        for method, numbers in seeds.items()
        for n in numbers
    ]
    samples = [s for s in read_dataset(dataset) if s.defect != "good"]
    summary = summarize(evaluate(samples, map_sets))
    table = rows(out / "table1.csv")
    assert [(r["category"], r["method"], r["images"]) for r in table] == [
        ("grid", "ssdnet", "2"),
        ("grid", "spectral_residual", "2"),
    ]
    for row in table:
        entry = summary[row["method"]]["grid"]
        for metric in ("auroc", "auprc"):
            assert float(row[metric]) == pytest.approx(entry[f"{metric}_mean"], rel=1e-6)
            spread, found = entry[f"{metric}_std_over_seeds"], row[f"{metric}_std_over_seeds"]
            if row["method"] == "ssdnet":
                assert float(found) == pytest.approx(spread, rel=1e-6)
            else:
                assert (found, spread) == ("", None)
    assert table[0]["auprc_published"] == "0.6"

    # Level 0 is the clean run; other levels have folders of their own.
    curves = rows(out / "robustness.csv")
    assert [(r["corruption"], r["level"], r["method"]) for r in curves] == [
        (kind, level, method)
        for kind, levels in (("noise", ("0", "0.1")), ("missing", ("0", "0.05")))
        for level in levels
        for method in ("ssdnet", "spectral_residual")
    ]
    mask = read_mask(dataset / "grid/ground_truth/blob/0_mask.png")
    for row in curves:
        folder = "" if row["level"] == "0" else f"{row['corruption']}{row['level']}"
        numbers = seeds[row["method"]]
        maps = [
            resize_map(tifffile.imread(run / "maps/grid/test/blob/0.png.tiff"), SHAPE)
            for run in (out / "runs" / row["method"] / folder / f"seed{n}" for n in numbers)
        ]
        for metric in (auroc, auprc):
            expected = np.mean([metric(mask, each) for each in maps])
            assert float(row[metric.__name__]) == pytest.approx(expected, rel=1e-6)
        assert row["images"] == "1"
    assert {path.name for path in (out / "runs/ssdnet").iterdir()} == {
        *("seed0", "seed1", "noise0.1", "missing0.05")
    }
    note = json.loads((out / "runs/ssdnet/missing0.05/seed1/run.json").read_text())
    assert note["condition"] == "missing 0.05" and note["config"]["seed"] == 1

    text = (out / "reproduce.md").read_text(encoding="utf-8")
    assert "drawn here" in text and "--seeds=0,1" in text
    figures = sorted(path.name for path in (out / "figures").iterdir())
    assert figures == [
        *("fig3_auroc_boxes.png", "fig4_auprc_boxes.png", "fig5_auprc_noise.png"),
        *("fig6_auroc_noise.png", "fig7_auprc_missing.png", "fig8_auroc_missing.png"),
        "pictures_grid.png",
    ]
    for name in figures:
        assert f"](figures/{name})" in text
        assert np.asarray(Image.open(out / "figures" / name)).std() > 5
    content = json.loads((out / "reproduce.json").read_text())
    assert len(content["images"]) == 6 and len(content["corrupted_images"]) == 12

    fail_if_scored(monkeypatch)
    assert ssdnet_reproduce(*flags, *levels) == (0, stdout, "")
    assert rows(out / "table1.csv") == table and rows(out / "robustness.csv") == curves


def test_parts_score_only_what_they_need(ssdnet_reproduce, dataset, tmp_path):
    out = tmp_path / "out"
    flags = [f"--dataset={dataset}", f"--workdir={out}", "--methods=spectral_residual"]
    status, stdout, _ = ssdnet_reproduce(*flags, "--parts=noise", "--noise=0,0.05")
    assert (status, stdout) == (0, f"results in {out}/reproduce.md\n")
    # The clean run of the one corrupted image alone.
    assert len(rows(out / "runs/spectral_residual/seed0/results.csv")) == 1
    assert not (out / "table1.csv").exists() and len(rows(out / "robustness.csv")) == 2
    assert len(list((out / "figures").iterdir())) == 2
    ssdnet_reproduce(*flags, "--parts=table")
    assert len(rows(out / "runs/spectral_residual/seed0/results.csv")) == 2
    assert len(rows(out / "table1.csv")) == 1


def test_configurations_of_ssdnet_stand_beside_each_other(ssdnet_reproduce, dataset, tmp_path):
    out = tmp_path / "out"
    (tmp_path / "narrow.py").write_text(
        "from ssdnet_jax.config import Config, to_config_dict\n"
        "get_config = lambda: to_config_dict(Config())\n"
    )
    flags = [f"--dataset={dataset}", f"--workdir={out}", "--noise=0.1", "--missing=0.1"]
    flags += ["--config.fit.stop_threshold=0", f"--methods=ssdnet,ssdnet:{tmp_path}/narrow.py"]
    status, stdout, stderr = ssdnet_reproduce(*flags)
    assert (status, stderr) == (0, "")
    assert [line.split(":")[0] for line in stdout.splitlines()[:2]] == ["ssdnet", "ssdnet"]
    assert {path.name for path in (out / "runs").iterdir()} == {"ssdnet", "ssdnet-narrow"}
    note = json.loads((out / "runs/ssdnet-narrow/noise0.1/seed0/run.json").read_text())
    assert note["method"] == "ssdnet" and note["config"]["image_size"] == 32
    assert note["config"]["fit"]["max_steps"] == 2
    text = (out / "reproduce.md").read_text(encoding="utf-8")
    assert "| SSDnet (narrow) |" in text and "| SSDnet |" in text


def test_methods_that_do_not_inpaint_can_see_missing_pixels_as_zeros(
    ssdnet_reproduce, dataset, tmp_path
):
    out = tmp_path / "out"
    flags = [f"--dataset={dataset}", f"--workdir={out}", METHOD_FLAG]
    flags += ["--parts=missing", "--missing=0.1"]
    assert ssdnet_reproduce(*flags)[0] == 0
    nearest = rows(out / "robustness.csv")
    status, _, stderr = ssdnet_reproduce(*flags, "--missing_values=zero")
    assert (status, stderr) == (0, "")
    zero = rows(out / "robustness.csv")
    assert zero[0] == nearest[0]  # SSDnet inpaints them in any case
    assert zero[1]["method"] == "spectral_residual" and zero[1]["auroc"] != nearest[1]["auroc"]
    folders = {path.name for path in (out / "runs/spectral_residual").iterdir()}
    assert folders == {"missing0.1", "missing0.1-zero"}
    image = tifffile.imread(
        out / "runs/spectral_residual/missing0.1-zero/seed0/maps/grid/test/blob/0.png.tiff"
    )
    decoded = read_image(dataset / "grid/test/blob/0.png")
    small = dataclasses.replace(decoded, pixels=resize_image(decoded.pixels, (32, 44)))
    corrupted = corrupt(small, "missing", 0.1, "grid/test/blob/0.png")
    expected = spectral_residual(corrupted.pixels)
    np.testing.assert_allclose(image, expected, rtol=1e-4, atol=1e-6)
    assert "0, as if that were their value" in (out / "reproduce.md").read_text(encoding="utf-8")


def test_what_cannot_be_scored_is_named_and_the_others_go_on(
    ssdnet_reproduce, dataset, tmp_path, monkeypatch
):
    (dataset / "grid/test/blob/0.png").write_bytes(b"")
    monkeypatch.setenv("SSDNET_VGG19_WEIGHTS", str(tmp_path / "none.npz"))
    out = tmp_path / "out"
    flags = [f"--dataset={dataset}", f"--workdir={out}", "--methods=fca,spectral_residual"]
    status, stdout, stderr = ssdnet_reproduce(*flags, "--missing=0.05", "--parts=table,missing")
    assert status == 1
    assert stdout.startswith("spectral_residual: 2 images, 1 failed, AUROC 0.")
    assert "fca: " in stderr and "none.npz" in stderr and "the file is empty" in stderr
    text = (out / "reproduce.md").read_text(encoding="utf-8")
    assert "- FCA: " in text and "the file is empty" in text
    status, _, stderr = ssdnet_reproduce(*flags[:2], "--methods=fca", "--parts=table")
    assert status == 2 and "none.npz" in stderr


def test_where_no_image_can_be_scored_there_is_a_report_without_figures(
    ssdnet_reproduce, dataset, tmp_path
):
    for path in (dataset / "grid/test").glob("*/*.png"):
        path.write_bytes(b"")
    out = tmp_path / "out"
    flags = [f"--dataset={dataset}", f"--workdir={out}", "--methods=spectral_residual"]
    status, stdout, _ = ssdnet_reproduce(*flags, "--parts=table,pictures")
    assert status == 1 and stdout.startswith("spectral_residual: 2 images, 2 failed, AUROC none")
    assert "the file is empty" in (out / "reproduce.md").read_text(encoding="utf-8")
    assert not (out / "figures").exists()


def test_a_method_without_weights_is_listed_and_is_no_failure(
    ssdnet_reproduce, dataset, tmp_path, monkeypatch
):
    monkeypatch.delenv("SSDNET_CLIP_WEIGHTS", raising=False)
    out = tmp_path / "out"
    flags = [f"--dataset={dataset}", f"--workdir={out}", "--parts=table"]
    status, stdout, stderr = ssdnet_reproduce(*flags, "--methods=winclip,spectral_residual")
    assert status == 0 and stdout.startswith("spectral_residual: 2 images")
    assert "winclip: no CLIP weights" in stderr and "--clip_weights=PATH" in stderr
    text = (out / "reproduce.md").read_text(encoding="utf-8")
    assert "- WinCLIP: not run: no weights\n" in text
    assert "Methods: SR." in text and "In the paper, not here: SSDnet" in text
    report = json.loads((out / "reproduce.json").read_text(encoding="utf-8"))
    assert report["not_run"] == {"winclip": "not run: no weights"} and report["failures"] == {}
    # A file that was named is meant: that it cannot be used is a failure.
    path = tmp_path / "no.pt"
    flags += ["--methods=winclip,spectral_residual", f"--clip_weights={path}"]
    assert ssdnet_reproduce(*flags)[0] == 1
    status, _, stderr = ssdnet_reproduce(*flags[:3], "--methods=winclip")
    assert status == 2 and "no CLIP weights" in stderr


def test_another_configuration_is_refused(ssdnet_reproduce, dataset, tmp_path):
    flags = [f"--dataset={dataset}", f"--workdir={tmp_path / 'o'}", "--methods=spectral_residual"]
    assert ssdnet_reproduce(*flags, "--parts=table")[0] == 0
    status, stdout, stderr = ssdnet_reproduce(*flags, "--parts=table", "--image_size=24")
    assert (status, stdout) == (2, "") and "config.image_size: 32 there, 24 here" in stderr


def test_baselines_are_not_scored_again_when_the_configuration_of_ssdnet_changes(
    ssdnet_reproduce, dataset, tmp_path, monkeypatch
):
    flags = [f"--dataset={dataset}", f"--workdir={tmp_path / 'o'}", "--methods=spectral_residual"]
    first = ssdnet_reproduce(*flags, "--parts=table")
    fail_if_scored(monkeypatch)
    assert ssdnet_reproduce(*flags, "--parts=table", "--config.fit.learning_rate=0.02") == first


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--workdir=w"], ["--dataset: found none"]),
        (["--dataset=d"], ["--workdir: found none"]),
        (["--dataset=d", "--workdir=w"], ["d", "no such folder"]),
        (["--dataset=set", "--workdir=w", "--categories=tile"], ["tile", "grid"]),
        (["--methods=padim"], ["--methods", "'padim'", "ssdnet"]),
        (["--parts=tables"], ["--parts", "'tables'", "pictures"]),
        (["--seeds=1,x"], ["--seeds", "'1,x'", "0,1,2"]),
        (["--seeds=4294967296"], ["config.seed", "4294967296"]),
        (["--noise=-0.1"], ["--noise", "'-0.1'", "from 0 to 1"]),
        (["--noise=nan"], ["--noise", "'nan'"]),
        (["--missing=0,1"], ["--missing", "'0,1'", "0.99"]),
        (["--missing="], ["--missing", "''"]),
        (["--methods=ssdnet:gird"], ["'gird'", "did you mean grid"]),
        (["--methods=ssdnet:"], ["--methods", "'ssdnet:'", "name of a configuration"]),
        (["--methods=fca:grid"], ["--methods", "fca:grid", "OPTION=VALUE"]),
        (["--methods=ssdnet:grid,ssdnet:grid.py"], ["one folder", "ssdnet:grid.py"]),
        (["--missing_values=mean"], ["--missing_values", "'mean'", "nearest or zero"]),
        (["--every=0"], ["--every", "'0'", "whole number"]),
        (["--categories=a,,b"], ["--categories", "'a,,b'"]),
        (["--level=3"], ["--level", "no such flag"]),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(
    dataset, tmp_path, monkeypatch, capsys, flags, words
):
    monkeypatch.chdir(tmp_path)
    assert main(["ssdnet-reproduce", *flags]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (message,) = captured.err.splitlines()
    for word in words:
        assert word in message


def test_flags_become_arguments():
    parsed = parse([*COMMAND, "--config=grid", "--image_size=64", "--noise=0.1, 0,0.10"])
    assert parsed.protocol.noise == (0.0, 0.1) and parsed.protocol.methods == METHODS
    assert parsed.config.image_size == 64 and parsed.config_names == ("grid image_size=64",)
    assert parsed.configs == {} and parsed.protocol.missing_values == "nearest"
    assert parse([*COMMAND, "--config.seed=3"]).protocol.seeds == (3,)
    assert parse([*COMMAND, "--methods=fca"]).config_names == ()


def test_named_configurations_take_the_changes_that_were_asked_for():
    flags = ["--config=grid_128", "--config.fit.epochs=3", "--methods=ssdnet:auto,fca,ssdnet"]
    parsed = parse([*COMMAND, *flags])
    assert parsed.protocol.methods == ("ssdnet:auto", "fca", "ssdnet")
    assert parsed.configs == {"ssdnet:auto": with_overrides(load_config("auto"), {"fit.epochs": 3})}
    assert parsed.config_names == ("auto fit.epochs=3 at 256 px", "grid_128 fit.epochs=3")
    parsed = parse([*COMMAND, "--image_size=64", "--methods=ssdnet:grid_128"])
    assert parsed.configs["ssdnet:grid_128"].image_size == 64
    assert parsed.config_names == ("grid_128 image_size=64",)
    parsed = parse([*COMMAND, "--methods=ssdnet:grid_128"])
    assert parsed.config_names == ("grid_128 at the image's own size",)


def test_help_names_every_flag(capsys):
    assert main(["ssdnet-reproduce", "--help"]) == 0
    text = capsys.readouterr().out
    assert text == help_text()
    flags = "dataset categories mask_suffix masks workdir methods seeds parts noise missing every"
    more = "missing_values note config image_size vgg19_weights clip_weights help_config"
    for name in f"{flags} {more}".split():
        assert f"--{name}" in text
    assert max(map(len, text.splitlines())) <= 100
    assert main(["ssdnet-reproduce", "--help_config", "--config.seed=7"]) == 0
    assert "--config.seed=7" in capsys.readouterr().out
