import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssdnet_jax.data.datasets import LAYOUTS, find_layout, find_sets, missing_masks, read_dataset
from ssdnet_jax.errors import ConfigError, InputError


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((2, 2), np.uint8)).save(path)


VISA = """\
object,split,label,image,mask
candle,train,normal,candle/0.JPG,
candle,test,normal,candle/1.JPG,
pcb1,test,anomaly,pcb1/2.JPG,pcb1/masks/2.png
"""
COCO = {
    "images": [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}],
    "categories": [{"id": 5, "name": "hole"}],
    "annotations": [{"image_id": 2, "category_id": 5, "segmentation": [[0, 0, 1, 0, 1, 1]]}],
}
# By layout: the files of a small set, and its samples: name, category, defect, mask.
SETS = {
    "mvtec": (
        ["grid/test/good/0.png", "grid/test/bent/1.png", "grid/ground_truth/bent/1_mask.png"],
        [
            ("grid/test/bent/1.png", "grid", "bent", "grid/ground_truth/bent/1_mask.png"),
            ("grid/test/good/0.png", "grid", "good", None),
        ],
    ),
    "mvtec_loco": (
        [
            *(
                "box/test/good/0.png",
                "box/test/logical_anomalies/1.png",
                "box/validation/good/5.png",
            ),
            *(f"box/ground_truth/logical_anomalies/1/{number}.png" for number in (0, 1)),
        ],
        [
            ("box/test/good/0.png", "box", "good", None),
            (
                *("box/test/logical_anomalies/1.png", "box", "logical_anomalies"),
                "box/ground_truth/logical_anomalies/1",
            ),
        ],
    ),
    "mvtec_ad2": (
        [
            *("can/test_public/good/0_regular.png", "can/test_public/bad/0_regular.png"),
            *("can/test_public/ground_truth/bad/0_regular_mask.png", "can/test_private/1.png"),
        ],
        [
            (
                *("can/test_public/bad/0_regular.png", "can", "bad"),
                "can/test_public/ground_truth/bad/0_regular_mask.png",
            ),
            ("can/test_public/good/0_regular.png", "can", "good", None),
        ],
    ),
    "visa": (
        ["candle/0.JPG", "candle/1.JPG", "pcb1/2.JPG", "pcb1/masks/2.png", "split_csv/1cls.csv"],
        [
            ("candle/1.JPG", "candle", "good", None),
            ("pcb1/2.JPG", "pcb1", "anomaly", "pcb1/masks/2.png"),
        ],
    ),
    "btad": (
        ["01/test/ok/0.bmp", "01/test/ko/1.bmp", "01/ground_truth/ko/1.png", "01/train/ok/2.bmp"],
        [
            ("01/test/ko/1.bmp", "01", "ko", "01/ground_truth/ko/1.png"),
            ("01/test/ok/0.bmp", "01", "good", None),
        ],
    ),
    "kolektor": (
        ["kos01/Part0.jpg", "kos01/Part0_label.bmp"],
        [("kos01/Part0.jpg", "set", "defect", "kos01/Part0_label.bmp")],
    ),
    "kolektor2": (
        ["train/1.png", "train/1_GT.png", "test/2.png", "test/2_GT.png"],
        [("test/2.png", "set", "defect", "test/2_GT.png")],
    ),
    "magnetic_tile": (
        [f"MT_{kind}/Imgs/x{end}" for kind in ("Free", "Crack") for end in (".jpg", ".png")],
        [
            ("MT_Crack/Imgs/x.jpg", "set", "Crack", "MT_Crack/Imgs/x.png"),
            ("MT_Free/Imgs/x.jpg", "set", "good", "MT_Free/Imgs/x.png"),
        ],
    ),
    "dagm": (
        [
            *("Class1/Train/0003.PNG", "Class1/Train/Label/0003_label.PNG", "Class1/Test/0001.PNG"),
            *("Class1/Test/0002.PNG", "Class1/Test/Label/0002_label.PNG"),
        ],
        [
            ("Class1/Test/0001.PNG", "Class1", "good", None),
            ("Class1/Test/0002.PNG", "Class1", "defect", "Class1/Test/Label/0002_label.PNG"),
        ],
    ),
    "coco": (
        ["images/a.png", "images/b.png", "annotations/all.json"],
        [
            ("images/a.png", "set", "good", "annotations/all.json"),
            ("images/b.png", "set", "hole", "annotations/all.json"),
        ],
    ),
    "labels": (
        ["test/good/0.png", "test/bad/1.png"],
        [("set/test/bad/1.png", "set", "bad", None), ("set/test/good/0.png", "set", "good", None)],
    ),
}
TEXTS = {"split_csv/1cls.csv": VISA, "annotations/all.json": json.dumps(COCO)}


def make(root, layout):
    files, _ = SETS[layout]
    touch(root, *(name for name in files if name not in TEXTS))
    for name in set(files) & TEXTS.keys():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(TEXTS[name])
    return root


@pytest.mark.parametrize("layout", SETS)
def test_each_layout_is_found_by_itself_and_read(tmp_path, layout):
    root = make(tmp_path / "set", layout)
    said = []
    samples = read_dataset(root, report=said.append)
    found = [
        (
            *(sample.relative, sample.category, sample.defect),
            sample.mask_path and sample.mask_path.relative_to(root).as_posix(),
        )
        for sample in samples
    ]
    assert found == SETS[layout][1]
    assert all(sample.path.is_file() for sample in samples)
    (line,) = said
    assert f"layout {layout} ({LAYOUTS[layout].words}), by " in line
    assert read_dataset(root, layout=layout) == samples
    assert find_sets(root.parent) == ([root] if layout != "labels" else [root.parent])


def test_every_layout_that_can_be_found_has_a_sample_here():
    assert LAYOUTS.keys() - SETS.keys() == {"csv", "folder"}


def test_files_name_their_layout_too(tmp_path):
    root = make(make(tmp_path / "set", "visa"), "coco")
    (root / "mine.csv").write_text("image,mask\ncandle/0.JPG,\n")
    assert find_layout(root / "split_csv/1cls.csv")[0] == "visa"
    assert find_layout(root / "annotations/all.json")[0] == "coco"
    assert find_layout(root / "mine.csv")[0] == "csv"
    assert len(read_dataset(root / "split_csv/1cls.csv")) == 2
    assert [s.relative for s in read_dataset(root / "mine.csv")] == ["candle/0.JPG"]


def test_two_layouts_in_one_folder_are_both_named(tmp_path):
    root = make(make(tmp_path / "set", "mvtec"), "visa")
    with pytest.raises(
        InputError, match=r"2 layouts, mvtec \(grid/test/\) and visa \(.*"
    ) as caught:
        read_dataset(root)
    assert "--layout=mvtec or --layout=visa" in str(caught.value)
    assert {s.category for s in read_dataset(root, layout="visa")} == {"candle", "pcb1"}
    mixed = make(make(tmp_path / "mixed", "mvtec"), "mvtec_loco")
    with pytest.raises(InputError, match=r"mvtec .* and mvtec_loco"):
        read_dataset(mixed)


@pytest.mark.parametrize("layout", ["labels", "mvtec", "dagm"])
def test_a_set_beside_others_does_not_leave_them_out_without_a_word(tmp_path, layout):
    # Its folders are where those of a set would be, so that the folder around them looks like one.
    one = make(tmp_path / "sets", layout)
    make(one / "tables", "visa")
    make(one / "more", "kolektor2")
    with pytest.raises(InputError) as caught:
        read_dataset(one)
    words = f"found the layout {layout} ("
    assert words in str(caught.value) and "in more/ the layout kolektor2 (" in str(caught.value)
    assert f"expected --layout={layout} to leave that out, or" in str(caught.value)
    assert read_dataset(one, layout=layout)
    assert find_sets(one / "tables") == [one / "tables"]


def test_a_folder_of_sets_is_told_from_a_set(tmp_path):
    sets = [make(tmp_path / name, name) for name in ("dagm", "mvtec")]
    touch(tmp_path, "pictures/1.png")
    assert find_sets(tmp_path) == sets
    assert find_sets(sets[0]) == [sets[0]]
    assert find_sets(tmp_path / "pictures") == [tmp_path / "pictures"]
    with pytest.raises(InputError, match=r"pictures: found no layout .* expected one of mvtec, "):
        read_dataset(tmp_path / "pictures")
    with pytest.raises(InputError, match="no such folder or file"):
        read_dataset(tmp_path / "nothing")


def test_a_layout_is_taken_by_name_and_must_be_one(tmp_path):
    root = make(tmp_path / "set", "mvtec")
    with pytest.raises(ConfigError, match="--layout: found 'imagenet'; expected auto or one of mv"):
        read_dataset(root, layout="imagenet")
    with pytest.raises(ConfigError, match="masks: found none with the layout folder"):
        read_dataset(root, layout="folder")
    touch(root, "images/1.png", "truth/1_x.png")
    (sample,) = read_dataset(root / "images", masks=str(root / "truth"), mask_suffix="_x")
    assert sample.mask_path == root / "truth/1_x.png"


@pytest.mark.parametrize(("option", "layout"), [("masks", "mvtec"), ("mask_suffix", "dagm")])
def test_a_layout_that_names_its_masks_takes_no_other_source(tmp_path, option, layout):
    root = make(tmp_path / "set", layout)
    with pytest.raises(ConfigError, match=rf"^{option}: found a value with .*set; expected none"):
        read_dataset(root, layout=layout, **{option: "x"})
    (tmp_path / "list.csv").write_text("image,mask\n")
    with pytest.raises(ConfigError, match=rf"^{option}: .*list\.csv"):
        read_dataset(tmp_path / "list.csv", **{option: "x"})


@pytest.mark.parametrize("layout", SETS)
def test_categories_are_chosen_in_every_layout(tmp_path, layout):
    root = make(tmp_path / "set", layout)
    first = SETS[layout][1][0][1]
    chosen = [entry[0] for entry in SETS[layout][1] if entry[1] == first]
    assert [s.relative for s in read_dataset(root, categories=[first])] == chosen
    with pytest.raises(InputError):
        read_dataset(root, categories=["bottle"])


def test_names_of_coco_files_stay_within_the_set(tmp_path):
    touch(tmp_path, "other.png", "set/b.png")
    labels = tmp_path / "set/labels.json"
    images = [{"id": 1, "file_name": "../other.png"}, {"id": 2, "file_name": "b.png"}]
    labels.write_text(json.dumps({**COCO, "images": images}))
    assert [s.relative for s in read_dataset(labels)] == ["_up/other.png", "b.png"]
    bad = {**COCO, "categories": [{"id": 5, "name": "../../x"}], "images": images}
    labels.write_text(json.dumps(bad))
    with pytest.raises(InputError, match=r"b.png: category: found '../../x'"):
        read_dataset(labels)
    for name in ("c.png", "c" * 300):
        labels.write_text(json.dumps({**COCO, "images": [{"id": 2, "file_name": name}]}))
        with pytest.raises(
            InputError, match=rf"labels.json: found no image {name}; expected it in"
        ):
            read_dataset(labels)


def test_masks_of_missing_pixels_are_one_for_all_or_go_by_name(tmp_path):
    images = [Path("a.png"), Path("s/b.jpg"), Path("s/c.jpg")]
    touch(tmp_path, "all.png", "masks/a.tif", "masks/s/b.png", "masks/other.png", "none/x.png")
    one = tmp_path / "all.png"
    assert missing_masks(one, images) == dict.fromkeys(images, one)
    masks = tmp_path / "masks"
    found = missing_masks(masks, images)
    assert found == {images[0]: masks / "a.tif", images[1]: masks / "s/b.png"}
    with pytest.raises(InputError, match=r"none: found no mask named as an image; looked for a "):
        missing_masks(tmp_path / "none", images)
    with pytest.raises(InputError, match=r"absent: no such file or folder; expected masks"):
        missing_masks(tmp_path / "absent", images)
