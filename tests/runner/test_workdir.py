import csv
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssdnet_jax.config import Config, from_config_dict
from ssdnet_jax.errors import ConfigError, InputError
from ssdnet_jax.methods.registry import make_method
from ssdnet_jax.runner import workdir as module
from ssdnet_jax.runner.workdir import (
    COLUMNS,
    Row,
    Workdir,
    differences,
    is_workdir,
    open_workdir,
    versions,
)

DECISION = {
    **{"width": 4, "height": 3, "score": 1.0, "p_value": 0.5, "verdict": "good"},
    **{"false_alarms": 0.01, "threshold": 2.0, "calibrated_threshold": 2.0, "defects": []},
}
FINISHED = Row("a.png", "ok", 0.25, 0.125, 0.5, 30, 1e-4, 12.5)


def opened(path, config=None, *, method="ssdnet", root=None, missing=None, **run):
    method = make_method(method, config or Config())
    return open_workdir(path, method, root=root, missing=missing, run=run)


def finish(workdir, row):
    """What a run does: files first, then the row."""
    for path in (
        workdir.map_path(row.path),
        workdir.heatmap_path(row.path),
        workdir.mask_path(row.path),
        workdir.decision_path(row.path),
        workdir.fit_path(row.path),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(DECISION))
    workdir.append(row)


def test_a_new_folder_is_made_with_its_parents(tmp_path):
    workdir = opened(tmp_path / "a" / "b")
    assert workdir.finished == {}
    assert (tmp_path / "a" / "b" / "results.csv").read_text() == (
        "path,status,score,pixel_threshold,anomalous_fraction,steps,loss,seconds,"
        "p_value,ground,range,size,modified,sha256,mask_sha256,read,error\n"
    )
    assert is_workdir(tmp_path / "a" / "b") and not is_workdir(tmp_path / "a")


def test_the_note_holds_what_is_needed_to_repeat_the_run(tmp_path):
    opened(tmp_path, root=tmp_path, command="ssdnet --input=x", device="CPU", seed=0)
    note = json.loads((tmp_path / "run.json").read_text())
    assert from_config_dict(note["config"]) == Config()
    assert note["method"] == "ssdnet"
    assert note["root"] == str(tmp_path)
    assert (note["command"], note["device"], note["seed"]) == ("ssdnet --input=x", "CPU", 0)
    assert note["versions"] == versions()
    assert {"python", "platform", "ssdnet-jax", "jax", "jaxlib", "numpy"} <= set(note["versions"])
    assert "started" in note


def test_files_of_equal_stems_do_not_meet(tmp_path):
    workdir = Workdir(tmp_path, {})
    for place in (workdir.map_path, workdir.heatmap_path, workdir.mask_path, workdir.fit_path):
        assert place("s/a.png") != place("s/a.jpg")
        assert place("s/a.png").parent.name == "s"
    assert workdir.map_path("s/a.png") == tmp_path / "maps" / "s" / "a.png.tiff"
    assert workdir.heatmap_path("s/a.png") == tmp_path / "heatmaps" / "s" / "a.png.png"
    assert workdir.decision_path("s/a.png") == tmp_path / "decisions" / "s" / "a.png.json"
    assert workdir.mask_path("s/a.png") == tmp_path / "masks" / "s" / "a.png.png"


def test_a_finished_image_is_kept_and_a_failed_one_is_tried_again(tmp_path):
    first = opened(tmp_path)
    finish(first, FINISHED)
    finish(first, Row("b.png", "error", seconds=0.5, error="b.png: damaged"))
    assert opened(tmp_path).finished == {"a.png": FINISHED}
    assert "b.png" not in (tmp_path / "results.csv").read_text()


@pytest.mark.parametrize(
    "place",
    [Workdir.map_path, Workdir.mask_path, Workdir.decision_path, Workdir.fit_path],
)
def test_an_image_whose_files_have_gone_is_tried_again(tmp_path, place):
    first = opened(tmp_path)
    finish(first, FINISHED)
    finish(first, dataclasses.replace(FINISHED, path="b.png"))
    place(first, "b.png").unlink()
    assert set(opened(tmp_path).finished) == {"a.png"}
    assert "b.png" not in (tmp_path / "results.csv").read_text()


@pytest.mark.parametrize("changed", [{"score": "1"}, {"defects": [{}]}, {"width": None}, None])
def test_an_image_whose_decision_is_damaged_is_tried_again(tmp_path, changed):
    first = opened(tmp_path)
    finish(first, FINISHED)
    finish(first, dataclasses.replace(FINISHED, path="b.png"))
    damaged = "[" * 100_000 + "]" if changed is None else json.dumps(DECISION | changed)
    first.decision_path("b.png").write_text(damaged)
    assert set(opened(tmp_path).finished) == {"a.png"}


def test_the_last_row_of_an_image_counts(tmp_path):
    first = opened(tmp_path)
    finish(first, FINISHED)
    finish(first, dataclasses.replace(FINISHED, score=0.75))
    assert opened(tmp_path).finished["a.png"].score == 0.75
    finish(first, Row("a.png", "error", error="lost"))
    assert opened(tmp_path).finished == {}


def test_a_table_cut_off_anywhere_costs_no_more_than_its_last_row(tmp_path):
    first = opened(tmp_path)
    finish(first, FINISHED)
    second = dataclasses.replace(FINISHED, path='odd, "b"\n.png', seconds=98.7)
    finish(first, second)
    table = tmp_path / "results.csv"
    whole = table.read_bytes()
    header = whole.index(b"\n") + 1
    start = whole.index(b"\n", header) + 1
    for end in range(start, len(whole)):
        table.write_bytes(whole[:end])
        kept = opened(tmp_path).finished
        assert kept["a.png"] == FINISHED
        assert kept.get(second.path) in (None, second)
        # What follows starts on a line of its own.
        finish(first, dataclasses.replace(FINISHED, path="c.png"))
        assert "c.png" in opened(tmp_path).finished


paths = st.text(
    st.characters(exclude_characters="\0/", exclude_categories=("Cs",)), min_size=1, max_size=20
).filter(lambda text: text not in (".", ".."))
numbers = st.none() | st.floats(allow_nan=False).map(lambda v: float(f"{v:.9g}"))


@given(
    st.builds(
        Row,
        path=paths | st.sampled_from(["a,b.png", 'a"b.png', "a\nb.png", "a\rb.png", " a ", "ü/é"]),
        status=st.just("error"),
        score=numbers,
        pixel_threshold=numbers,
        anomalous_fraction=numbers,
        steps=st.none() | st.integers(0, 10**9),
        loss=numbers,
        seconds=numbers,
        size=st.none() | st.integers(0, 2**60),
        error=paths | st.just(""),
    )
)
@settings(max_examples=50)
def test_rows_survive_a_round_trip(tmp_path_factory, row):
    workdir = opened(tmp_path_factory.getbasetemp() / "round_trip")
    workdir.append(row)
    assert module.read_rows(workdir.path / "results.csv") == [row]
    with (workdir.path / "results.csv").open(newline="", encoding="utf-8") as file:
        (entry,) = csv.DictReader(file)  # as any other reader sees it
    for name in ("path", "error"):
        assert entry[name] in (getattr(row, name), f"'{getattr(row, name)}")


def test_names_that_are_no_utf8_survive_a_round_trip(tmp_path):
    name = b"caf\xe9.png".decode("utf-8", "surrogateescape")
    finish(opened(tmp_path), dataclasses.replace(FINISHED, path=name))
    assert set(opened(tmp_path).finished) == {name}
    assert b"caf\xe9.png,ok" in (tmp_path / "results.csv").read_bytes()


def test_scores_in_the_table_are_those_of_the_maps_to_the_last_bit(tmp_path):
    score = float(np.nextafter(np.float32(0.1), np.float32(1)))
    finish(opened(tmp_path), dataclasses.replace(FINISHED, score=score))
    assert np.float32(opened(tmp_path).finished["a.png"].score) == np.float32(score)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"config": from_config_dict({"seed": 1})}, ["config.seed: 0 there, 1 here"]),
        (
            {"config": from_config_dict({"fit": {"epochs": 3}, "loss": {"patch_strides": 4}})},
            ["config.fit.epochs: 10 there, 3 here", "config.loss.patch_strides: [8] there"],
        ),
        ({"method": "fca"}, ["method: ssdnet there, fca here"]),
        ({"root": None}, ["root:", "None here"]),
        ({"missing": Path("/masks")}, ["missing: None there, /masks here"]),
    ],
)
def test_another_run_is_refused_and_what_differs_is_named(tmp_path, changed, words):
    opened(tmp_path, root=tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ConfigError) as caught:
        opened(tmp_path, **{"root": tmp_path, **changed})
    message = str(caught.value)
    assert str(tmp_path) in message and "--workdir" in message and "\n" not in message
    for word in words:
        assert word in message
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_of_a_baseline_only_the_size_and_the_seed_are_compared(tmp_path):
    opened(tmp_path, method="glcm")
    opened(tmp_path, from_config_dict({"fit": {"epochs": 9}}), method="glcm")
    for change in ({"image_size": 64}, {"seed": 3}):
        with pytest.raises(ConfigError, match=f"config.{next(iter(change))}"):
            opened(tmp_path, from_config_dict(change), method="glcm")
    with pytest.raises(ConfigError, match=r"config\.options: nothing there, \{'window': 7\} here"):
        opened(tmp_path, method="glcm:window=7")


def test_the_same_folder_of_images_may_be_named_in_another_way(tmp_path, monkeypatch):
    opened(tmp_path / "out", root=tmp_path)
    monkeypatch.chdir(tmp_path)
    opened(tmp_path / "out", root=Path())


def test_differences_name_leaves():
    old = {"a": {"b": 1, "c": [1, 2]}, "gone": 3}
    new = {"a": {"b": 2, "c": [1, 2]}, "new": {"x": 1}}
    assert differences(old, new) == [
        "a.b: 1 there, 2 here",
        "gone: 3 there, nothing here",
        "new: nothing there, {'x': 1} here",
    ]
    assert differences(old, old) == []


def test_of_two_methods_no_fields_are_compared():
    old, new = {"method": "fca", "config": {"seed": 1}}, {"method": "dip", "config": {"side": 2}}
    assert differences(old, new) == ["method: fca there, dip here"]


@pytest.mark.parametrize(
    "note", ["", "{", "[]", "3", '{"config": {}}', "\udcff", "[" * 100_000, "1" * 5000]
)
def test_a_note_of_something_else_is_refused(tmp_path, note):
    (tmp_path / "run.json").write_bytes(note.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match=r"run.json: not written by ssdnet"):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("", "found columns"),
        ("name,value\n1,2\n", "found columns name,value"),
        (
            "path,status,score,threshold,error\na,ok,2,1,\n",
            "found columns that this version of ssdnet does not have (threshold); expected a fo",
        ),
        (",".join(COLUMNS) + "\na.png,ok,many" + "," * (len(COLUMNS) - 3) + "\n", "many"),
        (",".join(COLUMNS) + "\na.png,ok,,,,3.5" + "," * (len(COLUMNS) - 6) + "\n", "3.5"),
        (",".join(COLUMNS) + "\n../a.png,ok" + "," * (len(COLUMNS) - 2) + "\n", "'../a.png'"),
        ("path,status,error,colour\n", "colour"),
    ],
)
def test_a_table_of_something_else_is_refused_and_left_alone(tmp_path, table, words):
    opened(tmp_path)
    (tmp_path / "results.csv").write_text(table)
    with pytest.raises(InputError) as caught:
        opened(tmp_path)
    assert words in str(caught.value) and str(tmp_path / "results.csv") in str(caught.value)
    assert (tmp_path / "results.csv").read_text() == table


def test_a_table_whose_configuration_is_lost_is_refused(tmp_path):
    finish(opened(tmp_path), FINISHED)
    (tmp_path / "run.json").unlink()
    with pytest.raises(InputError, match=r"results.csv without run.json"):
        opened(tmp_path)


@pytest.mark.parametrize("name", ["index.html", "verdicts.csv", "defects.csv"])
def test_a_file_of_the_user_by_the_name_of_a_result_is_left_alone(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match=f"{name} that no run of ssdnet has written"):
        opened(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    (tmp_path / name).unlink()
    opened(tmp_path)
    (tmp_path / name).write_text("of a run")
    opened(tmp_path)


@pytest.mark.parametrize("below", ["", "below"])
def test_a_file_cannot_be_a_work_folder(tmp_path, below):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError) as caught:
        opened(tmp_path / "file" / below)
    assert str(tmp_path / "file" / below) in str(caught.value)
    assert "expected a folder" in str(caught.value)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "run.json").mkdir()
    with pytest.raises(InputError, match="expected a folder that can be created and written"):
        opened(tmp_path)


def test_a_row_that_cannot_be_written_is_an_error_of_one_line(tmp_path):
    workdir = opened(tmp_path)
    (tmp_path / "results.csv").unlink()
    (tmp_path / "results.csv").mkdir()
    with pytest.raises(InputError, match=str(tmp_path)):
        workdir.append(FINISHED)


def test_two_steps_of_a_run_leave_no_temporary_files(tmp_path):
    finish(opened(tmp_path), FINISHED)
    opened(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "fits",
        "decisions",
        "heatmaps",
        "maps",
        "masks",
        "results.csv",
        "run.json",
    }


def test_ordering_keeps_rows_of_other_inputs(tmp_path):
    workdir = opened(tmp_path)
    for path in ("z.png", "b.png", "a.png"):
        finish(workdir, dataclasses.replace(FINISHED, path=path))
    workdir.order(["a.png", "b.png", "never.png"])
    assert [row.path for row in module.read_rows(tmp_path / "results.csv")] == [
        "z.png",
        "a.png",
        "b.png",
    ]
