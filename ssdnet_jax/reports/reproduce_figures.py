"""Figures of the paper's comparison, as PNG: box plots and curves, which hold numbers only.

Those of `reproduce_pictures` (files called pictures_*) show images of the dataset.
"""

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ssdnet_jax.data.layouts.sample import Sample
from ssdnet_jax.evaluation.evaluate import ALL, Evaluation
from ssdnet_jax.evaluation.summary import means_over_seeds
from ssdnet_jax.experiments.reproduce import Results
from ssdnet_jax.figures import drawing
from ssdnet_jax.methods.registry import has_configuration, split_method
from ssdnet_jax.reports.report_plots import METRIC_NAMES, draw_box
from ssdnet_jax.reports.reproduce_pictures import write_pictures
from ssdnet_jax.reports.reproduce_text import MISSING_WORDS, Setting, method_name
from ssdnet_jax.text import one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# A method has its colour and marker in all figures, whichever others are there; where SSDnet is
# there by several configurations, the first has these.
STYLES = {
    "ssdnet": ("#d1495b", "o"),
    "spectral_residual": ("#2e86ab", "s"),
    "glcm": ("#8d99ae", "v"),
    "pg_lsr": ("#3c9d6b", "^"),
    "rpca": ("#b07d2b", "D"),
    "smooth_sparse": ("#7b5ea7", "P"),
    "winclip": ("#e0a72e", "X"),
    "dip": ("#c77dba", "<"),
    "fca": ("#22333b", ">"),
    "qfca": ("#6b8f71", "h"),
    "aota": ("#9a6324", "p"),
    "grnr": ("#4363d8", "d"),
}
_MORE_SSDNET = (("#f08c2e", "h"), ("#7a1f3d", "p"), ("#ff9aa8", "d"))
_OTHER_STYLE = ("#5c5c5c", "*")
_COLUMNS = 3  # panels side by side
_LEFT = 0.85  # inches, beside the first panel of a row
_LETTER = 0.067  # inches, the width of a letter of 8.5 points


def write_figures(
    folder: Path,
    setting: Setting,
    results: Results,
    samples: Sequence[Sample],
    curves: Sequence[Mapping[str, Any]],
) -> dict[str, str]:
    """Writes all figures of the parts that were asked for; title -> name of the file, in order.

    `samples` are all that were evaluated, `curves` those of `reproduce_text.curve_rows`.
    """
    found: dict[str, str] = {}
    names = setting.config_names
    configs = f"SSDnet config{'s' * (len(names) > 1)} {', '.join(names)}; " if names else ""
    how = f"{configs}scored at {setting.fitted}; {setting.seeds}"
    label = f"Data: {setting.name}{f' ({setting.note})' if setting.note else ''}; {how}"
    clean = results.clean
    if clean and all(row.status != "ok" for row in clean.rows):
        clean = None
    if clean and "table" in setting.protocol.parts:
        for number, metric in ((3, "auroc"), (4, "auprc")):
            title = f"Fig. {number}: {METRIC_NAMES[metric]} of single images"
            found[title] = f"fig{number}_{metric}_boxes.png"
            text = f"{label}. Each defective image, mean over seeds"
            write_box_plots(folder / found[title], clean, metric, label=text)
    for first, kind, x_label in (
        (5, "noise", "standard deviation of the noise"),
        (7, "missing", "share of missing pixels"),
    ):
        rows = [row for row in curves if row["corruption"] == kind]
        for number, metric in ((first, "auprc"), (first + 1, "auroc")) if rows else ():
            title = f"Fig. {number}: {METRIC_NAMES[metric]} against {x_label}"
            found[title] = f"fig{number}_{metric}_{kind}.png"
            text = f"{label}. {setting.corrupted.capitalize()}, mean"
            if kind == "missing":
                seen = MISSING_WORDS[setting.protocol.missing_values]
                text += f". SSDnet inpaints missing pixels; other methods get {seen}"
            write_curves(folder / found[title], rows, metric, x_label, label=text)
    if clean and "pictures" in setting.protocol.parts:
        seed = results.map_sets[0].seed
        of_seed = [row for row in clean.rows if row.seed == seed]
        for category in sorted({sample.category for sample in samples}):
            safe = re.sub(r"[^\w.-]", "_", category)
            while (name := f"pictures_{safe}.png") in found.values():
                safe += "_"
            text = f"{label}; shown: seed {seed}"
            if write_pictures(
                folder / name, category, samples, results.map_sets, of_seed, label=text
            ):
                found[f"Figs. 9 and 10: {category}"] = name
    return found


def method_styles(methods: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each method."""
    fitted = [method for method in methods if has_configuration(method)]
    more = dict(zip(fitted[1:], itertools.cycle(_MORE_SSDNET), strict=False))
    own = {m: STYLES.get(split_method(m)[0], _OTHER_STYLE) for m in methods}
    return {**own, **more}


def write_box_plots(path: Path, evaluation: Evaluation, metric: str, *, label: str) -> None:
    """Writes Fig. 3 or 4: AUROC or AUPRC over the images of each category, a box a method.

    Boxes reach from quartile to quartile, the line is the median, whiskers end at the last image
    within 1.5 box lengths; dots are the images, each with its mean over seeds. At the foot `label`
    says how the numbers were made.
    """
    values: dict[str, dict[str, list[float]]] = {}
    categories = sorted({row.category for row in evaluation.rows})
    for row, mean in means_over_seeds(evaluation.rows, metric):
        for category in (row.category, ALL) if len(categories) > 1 else (row.category,):
            values.setdefault(category, {}).setdefault(row.method, []).append(mean)
    methods = list(dict.fromkeys(row.method for row in evaluation.rows))
    panels = [c for c in (ALL, *categories) if c in values]
    lowest = min((getattr(r, metric) for r in evaluation.rows if r.auroc is not None), default=0.0)
    start = max(0.0, math.floor(lowest * 10) / 10)
    names = [method_name(method) for method in methods]
    styles = method_styles(methods)
    left = max(_LEFT, 0.25 + _LETTER * max(map(len, names)))
    figure, all_axes = _panels(len(panels), 0.42 + 0.3 * len(methods), label, left=left)
    for number, (axes, category) in enumerate(zip(all_axes, panels, strict=True)):
        found = values[category]
        for position, method in enumerate(methods):
            if method in found:
                draw_box(axes, found[method], position, 0.62, styles[method][0])
        count = max(map(len, found.values()))
        _title(axes, category, count)
        axes.set_yticks(range(len(methods)), names if number % _COLUMNS == 0 else [""] * len(names))
        axes.set_ylim(len(methods) - 0.5, -0.5)
        axes.set_xlim(start - 0.01, 1.01)
        axes.grid(axis="x", color=drawing.LINE, linewidth=0.8)
        axes.set_xlabel(METRIC_NAMES[metric], fontsize=9, color=drawing.MUTED)
    drawing.save(figure, path)


def write_curves(
    path: Path, rows: Sequence[Mapping[str, Any]], metric: str, x_label: str, *, label: str
) -> None:
    """Writes one of Figs. 5 to 8: AUROC or AUPRC against a corruption's level, a line a method.

    `rows` are those of `reproduce_text.curve_rows` of one corruption. Where there are several seeds
    a band shows one standard deviation over them. At the foot `label` says how they were made.
    """
    from matplotlib.lines import Line2D

    categories = list(dict.fromkeys(row["category"] for row in rows))
    categories.sort(key=lambda category: category != ALL)
    methods = list(dict.fromkeys(row["method"] for row in rows))
    styles = method_styles(methods)
    handles = []
    for method in methods:
        color, marker = styles[method]
        handles.append(Line2D([], [], color=color, marker=marker, label=method_name(method)))
    figure, all_axes = _panels(len(categories), 2.3, label, legend=handles)
    for axes, category in zip(all_axes, categories, strict=True):
        chosen = [r for r in rows if r["category"] == category and r[metric] is not None]
        for method in reversed(methods):  # the first is drawn on top
            line = sorted((r for r in chosen if r["method"] == method), key=lambda r: r["level"])
            levels = [row["level"] for row in line]
            color, marker = styles[method]
            axes.plot(levels, [r[metric] for r in line], color=color, marker=marker, linewidth=1.8)
            spread = [row[f"{metric}_std_over_seeds"] for row in line]
            if None not in spread:
                middle = np.array([row[metric] for row in line])
                band = (middle - spread, middle + spread)
                axes.fill_between(levels, *band, color=color, alpha=0.15, linewidth=0)
        _title(axes, category, max((r["images"] for r in chosen), default=0))
        axes.set_ylim(-0.02, 1.02)
        axes.set_xticks(sorted({row["level"] for row in rows}))
        axes.grid(color=drawing.LINE, linewidth=0.8)
        axes.set_xlabel(x_label, fontsize=9, color=drawing.MUTED)
        axes.set_ylabel(METRIC_NAMES[metric], fontsize=9, color=drawing.MUTED)
    drawing.save(figure, path)


def _panels(
    count: int,
    panel_height: float,
    label: str,
    *,
    legend: Sequence[Any] = (),
    left: float = _LEFT,
) -> tuple["Figure", list["Axes"]]:
    """A figure of equal panels, at most `_COLUMNS` side by side, with a foot and a legend."""
    columns, rows = min(count, _COLUMNS), math.ceil(count / _COLUMNS)
    width = {1: 6.0, 2: 8.0, 3: 10.5}[columns]
    gap, between = 0.45, 0.85  # inches
    panel_width = (width - left - 0.2 - (columns - 1) * gap) / columns
    longest = max((len(handle.get_label()) for handle in legend), default=0)
    legend_columns = min(len(legend), int(width / max(1.15, 0.6 + _LETTER * longest))) or 1
    top = 0.36 + 0.19 * math.ceil(len(legend) / legend_columns)
    lines = len(drawing.wrapped(label, width - 0.3))
    height = top + rows * panel_height + (rows - 1) * between + 0.62 + 0.15 * lines
    figure = drawing.new_figure(width, height)
    axes = []
    for number in range(count):
        row, column = divmod(number, columns)
        x = left + column * (panel_width + gap)
        y = height - top - row * (panel_height + between) - panel_height
        axes.append(drawing.place(figure, x, y, panel_width, panel_height))
        drawing.style_axes(axes[-1], text=drawing.TEXT, line=drawing.LINE, size=8.5, pad=4)
    if legend:
        figure.legend(
            handles=list(legend),
            loc="upper left",
            bbox_to_anchor=(0.1 / width, 1 - 0.04 / height),
            ncols=legend_columns,
            frameon=False,
            fontsize=8.5,
            borderpad=0,
            borderaxespad=0,
            columnspacing=1.2,
        )
    drawing.foot(figure, label, 0.15)
    return figure, axes


def _title(axes: "Axes", category: str, images: int) -> None:
    name = "all images" if category == ALL else one_line(category)
    text = f"{name[:40]} ({images})"
    axes.set_title(text, loc="left", fontsize=10, color=drawing.TEXT, pad=6, parse_math=False)
