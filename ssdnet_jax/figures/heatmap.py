"""Pictures of a result: score maps laid over their image, and the four-panel figure."""

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from ssdnet_jax.figures.drawing import DOTS_PER_INCH, new_figure, place, write

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOR_MAP = "turbo"
MAX_SIDE = 1024  # longer images are shrunk in figures, pixels


def overlay(image: np.ndarray, score_map: np.ndarray) -> np.ndarray:
    """Lays a score map in colour over the grey image; uint8 (H, W, 3), RGB.

    The lowest scores leave the image as it is; the higher a score, the more of its colour shows,
    and the image's light and dark stay visible through it. The scale runs from the median of the
    map to its 99.9th percentile: single outliers do not fade the rest.

    Args:
        image: float (H, W, C) in [0, 1].
        score_map: finite float (H, W), high where anomalous, any range.

    Raises:
        ValueError: the two differ in size, or the map is not finite.
    """
    image, score_map = np.asarray(image), np.asarray(score_map, np.float64)
    if image.shape[:2] != score_map.shape:
        raise ValueError(
            f"image has shape {image.shape}, score_map {score_map.shape}; expected the same size"
        )
    if np.isinf(score_map).any():
        raise ValueError("score_map has infinite values; expected finite scores, NaN if not judged")
    score_map = np.where(np.isnan(score_map), np.nanmin(score_map), score_map)
    low, high = _score_range(score_map)
    return _blend(_to_grey(image), np.clip((score_map - low) / (high - low), 0.0, 1.0))


def _score_range(score_map: np.ndarray) -> tuple[float, float]:
    """The scores that get the first and the last colour; never equal."""
    low, high = (float(v) for v in np.percentile(score_map, [50.0, 99.9]))
    if high <= low:  # more than 99.9 % of one value
        low, high = float(score_map.min()), float(score_map.max())
    return (low, high) if high > low else (low, low + max(1.0, abs(low)))


def _to_grey(image: np.ndarray) -> np.ndarray:
    weights = np.array([0.2126, 0.7152, 0.0722]) if image.shape[2] == 3 else np.ones(1)
    return image @ weights


def _blend(grey: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Colours of `level` (H, W) in [0, 1] over `grey` (H, W) in [0, 1], uint8 RGB."""
    from matplotlib import colormaps

    # Both ends of the map are nearly black; they are left out.
    colors = colormaps[COLOR_MAP](0.08 + 0.82 * level)[..., :3]
    shaded = colors * (0.6 + 0.4 * grey)[..., None]
    opacity = (0.85 * np.sqrt(level))[..., None]
    return np.round(255 * ((1 - opacity) * grey[..., None] + opacity * shaded)).astype(np.uint8)


def write_heatmap_figure(path: str | os.PathLike[str], **panels: Any) -> None:
    """Writes `heatmap_figure` as a PNG, in one step, whole; parent folders are created."""
    from PIL import Image

    from ssdnet_jax.data.files import write_atomically

    rendered = heatmap_figure(**panels)
    write_atomically(path, lambda file: Image.fromarray(rendered).save(file, "PNG"))


def heatmap_figure(
    *,
    image: np.ndarray,
    score_map: np.ndarray,
    mask: np.ndarray,
    reconstruction: np.ndarray | None = None,
    title: str | None = None,
) -> np.ndarray:
    """Draws panels: input, score overlay, reconstruction (if any), outlined mask.

    Panels stand side by side; those of very wide images stand one below the other. The colour bar
    shows the scores as given. Images of more than 1024 pixels a side are shrunk.

    Args:
        image: float (H, W, C) in [0, 1].
        score_map: finite float (H, W), high where anomalous, any range.
        mask: bool (H, W), the pixels to outline.
        reconstruction: float (H, W, C) in [0, 1], the image without its anomalies; None for methods
            that make none.
        title: a line above the panels, such as the file's name; printed as it is.

    Returns:
        uint8 RGB.

    Raises:
        ValueError: the arrays differ in size, or the map is not finite.
    """
    image, score_map, mask = np.asarray(image), np.asarray(score_map), np.asarray(mask, bool)
    sizes = {"image": image, "score_map": score_map, "mask": mask}
    if reconstruction is not None:
        sizes["reconstruction"] = np.asarray(reconstruction)
    if len({array.shape[:2] for array in sizes.values()}) > 1:
        found = ", ".join(f"{name} {array.shape[:2]}" for name, array in sizes.items())
        raise ValueError(f"found sizes {found}; expected one size for all")
    score_map = np.where(np.isnan(score_map), np.nanmin(score_map), score_map)
    image, score_map, mask, reconstruction = _shrink(image, score_map, mask, reconstruction)
    score_range = _score_range(score_map)
    panels = {"Input": to_rgb(image), "Anomaly score": overlay(image, score_map)}
    if reconstruction is not None:
        panels["Reconstruction"] = to_rgb(reconstruction)
    width = max(1, round(max(mask.shape) / 256))
    panels["Mask"] = outline(image, mask, color=(255, 40, 60), width=width, tint=0.35)
    return _render(panels, score_range, title)


def _shrink(
    image: np.ndarray, score_map: np.ndarray, mask: np.ndarray, reconstruction: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
    from ssdnet_jax.data.images import resize_image, resize_map, resize_missing

    height, width = image.shape[:2]
    factor = MAX_SIDE / max(height, width)
    if factor >= 1:
        return image, score_map, mask, reconstruction
    size = (max(1, round(height * factor)), max(1, round(width * factor)))
    return (
        resize_image(image, size),
        resize_map(score_map, size),
        resize_missing(mask, size),  # any marked pixel counts: thin defects stay visible
        None if reconstruction is None else resize_image(reconstruction, size),
    )


def to_rgb(image: np.ndarray) -> np.ndarray:
    """An image (H, W, C) in [0, 1] as uint8 (H, W, 3)."""
    pixels = np.round(255 * np.clip(image, 0.0, 1.0)).astype(np.uint8)
    return np.array(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))


def outline(
    image: np.ndarray,
    mask: np.ndarray,
    *,
    color: tuple[int, int, int],
    width: int,
    tint: float = 0.0,
) -> np.ndarray:
    """The image with a border of so many pixels around the mask, which is tinted, uint8 RGB."""
    from scipy.ndimage import binary_dilation

    pixels = to_rgb(image).astype(np.float64)
    pixels[mask] = (1 - tint) * pixels[mask] + tint * np.array(color)
    pixels[binary_dilation(mask, iterations=width) & ~mask] = color
    return np.round(pixels).astype(np.uint8)


def _render(
    panels: dict[str, np.ndarray], score_range: tuple[float, float], title: str | None
) -> np.ndarray:
    """Draws the panels with their titles and the colour bar, uint8 RGB."""
    height, width = next(iter(panels.values())).shape[:2]
    stacked = width > 2.5 * height
    # Inches. The area of a panel is the same for all shapes of image, within readable limits.
    panel_height = float(np.clip(2.9 * np.sqrt(height / width), 0.3, 6.0))
    panel_width = float(np.clip(panel_height * width / height, 1.2, 9.0))
    margin, gap, label = 0.08, 0.10, 0.24
    bar_room = 0.45  # the colour bar and its numbers, to the right of the overlay
    top = 0.16 if title else 0.0
    if stacked:
        figure_width = 2 * margin + panel_width + bar_room
        figure_height = margin + top + len(panels) * (panel_height + label) + margin
    else:
        figure_width = 2 * margin + len(panels) * panel_width + (len(panels) - 1) * gap + bar_room
        figure_height = margin + top + label + panel_height + margin

    figure = new_figure(figure_width, figure_height)
    left, bottom = margin, figure_height - margin - top - label - panel_height
    for name, pixels in panels.items():
        axes = place(figure, left, bottom, panel_width, panel_height)
        axes.set_axis_off()  # first: what is not shown is then not laid out either
        # Small images show their pixels, large ones are smoothed on the way to the page.
        dots = panel_width * DOTS_PER_INCH
        axes.imshow(pixels, interpolation="nearest" if width * 2 <= dots else "antialiased")
        axes.set_title(name, fontsize=8, pad=3, loc="left", y=1.0)
        if name == "Anomaly score":
            bar = place(figure, left + panel_width + 0.05, bottom, 0.09, panel_height)
            _draw_color_bar(bar, score_range, panel_height)
        if stacked:
            bottom -= panel_height + label
        else:
            left += panel_width + gap + (bar_room if name == "Anomaly score" else 0.0)
    if title:
        title = _drawable(title)
        letters = int(figure_width / 0.09)  # the end of a path says more than its start
        if len(title) > letters:
            title = f"…{title[1 - letters :]}"
        look = {"fontweight": "bold", "verticalalignment": "top"}
        write(figure, margin, figure_height - margin + 0.02, title, 9, "black", "left", **look)
    canvas: Any = figure.canvas
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _drawable(text: str) -> str:
    """Text in which U+FFFD stands for what the font cannot draw, which matplotlib warns about."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    known = get_font(findfont(FontProperties(weight="bold"))).get_charmap()
    return "".join(c if ord(c) in known else "\ufffd" for c in text)


def _draw_color_bar(axes: "Axes", score_range: tuple[float, float], length: float) -> None:
    """Colours as they look over mid-grey, from the lowest score below to the highest above."""
    from matplotlib.ticker import MaxNLocator

    level = np.linspace(0.0, 1.0, 256)[:, None]
    axes.imshow(
        _blend(np.full_like(level, 0.5), level),
        origin="lower",
        aspect="auto",
        extent=(0.0, 1.0, *score_range),
    )
    axes.set_xticks([])
    axes.yaxis.tick_right()
    axes.yaxis.set_major_locator(MaxNLocator(nbins=max(1, min(5, int(length * 2)))))
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 4), useMathText=True)
    axes.yaxis.get_offset_text().set_fontsize(6)
    axes.tick_params(labelsize=6, length=2, pad=1.5, width=0.5)
    for spine in axes.spines.values():
        spine.set_linewidth(0.5)
