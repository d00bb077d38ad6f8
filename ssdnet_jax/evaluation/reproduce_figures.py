"""Figures of the paper's comparison, as PNG: box plots, curves, pictures side by side.

Those of `write_pictures` (files called pictures_*) show images of the dataset: they must never be
committed or passed on, as most datasets do not allow it. The others hold numbers only.
"""

import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ssdnet_jax.data.datasets import Sample
from ssdnet_jax.data.files import write_atomically
from ssdnet_jax.data.images import read_image, resize_image, resize_map, resize_missing
from ssdnet_jax.evaluation.evaluate import ALL, Evaluation, ImageMetrics, MapSet, read_pair
from ssdnet_jax.evaluation.figures import overlay
from ssdnet_jax.evaluation.report_plots import METRIC_NAMES
from ssdnet_jax.evaluation.reproduce import Results
from ssdnet_jax.evaluation.reproduce_text import Setting, method_name
from ssdnet_jax.runner.terminal import one_line
from ssdnet_jax.stages import otsu_threshold

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# A method has its colour and marker in all figures, whichever others are there.
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
}
_OTHER_STYLE = ("#5c5c5c", "*")
_TEXT, _MUTED, _LINE = "#1c1c1c", "#666666", "#dddddd"
_DOTS_PER_INCH = 150
_COLUMNS = 3  # panels side by side
_SMALLEST_BOX = 4  # images
_SIDE = 256  # pixels, the longest side of a picture


def write_figures(
    folder: Path,
    setting: Setting,
    results: Results,
    samples: Sequence[Sample],
    curves: Sequence[Mapping[str, Any]],
) -> dict[str, str]:
    """Writes all figures of the parts that were asked for.

    Args:
      folder: where they go.
      setting: how the numbers were made.
      results: what was measured.
      samples: all that were evaluated.
      curves: of `reproduce_text.curve_rows`.

    Returns:
      Title -> name of the file, in the order to show.
    """
    found: dict[str, str] = {}
    how = f"SSDnet config {setting.config_name}; scored at {setting.fitted}; {setting.seeds}"
    label = f"Data: {setting.name}{f' ({setting.note})' if setting.note else ''}; {how}"
    if results.clean and "table" in setting.protocol.parts:
        for number, metric in ((3, "auroc"), (4, "auprc")):
            title = f"Fig. {number}: {METRIC_NAMES[metric]} of single images"
            found[title] = f"fig{number}_{metric}_boxes.png"
            text = f"{label}. Each defective image, mean over seeds"
            write_box_plots(folder / found[title], results.clean, metric, label=text)
    for first, kind, x_label in (
        (5, "noise", "standard deviation of the noise"),
        (7, "missing", "share of missing pixels"),
    ):
        rows = [row for row in curves if row["corruption"] == kind]
        for number, metric in ((first, "auprc"), (first + 1, "auroc")) if rows else ():
            title = f"Fig. {number}: {METRIC_NAMES[metric]} against {x_label}"
            found[title] = f"fig{number}_{metric}_{kind}.png"
            text = f"{label}. {setting.corrupted.capitalize()}, mean"
            write_curves(folder / found[title], rows, metric, x_label, label=text)
    if results.clean and "pictures" in setting.protocol.parts:
        seed = results.map_sets[0].seed
        rows = [row for row in results.clean.rows if row.seed == seed]
        for category in sorted({sample.category for sample in samples}):
            safe = re.sub(r"[^\w.-]", "_", category)
            while (name := f"pictures_{safe}.png") in found.values():
                safe += "_"
            text = f"{label}; shown: seed {seed}"
            if write_pictures(folder / name, category, samples, results.map_sets, rows, label=text):
                found[f"Figs. 9 and 10: {category}"] = name
    return found


def write_box_plots(path: Path, evaluation: Evaluation, metric: str, *, label: str) -> None:
    """Writes Fig. 3 or 4: a metric over the images of each category, a box a method.

    Boxes reach from quartile to quartile, the line is the median, whiskers end at the last image
    within 1.5 box lengths; dots are the images, each with its mean over seeds.

    Args:
      path: the PNG.
      evaluation: what was measured.
      metric: "auroc" or "auprc".
      label: how the numbers were made, for the foot of the figure.
    """
    values: dict[str, dict[str, dict[str, list[float]]]] = {}
    categories = sorted({row.category for row in evaluation.rows})
    for row in evaluation.rows:
        if (value := getattr(row, metric)) is not None:
            for category in (row.category, ALL) if len(categories) > 1 else (row.category,):
                images = values.setdefault(category, {}).setdefault(row.method, {})
                images.setdefault(row.path, []).append(value)
    methods = list(dict.fromkeys(row.method for row in evaluation.rows))
    panels = [c for c in (ALL, *categories) if c in values]
    lowest = min((getattr(r, metric) for r in evaluation.rows if r.auroc is not None), default=0.0)
    start = max(0.0, math.floor(lowest * 10) / 10)
    figure, all_axes = _panels(len(panels), 0.42 + 0.3 * len(methods), label)
    for number, (axes, category) in enumerate(zip(all_axes, panels, strict=True)):
        found = {
            method: [float(np.mean(seeds)) for seeds in images.values()]
            for method, images in values[category].items()
        }
        for position, method in enumerate(methods):
            if method in found:
                _box(axes, found[method], position, STYLES.get(method, _OTHER_STYLE)[0])
        count = max(map(len, found.values()))
        _title(axes, category, count)
        names = [method_name(method) for method in methods]
        axes.set_yticks(range(len(methods)), names if number % _COLUMNS == 0 else [""] * len(names))
        axes.set_ylim(len(methods) - 0.5, -0.5)
        axes.set_xlim(start - 0.01, 1.01)
        axes.grid(axis="x", color=_LINE, linewidth=0.8)
        axes.set_xlabel(METRIC_NAMES[metric], fontsize=9, color=_MUTED)
    _save(figure, path)


def _box(axes: "Axes", values: Sequence[float], at: float, color: str) -> None:
    if len(values) >= _SMALLEST_BOX:
        axes.boxplot(
            [values],
            positions=[at],
            orientation="horizontal",
            widths=0.62,
            manage_ticks=False,
            showfliers=False,
            patch_artist=True,
            boxprops={"facecolor": color, "edgecolor": color, "alpha": 0.3},
            medianprops={"color": color, "linewidth": 2.4, "solid_capstyle": "butt"},
            whiskerprops={"color": color, "linewidth": 1.1},
            capprops={"color": color, "linewidth": 1.1},
        )
    jitter = np.random.default_rng(0).uniform(-0.2, 0.2, len(values))
    axes.plot(values, at + jitter, "o", color=color, markersize=3.2, markeredgewidth=0, alpha=0.8)


def write_curves(
    path: Path, rows: Sequence[Mapping[str, Any]], metric: str, x_label: str, *, label: str
) -> None:
    """Writes one of Figs. 5 to 8: a metric against the level of a corruption, a line a method.

    Args:
      path: the PNG.
      rows: of `reproduce_text.curve_rows`, those of one corruption. Where there are several seeds a
        band shows one standard deviation over them.
      metric: "auroc" or "auprc".
      x_label: what the level is.
      label: how the numbers were made, for the foot of the figure.
    """
    from matplotlib.lines import Line2D

    categories = list(dict.fromkeys(row["category"] for row in rows))
    categories.sort(key=lambda category: category != ALL)
    methods = list(dict.fromkeys(row["method"] for row in rows))
    handles = []
    for method in methods:
        color, marker = STYLES.get(method, _OTHER_STYLE)
        handles.append(Line2D([], [], color=color, marker=marker, label=method_name(method)))
    figure, all_axes = _panels(len(categories), 2.3, label, legend=handles)
    for axes, category in zip(all_axes, categories, strict=True):
        chosen = [r for r in rows if r["category"] == category and r[metric] is not None]
        for method in reversed(methods):  # the first is drawn on top
            line = sorted((r for r in chosen if r["method"] == method), key=lambda r: r["level"])
            levels = [row["level"] for row in line]
            color, marker = STYLES.get(method, _OTHER_STYLE)
            axes.plot(levels, [r[metric] for r in line], color=color, marker=marker, linewidth=1.8)
            spread = [row[f"{metric}_std_over_seeds"] for row in line]
            if None not in spread:
                middle = np.array([row[metric] for row in line])
                band = (middle - spread, middle + spread)
                axes.fill_between(levels, *band, color=color, alpha=0.15, linewidth=0)
        _title(axes, category, max((r["images"] for r in chosen), default=0))
        axes.set_ylim(-0.02, 1.02)
        axes.set_xticks(sorted({row["level"] for row in rows}))
        axes.grid(color=_LINE, linewidth=0.8)
        axes.set_xlabel(x_label, fontsize=9, color=_MUTED)
        axes.set_ylabel(METRIC_NAMES[metric], fontsize=9, color=_MUTED)
    _save(figure, path)


def chosen_rows(rows: Sequence[ImageMetrics]) -> dict[str, ImageMetrics]:
    """The images of best, middle and worst AUPRC, in words -> row; each once.

    Args:
      rows: of one method, seed and category; those without AUPRC are left out.
    """
    ranked = sorted((row for row in rows if row.auprc is not None), key=lambda row: -row.auprc)
    if not ranked:
        return {}
    places = {"best": 0, "middle": (len(ranked) - 1) // 2, "worst": len(ranked) - 1}
    taken: dict[str, ImageMetrics] = {}
    for word, place in places.items():
        if ranked[place] not in taken.values():
            taken[word] = ranked[place]
    return taken


def write_pictures(
    path: Path,
    category: str,
    samples: Sequence[Sample],
    map_sets: Sequence[MapSet],
    rows: Sequence[ImageMetrics],
    *,
    label: str,
) -> bool:
    """Writes Fig. 9 or 10 of one category: image, mask and score map of each method side by side.

    Rows are the images of best, middle and worst AUPRC of the first method; beside its map stands
    its mask by Otsu's threshold. Colours are scaled for each map alone (`figures.overlay`).

    Args:
      path: the PNG. It shows pictures of the dataset: not to be committed or passed on.
      category: which images.
      samples: all that were evaluated.
      map_sets: one a method.
      rows: metrics of these map sets.
      label: how the maps were made, for the foot of the figure.

    Returns:
      Whether there was anything to show.
    """
    by_path = {sample.relative: sample for sample in samples}
    leader = map_sets[0].method
    metrics = {(row.method, row.path): row for row in rows}
    chosen = chosen_rows([r for r in rows if r.method == leader and r.category == category])
    if not chosen:
        return False
    columns = 3 + len(map_sets)
    cell, gap, left, top, bottom = 1.45, 0.06, 0.32, 0.5, 0.6  # inches
    height = top + len(chosen) * (cell + 0.2) + bottom
    figure = _figure(left + columns * (cell + gap), height)
    for line, (word, row) in enumerate(chosen.items()):
        pictures = _pictures(by_path[row.path], map_sets, metrics, leader)
        y = height - top - line * (cell + 0.2) - cell
        for column, (title, caption, pixels) in enumerate(pictures):
            x = left + column * (cell + gap)
            axes = _place(figure, x, y, cell, cell)
            axes.set_axis_off()
            if pixels is not None:
                axes.imshow(pixels, cmap="gray", vmin=0, vmax=255, interpolation="antialiased")
            if line == 0:
                _write(figure, x + cell / 2, y + cell + 0.06, title, 9, _TEXT, "center")
            _write(figure, x + cell / 2, y - 0.13, caption, 7, _MUTED, "center")
        text = f"{word}: {one_line(row.defect)[:24]}"
        _write(figure, 0.2, y + cell / 2, text, 8, _TEXT, "center", rotation=90, va="center")
    _write(figure, left, height - 0.2, one_line(category), 11, _TEXT, "left")
    _foot(figure, f"{label}; under each map its AUROC / AUPRC", left)
    _save(figure, path)
    return True


def _pictures(
    sample: Sample,
    map_sets: Sequence[MapSet],
    metrics: Mapping[tuple[str, str], ImageMetrics],
    leader: str,
) -> list[tuple[str, str, np.ndarray | None]]:
    """Title, caption and pixels of each picture of a row."""
    usable = [m for m in map_sets if metrics[m.method, sample.relative].status == "ok"]
    pairs = {m.method: read_pair(sample, m.find(sample)) for m in usable}
    image = read_image(sample.path).pixels
    mask = pairs[leader][0]
    factor = min(1.0, _SIDE / max(image.shape[:2]))
    size = tuple(max(1, round(n * factor)) for n in image.shape[:2])
    small = resize_image(image, size)
    shown = np.round(255 * small).astype(np.uint8)
    result = [
        ("input", "", shown[..., 0] if shown.shape[2] == 1 else shown),
        ("mask", f"{mask.mean():.2%} of pixels", 255 * resize_missing(mask, size)),
    ]
    for map_set in map_sets:
        name, row = method_name(map_set.method), metrics[map_set.method, sample.relative]
        if map_set.method not in pairs:
            result.append((name, "no map", None))
            continue
        score_map = pairs[map_set.method][1]
        caption = f"{row.auroc:.3f} / {row.auprc:.3f}"
        result.append((name, caption, overlay(small, resize_map(score_map, size))))
        if map_set.method == leader:
            binary = score_map > otsu_threshold(score_map)
            picture = 255 * resize_missing(binary, size)
            result.append((f"{name}, Otsu", f"{binary.mean():.2%} of pixels", picture))
    return result


def _panels(
    count: int, panel_height: float, label: str, legend: Sequence[Any] = ()
) -> tuple["Figure", list["Axes"]]:
    """A figure of equal panels, at most `_COLUMNS` side by side, with a foot and a legend."""
    columns, rows = min(count, _COLUMNS), math.ceil(count / _COLUMNS)
    width = {1: 6.0, 2: 8.0, 3: 10.5}[columns]
    left, gap, between = 0.85, 0.45, 0.85  # inches
    panel_width = (width - left - 0.2 - (columns - 1) * gap) / columns
    legend_columns = min(len(legend), int(width / 1.15)) or 1
    top = 0.4 + 0.24 * math.ceil(len(legend) / legend_columns)
    lines = len(_wrapped(label, width - 0.3))
    height = top + rows * panel_height + (rows - 1) * between + 0.62 + 0.15 * lines
    figure = _figure(width, height)
    axes = []
    for number in range(count):
        row, column = divmod(number, columns)
        x = left + column * (panel_width + gap)
        y = height - top - row * (panel_height + between) - panel_height
        axes.append(_place(figure, x, y, panel_width, panel_height))
        axes[-1].set_axisbelow(True)
        for side, spine in axes[-1].spines.items():
            spine.set_visible(side in ("left", "bottom"))
            spine.set_color(_LINE)
        axes[-1].tick_params(length=0, labelsize=8.5, labelcolor=_TEXT, pad=4)
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
    _foot(figure, label, 0.15)
    return figure, axes


def _title(axes: "Axes", category: str, images: int) -> None:
    name = "all images" if category == ALL else one_line(category)
    text = f"{name[:40]} ({images})"
    axes.set_title(text, loc="left", fontsize=10, color=_TEXT, pad=6, parse_math=False)


def _foot(figure: "Figure", label: str, left: float) -> None:
    lines = _wrapped(label, figure.get_figwidth() - left - 0.15)
    for number, line in enumerate(reversed(lines)):
        _write(figure, left, 0.08 + 0.15 * number, line, 7.5, _MUTED, "left")


def _wrapped(text: str, width: float) -> list[str]:
    return textwrap.wrap(one_line(text), max(20, int(width / 0.058)))


def _write(
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


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=_DOTS_PER_INCH, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _place(figure: "Figure", left: float, bottom: float, width: float, height: float) -> "Axes":
    box = np.array([left, bottom, width, height])
    return figure.add_axes(box / np.tile(figure.get_size_inches(), 2))


def _save(figure: "Figure", path: Path) -> None:
    write_atomically(path, lambda file: figure.savefig(file, format="png"))
