import numpy as np
import pytest
from PIL import Image

from ssdnet_jax.data.layouts.tables import read_csv_layout, read_visa_layout
from ssdnet_jax.errors import InputError


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((2, 2), np.uint8)).save(path)


def error_of(*arguments, reader=read_csv_layout, **options):
    with pytest.raises(InputError) as caught:
        reader(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


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
        (f"image,mask\n{'b' * 300}.png,\n", ["line 2", "no image file"]),
        ("image,mask\n,masks/a.png\n", ["line 2", "no image file", "(empty)"]),
        ("image,mask\na.png,masks/b.png\n", ["line 2", "no mask file", "set/masks/b.png"]),
        ("image,mask\na.png,\nb/a.png,\n./a.png,\n", ["line 4", "./a.png", "line 2"]),
        ("image,mask\na.png\n", ["line 2", "1 values", "expected 2"]),
        ("image,mask,defect\na.png,,hole\n", ["line 2", "'hole' without a mask"]),
        ("image,label\na.png,\n", ["line 2", "no label"]),
        ("image,mask,mask\na.png,,\n", ["line 1", "one column 'mask'"]),
        ("image,mask,category\na.png,,../..\n", ["line 2", "category", "'../..'"]),
        ("image,mask,category\na.png,,/etc\n", ["line 2", "category", "'/etc'"]),
        (f"image,label\na.png,{'ä' * 150}\n", ["line 2", "defect", "300 bytes"]),
        ("image,label\na.png,x/../../y\n", ["line 2", "defect", "without '..'"]),
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


def test_csv_of_labels_needs_no_masks(listed):
    path = listed("image,label,category\na.png,OK,x\nb/a.png,scratch,x\n")
    good, bad = read_csv_layout(path)
    assert (good.defect, bad.defect) == ("good", "scratch")
    assert good.mask_path is None and bad.mask_path is None
    binary = read_csv_layout(listed("image,label\na.png,0\nb/a.png,1\n"))
    assert [sample.defect for sample in binary] == ["good", "1"]


def test_a_good_image_may_have_a_mask_which_is_to_be_empty(listed):
    (sample,) = read_csv_layout(listed("image,mask,defect\na.png,masks/a.png,good\n"))
    assert sample.good and sample.mask_path is not None


VISA = """\
object,split,label,image,mask
candle,train,normal,candle/Data/Images/Normal/0000.JPG,
candle,test,normal,candle/Data/Images/Normal/0001.JPG,
pcb1,test,anomaly,pcb1/Data/Images/Anomaly/000.JPG,pcb1/Data/Masks/Anomaly/000.png
"""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (VISA.replace("pcb1,test", "../x,test"), "line 4: object: found '../x'"),
        (VISA.replace(",pcb1/Data/Masks/Anomaly/000.png", ","), "line 4: found an anomaly without"),
        (VISA.replace("Normal/0001", "Normal/0002"), "line 3: found no image file"),
        (VISA.replace("test", "val"), "no rows of the split 'test'"),
    ],
)
def test_visa_errors_name_the_line(tmp_path, text, words):
    touch(
        tmp_path,
        *("candle/Data/Images/Normal/0001.JPG", "pcb1/Data/Images/Anomaly/000.JPG"),
        "pcb1/Data/Masks/Anomaly/000.png",
    )
    (tmp_path / "split_csv").mkdir()
    (tmp_path / "split_csv/1cls.csv").write_text(text)
    assert words in error_of(tmp_path, reader=read_visa_layout)
