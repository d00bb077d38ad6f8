import csv
import dataclasses

import numpy as np
import pytest

from ssdnet_jax.core.config import DecisionConfig
from ssdnet_jax.core.decision import decide
from ssdnet_jax.errors import InputError
from ssdnet_jax.methods.base import Localization
from ssdnet_jax.runner.decisions import write_decision
from ssdnet_jax.runner.run import Summary, summary_line
from ssdnet_jax.runner.verdicts import write_verdicts
from ssdnet_jax.runner.workdir import Row, Workdir

CONFIG = DecisionConfig()


def bumpy(seed, height=0.0, shape=(48, 64)):
    """A map of exponential noise with a bump that is so much higher."""
    score_map = np.random.default_rng(seed).exponential(size=shape).astype(np.float32)
    score_map[20:26, 30:36] += height
    return score_map


def finish(workdir, name, score_map):
    """What a run leaves of an image, as far as verdicts read it."""
    image = np.zeros((*score_map.shape, 1), np.float32)
    result = Localization(score_map, 1.0, *decide(score_map, CONFIG), image)
    write_decision(workdir, name, result)
    workdir.append(Row(name, "ok", 1.0, 0.5, 0.1, p_value=result.decision.p_value))


@pytest.fixture
def workdir(tmp_path):
    (tmp_path / "results.csv").write_text(
        ",".join(field.name for field in dataclasses.fields(Row)) + "\n"
    )
    return Workdir(tmp_path, {})


@pytest.fixture
def two(workdir):
    finish(workdir, "good.png", bumpy(0))
    finish(workdir, "s/bad, once.png", bumpy(1, height=60))
    workdir.append(Row("lost.png", "error", error="lost.png: damaged"))
    return workdir


def table(workdir):
    with (workdir.path / "verdicts.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_worst_picture_comes_first(two):
    found = write_verdicts(two, CONFIG)
    bad, good = found.all
    assert (bad.path, bad.verdict, good.path, good.verdict) == (
        "s/bad, once.png",
        "anomalous",
        "good.png",
        "good",
    )
    assert found.by == "image" and found.anomalous == [bad] and not found.unsure
    assert bad.p_value <= 0.01 < 0.05 < good.p_value
    assert bad.p_value <= 0.01 < good.p_value and bad.calibrated_score > good.calibrated_score
    rows = table(two)
    assert [(row["path"], row["verdict"], row["rank_p_value"]) for row in rows] == [
        ("s/bad, once.png", "anomalous", ""),
        ("good.png", "good", ""),
    ]
    assert float(rows[0]["p_value"]) == pytest.approx(bad.p_value)


def test_of_a_single_image_the_summary_says_what_it_is(workdir):
    finish(workdir, "good.png", bumpy(0))
    found = write_verdicts(workdir, CONFIG)
    line = summary_line(Summary(1, 0, 0, 38.0), workdir.path, found)
    p_value = found.all[0].p_value
    assert line == (
        f"1 finished in 38 s; good.png is good (p = {p_value:.2g}); see {workdir.path}/index.html"
    )


def test_between_the_two_rates_a_picture_is_unsure(two):
    for height in range(100):
        finish(two, f"{height}.png", bumpy(0, height))
    found = write_verdicts(two, CONFIG, by="image")
    assert found.unsure and found.anomalous
    assert all(0.01 < v.p_value <= 0.05 for v in found.unsure)
    assert all(v.p_value <= 0.01 for v in found.anomalous)
    assert f", {len(found.unsure)} unsure, " in summary_line(Summary(2, 0, 0, 1.0), two.path, found)


def test_a_folder_is_its_own_scale_from_twenty_pictures(workdir):
    for seed in range(18):
        finish(workdir, f"{seed}.png", bumpy(seed))
    assert write_verdicts(workdir, CONFIG).by == "image"
    for seed in (18, 19, 20):
        finish(workdir, f"{seed}.png", bumpy(seed, height=500))
    found = write_verdicts(workdir, CONFIG)
    assert found.by == "folder"
    assert {v.path for v in found.anomalous} == {"18.png", "19.png", "20.png"}
    ranks = {v.path: v.rank_p_value for v in found.all}
    assert max(ranks[v.path] for v in found.anomalous) < 0.01 < min(ranks["0.png"], ranks["5.png"])
    # What is known good goes before what is only most common.
    assert write_verdicts(workdir, CONFIG, calibrated=True).by == "image"
    assert write_verdicts(workdir, CONFIG, by="image").all[0].rank_p_value is None
    line = summary_line(Summary(21, 0, 0, 3.0), workdir.path, found)
    assert "3 of 21 anomalous, compared with one another, worst " in line


def test_a_table_says_what_decided_each_picture(two):
    for height in range(0, 100, 9):
        finish(two, f"{height}.png", bumpy(0, height))
    write_verdicts(two, CONFIG, by="picture")
    rows = table(two)
    by_the_row = [float(row["p_value"]) <= float(row["false_alarms"]) for row in rows]
    assert by_the_row == [row["verdict"] == "anomalous" for row in rows]
    assert 0 < sum(by_the_row) < len(rows)
    # Among the others it is not this rate that decides.
    write_verdicts(two, CONFIG, by="folder")
    rows = table(two)
    assert {row["false_alarms"] for row in rows} == {""} and all(r["rank_p_value"] for r in rows)


def test_a_folder_that_is_asked_for_may_be_small_or_all_alike(two):
    assert write_verdicts(two, CONFIG, by="folder").by == "folder"
    for seed in range(4):
        finish(two, f"again{seed}.png", bumpy(0))
    assert {v.verdict for v in write_verdicts(two, CONFIG, by="folder").all} <= {
        "anomalous",
        "good",
    }


def test_a_picture_of_which_no_pixel_takes_part_is_not_judged(two):
    finish(two, "hidden.png", np.full((8, 8), np.nan, np.float32))
    for by in ("image", "folder"):
        last = write_verdicts(two, CONFIG, by=by).all[-1]
        assert (last.path, last.verdict, last.rank_p_value) == ("hidden.png", "unjudged", None)


def test_a_file_that_cannot_be_read_is_named(two):
    for content in (b"{", b"[1]", b'{"score": 1}'):
        two.decision_path("good.png").write_bytes(content)
        with pytest.raises(InputError, match=r"good\.png\.json: found .*; expected the file of"):
            write_verdicts(two, CONFIG)


def test_the_summary_counts_and_names_the_worst(two):
    line = summary_line(Summary(2, 1, 0, 3.0), two.path, write_verdicts(two, CONFIG))
    assert "2 finished, 1 failed in 3 s; 1 of 2 anomalous, worst s/bad, once.png; see " in line
    for seed in range(5):
        finish(two, f"bad{seed}.png", bumpy(seed, height=100 + 10 * seed))
    line = summary_line(Summary(2, 1, 0, 3.0), two.path, write_verdicts(two, CONFIG))
    assert "6 of 7 anomalous" in line and line.count(".png") == 3


def test_a_run_without_results_says_nothing_of_verdicts(workdir):
    found = write_verdicts(workdir, CONFIG)
    assert not found.all
    assert "anomalous" not in summary_line(Summary(0, 1, 0, 3.0), workdir.path, found)
