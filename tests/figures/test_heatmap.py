import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ssdnet_jax
from ssdnet_jax.figures.colors import blend
from ssdnet_jax.figures.heatmap import (
    Box,
    heatmap_figure,
    overlay,
    thumbnail,
    write_heatmap_figure,
)
from ssdnet_jax.figures.lettering import shorten, text_width


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


def draw(**changes):
    """A figure whose scores are in units of the threshold."""
    data = scene() | {"threshold": 0.5} | changes
    return heatmap_figure(**data)


def panel(figure, name):
    box = figure.panels[name]
    return figure.pixels[box.y : box.y + box.height, box.x : box.x + box.width].astype(int)


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


def test_what_cannot_be_drawn_is_a_clear_error():
    data = scene()
    with pytest.raises(ValueError, match="same size"):
        overlay(data["image"], data["score_map"][1:])
    with pytest.raises(ValueError, match=r"mask \(63, 80\)"):
        draw(mask=data["mask"][1:])
    data["score_map"][0, 0] = np.inf
    with pytest.raises(ValueError, match="infinite"):
        draw(score_map=data["score_map"])


def test_pixels_that_were_not_judged_are_hatched_and_change_nothing_else():
    data = scene(200, 200)
    whole = overlay(data["image"], data["score_map"])
    data["score_map"][120:, 150:] = np.nan
    hatched = overlay(data["image"], data["score_map"])
    assert np.abs(hatched[:120].astype(int) - whole[:120]).max() <= 12
    part = hatched[120:, 150:]
    assert {tuple(p) for p in part[np.ptp(part, axis=-1) == 0]} >= {(235, 235, 235)}
    figure = draw(**data)
    for name in ("Heat map", "Mask"):
        corner = panel(figure, name)[-80:, -80:]
        assert (corner == 235).all(axis=-1).mean() == pytest.approx(0.25, abs=0.02)
    assert not (panel(figure, "Input") == 235).all(axis=-1)[-80:].mean() > 0.1
    nothing = draw(score_map=np.full((64, 80), np.nan), mask=np.zeros((64, 80), bool))
    assert (panel(nothing, "Heat map") == 235).all(axis=-1).mean() == pytest.approx(0.25, abs=0.02)


def test_colours_of_a_score_are_the_same_in_every_image_and_jump_at_the_threshold():
    image = np.full((40, 100, 1), 0.5, np.float32)
    ramp = np.linspace(0, 80, 100, dtype=np.float32)[None].repeat(40, axis=0)
    colours = thumbnail(image, ramp, 20.0, 100).astype(int)
    # Another image with other scores beside them, and another unit.
    other = np.where(np.arange(40)[:, None] < 20, ramp, 700)
    np.testing.assert_array_equal(thumbnail(image, other, 20.0, 100)[:20], colours[:20])
    np.testing.assert_array_equal(thumbnail(image, ramp / 20, 1.0, 100), colours)
    red, _, blue = np.moveaxis(colours[0], -1, 0)
    below, above = ramp[0] < 20, ramp[0] > 20
    assert (red[below] <= blue[below]).all() and (red[above] > blue[above] + 50).all()
    steps = np.abs(np.diff(colours[0], axis=0)).max(axis=-1)
    assert steps.argmax() == np.argmax(above) - 1 and steps.max() > 4 * np.sort(steps)[-2]


def test_a_good_image_has_no_colour_of_an_anomalous_one():
    data = scene()
    figure = draw(**data | {"threshold": 1.01, "mask": data["mask"] & False})
    red, green, blue = np.moveaxis(panel(figure, "Heat map"), -1, 0)
    assert (red <= np.maximum(green, blue) + 1).all()


def test_small_defects_keep_their_colour_where_images_are_shrunk():
    score_map = np.zeros((1500, 3000), np.float32)
    score_map[700, 900] = 50
    image = np.full((1500, 3000, 1), 0.5, np.float32)
    for pixels in (
        thumbnail(image, score_map, 20.0, 240),
        panel(
            draw(
                image=image,
                score_map=score_map,
                threshold=20.0,
                mask=score_map > 20,
                reconstruction=None,
            ),
            "Heat map",
        ),
    ):
        spread = np.ptp(pixels.astype(int), axis=-1)
        row, column = np.unravel_index(spread.argmax(), spread.shape)
        assert spread.max() > 100 and pixels.shape[1] == pytest.approx(2 * pixels.shape[0], abs=1)
        assert row / len(pixels) == pytest.approx(700 / 1500, abs=0.01)
        assert column / pixels.shape[1] == pytest.approx(0.3, abs=0.01)
    assert thumbnail(image[:9, :5], score_map[:9, :5], 20.0, 240).shape == (9, 5, 3)


def test_figure_shows_the_given_pictures_side_by_side():
    """Flat colours that only their own panel has are found in it alone."""
    flat = np.ones((64, 64, 3), np.float32)
    mask = np.zeros((64, 64), bool)
    mask[5:30, 5:30] = True
    figure = draw(
        image=flat * [0.2, 0.4, 0.8],
        score_map=np.zeros((64, 64)),
        mask=mask,
        reconstruction=flat * [0.6, 0.2, 0.8],
    )
    assert list(figure.panels) == ["Input", "Heat map", "Reconstruction", "Mask"]
    assert (panel(figure, "Input") == [51, 102, 204]).all()
    assert (panel(figure, "Reconstruction") == [153, 51, 204]).all()
    assert np.ptp(panel(figure, "Heat map"), axis=-1).max() == 0
    masked = panel(figure, "Mask")
    assert (masked[-100:] == [51, 102, 204]).all() and (masked == [255, 40, 60]).all(axis=-1).any()
    lefts = [box.x for box in figure.panels.values()]
    rights = [box.x + box.width for box in figure.panels.values()]
    assert all(left > right for left, right in zip(lefts[1:], rights, strict=False))
    assert "Reconstruction" not in draw(reconstruction=None).panels


def test_boxes_lie_around_their_defects_and_verdicts_have_their_colour():
    data = scene(100, 100) | {
        "image": np.full((100, 100, 1), 0.4),
        "mask": np.zeros((100, 100), bool),
    }
    plain = panel(draw(**data), "Mask")
    boxes = [Box(20, 40, 30, 10), Box(98, 0, 2, 2)]
    boxed = panel(draw(**data, boxes=boxes), "Mask")
    rows, columns = np.nonzero((plain != boxed).any(axis=-1)[:, :250])
    scale = len(plain) / 100
    assert rows.min() >= 40 * scale - 20 and rows.max() <= 50 * scale + 8  # the number is above
    assert columns.min() >= 20 * scale - 8 and columns.max() <= 50 * scale + 8
    assert (
        boxed[int(41 * scale) : int(49 * scale), int(21 * scale) : int(49 * scale)] == 102
    ).all()
    assert (plain != boxed)[:30, -30:].any()
    colors = {"anomalous": (179, 38, 30), "unsure": (138, 90, 0), "good": (27, 110, 60)}
    for verdict, color in colors.items():
        figure = draw(verdict=verdict, details="score 3").pixels
        found = [(figure == other).all(axis=-1).sum() > 200 for other in colors.values()]
        assert found == [other == color for other in colors.values()]


@pytest.mark.parametrize(
    "shape", [(1, 1), (8, 8), (64, 80), (300, 40), (40, 300), (1000, 20), (20, 1000)]
)
def test_figures_of_any_shape_are_compact(shape):
    figure = draw(**scene(*shape), title="a title")
    height, width = figure.pixels.shape[:2]
    assert 100 < height < 1500 and 400 < width < 2400
    inked_rows = np.nonzero((figure.pixels < 250).any(axis=(1, 2)))[0]
    inked_columns = np.nonzero((figure.pixels < 250).any(axis=(0, 2)))[0]
    assert inked_rows[0] < 30 and inked_rows[-1] > height - 30
    assert inked_columns[0] < 30
    for box in figure.panels.values():
        assert box.x + box.width <= width and box.y + box.height <= height
        assert min(box.width, box.height) >= 24


def test_images_keep_their_proportions_and_large_ones_are_shrunk():
    for shape in ((60, 60), (64, 80), (2600, 1300)):
        mask = np.zeros(shape, bool)
        mask[shape[0] // 2, 10:20] = True  # thin, and to be seen all the same
        figure = draw(**scene(*shape) | {"mask": mask})
        box = figure.panels["Mask"]
        assert box.width / box.height == pytest.approx(shape[1] / shape[0], rel=0.01)
        assert max(figure.pixels.shape) < 2400
        red = panel(figure, "Mask")
        assert (red[..., 0] - red[..., 1:].max(axis=-1) > 60).any()


@pytest.mark.filterwarnings("error")
def test_titles_of_any_letters_and_length_stay_within_the_figure():
    """Long ones are cut at their start; what no font has is replaced."""
    seen = []
    for title in [
        "",
        "$x_1^$ \\frac{.png",
        "织 деталь ñ ß e\u0301 \U0001f642\ud800.png",
        "a" * 500 + "b.png",
    ]:
        figure = draw(title=title, details="word " * 200, verdict="good").pixels
        edges = figure[:60, -8:], figure[:8]
        assert all((edge == 255).all() for edge in edges)
        seen.append((figure[:32] < 128).sum())
    assert seen[0] < seen[1] and seen[2] > seen[0] and seen[3] > 4 * seen[1]
    assert shorten("abc/def.png", 17, 1000) == "abc/def.png"
    shortened = shorten("abc/" * 50 + "def.png", 17, 200)
    assert shortened.startswith("…") and shortened.endswith("abc/def.png")
    assert text_width(shortened, 17) <= 200 < text_width("a" + shortened, 17)


def test_huge_and_tiny_thresholds_can_be_drawn():
    panels = draw().panels
    for threshold in (1e-30, 1e-9, 0.0, -3.0, 1e12):
        assert draw(threshold=threshold).panels == panels


def test_the_same_arguments_give_the_same_bytes_also_from_threads(tmp_path):
    paths = [tmp_path / str(i) / "f.png" for i in range(6)]
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda path: write_heatmap_figure(path, draw(title="t")), paths))
    assert len({path.read_bytes() for path in paths}) == 1
    assert [p.name for p in paths[0].parent.iterdir()] == ["f.png"]
    np.testing.assert_array_equal(np.asarray(Image.open(paths[0])), draw(title="t").pixels)


def test_matplotlib_stays_out():
    program = (
        "import sys, numpy as np\n"
        "import ssdnet_jax.figures.heatmap as figures\n"
        "z = np.zeros((8, 8)); i = z[..., None]\n"
        "figures.heatmap_figure(image=i, score_map=z, threshold=1, mask=z > 1, title='Ж')\n"
        "figures.overlay(i, z)\n"
        "assert 'matplotlib' not in sys.modules\n"
    )
    subprocess.run(
        [sys.executable, "-c", program], check=True, cwd=Path(ssdnet_jax.__file__).parents[1]
    )


def test_colours_in_an_images_own_range_are_those_of_turbo():
    from matplotlib import colormaps

    place = np.linspace(0, 1, 256)[None]
    white = blend(np.full((1, 256), 255, np.uint8), place, anchored=False) / 255
    expected = colormaps["turbo"](0.08 + 0.82 * place)[..., :3]
    opacity = 0.85 * np.sqrt(place)[..., None]
    assert np.abs(white - ((1 - opacity) + opacity * expected)).max() < 0.06
