import csv
import json
import shutil

import numpy as np
import pytest
import tifffile
from PIL import Image

from ssdnet_jax.cli import rescore as main_rescore
from ssdnet_jax.cli.ssdnet import main
from ssdnet_jax.data.synthetic import grid_texture

pytestmark = pytest.mark.usefixtures("quick_figures")

QUICK = [
    "--config=grid_literal",
    "--image_size=32",
    "--config.network.channels_down=2",
    "--config.network.channels_up=2",
    "--config.network.channels_skip=1",
    "--config.loss.patch_sizes=8",
    "--config.loss.patch_strides=4",
    "--config.fit.max_steps=3",
    "--config.fit.seeds=2",
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    (folder / "in").mkdir()
    for seed, name in enumerate(("a.png", "b.png")):
        pixels = (grid_texture((32, 32), period=7, seed=seed)[..., 0] * 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "in" / name)
    flags = [f"--input={folder}/in", "--config.score.patch_sizes=8"]
    assert main(["ssdnet", *QUICK, *flags, f"--workdir={folder}/out"]) == 0
    assert (
        main(
            [
                "ssdnet",
                *QUICK,
                flags[0],
                "--config.score.patch_sizes=4,12",
                "--config.score.patch_strides=1,2",
                f"--workdir={folder}/other",
            ]
        )
        == 0
    )
    return folder


def rescore(*flags):
    return main_rescore.main(["ssdnet-rescore", *flags])


def rows(workdir):
    with (workdir / "results.csv").open(newline="") as file:
        return [{**row, "seconds": "", "read": ""} for row in csv.DictReader(file)]


def test_scoring_again_equals_a_run_with_that_score(finished, tmp_path, capsys):
    flags = ["--config.score.patch_sizes=4,12", "--config.score.patch_strides=1,2"]
    assert rescore(f"--run={finished}/out", f"--workdir={tmp_path}/again", *flags) == 0
    assert capsys.readouterr().out.startswith("2 finished in ")
    for name in ("maps/a.png.tiff", "maps/b.png.tiff", "uncertainty/a.png.tiff"):
        expected = tifffile.imread(finished / "other" / name)
        np.testing.assert_array_equal(tifffile.imread(tmp_path / "again" / name), expected)
    assert rows(tmp_path / "again") == rows(finished / "other")
    old, new = (
        json.loads((p / "run.json").read_text()) for p in (finished / "other", tmp_path / "again")
    )
    assert old["config"] == new["config"] and old["root"] == new["root"]


def test_what_was_scored_again_can_be_scored_again(finished, tmp_path):
    flags = ["--config.score.patch_sizes=4,12", "--config.score.patch_strides=1,2"]
    assert rescore(f"--run={finished}/out", f"--workdir={tmp_path}/x", *flags) == 0
    back = ["--config.score.patch_sizes=8", "--config.score.patch_strides=1"]
    assert rescore(f"--run={tmp_path}/x", f"--workdir={tmp_path}/y", *back) == 0
    assert rows(tmp_path / "y") == rows(finished / "out")


def test_maps_are_decided_otherwise_without_fitting(finished, tmp_path, capsys):
    flags = [
        f"--run={finished}/out",
        f"--workdir={tmp_path}/x",
        "--config.decision.mask=significant",
    ]
    assert rescore(*flags, "--false_alarms=0.999", "--fail_on_anomaly") == 3
    assert " of 2 anomalous, worst " in capsys.readouterr().out
    assert rescore(*flags[:1], f"--workdir={tmp_path}/y", "--false_alarms=1e-9") == 0
    assert "0 of 2 anomalous" in capsys.readouterr().out
    for name in ("x", "y"):
        np.testing.assert_array_equal(
            tifffile.imread(tmp_path / name / "maps/a.png.tiff"),
            tifffile.imread(finished / "out/maps/a.png.tiff"),
        )


def test_a_lost_fit_is_an_error_row_and_the_rest_goes_on(finished, tmp_path, capsys):
    flags = ["--config.score.patch_sizes=4"]
    assert rescore(f"--run={finished}/out", f"--workdir={tmp_path}/x", *flags) == 0
    (tmp_path / "x" / "fits" / "a.png.npz").write_bytes(b"PK")
    assert rescore(f"--run={tmp_path}/x", f"--workdir={tmp_path}/y", *flags) == 1
    captured = capsys.readouterr()
    assert "fits/a.png.npz: cannot be read" in captured.err
    assert "1 finished, 1 failed" in captured.out
    assert [row["status"] for row in rows(tmp_path / "y")] == ["error", "ok"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "--run: found none"),
        (("--run={out}",), "--workdir: found none"),
        (("--run={out}", "--workdir={out}"), "found the run's own folder"),
        (("--run={tmp}", "--workdir={tmp}/x"), "found no run.json with results.csv"),
        (("--run={out}", "--workdir={tmp}/x", "--config.fit.seeds=3"), "decides the fit"),
        (("--run={out}", "--workdir={tmp}/x", "--config=grid"), "the run has its own"),
        (
            ("--run={out}", "--workdir={tmp}/x", "--config.score.patch_sizes=99"),
            "at least 99 pixels",
        ),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(finished, tmp_path, capsys, flags, message):
    places = {"out": finished / "out", "tmp": tmp_path}
    assert rescore(*(flag.format(**places) for flag in flags)) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1


def test_a_run_by_another_version_names_the_field_that_is_not_known(finished, tmp_path, capsys):
    old = tmp_path / "old"
    shutil.copytree(finished / "out", old)
    note = json.loads((old / "run.json").read_text())
    note["config"]["decision"]["mask"] = "peaks"
    (old / "run.json").write_text(json.dumps(note))
    assert rescore(f"--run={old}", f"--workdir={tmp_path}/again") == 2
    assert "run.json: config.decision.mask: found 'peaks'; expected one of significant, otsu" in (
        capsys.readouterr().err
    )


def test_a_run_of_another_method_is_refused(finished, tmp_path, capsys):
    flags = ["--method=spectral_residual", f"--input={finished}/in", f"--workdir={tmp_path}/out"]
    assert main(["ssdnet", *flags]) == 0
    capsys.readouterr()
    assert rescore(f"--run={tmp_path}/out", f"--workdir={tmp_path}/again") == 2
    words = "out: found a run of 'spectral_residual', which keeps no fits; expected one of ssdnet"
    assert capsys.readouterr().err == f"ssdnet: {tmp_path}/{words}\n"


def test_fits_to_features_are_scored_again_with_other_tiles(tmp_path, capsys):
    pixels = (grid_texture((48, 48), period=7)[..., 0] * 255).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    flags = [
        *QUICK,
        f"--input={tmp_path}/a.png",
        "--image_size=48",
        "--config.features.kind=filters",
        "--config.features.components=3",
        "--config.score.method=tiles",
    ]
    for tile in (5, 7):
        run = [*flags, f"--config.score.tile_size={tile}", f"--workdir={tmp_path}/{tile}"]
        assert main(["ssdnet", *run]) == 0
    again = [f"--run={tmp_path}/5", f"--workdir={tmp_path}/again", "--config.score.tile_size=7"]
    assert rescore(*again) == 0
    expected = tifffile.imread(tmp_path / "7" / "maps" / "a.png.tiff")
    np.testing.assert_array_equal(
        tifffile.imread(tmp_path / "again" / "maps" / "a.png.tiff"), expected
    )
