import io
import json

import numpy as np
import pytest

from ssdnet_jax.config import Config
from ssdnet_jax.methods.registry import make_method
from ssdnet_jax.runner.changes import below, without_changed
from ssdnet_jax.runner.sources import FileSource, file_sources
from ssdnet_jax.runner.terminal import Terminal
from ssdnet_jax.runner.workdir import Row, open_workdir, read_rows

NAMES = ("a.npy", "b.npy", "c.npy", "d.npy")

DECISION = {
    **{"width": 2, "height": 2, "score": 1.0, "p_value": 0.5, "verdict": "good"},
    **{"false_alarms": 0.01, "threshold": 2.0, "calibrated_threshold": 2.0, "defects": []},
}


@pytest.fixture
def folder(tmp_path):
    """Four finished images, and what compares them with the files again."""
    (tmp_path / "in").mkdir()
    for number, name in enumerate(NAMES):
        np.save(tmp_path / "in" / name, np.full((2, 2), number / 9))

    def opened():
        return open_workdir(tmp_path / "out", make_method("glcm", Config()), root=tmp_path / "in")

    def compared(names=NAMES, **options):
        paths = [p.relative_to(tmp_path / "in") for p in sorted((tmp_path / "in").glob("*.npy"))]
        sources = {n: s for n, s in file_sources(tmp_path / "in", paths).items() if n in names}
        said = io.StringIO()
        workdir = without_changed(opened(), sources, Terminal(io.StringIO(), said), **options)
        statuses = {row.path: row.status for row in read_rows(tmp_path / "out" / "results.csv")}
        return set(workdir.finished), statuses, said.getvalue().splitlines()

    workdir = opened()
    for name in NAMES:
        for place in (workdir.map_path, workdir.mask_path, workdir.decision_path):
            place(name).parent.mkdir(exist_ok=True, parents=True)
            place(name).write_text(json.dumps(DECISION))
        source = FileSource(lambda: None, tmp_path / "in" / name)
        workdir.append(Row(name, "ok", 1.0).of(source.origin()))
    return tmp_path / "in", compared


def test_images_whose_files_are_the_same_stay_finished_without_a_word(folder):
    assert folder[1]() == (set(NAMES), dict.fromkeys(NAMES, "ok"), [])


def test_an_image_that_was_overwritten_is_scored_again_and_named(folder):
    images, compared = folder
    np.save(images / "b.npy", np.ones((2, 2)))
    finished, statuses, said = compared()
    assert finished == set(statuses) == set(NAMES) - {"b.npy"}
    assert said == [
        "ssdnet: b.npy: its file or its mask has changed since it was scored; it is scored again"
    ]


def test_an_image_of_another_input_is_looked_at_as_well(folder):
    images, compared = folder
    np.save(images / "b.npy", np.ones((2, 2)))
    assert compared(["a.npy"])[0] == set(NAMES)  # where its file lies is not known
    finished, statuses, said = compared(["a.npy"], locate=below(images))
    assert finished == set(statuses) == set(NAMES) - {"b.npy"}
    assert "its result is dropped" in said[0]


def test_an_image_that_has_gone_is_left_out_until_it_comes_back(folder):
    images, compared = folder
    content = (images / "c.npy").read_bytes()
    (images / "c.npy").unlink()
    kept = compared(locate=below(images), keep_gone=True)
    assert kept == (set(NAMES), dict.fromkeys(NAMES, "ok"), [])
    finished, statuses, (line,) = compared(locate=below(images))
    assert finished == set(NAMES) - {"c.npy"} and statuses["c.npy"] == "gone"
    assert line.startswith("ssdnet: c.npy: its file has gone") and "--keep_gone" in line
    (images / "c.npy").write_bytes(content)
    assert compared(locate=below(images)) == (set(NAMES), dict.fromkeys(NAMES, "ok"), [])


def test_many_changes_are_counted(folder, monkeypatch):
    images, compared = folder
    monkeypatch.setattr("ssdnet_jax.runner.changes._SHOWN", 1)
    for name in NAMES:
        np.save(images / name, np.ones((3, 3)))
    said = compared()[2]
    assert len(said) == 2 and said[1].startswith("ssdnet: 3 more images: the same")


def test_a_row_without_a_hash_proves_nothing(folder):
    images, compared = folder
    table = images.parent / "out" / "results.csv"
    table.write_text("path,status,score,error\na.npy,ok,1,\n")  # as an earlier version wrote it
    finished, _, said = compared(["a.npy"])
    assert not finished and "not recorded; it is scored again" in said[0]
