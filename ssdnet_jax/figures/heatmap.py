"""Pictures of a result: score maps laid over their image, the figure of panels, the thumbnail.

Composed by Pillow and numpy: a figure takes some 20 ms, and threads may draw side by side.
"""

import dataclasses
import functools
import math
import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from ssdnet_jax.data.resize import resize
from ssdnet_jax.figures.colors import THRESHOLD_PLACE, blend, places, score_at
from ssdnet_jax.figures.lettering import draw_text, shorten, text_width
from ssdnet_jax.figures.png import write_png

OUTLINE = (255, 40, 60)  # of masks
_TEXT, _MUTED = "#1c1c1c", "#5f6670"
_VERDICTS = {"anomalous": "#b3261e", "unsure": "#8a5a00", "good": "#1b6e3c"}
_LEAST_SIDE, _MOST_SIDE = 320, 400  # of a square panel; others have its area, pixels
_LONGEST, _THINNEST = 1100, 24  # sides of a panel of any shape, pixels
_MARGIN, _GAP, _LABEL, _HEADER = 12, 12, 20, 52
_BAR, _BAR_ROOM = 12, 58  # the colour bar, and what it takes with its numbers
_LEAST_COLUMN, _LEAST_WIDTH = 104, 440
_TITLE_SIZE, _TEXT_SIZE, _TICK_SIZE = 17, 14, 11
_MOST_BOXES = 20  # more of them hide the image
_TICKS = (0, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)


class Box(NamedTuple):
    """A rectangle of the image, in its pixels."""

    x: int
    y: int
    width: int
    height: int


@dataclasses.dataclass(frozen=True)
class Figure:
    """A drawn figure.

    Attributes:
      pixels: uint8 RGB (height, width, 3).
      panels: by name, where in it each panel is.
    """

    pixels: np.ndarray
    panels: Mapping[str, Box]


def overlay(image: np.ndarray, score_map: np.ndarray) -> np.ndarray:
    """Lays a score map in colour over the grey image, in its own range; uint8 (H, W, 3), RGB.

    The lowest scores leave the image as it is; the higher a score, the more of its colour shows,
    and the image's light and dark stay visible through it. The scale runs from the median of the
    map to its 99.9th percentile: single outliers do not fade the rest.

    Args:
      image: float (H, W, C) in [0, 1].
      score_map: float (H, W), high where anomalous, any range; NaN, which is hatched, where a
        pixel was not judged.

    Raises:
      ValueError: the two differ in size, or the map is infinite somewhere.
    """
    image, score_map, judged = _checked(image, score_map)
    low, high = _score_range(score_map[judged])
    place = np.clip((np.where(judged, score_map, low) - low) / (high - low), 0.0, 1.0)
    return _hatched(blend(_to_grey(to_rgb(image)), place, anchored=False), judged)


def _checked(image: np.ndarray, score_map: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An image and its map, and where the map has a value."""
    image, score_map = np.asarray(image), np.asarray(score_map)
    if image.shape[:2] != score_map.shape:
        raise ValueError(
            f"image has shape {image.shape}, score_map {score_map.shape}; expected the same size"
        )
    if np.isinf(score_map).any():
        raise ValueError("score_map has infinite values; expected finite scores, or NaN")
    return image, score_map, ~np.isnan(score_map)


def _score_range(scores: np.ndarray) -> tuple[float, float]:
    """The scores that get the first and the last colour; never equal."""
    if not scores.size:
        return 0.0, 1.0
    low, high = (float(v) for v in np.percentile(scores.astype(np.float64), [50.0, 99.9]))
    if high <= low:  # more than 99.9 % of one value
        low, high = float(scores.min()), float(scores.max())
    return (low, high) if high > low else (low, low + max(1.0, abs(low)))


def _to_grey(rgb: np.ndarray) -> np.ndarray:
    """Luminance, uint8 (H, W)."""
    return np.asarray(Image.fromarray(rgb).convert("L"))


def _colored(
    rgb: np.ndarray, score_map: np.ndarray, judged: np.ndarray, threshold: float
) -> np.ndarray:
    place = places(np.where(judged, score_map, 0), threshold)
    return _hatched(blend(_to_grey(rgb), place, anchored=True), judged)


def _hatched(rgb: np.ndarray, judged: np.ndarray) -> np.ndarray:
    """The picture with diagonal lines over what was not judged."""
    if judged.all():
        return rgb
    height, width = judged.shape
    period = 8 if min(height, width) >= 64 else 4
    line = (np.arange(height)[:, None] + np.arange(width)) % period < period // 4
    faded = np.where(line[..., None], 235, rgb // 4 + 70).astype(np.uint8)
    return np.where(judged[..., None], rgb, faded)


def write_heatmap_figure(path: str | os.PathLike[str], figure: Figure) -> None:
    """Writes a figure as a PNG, in one step, whole; parent folders are created."""
    write_png(path, figure.pixels)


def heatmap_figure(
    *,
    image: np.ndarray,
    score_map: np.ndarray,
    threshold: float,
    mask: np.ndarray,
    reconstruction: np.ndarray | None = None,
    boxes: Sequence[Box] = (),
    title: str = "",
    verdict: str = "",
    details: str = "",
) -> Figure:
    """Draws panels: input, heat map, reconstruction (if any), outlined mask with numbered boxes.

    Panels stand side by side; those of very wide images stand one below the other. Colours are
    those of `thumbnail`. Large images are shrunk.

    Args:
      image: float (H, W, C) in [0, 1].
      score_map: float (H, W) in calibrated units (`core.calibration`); NaN, which is hatched,
        where a pixel was not judged.
      threshold: the decision threshold, in the same units.
      mask: bool (H, W), the pixels to outline.
      reconstruction: float (H, W, C) in [0, 1], the image without its anomalies, or smaller; None
        for methods that make none.
      boxes: of the defects, the worst first; the first 20 are drawn.
      title: a line above the panels, such as the file's name; printed as it is.
      verdict: a word on the image, below the title: anomalous (red), unsure (brown), good
        (green), or another (grey).
      details: what is said behind it, such as the score.

    Raises:
      ValueError: the arrays differ in size, or the map is infinite somewhere.
    """
    arrays = {"image": image, "score_map": score_map, "mask": mask}
    if len({np.shape(array)[:2] for array in arrays.values()}) > 1:
        found = ", ".join(f"{name} {np.shape(array)[:2]}" for name, array in arrays.items())
        raise ValueError(f"found sizes {found}; expected one size for all")
    image, score_map, judged = _checked(image, score_map)
    names = ["Input", "Heat map", *["Reconstruction"] * (reconstruction is not None), "Mask"]
    layout = _layout((image.shape[0], image.shape[1]), names)
    size = layout.size
    rgb = _resized(image, size)
    scores = _resized_map(np.where(judged, score_map, -np.inf), size)
    shown = np.isfinite(scores)
    masked = _resized_mask(np.asarray(mask, bool), size)
    panels = {"Input": rgb, "Heat map": _colored(rgb, scores, shown, threshold)}
    if reconstruction is not None:
        mu = np.asarray(reconstruction)
        same = mu.shape[:2] == image.shape[:2]
        panels["Reconstruction"] = _resized(mu, size) if same else to_rgb(resize(mu, size))
    # Boxes are no smaller than what can be seen, and lie around their defect.
    panels["Mask"] = _hatched(_outlined(rgb, masked, color=OUTLINE, width=2, tint=0.3), shown)

    page = Image.new("RGB", (layout.width, layout.height), "white")
    for name, pixels in panels.items():
        page.paste(Image.fromarray(pixels), (layout.panels[name].x, layout.panels[name].y))
    draw = ImageDraw.Draw(page)
    for name, panel in layout.panels.items():
        text = f"{name} (empty)" if name == "Mask" and not masked.any() else name
        draw_text(draw, panel.x, panel.y - 6, text, _TEXT_SIZE, _MUTED)
    _draw_boxes(draw, boxes[:_MOST_BOXES], layout.panels["Mask"], (image.shape[0], image.shape[1]))
    _draw_header(draw, layout.width - 2 * _MARGIN, title, verdict, details)
    heat = layout.panels["Heat map"]
    page.paste(_color_bar(heat.height, round(threshold, 3)), (heat.x + heat.width + 4, heat.y - 8))
    return Figure(np.asarray(page), layout.panels)


class _Layout(NamedTuple):
    width: int
    height: int
    size: tuple[int, int]  # of a panel, height and width
    panels: dict[str, Box]


def _layout(shape: tuple[int, int], names: Sequence[str]) -> _Layout:
    """Where the panels of an image of such a shape stand."""
    height, width = shape
    side = min(max(math.sqrt(height * width), _LEAST_SIDE), _MOST_SIDE)
    scale = side / math.sqrt(height * width)
    scale = min(scale, _LONGEST / max(height, width))
    panel_height = max(_THINNEST, round(height * scale))
    panel_width = max(_THINNEST, round(width * scale))
    panels, x, y = {}, _MARGIN, _MARGIN + _HEADER + _LABEL
    right = bottom = 0
    for name in names:
        panels[name] = Box(x, y, panel_width, panel_height)
        room = _BAR_ROOM if name == "Heat map" else 0
        right, bottom = max(right, x + panel_width + room), y + panel_height
        if width > 2.5 * height:  # one below the other
            y = bottom + _GAP + _LABEL
        else:
            x += max(panel_width, _LEAST_COLUMN) + room + _GAP
    # Labels of narrow panels go beyond them.
    right = max(right, panels[names[-1]].x + _LEAST_COLUMN, _LEAST_WIDTH - _MARGIN)
    return _Layout(right + _MARGIN, bottom + _MARGIN, (panel_height, panel_width), panels)


def _resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """An image in [0, 1] brought to a panel's size, uint8 RGB; small ones show their pixels."""
    height, width = image.shape[:2]
    if size[0] <= height and size[1] <= width:
        return to_rgb(resize(image, size))
    channels = image[..., 0] if image.shape[2] == 1 else image
    picture = Image.fromarray(_to_bytes(channels))
    shows_pixels = size[0] >= 2 * height or size[1] >= 2 * width
    kind = Image.Resampling.NEAREST if shows_pixels else Image.Resampling.BICUBIC
    return np.asarray(picture.resize(size[::-1], kind).convert("RGB"))


def _resized_map(score_map: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A map brought to a panel's size: where it shrinks, the largest score of each cell.

    A small defect so keeps its colour. A pixel that was not judged is -inf, here and there.
    """
    scores = _largest(np.asarray(score_map, np.float32), size)
    if scores.shape == tuple(size):
        return scores
    judged = np.isfinite(scores)
    filled = Image.fromarray(np.where(judged, scores, 0).astype(np.float32))
    enlarged = np.asarray(filled.resize(size[::-1], Image.Resampling.BILINEAR))
    return enlarged if judged.all() else np.where(_resized_mask(judged, size), enlarged, -np.inf)


def _resized_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A mask brought to a panel's size; any marked pixel counts, so thin defects stay visible."""
    mask = _largest(mask, size)
    picture = Image.fromarray(mask.view(np.uint8)).resize(size[::-1], Image.Resampling.NEAREST)
    return np.asarray(picture).view(bool)


def _largest(array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The array (H, W), no larger than `size`: along an axis that shrinks, the largest of cells."""
    for axis, target in enumerate(size):
        array = np.moveaxis(array, axis, 0)
        # By a whole number first: many rows at once are compared with many.
        if (step := len(array) // target) > 1:
            rest = len(array) % step
            whole = array[: len(array) - rest]
            parts = functools.reduce(np.maximum, (whole[i::step] for i in range(step)))
            array = np.concatenate([parts, array[-rest:].max(axis=0)[None]]) if rest else parts
        if (source := len(array)) > target:
            array = np.maximum.reduceat(array, np.arange(target) * source // target, axis=0)
        array = np.moveaxis(array, 0, axis)
    return np.ascontiguousarray(array)


def to_rgb(image: np.ndarray) -> np.ndarray:
    """An image (H, W, C) in [0, 1] as uint8 (H, W, 3)."""
    pixels = _to_bytes(image)
    return np.array(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))


def _to_bytes(image: np.ndarray) -> np.ndarray:
    return np.round(255 * np.clip(image, 0.0, 1.0)).astype(np.uint8)


def outline(
    image: np.ndarray,
    mask: np.ndarray,
    *,
    color: tuple[int, int, int],
    width: int,
    tint: float = 0.0,
) -> np.ndarray:
    """The image with a border of so many pixels around the mask, which is tinted, uint8 RGB."""
    return _outlined(to_rgb(image), mask, color=color, width=width, tint=tint)


def _outlined(
    rgb: np.ndarray, mask: np.ndarray, *, color: tuple[int, int, int], width: int, tint: float
) -> np.ndarray:
    from scipy.ndimage import binary_dilation

    rgb = rgb.copy()
    if mask.any():
        rgb[mask] = np.round((1 - tint) * rgb[mask] + tint * np.array(color)).astype(np.uint8)
        rgb[binary_dilation(mask, iterations=width) & ~mask] = color
    return rgb


def _draw_boxes(
    draw: ImageDraw.ImageDraw, boxes: Sequence[Box], panel: Box, shape: tuple[int, int]
) -> None:
    """Rectangles around defects, each with its number, the worst drawn last."""
    down, across = panel.height / shape[0], panel.width / shape[1]
    for number, box in reversed(list(enumerate(boxes, start=1))):
        left, right = panel.x + box.x * across, panel.x + (box.x + box.width) * across
        top, bottom = panel.y + box.y * down, panel.y + (box.y + box.height) * down
        # Around the defect and its outline, but within the panel.
        left, top = max(left - 5, panel.x), max(top - 5, panel.y)
        right = min(right + 4, panel.x + panel.width - 1)
        bottom = min(bottom + 4, panel.y + panel.height - 1)
        draw.rectangle((left, top, right, bottom), outline="black", width=3)
        draw.rectangle((left + 1, top + 1, right - 1, bottom - 1), outline="white", width=1)
        if len(boxes) > 1:
            text = str(number)
            wide = text_width(text, _TICK_SIZE) + 6
            at_left = min(left, panel.x + panel.width - wide)
            above = top - 14 >= panel.y
            at_top = top - 14 if above else min(bottom + 1, panel.y + panel.height - 14)
            draw.rectangle((at_left, at_top, at_left + wide, at_top + 13), fill="black")
            draw_text(draw, at_left + 3, at_top + 11, text, _TICK_SIZE, "white")


def _draw_header(
    draw: ImageDraw.ImageDraw, width: float, title: str, verdict: str, details: str
) -> None:
    """Title, and below it the verdict in its colour with what there is to say of it."""
    title = shorten(title, _TITLE_SIZE, width)
    draw_text(draw, _MARGIN, _MARGIN + 15, title, _TITLE_SIZE, _TEXT)
    x, y = float(_MARGIN), _MARGIN + 40
    if verdict:
        wide = text_width(verdict, _TEXT_SIZE) + 16
        pill = (x, y - 15, x + wide, y + 6)
        draw.rounded_rectangle(pill, radius=10, fill=_VERDICTS.get(verdict, _MUTED))
        draw_text(draw, x + 8, y, verdict, _TEXT_SIZE, "white")
        x += wide + 8
    room = width - (x - _MARGIN)
    size = _TEXT_SIZE if text_width(details, _TEXT_SIZE) <= room else _TICK_SIZE
    draw_text(draw, x, y, shorten(details, size, room), size, _MUTED)


@functools.lru_cache(maxsize=64)
def _color_bar(height: int, threshold: float) -> Image.Image:
    """Colours as they look over mid-grey, from 0 below to eight times the threshold above.

    Eight pixels above and below leave room for the numbers.
    """
    bar = Image.new("RGB", (_BAR_ROOM - 4, height + 16), "white")
    place = np.linspace(1, 0, height, dtype=np.float32)[:, None].repeat(_BAR, axis=1)
    grey = np.full(place.shape, 128, np.uint8)
    bar.paste(Image.fromarray(blend(grey, place, anchored=True)), (0, 8))
    draw = ImageDraw.Draw(bar)

    def tick(score: float, color: str) -> None:
        # Of the middle of the number.
        middle = 8 + round((1 - float(places(np.array(score), threshold))) * (height - 1))
        draw.line((_BAR, middle, _BAR + 3, middle), fill=color)
        draw_text(draw, _BAR + 6, middle + 4, f"{score:.3g}", _TICK_SIZE, color)

    at = 1 - THRESHOLD_PLACE
    taken = [at]
    last = float(score_at(np.array(1.0), threshold))
    for score in (last, *(t for t in _TICKS if t < last)):
        where = 1 - float(places(np.array(score), threshold))
        if all(abs(where - other) * height >= 15 for other in taken):
            taken.append(where)
            tick(score, _MUTED)
    tick(threshold, _TEXT)
    draw.line((0, 8 + round(at * (height - 1)), _BAR + 3, 8 + round(at * (height - 1))), fill=_TEXT)
    return bar


def thumbnail(image: np.ndarray, score_map: np.ndarray, threshold: float, side: int) -> np.ndarray:
    """A calibrated map in colour over the grey image, on one scale for all images.

    The colour jumps at the threshold, from bluish to yellow: an image without yellow has nothing
    that stands out. `figures.colors` has the scale. Small defects keep their colour.

    Args:
      image: float (H, W, C) in [0, 1].
      score_map: float (H, W) in calibrated units (`core.calibration`); NaN as for `overlay`.
      threshold: the decision threshold, in the same units.
      side: pixels, the longest side of the result; smaller images keep their size.

    Returns:
      uint8 (h, w, 3), RGB.

    Raises:
      ValueError: image and map differ in size, or the map is infinite somewhere.
    """
    image, score_map, judged = _checked(image, score_map)
    height, width = score_map.shape
    factor = min(1.0, side / max(height, width))
    size = max(1, round(height * factor)), max(1, round(width * factor))
    scores = _resized_map(np.where(judged, score_map, -np.inf), size)
    return _colored(_resized(image, size), scores, np.isfinite(scores), threshold)
