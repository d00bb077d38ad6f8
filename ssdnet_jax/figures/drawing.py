"""What figures of numbers and of pictures share: a page in inches, its text and its foot."""

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ssdnet_jax.data.files import write_atomically
from ssdnet_jax.text import one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TEXT, MUTED, LINE = "#1c1c1c", "#666666", "#dddddd"
DOTS_PER_INCH = 150


def foot(figure: "Figure", label: str, left: float) -> None:
    """Text at the foot of a figure, over as many lines as it takes; `left` in inches."""
    lines = wrapped(label, figure.get_figwidth() - left - 0.15)
    for number, line in enumerate(reversed(lines)):
        write(figure, left, 0.08 + 0.15 * number, line, 7.5, MUTED, "left")


def wrapped(text: str, width: float) -> list[str]:
    """The lines of a foot of so many inches."""
    return textwrap.wrap(one_line(text), max(20, int(width / 0.058)))


def write(
    figure: "Figure",
    x: float,
    y: float,
    text: str,
    size: float,
    color: str,
    align: str,
    **more: Any,
) -> None:
    """Text at a place given in inches; names may hold dollar signs."""
    x, y = np.array([x, y]) / figure.get_size_inches()
    figure.text(x, y, text, fontsize=size, color=color, ha=align, parse_math=False, **more)


def new_figure(width: float, height: float) -> "Figure":
    """An empty page of so many inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DOTS_PER_INCH, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def place(figure: "Figure", left: float, bottom: float, width: float, height: float) -> "Axes":
    """Axes at a place given in inches."""
    box = np.array([left, bottom, width, height])
    return figure.add_axes(box / np.tile(figure.get_size_inches(), 2))


def save(figure: "Figure", path: Path) -> None:
    """Writes a PNG atomically."""
    write_atomically(path, lambda file: figure.savefig(file, format="png"))


def style_axes(axes: "Axes", *, text: str, line: str, size: float, pad: float) -> None:
    """Axes with lines to the left and below alone, without ticks; colours and size of labels."""
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(line)
    axes.tick_params(length=0, labelsize=size, labelcolor=text, pad=pad)
