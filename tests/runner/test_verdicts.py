import csv

import numpy as np
import pytest
import tifffile

from ssdnet_jax.config import Config
from ssdnet_jax.core.calibration import calibrated_score, decision_threshold
from ssdnet_jax.data.images import write_tiff_map
from ssdnet_jax.errors import InputError
from ssdnet_jax.methods.registry import make_method
from ssdnet_jax.runner.run import Summary, summary_line
from ssdnet_jax.runner.verdicts import write_verdicts
from ssdnet_jax.runner.workdir import Row, open_workdir


@pytest.fixture
def workdir(tmp_path):
    """Maps of a good picture, a bad one, and a row of one that failed."""
    opened = open_workdir(tmp_path / "out", make_method("fca", Config()), root=None)
    generator = np.random.default_rng(0)
    for name in ("good.png", "s/bad.png"):
        score_map = generator.exponential(size=(64, 48)).astype(np.float32)
        score_map[10:13, 20:23] += 40.0 * name.startswith("s/")
        write_tiff_map(opened.map_path(name), score_map)
        opened.append(Row(name, "ok", 1.0, 0.5, 0.1))
    opened.append(Row("lost.png", "error", error="lost.png: damaged"))
    return opened


def table(workdir):
    with (workdir.path / "verdicts.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_worst_picture_comes_first(workdir):
    bad, good = write_verdicts(workdir, 0)
    assert (bad.path, bad.anomalous, good.path, good.anomalous) == (
        "s/bad.png",
        True,
        "good.png",
        False,
    )
    rows = table(workdir)
    assert [(row["path"], row["anomalous"]) for row in rows] == [
        ("s/bad.png", "true"),
        ("good.png", "false"),
    ]
    assert float(rows[0]["threshold"]) == pytest.approx(decision_threshold(64 * 48), rel=1e-5)


def test_the_threshold_is_that_of_the_size_that_was_scored(workdir):
    verdicts = write_verdicts(workdir, 256)
    assert {verdict.threshold for verdict in verdicts} == {decision_threshold(256 * 256)}


def test_a_map_of_another_unit_gets_the_same_score(workdir):
    before = write_verdicts(workdir, 0)
    for name in ("good.png", "s/bad.png"):
        values = tifffile.imread(workdir.map_path(name))
        write_tiff_map(workdir.map_path(name), 1e-4 * values + 3e-4)
        assert calibrated_score(values) > 0
    after = write_verdicts(workdir, 0)
    for one, other in zip(before, after, strict=True):
        assert other.calibrated_score == pytest.approx(one.calibrated_score, rel=1e-3)


def test_a_map_that_cannot_be_read_is_named(workdir):
    workdir.map_path("good.png").write_bytes(b"II*")
    with pytest.raises(InputError, match=r"good\.png\.tiff"):
        write_verdicts(workdir, 0)


def test_the_summary_counts_them(workdir):
    line = summary_line(Summary(2, 1, 0, 3.0), workdir.path, write_verdicts(workdir, 0))
    assert "2 finished, 1 failed in 3 s; 1 of 2 anomalous; results in" in line
    assert "anomalous" not in summary_line(Summary(0, 1, 0, 3.0), workdir.path, [])
