import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ssdnet_jax
from ssdnet_jax.figures.heatmap import overlay, write_heatmap_figure


def scene(height=64, width=80, channels=1):
    """An image, a score map with one peak, its mask and a reconstruction."""
    image = np.random.default_rng(0).random((height, width, channels), np.float32)
    row, column = np.indices((height, width))
    score_map = np.exp(-((row - height / 3) ** 2 + (column - width / 2) ** 2) / 50)
    return {
        "image": image,
        "score_map": score_map.astype(np.float32),
        "mask": score_map > 0.5,
        "reconstruction": image * 0.5,
    }


def write(path, **changes):
    write_heatmap_figure(path, **(scene() | changes))
    return np.asarray(Image.open(path))


@pytest.mark.parametrize("channels", [1, 3])
def test_overlay_leaves_the_lowest_scores_grey_and_colours_the_highest(channels):
    data = scene(channels=channels)
    colours = overlay(data["image"], data["score_map"])
    assert colours.shape == (64, 80, 3)
    assert colours.dtype == np.uint8
    spread = np.ptp(colours.astype(int), axis=-1)
    assert spread[data["score_map"] <= np.median(data["score_map"])].max() == 0
    assert spread[data["mask"]].min() > 60


def test_overlay_of_grey_shows_the_image_itself_where_scores_are_low():
    data = scene()
    low = data["score_map"] <= np.median(data["score_map"])
    colours = overlay(data["image"], data["score_map"])
    np.testing.assert_array_equal(colours[low], np.round(255 * data["image"][low]).repeat(3, -1))


def test_structure_stays_visible_under_the_highest_scores():
    image = np.tile(np.array([0.1, 0.9], np.float32), 40)[None, :, None].repeat(64, axis=0)
    score_map = np.zeros((64, 80))
    score_map[:20] = 1.0
    brightness = overlay(image, score_map)[:20].astype(float).sum(axis=-1)
    assert brightness[:, 1::2].mean() > 1.2 * brightness[:, ::2].mean()


def test_overlay_ignores_the_unit_of_the_scores_and_single_outliers():
    data = scene(200, 200)
    colours = overlay(data["image"], data["score_map"])
    scaled = overlay(data["image"], data["score_map"].astype(np.float64) * 1e-6 - 3)
    assert np.abs(colours.astype(int) - scaled).max() <= 1
    data["score_map"][0, 0] = 1e6
    changed = np.any(overlay(data["image"], data["score_map"]) != colours, axis=-1)
    assert np.abs(overlay(data["image"], data["score_map"])[1:].astype(int) - colours[1:]).max() < 8
    assert changed[0, 0]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [0.0, 7.0, -1e30])
def test_constant_maps_give_the_grey_image(value):
    image = scene()["image"]
    colours = overlay(image, np.full((64, 80), value, np.float32))
    np.testing.assert_array_equal(colours, np.round(255 * image).repeat(3, -1))


def test_what_cannot_be_drawn_is_a_clear_error(tmp_path):
    data = scene()
    with pytest.raises(ValueError, match="same size"):
        overlay(data["image"], data["score_map"][1:])
    with pytest.raises(ValueError, match=r"mask \(63, 80\)"):
        write(tmp_path / "f.png", mask=data["mask"][1:])
    data["score_map"][0, 0] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        write(tmp_path / "f.png", score_map=data["score_map"])
    assert list(tmp_path.iterdir()) == []


def test_figure_shows_the_given_pictures_side_by_side(tmp_path):
    """Flat colours that only their own panel has are found in that order from left to right."""
    flat = np.ones((64, 64, 3), np.float32)
    score_map = np.zeros((64, 64))
    score_map[20:40, 20:40] = 1
    mask = np.zeros((64, 64), bool)
    mask[5:30, 5:30] = True
    figure = write(
        tmp_path / "f.png",
        image=flat * [0.2, 0.4, 0.8],
        score_map=score_map,
        mask=mask,
        reconstruction=flat * [0.6, 0.2, 0.8],
    ).astype(int)

    def middle(color):
        columns = np.nonzero((np.abs(figure - color).max(axis=-1) <= 2).any(axis=0))[0]
        return columns.min(), columns.max()

    input_left, last_right = middle([51, 102, 204])  # in the first panel and behind the mask
    reconstruction_left, reconstruction_right = middle([153, 51, 204])
    outline_left, outline_right = middle([255, 40, 60])
    assert input_left < reconstruction_left
    assert reconstruction_right < outline_left < outline_right <= last_right


@pytest.mark.parametrize(
    "shape", [(1, 1), (8, 8), (64, 80), (300, 40), (40, 300), (1000, 20), (20, 1000)]
)
def test_figures_of_any_shape_are_compact(tmp_path, shape):
    figure = write(tmp_path / "f.png", **scene(*shape), title="a title")
    assert 100 < figure.shape[0] < 1500
    assert 300 < figure.shape[1] < 3000
    inked_rows = np.nonzero((figure < 250).any(axis=(1, 2)))[0]
    inked_columns = np.nonzero((figure < 250).any(axis=(0, 2)))[0]
    assert inked_rows[0] < 30
    assert inked_rows[-1] > figure.shape[0] - 45
    assert inked_columns[0] < 150


def test_images_keep_their_proportions(tmp_path):
    data = scene(60, 60)
    data["image"] = np.full((60, 60, 3), [0.0, 0.0, 1.0])
    data["reconstruction"] = np.full((60, 60, 3), [0.0, 1.0, 0.0])
    figure = write(tmp_path / "f.png", **data)
    green = (figure == [0, 255, 0]).all(axis=-1)
    assert green.any(axis=0).sum() == pytest.approx(green.any(axis=1).sum(), abs=3)


def test_large_images_are_shrunk_and_thin_masks_stay(tmp_path):
    mask = np.zeros((2600, 1300), bool)
    mask[1300, 600:620] = True
    figure = write(tmp_path / "f.png", **(scene(2600, 1300) | {"mask": mask})).astype(int)
    assert max(figure.shape) < 3000
    assert ((figure[..., 0] - figure[:, :, 1:].max(axis=-1)) > 60)[
        :, figure.shape[1] * 3 // 4 :
    ].any()


@pytest.mark.filterwarnings("error")
def test_letters_that_the_font_lacks_are_replaced_without_a_warning(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write(tmp_path / "f.png", title="織り目 café.png")


def test_titles_are_printed_as_they_are(tmp_path):
    for title in ["$x_1^$ \\frac{.png", "a" * 500, "", "häßlich ñ.png"]:
        write(tmp_path / "f.png", title=title)


def test_colour_bar_does_not_depend_on_a_huge_or_tiny_unit(tmp_path):
    for scale in (1e-30, 1e-9, 1.0, 1e12):
        write(tmp_path / "f.png", score_map=scene()["score_map"].astype(np.float64) * scale)


def test_the_same_arguments_give_the_same_bytes_also_from_threads(tmp_path):
    paths = [tmp_path / str(i) / "f.png" for i in range(6)]
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda path: write(path, title="t"), paths))
    assert len({path.read_bytes() for path in paths}) == 1
    assert [p.name for p in paths[0].parent.iterdir()] == ["f.png"]


def test_pyplot_and_its_global_state_stay_out(tmp_path):
    program = (
        "import sys, numpy as np\n"
        "import ssdnet_jax.figures.heatmap as figures\n"
        "assert 'matplotlib' not in sys.modules\n"
        "z = np.zeros((8, 8)); i = z[..., None]\n"
        f"figures.write_heatmap_figure({str(tmp_path / 'f.png')!r}, image=i, score_map=z,"
        " mask=z > 1, reconstruction=i)\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run(
        [sys.executable, "-c", program], check=True, cwd=Path(ssdnet_jax.__file__).parents[1]
    )
