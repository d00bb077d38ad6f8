"""What was decided of each image, on disk: decisions/PATH.json, and the tables made of them.

An image's file is written with its other results. The tables of a run, defects.csv,
defects.coco.json and defects.geojson, are made of these files when it ends, so that they are whole
also where a run goes on that was stopped, or where images come from other machines.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from typing import Any

from ssdnet_jax.core.defects import defect_pixels
from ssdnet_jax.data.decision_file import DEFECT_FIELDS, Json, read_decision
from ssdnet_jax.data.files import write_bytes
from ssdnet_jax.data.outlines import polygon, run_lengths
from ssdnet_jax.data.tables import write_table
from ssdnet_jax.methods.base import Localization
from ssdnet_jax.runner.workdir import Workdir, named_errors, read_rows


def write_decision(workdir: Workdir, relative: str, result: Localization) -> None:
    """Writes decisions/PATH.json."""
    decision = result.decision
    height, width = decision.mask.shape
    defects = []
    pixels = defect_pixels(decision.mask, result.defects)
    for defect, inside in zip(result.defects, pixels, strict=True):
        place = (defect.y, defect.x)
        runs = run_lengths(inside, place, (height, width))
        shape = {"runs": runs, "polygon": polygon(inside, place)}
        defects.append({**dataclasses.asdict(defect), **shape})
    content = {
        "width": width,
        "height": height,
        "score": _number(decision.score),
        "p_value": _number(decision.p_value),
        "verdict": decision.verdict,
        "false_alarms": decision.false_alarms,
        "threshold": _number(decision.threshold),
        "calibrated_threshold": _number(decision.calibrated_threshold),
        "defects": defects,
    }
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    write_bytes(workdir.decision_path(relative), text.encode())


def _number(value: float) -> float | None:
    return value if abs(value) < float("inf") else None  # neither NaN nor infinite


def decisions(workdir: Workdir) -> Iterator[tuple[str, Json]]:
    """The finished images of a work folder, in the order of results.csv, and what was decided.

    Raises:
      InputError: a file cannot be read.
    """
    for row in read_rows(workdir.path / "results.csv"):
        if row.status == "ok":
            yield row.path, read_decision(workdir.decision_path(row.path))


def write_defects(workdir: Workdir) -> int:
    """Writes the defects of all finished images as tables; returns how many there are.

    defects.csv has a line a defect. defects.coco.json is COCO's format for object detection, with
    run lengths (https://cocodataset.org/#format-data); images without a defect are in it too.
    defects.geojson (RFC 7946) has a polygon a defect, in pixels with y down, as QuPath reads it.

    Raises:
      InputError: a file cannot be read or written.
    """
    table: list[tuple[Any, ...]] = []
    images: list[Json] = []
    annotations: list[Json] = []
    features: list[Json] = []
    for name, found in decisions(workdir):
        image = len(images) + 1
        size = (found["height"], found["width"])
        images.append({"id": image, "file_name": name, "width": size[1], "height": size[0]})
        for defect in found["defects"]:
            values = {field: defect[field] for field in DEFECT_FIELDS}
            table.append((name, *values.values()))
            annotations.append(_annotation(len(annotations) + 1, image, size, defect))
            features.append(_feature(name, values, defect["polygon"]))
    coco = {
        "info": {"description": "defects found by ssdnet"},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "defect", "supercategory": "defect"}],
    }
    geojson = {"type": "FeatureCollection", "features": features}
    with named_errors(workdir.path):
        write_table(workdir.path / "defects.csv", ("path", *DEFECT_FIELDS), table)
        for file_name, content in (("defects.coco.json", coco), ("defects.geojson", geojson)):
            text = json.dumps(content, allow_nan=False)
            write_bytes(workdir.path / file_name, text.encode())
    return len(table)


def _annotation(number: int, image: int, size: tuple[int, int], defect: Json) -> Json:
    return {
        "id": number,
        "image_id": image,
        "category_id": 1,
        "bbox": [defect["x"], defect["y"], defect["width"], defect["height"]],
        "area": defect["area"],
        "segmentation": {"size": list(size), "counts": defect["runs"]},
        "iscrowd": 0,
        "attributes": {key: defect[key] for key in ("number", "peak", "mean", "p_value")},
    }


def _feature(name: str, values: Mapping[str, Any], rings: Any) -> Json:
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": rings},
        "properties": {"path": name, **values},
    }
