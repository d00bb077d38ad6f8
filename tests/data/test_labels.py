import io

import numpy as np
import pytest
from PIL import Image

from ssdnet_jax.data.labels import CUT, MOST, image_shape, read_label, read_label_mask, summarized
from ssdnet_jax.data.layouts.sample import Sample
from ssdnet_jax.data.shapes import AnnotatedImage, Shape
from ssdnet_jax.errors import InputError

SHAPE = (48, 64)


@pytest.fixture
def truth():
    mask = np.zeros(SHAPE, bool)
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    mask[(rows - 20) ** 2 + (columns - 25) ** 2 < 90] = True
    mask[30:32, 40:60] = True
    return mask


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def white(mask):
    return (mask * 255).astype(np.uint8)


def through_jpeg(pixels, quality=60):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


@pytest.mark.parametrize("name", ["mask.jpg", "mask.png"])
def test_masks_saved_with_loss_are_cut_at_half_of_their_range(tmp_path, truth, name):
    pixels = through_jpeg(white(truth))
    path = save(tmp_path / name, pixels, **({"quality": 60} if name[-3:] == "jpg" else {}))
    assert np.count_nonzero(pixels) > 1.2 * truth.sum()  # what "not 0 is defect" would give
    label = read_label_mask(path)
    assert np.count_nonzero(label.mask != truth) < 0.03 * truth.sum()
    assert label.notes == (CUT,)


def test_masks_that_were_resized_are_cut_too(tmp_path, truth):
    large = Image.fromarray(white(truth)).resize((128, 96), Image.Resampling.BICUBIC)
    label = read_label_mask(save(tmp_path / "mask.png", np.asarray(large)))
    ratio = label.mask.sum() / truth.sum() / 4
    assert 0.95 < ratio < 1.05 and label.notes == (CUT,)
    np.save(tmp_path / "mask.npy", np.asarray(large, np.float32) / 255)
    np.testing.assert_array_equal(read_label_mask(tmp_path / "mask.npy").mask, label.mask)


@pytest.mark.parametrize(
    "values",
    [[1], [255], [7], [1, 2, 3], [1, 255], [64, 128, 255], list(range(1, 16)), list(range(1, 60))],
)
def test_every_class_of_a_mask_of_classes_is_a_defect(tmp_path, values):
    mask = np.zeros(SHAPE, np.uint8)
    mask.ravel()[: len(values)] = values
    label = read_label_mask(save(tmp_path / "mask.png", mask))
    np.testing.assert_array_equal(label.mask, mask > 0)
    assert label.notes == ()


def test_wide_integers_number_objects(tmp_path):
    objects = np.zeros(SHAPE, np.uint16)
    objects.ravel()[:900] = np.arange(900)
    label = read_label_mask(save(tmp_path / "mask.png", objects))
    assert label.mask.sum() == 899


def test_an_inverted_mask_is_worth_a_word_and_a_full_one_is_refused(tmp_path, truth):
    label = read_label_mask(save(tmp_path / "mask.png", white(~truth)))
    assert label.notes == (MOST,) and label.mask.sum() == (~truth).sum()
    for value in (255, 1):
        full = save(tmp_path / "full.png", np.full(SHAPE, value, np.uint8))
        with pytest.raises(InputError, match=r"full.png: found every pixel defective; expected a"):
            read_label_mask(full)


@pytest.mark.parametrize("ground", [(255, 255, 255), (90, 120, 60)])
def test_a_painted_mask_is_refused_with_what_was_found(tmp_path, truth, ground):
    painted = np.where(truth[..., None], (255, 0, 0), ground).astype(np.uint8)
    shown = ", ".join(map(str, ground))
    with pytest.raises(
        InputError, match=rf"mask in colours, most of it \({shown}\); expected a ma"
    ):
        read_label_mask(save(tmp_path / "mask.png", painted))


def test_colours_on_black_are_defects(tmp_path, truth):
    painted = np.where(truth[..., None], (0, 120, 200), (0, 0, 0)).astype(np.uint8)
    np.testing.assert_array_equal(read_label_mask(save(tmp_path / "m.png", painted)).mask, truth)
    transparent = np.dstack([np.full((*SHAPE, 3), 255, np.uint8), white(truth)])
    np.testing.assert_array_equal(
        read_label_mask(save(tmp_path / "t.png", transparent)).mask, truth
    )


def test_what_nobody_can_read_is_refused(tmp_path, truth):
    dark = save(tmp_path / "dark.jpg", (truth * 9).astype(np.uint8), quality=95)
    with pytest.raises(
        InputError, match=r"dark.jpg: found \d+ values from 0 to \d+ in a file save"
    ):
        read_label_mask(dark)
    for name, value in (("nan", np.nan), ("negative", -1.0)):
        np.save(tmp_path / f"{name}.npy", np.where(truth, value, 0.0))
        with pytest.raises(InputError, match=rf"{name}.npy: found NaN, infinite or negative"):
            read_label_mask(tmp_path / f"{name}.npy")


def sample(tmp_path, mask_path, defect="bent", regions=None):
    return Sample(tmp_path / "a.png", "a.png", "grid", defect, mask_path, regions)


def test_masks_of_a_folder_are_united(tmp_path, truth):
    left, right = truth.copy(), truth.copy()
    left[:, 35:] = right[:, :35] = False
    save(tmp_path / "masks/000.png", white(left))
    save(tmp_path / "masks/001.png", through_jpeg(white(right), quality=90))
    label = read_label(sample(tmp_path, tmp_path / "masks"), SHAPE)
    np.testing.assert_array_equal(label.mask, truth)
    assert label.notes == (CUT,)
    save(tmp_path / "masks/002.png", np.zeros((3, 4), np.uint8))
    with pytest.raises(InputError, match=r"002.png: found a mask of 3 x 4 .* expected 48 x 64"):
        read_label(sample(tmp_path, tmp_path / "masks"), SHAPE)


def test_a_good_image_has_no_mask_or_a_black_one(tmp_path, truth):
    assert read_label(sample(tmp_path, None), SHAPE) is None
    black = save(tmp_path / "black.png", np.zeros(SHAPE, np.uint8))
    assert not read_label(sample(tmp_path, black, "good"), SHAPE).mask.any()
    wrong = save(tmp_path / "wrong.png", white(truth))
    with pytest.raises(
        InputError, match=r"wrong.png: found \d+ defective pixels in the mask of a g"
    ):
        read_label(sample(tmp_path, wrong, "good"), SHAPE)


def test_regions_are_drawn_at_the_size_of_the_image(tmp_path):
    square = Shape("hole", polygons=(((2.0, 1.0), (6.0, 1.0), (6.0, 5.0), (2.0, 5.0)),))
    regions = AnnotatedImage("a.png", (0, 0), (square,))
    label = read_label(sample(tmp_path, tmp_path / "l.json", regions=regions), SHAPE)
    assert label.mask.sum() == 16 and label.mask[1:5, 2:6].all()
    other = AnnotatedImage("a.png", (10, 10), (square,))
    with pytest.raises(InputError, match=r"l.json: a.png: found a size of 10 x 10"):
        read_label(sample(tmp_path, tmp_path / "l.json", regions=other), SHAPE)
    far = Shape("hole", polygons=(((200.0, 200.0), (300.0, 200.0), (300.0, 300.0)),))
    outside = AnnotatedImage("a.png", (0, 0), (far,))
    with pytest.raises(InputError, match="regions without a pixel of the image"):
        read_label(sample(tmp_path, tmp_path / "l.json", regions=outside), SHAPE)


def test_notes_are_said_once(tmp_path):
    notes = [("a.png", CUT), ("b.png", CUT), ("a.png", CUT), ("c.png", MOST), ("d.png", CUT)]
    assert summarized(notes) == [f"a.png (and 2 others): {CUT}", f"c.png: {MOST}"]


def test_the_size_of_an_image_is_that_of_its_pixels_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = save(tmp_path / "a.jpg", np.zeros(SHAPE, np.uint8), exif=exif)
    assert image_shape(turned) == SHAPE[::-1]
