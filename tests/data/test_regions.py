import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssdnet_jax.data.images import DecodedImage
from ssdnet_jax.data.regions import ignored_regions, with_region
from ssdnet_jax.errors import InputError

SIZE = (20, 30)
IMAGES = [Path("a/1.png"), Path("b/2.png"), Path("b/3.png")]
SQUARE = [[4, 2], [10, 2], [10, 8], [4, 8], [4, 2]]
HOLE = [[6, 4], [8, 4], [8, 6], [6, 6], [6, 4]]


def expected_square():
    mask = np.zeros(SIZE, bool)
    mask[2:8, 4:10] = True
    return mask


def write(path, content):
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def feature(rings, **properties):
    geometry = {"type": "Polygon", "coordinates": rings}
    return {"type": "Feature", "properties": properties, "geometry": geometry}


def test_a_mask_holds_for_all_images_and_a_folder_for_those_it_names(tmp_path):
    mask = expected_square()
    Image.fromarray(mask * np.uint8(255)).save(tmp_path / "mask.png")
    of_all = ignored_regions(tmp_path / "mask.png", IMAGES)
    assert list(of_all) == IMAGES
    np.testing.assert_array_equal(of_all[IMAGES[2]](SIZE), mask)
    with pytest.raises(InputError, match=r"mask.png: found a mask of 20 x 30.*expected 9 x 9"):
        of_all[IMAGES[0]]((9, 9))
    (tmp_path / "masks/b").mkdir(parents=True)
    Image.fromarray(mask).save(tmp_path / "masks/b/3.png")
    assert list(ignored_regions(tmp_path / "masks", IMAGES)) == [IMAGES[2]]


def test_geojson_polygons_have_holes_and_belong_to_all_images_or_to_those_they_name(tmp_path):
    path = write(tmp_path / "p.geojson", feature([SQUARE, HOLE]))
    mask = expected_square()
    mask[4:6, 6:8] = False
    for image in IMAGES:
        np.testing.assert_array_equal(ignored_regions(path, IMAGES)[image](SIZE), mask)
    features = [feature([SQUARE], image="a/1.png"), feature([HOLE], file_name="3.png")]
    named = {"type": "FeatureCollection", "features": features}
    found = ignored_regions(write(tmp_path / "named.json", named), IMAGES)
    assert set(found) == {IMAGES[0], IMAGES[2]}
    np.testing.assert_array_equal(found[IMAGES[0]](SIZE), expected_square())
    assert found[IMAGES[2]](SIZE).sum() == 4


def test_cocos_annotations_of_an_image_are_its_region(tmp_path):
    polygon = np.ravel(SQUARE).tolist()
    path = write(
        tmp_path / "coco.json",
        {
            "images": [{"id": 1, "file_name": "1.png"}, {"id": 2, "file_name": "b/2.png"}],
            "annotations": [{"image_id": 1, "segmentation": [polygon]}],
        },
    )
    found = ignored_regions(path, IMAGES)
    assert list(found) == [IMAGES[0]]
    np.testing.assert_array_equal(found[IMAGES[0]](SIZE), expected_square())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"type": "Point"}, "found Point; expected GeoJSON"),
        ([1], "found list; expected GeoJSON"),
        ({"type": "FeatureCollection", "features": []}, "found no polygon"),
        (feature([[[0, 0], [1, 1]]]), "rings of at least three points"),
        (feature([[[0, 0], [1, 1], [2, "x"]]]), "rings of at least three points"),
        (feature([[[0, 0], [1, 1], [10**400, 0]]]), "rings of at least three points"),
        ({"type": "Feature", "geometry": None}, "found a geometry of type None"),
        (feature([SQUARE], image="other.png"), "found no region of an image"),
    ],
)
def test_files_that_are_no_polygons_of_the_images_are_refused_in_one_line(
    tmp_path, content, message
):
    path = write(tmp_path / "p.json", content)
    with pytest.raises(InputError, match=message) as error:
        ignored_regions(path, IMAGES)
    assert "p.json" in str(error.value) and "\n" not in str(error.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    for name in ("no.json", "no.png"):
        with pytest.raises(InputError, match=f"{name}: no such file"):
            ignored_regions(tmp_path / name, IMAGES)


def test_a_region_is_added_to_what_is_transparent():
    ignored = np.zeros(SIZE, bool)
    ignored[0] = True
    image = DecodedImage(np.zeros((*SIZE, 1), np.float32), None, (), ignored)
    found = with_region(image, lambda size: expected_square())
    np.testing.assert_array_equal(found.ignored, expected_square() | ignored)
    assert with_region(image, None) is image
    assert with_region(image, lambda size: np.zeros(size, bool)).ignored is not None
