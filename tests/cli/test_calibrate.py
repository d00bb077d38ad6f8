import csv
import json

import numpy as np
import pytest
from PIL import Image

from ssdnet_jax.cli.calibrate import help_text, main
from ssdnet_jax.cli.ssdnet import main as ssdnet
from ssdnet_jax.data.synthetic import grid_texture

pytestmark = pytest.mark.usefixtures("quick_figures")
METHOD = ("--method=spectral_residual", "--image_size=48", "--devices=1")


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "xla"))


def put(folder, count, *, spot=False):
    folder.mkdir()
    for number in range(count):
        image = grid_texture((48, 48), period=8, seed=number)[..., 0]
        if spot:
            image[20:26, 20:26] = 1.0
        pixels = np.round(255 * image).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def verdicts(path):
    with (path / "verdicts.csv").open(newline="") as file:
        return [(float(row["p_value"]), row["verdict"]) for row in csv.DictReader(file)]


def test_known_good_pictures_measure_the_scale_of_a_run(tmp_path, capsys):
    good, bad = put(tmp_path / "good", 9), put(tmp_path / "bad", 2, spot=True)
    (good / "notes.txt").write_text("when these were taken")
    scale = tmp_path / "scale"
    assert main(["ssdnet-calibrate", f"--good={good}", f"--workdir={scale}", *METHOD]) == 0
    out, err = capsys.readouterr()
    assert "1 left out, no images by their name or content: notes.txt" in err
    (good / "notes.txt").unlink()
    assert "9 good images; false-alarm rates from 0.1 are guaranteed (0.01 needs 99 good" in out
    file = scale / "calibration.json"
    assert str(file) in out and len(json.loads(file.read_text())["scores"]) == 9

    def run(*flags):
        status = ssdnet(["ssdnet", f"--calibration={file}", *METHOD, *flags])
        return status, capsys.readouterr()

    shared = (f"--input={bad}", f"--workdir={tmp_path / 'out'}")
    status, captured = run(*shared)
    assert status == 2 and "--false_alarms: found 0.01; expected at least 0.1" in captured.err
    status, captured = run(*shared, "--false_alarms=0.1")
    assert status == 0 and "2 of 2 anomalous, worst " in captured.out
    assert verdicts(tmp_path / "out") == [(0.1, "anomalous")] * 2
    assert run(*shared, "--false_alarms=0.1", "--fail_on_anomaly")[0] == 3
    # The known good pictures themselves are never above their own threshold.
    again = (f"--input={good}", f"--workdir={tmp_path / 'again'}", "--false_alarms=0.1")
    status, captured = run(*again, "--fail_on_anomaly")
    assert status == 0
    words = "9 of 9 images (0.png, ...) are known good ones of the calibration, which says nothing"
    assert captured.err.startswith(f"ssdnet: {words}")
    assert min(p for p, _ in verdicts(tmp_path / "again")) > 0.1


def test_both_folders_are_needed(tmp_path, capsys):
    for flags, word in ((("--workdir=x",), "--good"), ((f"--good={tmp_path}",), "--workdir")):
        assert main(["ssdnet-calibrate", *flags]) == 2
        assert f"{word}: found none; expected a folder" in capsys.readouterr().err


def test_the_help_says_what_is_guaranteed(capsys):
    assert main(["ssdnet-calibrate", "--help"]) == 0
    assert capsys.readouterr().out == help_text()
    assert "0.01 needs 99 good images" in help_text()
