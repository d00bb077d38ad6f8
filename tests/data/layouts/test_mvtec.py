import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssdnet_jax.data.images import read_image, read_mask
from ssdnet_jax.data.layouts.mvtec import read_mvtec_layout, read_mvtec_loco_layout
from ssdnet_jax.errors import InputError


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((2, 2), np.uint8)).save(path)


def error_of(*arguments, reader=read_mvtec_layout, **options):
    with pytest.raises(InputError) as caught:
        reader(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


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


def test_a_defective_image_of_loco_without_masks_is_named(tmp_path):
    touch(tmp_path, "box/test/logical_anomalies/000.png", "box/test/logical_anomalies/001.png")
    touch(tmp_path, "box/ground_truth/logical_anomalies/000/000.png")
    message = error_of(tmp_path, reader=read_mvtec_loco_layout)
    assert "logical_anomalies/001.png: found no mask for this defective image" in message
