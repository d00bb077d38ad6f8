import json

import numpy as np
import pytest

from ssdnet_jax.data.shapes import Shape, is_coco_file, rasterize, read_coco
from ssdnet_jax.errors import InputError


def coco(tmp_path, *segmentations, size=(6, 8), **changes):
    """A file with one image and an annotation a segmentation."""
    content = {
        "images": [{"id": 7, "file_name": "a\\b.png", "height": size[0], "width": size[1]}],
        "categories": [{"id": 1, "name": "scratch"}],
        "annotations": [
            {"id": number, "image_id": 7, "category_id": 1, "segmentation": segmentation}
            for number, segmentation in enumerate(segmentations)
        ],
    }
    path = tmp_path / "labels.json"
    path.write_text(json.dumps(content | changes))
    return path


def of_slices(*slices, size=(6, 8)):
    mask = np.zeros(size, bool)
    for each in slices:
        mask[each] = True
    return mask


def test_polygons_are_united_and_cover_the_pixels_whose_centre_they_hold(tmp_path):
    square = [2, 1, 5, 1, 5, 4, 2, 4]
    beyond = [6, 4, 100, 4, 100, 100, 6, 100]
    found = read_coco(coco(tmp_path, [square], [beyond]))
    image = found["a/b.png"]
    assert image.size == (6, 8) and [shape.label for shape in image.shapes] == ["scratch"] * 2
    expected = of_slices(np.s_[1:4, 2:5], np.s_[4:, 6:])
    np.testing.assert_array_equal(rasterize(image.shapes, (6, 8)), expected)
    both = read_coco(coco(tmp_path, [square, beyond]))["a/b.png"]
    np.testing.assert_array_equal(rasterize(both.shapes, (6, 8)), expected)
    assert not rasterize(read_coco(coco(tmp_path))["a/b.png"].shapes, (6, 8)).any()


def test_run_lengths_go_down_the_columns(tmp_path):
    # Column 1, rows 2 to 5, and column 2, row 0: 8 pixels outside, then 5 inside.
    counts = {"size": [6, 8], "counts": [8, 5, 35]}
    (shape,) = read_coco(coco(tmp_path, counts))["a/b.png"].shapes
    expected = of_slices(np.s_[2:6, 1], np.s_[0, 2])
    np.testing.assert_array_equal(rasterize([shape], (6, 8)), expected)
    with pytest.raises(InputError, match=r"run lengths of 6 x 8 .* expected 3 x 3"):
        rasterize([shape], (3, 3))


def compressed(runs):
    """COCO's text of run lengths, after `rleToString` of maskApi.c."""
    text = ""
    for number, run in enumerate(runs):
        value = run - runs[number - 2] if number > 2 else run
        more = True
        while more:
            bits = value & 31
            value >>= 5
            more = value != -1 if bits & 16 else value != 0
            text += chr((bits | 32 if more else bits) + 48)
    return text


def test_compressed_run_lengths_are_the_same(tmp_path):
    generator = np.random.default_rng(0)
    mask = generator.random((40, 70)) < 0.02
    mask[10:30, 20:60] = True
    flat = mask.T.ravel()
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs = np.diff([0, *changes, flat.size]).tolist()
    runs = [0, *runs] if flat[0] else runs
    text = compressed(runs)
    path = coco(tmp_path, {"size": [40, 70], "counts": text}, size=(40, 70))
    np.testing.assert_array_equal(rasterize(read_coco(path)["a/b.png"].shapes, (40, 70)), mask)
    pycocotools = pytest.importorskip("pycocotools.mask")
    theirs = pycocotools.decode({"size": [40, 70], "counts": text.encode()})
    np.testing.assert_array_equal(theirs, mask)


def test_polygons_are_filled_as_pycocotools_fills_them():
    pycocotools = pytest.importorskip("pycocotools.mask")
    generator = np.random.default_rng(1)
    angles = np.sort(generator.uniform(0, 2 * np.pi, 9))
    points = 32 + np.stack([np.cos(angles), np.sin(angles)], axis=1) * 20
    theirs = pycocotools.decode(pycocotools.frPyObjects([points.ravel().tolist()], 64, 64))[..., 0]
    ours = rasterize([Shape("", polygons=(tuple(map(tuple, points.tolist())),))], (64, 64))
    assert np.count_nonzero(ours != theirs) < 0.05 * ours.sum()  # on the edge, half a pixel


@pytest.mark.parametrize(
    ("segmentation", "words"),
    [
        ([], "no polygon and no run lengths"),
        (None, "no polygon and no run lengths"),
        ([[1, 2, 3, 4]], "at least three pairs"),
        ([[1, 2, 3, 4, 5]], "at least three pairs"),
        ([[1, 2, 3, 4, 5, 1e300]], "at least three pairs"),
        ([["a", 2, 3, 4, 5, 6]], "at least three pairs"),
        ({"size": [6, 8], "counts": [8, 5]}, "do not fill 6 x 8"),
        ({"size": [6, 8], "counts": [53, -5]}, "do not fill 6 x 8"),
        ({"size": [6, 8], "counts": "~~"}, "do not fill 6 x 8"),
        ({"size": [8, 6], "counts": [48]}, "run lengths of 8 x 6 .* expected 6 x 8"),
        ({"size": [6], "counts": [48]}, "expected two numbers"),
    ],
)
def test_a_region_that_is_none_is_refused_with_its_number(tmp_path, segmentation, words):
    path = coco(tmp_path, [[0, 0, 1, 0, 1, 1]], segmentation)
    with pytest.raises(InputError, match=f"labels.json: annotation 1: .*{words}"):
        read_coco(path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"images": 3}, "no list 'images'"),
        ({"images": [{"id": 1}]}, "image 0: found no file_name"),
        ({"images": [{"id": 1, "file_name": "a"}, {"id": 2, "file_name": "a"}]}, "again"),
        ({"images": [{"id": [], "file_name": "a"}]}, "expected a number or a word"),
        ({"images": [{"id": 1, "file_name": "a", "height": -1}]}, "the side -1"),
        ({"annotations": [{"image_id": 3}]}, "found image_id 3; expected the id of one of"),
    ],
)
def test_a_file_that_is_not_cocos_is_refused(tmp_path, changes, words):
    with pytest.raises(InputError, match=words):
        read_coco(coco(tmp_path, **changes))


def test_other_json_is_no_coco_file(tmp_path):
    assert is_coco_file(coco(tmp_path))
    for text in ("[" * 100_000, "[1]", "{}", "\x00", '{"images": []}'):
        (tmp_path / "x.json").write_text(text)
        assert not is_coco_file(tmp_path / "x.json")
    with pytest.raises(InputError, match="no JSON"):
        (tmp_path / "x.json").write_text("[" * 100_000)
        read_coco(tmp_path / "x.json")
