import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssdnet_jax.data.datasets import (
    missing_masks,
    read_csv_layout,
    read_dataset,
    read_folder_layout,
    read_mvtec_layout,
)
from ssdnet_jax.data.images import read_image, read_mask
from ssdnet_jax.errors import ConfigError, InputError


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((2, 2), np.uint8)).save(path)


@pytest.fixture
def root(tmp_path):
    touch(
        tmp_path,
        "wood/test/good/001.png",
        "wood/test/hole/000.png",
        "wood/ground_truth/hole/000_mask.png",
        "wood/train/good/000.png",
        "grid/test/bent/001.jpg",
        "grid/test/bent/000.png",
        "grid/ground_truth/bent/000_mask.png",
        "grid/ground_truth/bent/001_mask.png",
    )
    (tmp_path / "wood" / "test" / "hole" / "notes.txt").touch()
    (tmp_path / "wood" / "test" / ".cache").mkdir()
    (tmp_path / "license").mkdir()
    return tmp_path


def test_all_test_images_are_listed_in_order_with_their_masks(root):
    samples = read_mvtec_layout(root)
    assert [sample.relative for sample in samples] == [
        "grid/test/bent/000.png",
        "grid/test/bent/001.jpg",
        "wood/test/good/001.png",
        "wood/test/hole/000.png",
    ]
    assert [(sample.category, sample.defect) for sample in samples] == [
        ("grid", "bent"),
        ("grid", "bent"),
        ("wood", "good"),
        ("wood", "hole"),
    ]
    assert samples[1].mask_path == root / "grid/ground_truth/bent/001_mask.png"
    assert samples[2].mask_path is None
    assert all(s.path.is_absolute() and s.path == root / s.relative for s in samples)


def test_paths_are_absolute_for_a_relative_root(root, monkeypatch):
    monkeypatch.chdir(root.parent)
    assert read_mvtec_layout(root.name) == read_mvtec_layout(root)


def test_categories_are_chosen_by_name(root):
    assert {s.category for s in read_mvtec_layout(root, categories=["wood"])} == {"wood"}


def test_masks_may_have_another_ending_of_the_name(root):
    touch(root, "grid/ground_truth/bent/000.bmp", "grid/ground_truth/bent/001.png")
    samples = read_mvtec_layout(root, categories=["grid"], mask_suffix="")
    assert [s.mask_path.name for s in samples] == ["000.bmp", "001.png"]


def test_names_with_dots_find_their_masks(root):
    touch(root, "grid/test/bent/a.b.png", "grid/ground_truth/bent/a.b_mask.tif")
    masks = [s.mask_path.name for s in read_mvtec_layout(root, categories=["grid"])]
    assert "a.b_mask.tif" in masks


def error_of(*arguments, reader=read_mvtec_layout, **options):
    with pytest.raises(InputError) as caught:
        reader(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_unknown_category_lists_those_found(root):
    message = error_of(root, categories=["grid", "bottle"])
    assert "bottle" in message
    assert "grid, wood" in message


def test_defective_image_without_mask_names_both_paths(root):
    mask = root / "wood/ground_truth/hole/000_mask.png"
    mask.unlink()
    message = error_of(root)
    assert str(mask) in message
    assert str(root / "wood/test/hole/000.png") in message


def test_explicit_mask_suffix_is_not_guessed(root):
    message = error_of(root, categories=["grid"], mask_suffix="_gt")
    assert str(root / "grid/ground_truth/bent/000_gt.png") in message


@pytest.mark.parametrize("suffix", ["", "_gt", "_GT", "_label", "_ground_truth"])
def test_mask_suffix_of_the_set_is_found(tmp_path, suffix):
    touch(tmp_path, "a/test/x/1.png", "a/test/x/2_mask.png", "a/test/good/3.png")
    touch(tmp_path, f"a/ground_truth/x/1{suffix}.png", f"a/ground_truth/x/2_mask{suffix}.tif")
    masks = [s.mask_path and s.mask_path.name for s in read_mvtec_layout(tmp_path)]
    assert masks == [None, f"1{suffix}.png", f"2_mask{suffix}.tif"]


def test_one_suffix_holds_for_the_whole_set(root):
    """An image whose mask is missing does not take a file named otherwise."""
    mask = root / "grid/ground_truth/bent/000_mask.png"
    mask.rename(mask.with_name("000.png"))
    assert str(mask) in error_of(root)


def test_no_mask_at_all_lists_what_was_looked_for(root):
    (root / "wood/ground_truth/hole/000_mask.png").unlink()
    message = error_of(root, categories=["wood"])
    assert str(root / "wood/test/hole/000.png") in message
    assert "_mask, nothing, _gt, _GT, _label, _ground_truth" in message


def test_png_masks_come_first_and_suffixes_may_be_upper_case(root):
    touch(root, "grid/ground_truth/bent/000_mask.bmp", "grid/test/bent/002.PNG")
    touch(root, "grid/ground_truth/bent/002_mask.PNG")
    samples = read_mvtec_layout(root, categories=["grid"])
    masks = [s.mask_path.name for s in samples]
    assert masks == ["000_mask.png", "001_mask.png", "002_mask.PNG"]


def test_one_category_is_read_as_a_set_of_one(root, monkeypatch):
    expected = read_mvtec_layout(root, categories=["wood"])
    assert read_mvtec_layout(root / "wood") == expected
    assert read_mvtec_layout(root / "wood", categories=["wood"]) == expected
    assert "expected some of wood" in error_of(root / "wood", categories=["grid"])
    monkeypatch.chdir(root / "wood")
    assert read_mvtec_layout(".") == expected


def test_missing_root_wrong_folder_and_no_images_are_told_apart(root):
    assert "no such folder" in error_of(root / "nothing")
    assert "no CATEGORY/test/" in error_of(root / "license")
    (root / "empty" / "bottle" / "test" / "good").mkdir(parents=True)
    assert "no images" in error_of(root / "empty")


@pytest.fixture
def listed(tmp_path):
    """A function that writes set/list.csv, beside set/a.png, set/b/a.png, other.png and masks."""
    touch(tmp_path, "set/a.png", "set/b/a.png", "set/masks/a.png", "other.png", "other_mask.png")

    def write(text, **options):
        path = tmp_path / "set" / "list.csv"
        path.write_text(text, **({"encoding": "utf-8"} | options))
        return path

    return write


def test_csv_names_images_masks_categories_and_defects(listed):
    path = listed(
        "defect,split, mask ,image,category\n"
        "hole,test,masks/a.png,b/a.png,wood\n"
        "\n"
        ", test,, a.png ,\n",
        encoding="utf-8-sig",
    )
    folder = path.parent
    good, hole = read_csv_layout(path)
    assert (good.path, good.relative) == (folder / "a.png", "a.png")
    assert (good.category, good.defect, good.mask_path) == ("set", "good", None)
    assert (hole.path, hole.relative) == (folder / "b/a.png", "b/a.png")
    assert (hole.category, hole.defect) == ("wood", "hole")
    assert hole.mask_path == folder / "masks/a.png"


def test_csv_needs_two_columns_only(listed, monkeypatch):
    path = listed("image,mask\r\n./b/../a.png,masks/a.png\r\n")
    (sample,) = read_csv_layout(path)
    assert (sample.relative, sample.category, sample.defect) == ("a.png", "set", "defect")
    monkeypatch.chdir(path.parent)
    assert read_csv_layout("list.csv") == [sample]


def test_csv_images_elsewhere_get_names_that_stay_inside(listed):
    other = listed("").parents[1] / "other.png"
    (relative,) = read_csv_layout(listed("image,mask\n../other.png,../other_mask.png\n"))
    (absolute,) = read_csv_layout(listed(f"image,mask\n{other},\n"))
    assert relative.path == absolute.path == other
    assert relative.relative == "_up/other.png"
    assert absolute.relative == f"_root{other.as_posix()}"
    inside = other.parent / "set" / "a.png"
    assert read_csv_layout(listed(f"image,mask\n{inside},\n"))[0].relative == "a.png"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ["line 1", "(none)", "'image'"]),
        ("image;mask\na.png;\n", ["line 1", "image;mask", "'image'"]),
        ("image,category\na.png,wood\n", ["line 1", "image,category", "'mask'"]),
        ("image,mask\n", ["no rows"]),
        ("image,mask\na.png,\n\nc.png,\n", ["line 4", "no image file", "set/c.png"]),
        ("image,mask\nb,\n", ["line 2", "no image file", "set/b"]),
        ("image,mask\n,masks/a.png\n", ["line 2", "no image file", "(empty)"]),
        ("image,mask\na.png,masks/b.png\n", ["line 2", "no mask file", "set/masks/b.png"]),
        ("image,mask\na.png,\nb/a.png,\n./a.png,\n", ["line 4", "./a.png", "line 2"]),
        ("image,mask\na.png\n", ["line 2", "1 values", "expected 2"]),
        ("image,mask,defect\na.png,,hole\n", ["line 2", "'hole' without a mask"]),
        ("image,mask,defect\na.png,masks/a.png,good\n", ["line 2", "'good' with a mask"]),
        ('image,mask\n"a.png,\n', ["comma-separated"]),
    ],
)
def test_csv_errors_name_file_and_line(listed, text, parts):
    path = listed(text)
    message = error_of(path, reader=read_csv_layout)
    for part in [str(path), *parts]:
        assert part in message


def test_csv_that_is_missing_or_not_text_is_a_clear_error(listed):
    path = listed("image,mask\nä.png,\n", encoding="latin-1")
    assert f"{path}: found no UTF-8" in error_of(path, reader=read_csv_layout)
    path.unlink()
    assert "no such file" in error_of(path, reader=read_csv_layout)


def test_csv_names_never_stand_for_two_images(listed):
    touch(listed("").parent, "_up/other.png")
    path = listed("image,mask\n_up/other.png,\n../other.png,\n")
    assert "line 3" in error_of(path, reader=read_csv_layout)


@pytest.mark.parametrize("suffix", ["", "_mask", "_label"])
def test_folder_of_images_finds_masks_of_the_same_relative_name(tmp_path, suffix):
    touch(tmp_path, "mats/1.png", "mats/2.v2.jpg", "mats/cut/deep/1.png", "mats/cut/9.png")
    touch(tmp_path, f"truth/2.v2{suffix}.png", f"truth/cut/deep/1{suffix}.bmp")
    samples = read_folder_layout(tmp_path / "mats", masks=tmp_path / "truth")
    assert [(s.relative, s.defect) for s in samples] == [
        ("1.png", "good"),
        ("2.v2.jpg", "defect"),
        ("cut/9.png", "good"),
        ("cut/deep/1.png", "cut"),
    ]
    assert {s.category for s in samples} == {"mats"}
    assert [s.mask_path for s in samples] == [
        None,
        tmp_path / f"truth/2.v2{suffix}.png",
        None,
        tmp_path / f"truth/cut/deep/1{suffix}.bmp",
    ]
    assert all(s.path == tmp_path / "mats" / s.relative for s in samples)


def test_masks_inside_the_folder_of_images_are_not_images(tmp_path):
    touch(tmp_path, "mats/1.png", "mats/2.png", "mats/masks/1_gt.png")
    samples = read_folder_layout(tmp_path / "mats", masks=tmp_path / "mats" / "masks")
    assert [s.relative for s in samples] == ["1.png", "2.png"]


def test_folder_errors_name_the_file_and_what_was_expected(tmp_path):
    def message(**options):
        options = {"masks": tmp_path / "truth"} | options
        return error_of(tmp_path / "mats", reader=read_folder_layout, **options)

    assert "mats: no such folder" in message()
    touch(tmp_path, "mats/1.png", "mats/2.png", "mats/good/3.png")
    assert "truth: no such folder" in message()
    touch(tmp_path, "truth/8_x.png")
    assert "followed by one of: _mask, nothing, _gt" in message()
    touch(tmp_path, "truth/1_mask.png")
    assert "truth/8_x.png" in message()
    assert "ends in _mask" in message()
    (tmp_path / "truth/8_x.png").rename(tmp_path / "truth/8_mask.png")
    assert f"expected {tmp_path / 'mats' / '8'} with" in message()
    (tmp_path / "truth/8_mask.png").unlink()
    assert "1_mask.png: found no image" in message(mask_suffix="_gt")
    touch(tmp_path, "truth/good/3_mask.png")
    assert "truth/good/3_mask.png: found a mask of an image in good/" in message()
    assert "one folder" in message(masks=tmp_path / "mats" / ".." / "mats")


def test_layout_is_chosen_by_what_is_given(root, listed):
    touch(root, "images/1.png", "truth/1_x.png")
    csv_file = listed("image,mask,category\na.png,,wood\nb/a.png,,grid\n")
    assert read_dataset(root) == read_mvtec_layout(root)
    assert read_dataset(csv_file) == read_csv_layout(csv_file)
    expected = read_folder_layout(root / "images", masks=root / "truth", mask_suffix="_x")
    found = read_dataset(str(root / "images"), masks=str(root / "truth"), mask_suffix="_x")
    assert found == expected
    assert expected[0].mask_path == root / "truth/1_x.png"


def test_categories_are_chosen_in_every_layout(root, listed):
    csv_file = listed("image,mask,category\na.png,,wood\nb/a.png,,grid\n")
    assert [s.relative for s in read_dataset(csv_file, categories=["grid"])] == ["b/a.png"]
    message = error_of(csv_file, reader=read_dataset, categories=["tile"])
    assert "no category tile; expected some of grid, wood" in message
    assert len(read_dataset(root, categories=["grid"])) == 2


@pytest.mark.parametrize("option", ["masks", "mask_suffix"])
def test_csv_does_not_take_another_source_of_masks(listed, option):
    with pytest.raises(ConfigError, match=rf"^{option}: .*list\.csv"):
        read_dataset(listed("image,mask\na.png,\n"), **{option: "x"})


@pytest.mark.parametrize(
    ("name", "defective", "good"),
    [("textures", 20, 5), ("mvtec_grid_128", 30, 11), ("fabric", 28, 0)],
)
def test_real_sets_are_read_with_masks_that_fit(name, defective, good):
    if "SSDNET_SHARED" not in os.environ:
        pytest.skip("SSDNET_SHARED is not set: no real images to read")
    samples = read_mvtec_layout(Path(os.environ["SSDNET_SHARED"]) / "data" / name)
    with_mask = [sample for sample in samples if sample.mask_path]
    assert (len(with_mask), len(samples) - len(with_mask)) == (defective, good)
    pixels = read_image(with_mask[0].path).pixels
    assert read_mask(with_mask[0].mask_path, shape=pixels.shape[:2]).any()


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
