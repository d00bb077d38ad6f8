import contextlib
import csv
import dataclasses
import io
import json

import numpy as np
import pytest
from pycocotools.coco import COCO

from ssdnet_jax.core.decision import decide
from ssdnet_jax.methods.base import Localization
from ssdnet_jax.runner.decisions import write_decision, write_defects
from ssdnet_jax.runner.workdir import Row, Workdir

NAMES = ("a b.png", "s/=two, 'defects'\n.png", "good.png")


def picture(*places, shape=(48, 64)):
    score_map = np.random.default_rng(0).exponential(size=shape).astype(np.float32)
    for number, (row, column) in enumerate(places):
        score_map[row : row + 5, column : column + 4] += 80 + 20 * number
        score_map[row + 2, column + 1] += 1
    decision, defects = decide(score_map)
    image = np.zeros((*shape, 1), np.float32)
    return Localization(score_map, float(score_map.max()), decision, defects, image)


@pytest.fixture
def run(tmp_path):
    """A work folder with three pictures, and their results."""
    workdir = Workdir(tmp_path, {})
    (tmp_path / "results.csv").write_text(
        ",".join(field.name for field in dataclasses.fields(Row)) + "\n"
    )
    results = (picture((10, 20)), picture((5, 40), (30, 8)), picture())
    for name, result in zip(NAMES, results, strict=True):
        write_decision(workdir, name, result)
        workdir.append(Row(name, "ok"))
    workdir.append(Row("lost.png", "error", error="lost"))
    assert write_defects(workdir) == 3
    return tmp_path, dict(zip(NAMES, results, strict=True))


def test_each_defect_has_a_line(run):
    path, results = run
    with (path / "defects.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    expected = [(name, defect) for name in NAMES for defect in results[name].defects]
    assert len(rows) == len(expected) == 3
    for row, (name, defect) in zip(rows, expected, strict=True):
        assert row.pop("path").endswith(name)
        assert list(row) == [field.name for field in dataclasses.fields(defect)]
        for key, text in row.items():
            assert float(text) == pytest.approx(getattr(defect, key), rel=1e-6)


def test_pycocotools_opens_the_defects_and_finds_the_pixels_of_the_masks(run):
    path, results = run
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(path / "defects.coco.json"))
    assert [coco.imgs[i]["file_name"] for i in coco.getImgIds()] == list(NAMES)
    for number, name in enumerate(NAMES, start=1):
        annotations = coco.loadAnns(coco.getAnnIds(imgIds=number))
        assert len(annotations) == len(results[name].defects)
        union = np.zeros((48, 64), bool)
        for annotation, defect in zip(annotations, results[name].defects, strict=True):
            mask = coco.annToMask(annotation).astype(bool)
            assert mask.sum() == annotation["area"] == defect.area
            assert annotation["bbox"] == [defect.x, defect.y, defect.width, defect.height]
            assert annotation["attributes"]["peak"] == pytest.approx(defect.peak)
            union |= mask
        np.testing.assert_array_equal(union, results[name].mask)


def test_geojson_has_a_closed_polygon_in_pixels_a_defect(run):
    path, results = run
    found = json.loads((path / "defects.geojson").read_text())
    assert found["type"] == "FeatureCollection" and len(found["features"]) == 3
    expected = [(name, defect) for name in NAMES for defect in results[name].defects]
    for feature, (name, defect) in zip(found["features"], expected, strict=True):
        assert feature["type"] == "Feature" and feature["geometry"]["type"] == "Polygon"
        assert feature["properties"]["path"] == name
        assert feature["properties"]["number"] == defect.number
        ring = np.array(feature["geometry"]["coordinates"][0])
        np.testing.assert_array_equal(ring[0], ring[-1])
        assert ring[:, 0].min() == defect.x and ring[:, 0].max() == defect.x + defect.width
        assert ring[:, 1].min() == defect.y and ring[:, 1].max() == defect.y + defect.height


def test_a_run_without_a_defect_has_tables_without_a_line(tmp_path):
    workdir = Workdir(tmp_path, {})
    assert write_defects(workdir) == 0
    assert (tmp_path / "defects.csv").read_text().count("\n") == 1
    with contextlib.redirect_stdout(io.StringIO()):
        assert COCO(str(tmp_path / "defects.coco.json")).getAnnIds() == []
    assert json.loads((tmp_path / "defects.geojson").read_text())["features"] == []
