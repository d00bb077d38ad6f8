import json

import numpy as np
import pytest

from ssdnet_jax.config import Config
from ssdnet_jax.core.config import DecisionConfig
from ssdnet_jax.core.decision import decide
from ssdnet_jax.data.calibration_file import known_contents, read_calibration, write_calibration
from ssdnet_jax.data.decision_file import read_decision
from ssdnet_jax.data.images import write_tiff_map
from ssdnet_jax.errors import ConfigError, InputError
from ssdnet_jax.methods.base import Localization, scale_settings
from ssdnet_jax.methods.registry import make_method
from ssdnet_jax.runner.calibrate import calibrate, calibrated, known_line, needed
from ssdnet_jax.runner.decisions import write_decision
from ssdnet_jax.runner.workdir import Row, open_workdir


def method_of(**decision):
    return make_method("spectral_residual", Config(decision=DecisionConfig(**decision)))


@pytest.fixture
def workdir(tmp_path):
    return open_workdir(tmp_path / "good", method_of(), root=None)


def finish(workdir, name, score_map, **origin):
    image = np.zeros((*score_map.shape, 1), np.float32)
    write_tiff_map(workdir.map_path(name), score_map)
    result = Localization(score_map, 1.0, *decide(score_map), image)
    write_decision(workdir, name, result)
    workdir.append(Row(name, "ok", **origin))


def test_the_scores_of_good_images_come_back_from_the_file(workdir):
    for seed in range(4):
        rng = np.random.default_rng(seed)
        finish(workdir, f"{seed}.png", rng.exponential(size=(16, 16)).astype(np.float32))
    finish(workdir, "hidden.png", np.full((4, 4), np.nan, np.float32))
    found = calibrate(method_of(), workdir)
    path = workdir.path / "calibration.json"
    assert found == read_calibration(path) and len(found.known.scores) == 4
    scores = json.loads(path.read_text())["scores"]
    for name, score in scores.items():  # as the command says them, beside the peaks by position
        assert score == pytest.approx(read_decision(workdir.decision_path(name))["score"], rel=1e-5)
    assert np.expm1(found.peaks.max((1, 2))).tolist() == pytest.approx(list(scores.values()))
    assert path.stat().st_size < 10_000 and len(found.sha256) == 64
    # The rates are the user's to choose, and randomness has no scale.
    method = calibrated(method_of(false_alarms=0.2, mask="otsu"), path)
    assert method.calibration == found
    with pytest.raises(ConfigError, match=r"found 0.01; expected at least 0.2.*4 good.*99 or more"):
        calibrated(method_of(), path)


def test_copies_of_an_image_count_once_and_pages_of_a_file_each(workdir):
    names = ("a.png", "copy.png", "b.png", "s.tif#1", "s.tif#2", "unknown.png", "unknown2.png")
    hashes = ("1", "1", "2", "3", "3", "", "")
    for seed, (name, sha256) in enumerate(zip(names, hashes, strict=True)):
        scores = np.random.default_rng(seed).exponential(size=(16, 16)).astype(np.float32)
        finish(workdir, name, scores, size=9, sha256=sha256)
    said = []
    found = calibrate(method_of(), workdir, report=said.append)
    assert len(found.known.scores) == 6
    assert said == ["1 of 7 good images are copies of others (copy.png of a.png), and do not count"]
    path = workdir.path / "calibration.json"
    assert "copy.png" not in json.loads(path.read_text())["scores"]
    assert known_contents(path) == {"1", "2", "3#1", "3#2"}
    assert known_line(workdir, path).startswith("5 of 7 images (a.png, ...) are known good ones")


def test_no_good_image_is_no_calibration(workdir):
    with pytest.raises(InputError, match="no finished image"):
        calibrate(method_of(), workdir)


@pytest.mark.parametrize(
    ("other", "word"),
    [
        ({"method": "fca"}, "method: fca there, spectral_residual here"),
        ({"settings": {"image_size": 64}}, "config.image_size: 64 there, 256 here"),
    ],
)
def test_a_calibration_of_other_settings_is_refused(tmp_path, other, word):
    path = tmp_path / "calibration.json"
    method = method_of(false_alarms=0.5)
    made = {"method": method.name, "settings": scale_settings(method), **other}
    peaks = np.ones((16, 16), np.float32)
    write_calibration(path, {"a": peaks, "b": 2 * peaks}, contents={}, note={}, **made)
    with pytest.raises(ConfigError, match=word):
        calibrated(method, path)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "[" * 100_000,
        '{"format": 1, "method": "a", "settings": {}, "scores": {"a": 1.0}}',
        '{"format": 2, "method": "a", "settings": {}, "peaks": {}}',
        '{"format": 2, "method": "a", "settings": {}, "peaks": {"a": "no base64"}}',
        '{"format": 2, "method": "a", "settings": {}, "peaks": {"a": "AAAA"}}',
    ],
)
def test_another_file_is_no_calibration(tmp_path, content):
    path = tmp_path / "calibration.json"
    path.write_text(content)
    with pytest.raises(InputError, match=r"calibration.json: found no calibration \("):
        read_calibration(path)
    with pytest.raises(InputError, match=r"none.json: cannot be read"):
        read_calibration(tmp_path / "none.json")


def test_a_work_folder_belongs_to_one_calibration(workdir, tmp_path):
    finish(workdir, "a.png", np.random.default_rng(0).random((8, 8), np.float32))
    calibration = calibrate(method_of(), workdir)
    plain, measured = method_of(), method_of().with_calibration(calibration)
    open_workdir(tmp_path / "out", measured, root=None)
    note = json.loads((tmp_path / "out" / "run.json").read_text())
    assert note["calibration"] == calibration.sha256
    with pytest.raises(ConfigError, match="calibration: "):
        open_workdir(tmp_path / "out", plain, root=None)


@pytest.mark.parametrize(("rate", "count"), [(0.01, 99), (0.05, 19), (0.1, 9), (0.3, 3)])
def test_as_many_good_images_are_needed_as_the_rate_asks_for(rate, count):
    assert needed(rate) == count
