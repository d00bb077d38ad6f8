"""Plots of the report: SVG to be put into its page, whose colours and fonts they take."""

import io
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ssdnet_jax.evaluation.detection import CalibrationCurve
from ssdnet_jax.figures.drawing import new_figure, place, style_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

METHOD_COLORS = 8  # the page defines --method-0 to --method-7
METRIC_NAMES = {"auroc": "AUROC", "auprc": "AUPRC", "f1_max": "F1-max", "aupro": "AUPRO"}

# Matplotlib wants colours that it knows; these stand for variables of the page's style sheet.
_TEXT, _MUTED, _LINE, _SURFACE = "#010101", "#020202", "#030303", "#040404"
_VARIABLES = {_TEXT: "text", _MUTED: "muted", _LINE: "line", _SURFACE: "surface"}
_VARIABLES |= {f"#0a0a{i:02x}": f"method-{i}" for i in range(METHOD_COLORS)}
_LETTER = 0.075  # inches, the width of one
_LONGEST_LABEL = 36
_SMALLEST_BOX = 4  # images

ABSENT = "–"  # on pages, for a figure that does not exist

Values = Mapping[str, Mapping[str, Sequence[float]]]  # method -> metric -> a value an image
Curve = tuple[np.ndarray, np.ndarray]  # x and y


def number(
    value: float | None, spread: float | None = None, *, digits: int = 3, absent: str = "-"
) -> str:
    """A metric with its spread over seeds, as tables show it."""
    if value is None:
        return absent
    return f"{value:.{digits}f}" + ("" if spread is None else f" ± {spread:.{digits}f}")


def box_plots(groups: Mapping[str, Values], methods: Sequence[str]) -> str:
    """Box plots of per-image AUROC and AUPRC, side by side, a row a group and method; an `<svg>`.

    The box reaches from quartile to quartile, its line is the median, the whiskers end at the last
    image within 1.5 box lengths; dots are the images. Fewer than four images get no box. Groups are
    by the row's label; methods, in the order of their colours, need not be in every group.
    """
    labels = [f"…{x[1 - _LONGEST_LABEL :]}" if len(x) > _LONGEST_LABEL else x for x in groups]
    slot = 0.20 if max(_sizes(groups)) >= _SMALLEST_BOX else 0.14  # inches for one method
    step = slot * max(1, len(methods)) + 0.14  # for one group
    room = 0.15 + _LETTER * max(map(len, labels))
    width, height = 9.6, step * len(labels) + 0.55
    figure = new_figure(width, height)
    gap = 0.5
    panel = (width - room - gap - 0.2) / 2
    for number, metric in enumerate(("auroc", "auprc")):
        left = room + number * (panel + gap)
        axes = place(figure, left, 0.30, panel, step * len(labels))
        _style(axes)
        lowest = 1.0
        for row, values in enumerate(groups.values()):
            for index, method in enumerate(methods):
                found = values.get(method, {}).get(metric, ())
                if not len(found):
                    continue
                lowest = min(lowest, *found)
                offset = (index - (len(methods) - 1) / 2) * slot / step
                draw_box(axes, found, row + offset, 0.13 / step, _method_color(index))
        axes.set_ylim(len(labels) - 0.5, -0.5)
        # A little room before the lowest value, and no empty half where all are near 1.
        tick = 0.1 if lowest < 0.9 else 0.02
        start = max(0.0, tick * np.floor(lowest / tick - 0.2))
        axes.set_xlim(start, 1 + 0.02 * (1 - start))
        axes.locator_params(axis="x", nbins=5)  # more labels would touch
        axes.set_yticks(range(len(labels)), labels if number == 0 else [""] * len(labels))
        for text in axes.get_yticklabels():
            text.set_parse_math(False)  # names may hold dollar signs
        axes.grid(axis="x", color=_LINE, linewidth=0.8)
        axes.set_title(METRIC_NAMES[metric], loc="left", fontsize=10, color=_TEXT, pad=6)
    return _svg(figure)


def _sizes(groups: Mapping[str, Values]) -> list[int]:
    return [
        len(found) for values in groups.values() for v in values.values() for found in v.values()
    ]


def draw_box(axes: "Axes", values: Sequence[float], at: float, thick: float, color: str) -> None:
    """A box of a box plot with its values as dots, as `box_plots` describes it."""
    if len(values) < _SMALLEST_BOX:
        axes.plot(values, [at] * len(values), "o", color=color, markersize=5, markeredgewidth=0)
        return
    axes.boxplot(
        [values],
        positions=[at],
        orientation="horizontal",
        widths=thick,
        manage_ticks=False,
        showfliers=False,
        patch_artist=True,
        boxprops={"facecolor": color, "edgecolor": color, "alpha": 0.35},
        medianprops={"color": color, "linewidth": 2.2, "solid_capstyle": "butt"},
        whiskerprops={"color": color, "linewidth": 1.1},
        capprops={"color": color, "linewidth": 1.1},
    )
    jitter = np.random.default_rng(0).uniform(-0.32, 0.32, len(values)) * thick
    axes.plot(values, at + jitter, "o", color=color, markersize=2.6, markeredgewidth=0, alpha=0.75)


def curves(panels: Mapping[str, tuple[str, str, Mapping[str, Sequence[Curve]]]]) -> str:
    """Curves side by side, with the main one of each method in front; an `<svg>`.

    Panels are title -> label of x, label of y, and by method its curves: the first is drawn strong,
    the others faint. Titles that hold "PRO" get an x axis up to the last point.
    """
    width, side = 9.6, 2.55
    figure = new_figure(width, side + 0.80)
    gap = (width - len(panels) * side) / len(panels)
    for number, (title, (x_label, y_label, methods)) in enumerate(panels.items()):
        axes = place(figure, number * (side + gap) + 0.52, 0.48, side, side)
        _style(axes)
        axes.grid(color=_LINE, linewidth=0.8)
        end = 1.0
        for index, lines in enumerate(methods.values()):
            color = _method_color(index)
            for order, (x, y) in reversed(list(enumerate(lines))):
                strong = order == 0
                end = max(np.max(x), 0.0) if "PRO" in title else 1.0
                axes.plot(
                    x,
                    y,
                    color=color,
                    linewidth=2.0 if strong else 0.9,
                    alpha=1.0 if strong else 0.4,
                    zorder=3 if strong else 2,
                    solid_joinstyle="round",
                )
        if title == "ROC":
            axes.plot([0, 1], [0, 1], color=_MUTED, linewidth=0.9, linestyle=(0, (3, 3)))
        axes.set_xlim(-0.01 * end, 1.01 * end)
        axes.set_ylim(-0.01, 1.01)
        axes.set_title(title, loc="left", fontsize=10, color=_TEXT, pad=6)
        axes.set_xlabel(x_label, fontsize=9, color=_MUTED)
        axes.set_ylabel(y_label, fontsize=9, color=_MUTED)
    return _svg(figure)


def calibration_plot(
    found: Mapping[str, CalibrationCurve], methods: Sequence[str], stated: float
) -> str:
    """Shares of images called anomalous against the stated false-alarm rate; a logarithmic `<svg>`.

    Good images are drawn strong, defective ones faint; `methods` are in the order of their colours.
    """
    figure = new_figure(9.6, 3.3)
    axes = place(figure, 0.7, 0.5, 8.7, 2.6)
    _style(axes)
    axes.grid(color=_LINE, linewidth=0.8)
    low = min([stated / 3, *(curve.stated[0] for curve in found.values())])
    low = max(low, 1e-4)
    shares = [curve.false_alarms[0] for curve in found.values()]
    for method, curve in found.items():
        color = _method_color(methods.index(method))
        for values, width, alpha in ((curve.false_alarms, 2.0, 1.0), (curve.detected, 1.2, 0.5)):
            axes.step(curve.stated, values, where="post", color=color, linewidth=width, alpha=alpha)
    axes.plot([1e-9, 1], [1e-9, 1], color=_MUTED, linewidth=0.9, linestyle=(0, (3, 3)))
    axes.axvline(stated, color=_MUTED, linewidth=0.9)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(low, 1)
    axes.set_ylim(max(min([low, *(share / 2 for share in shares if share > 0)]), 1e-4), 1.05)
    axes.set_xlabel("stated false-alarm rate", fontsize=9, color=_MUTED)
    axes.set_ylabel("share of images called anomalous", fontsize=9, color=_MUTED)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter("")
    return _svg(figure)


def _method_color(index: int) -> str:
    return f"#0a0a{index % METHOD_COLORS:02x}"


def _style(axes: "Axes") -> None:
    axes.set_facecolor("none")
    style_axes(axes, text=_MUTED, line=_LINE, size=9, pad=5)


def _svg(figure: "Figure") -> str:
    """The figure as an element of a page: no prologue, no addresses, the page's own look."""
    import matplotlib

    file = io.BytesIO()
    # The salt makes the names of clip paths differ between plots of one page only by content.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "ssdnet"}):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    text = file.getvalue().decode("utf-8")
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    head, body = text.split(">", 1)
    box, *_ = re.findall(r'viewBox="[^"]*"', head)
    body = re.sub(r"font: ([0-9.]+)px [^;\"]*", r"font-size: \1px", body)
    body = re.sub(r"font-family: [^;\"]*;? ?", "", body)
    body = re.sub(r'<g id="[^"]*"', "<g", body).replace("xlink:href", "href")
    for color, variable in _VARIABLES.items():
        body = body.replace(color, f"var(--{variable})")
    return f'<svg {box} role="img">{body}'
