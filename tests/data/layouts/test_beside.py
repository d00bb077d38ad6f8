import numpy as np
import pytest
from PIL import Image

from ssdnet_jax.data.layouts.beside import read_folder_layout, read_kolektor_layout
from ssdnet_jax.errors import InputError


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((2, 2), np.uint8)).save(path)


def error_of(*arguments, reader=read_folder_layout, **options):
    with pytest.raises(InputError) as caught:
        reader(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


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
    touch(tmp_path, "truth/good/3_mask.png")  # which is to be empty
    (found,) = [
        s
        for s in read_folder_layout(tmp_path / "mats", masks=tmp_path / "truth")
        if s.good and s.mask_path
    ]
    assert found.relative == "good/3.png"
    assert "one folder" in message(masks=tmp_path / "mats" / ".." / "mats")


def test_an_image_without_the_mask_beside_it_is_named(tmp_path):
    touch(tmp_path, "kos01/Part0.jpg", "kos01/Part0_label.bmp", "kos01/Part1.jpg")
    message = error_of(tmp_path, reader=read_kolektor_layout)
    assert "kos01/Part1.jpg: found no mask beside this image; expected Part1_label.png" in message
