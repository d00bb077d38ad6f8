"""Table and figure of `ssdnet-sweep`: variants beside each other."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ssdnet_jax.evaluation.evaluate import ImageMetrics
from ssdnet_jax.evaluation.summary import means_over_seeds
from ssdnet_jax.figures.drawing import new_figure, save
from ssdnet_jax.reports.report_plots import METRIC_NAMES, number
from ssdnet_jax.reports.reproduce_text import markdown_table

METRICS = ("auprc", "auroc")


def table(entries: Mapping[str, Mapping[str, Any]]) -> str:
    """A Markdown table of what `summarize` says of all images, a row a variant."""
    lines = []
    for variant, entry in entries.items():
        cells = [number(entry[f"{m}_mean"], entry[f"{m}_std_over_seeds"]) for m in METRICS]
        lines.append([variant, *cells, str(entry["images"])])
    head = ["variant", *(METRIC_NAMES[m] for m in METRICS), "images"]
    return markdown_table(head, lines) + "\n"


def write_figure(
    path: Path,
    rows: Sequence[ImageMetrics],
    entries: Mapping[str, Mapping[str, Any]],
    *,
    label: str,
) -> None:
    """A PNG: for both metrics a row a variant, dots for images, a bar for mean and spread."""
    figure = new_figure(11, 1.3 + 0.42 * len(entries))
    figure.set_layout_engine("constrained")
    first = next(iter(entries.values()))
    panels = figure.subplots(1, len(METRICS), sharey=True)
    for metric, axes in zip(METRICS, panels, strict=True):
        means = means_over_seeds(rows, metric)
        for place, (variant, entry) in enumerate(entries.items()):
            values = [mean for row, mean in means if row.method == variant]
            if not values:
                continue
            axes.plot(values, np.full(len(values), place), "o", color="0.75", markersize=4)
            mean, spread = entry[f"{metric}_mean"], entry[f"{metric}_std_over_seeds"]
            color = "tab:blue" if place else "black"
            bar = {"fmt": "D", "color": color, "markersize": 6, "capsize": 4}
            axes.errorbar(mean, place, xerr=spread or 0.0, **bar)
        if first[f"{metric}_mean"] is not None:
            axes.axvline(first[f"{metric}_mean"], color="0.6", linewidth=0.8, linestyle="--")
        axes.set_xlabel(METRIC_NAMES[metric])
        axes.grid(axis="x", color="0.92")
        axes.spines[["top", "right", "left"]].set_visible(False)
    panels[0].set_yticks(range(len(entries)), list(entries), parse_math=False)
    panels[0].invert_yaxis()
    figure.suptitle(label, fontsize=9, parse_math=False)
    save(figure, path)
