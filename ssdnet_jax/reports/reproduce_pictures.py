"""Pictures side by side of the paper's comparison (Figs. 9 and 10), as PNG.

Files called pictures_* show images of the dataset: they must never be committed or passed on, as
most datasets do not allow it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ssdnet_jax.core.decision import otsu_threshold
from ssdnet_jax.data.images import resize_map, resize_missing
from ssdnet_jax.data.layouts.sample import Sample
from ssdnet_jax.evaluation.evaluate import ImageMetrics, MapSet
from ssdnet_jax.figures.drawing import MUTED, TEXT, foot, new_figure, place, save, write
from ssdnet_jax.figures.heatmap import overlay
from ssdnet_jax.reports.report_cases import ranked, read_case
from ssdnet_jax.reports.reproduce_text import method_name
from ssdnet_jax.text import one_line


def chosen_rows(rows: Sequence[ImageMetrics]) -> dict[str, ImageMetrics]:
    """The images of best, middle and worst AUPRC, in words -> row; each once.

    `rows` are of one method, seed and category; those without AUPRC are left out.
    """
    ordered = ranked(rows)
    if not ordered:
        return {}
    places = {"best": 0, "middle": (len(ordered) - 1) // 2, "worst": len(ordered) - 1}
    taken: dict[str, ImageMetrics] = {}
    for word, rank in places.items():
        if ordered[rank] not in taken.values():
            taken[word] = ordered[rank]
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
    its mask by Otsu's threshold. Colours are scaled for each map alone
    (`figures.heatmap.overlay`); at the foot `label` says how the maps were made. The PNG shows
    images of the dataset: not to be committed or passed on. Returns whether there was anything to
    show.
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
    figure = new_figure(left + columns * (cell + gap), height)
    for line, (word, row) in enumerate(chosen.items()):
        pictures = _pictures(by_path[row.path], map_sets, metrics, leader)
        y = height - top - line * (cell + 0.2) - cell
        for column, (title, caption, pixels) in enumerate(pictures):
            x = left + column * (cell + gap)
            axes = place(figure, x, y, cell, cell)
            axes.set_axis_off()
            if pixels is not None:
                axes.imshow(pixels, cmap="gray", vmin=0, vmax=255, interpolation="antialiased")
            if line == 0:
                write(figure, x + cell / 2, y + cell + 0.06, title, 9, TEXT, "center")
            write(figure, x + cell / 2, y - 0.13, caption, 7, MUTED, "center")
        text = f"{word}: {one_line(row.defect)[:24]}"
        write(figure, 0.2, y + cell / 2, text, 8, TEXT, "center", rotation=90, va="center")
    write(figure, left, height - 0.2, one_line(category), 11, TEXT, "left")
    foot(figure, f"{label}; under each map its AUROC / AUPRC", left)
    save(figure, path)
    return True


def _pictures(
    sample: Sample,
    map_sets: Sequence[MapSet],
    metrics: Mapping[tuple[str, str], ImageMetrics],
    leader: str,
) -> list[tuple[str, str, np.ndarray | None]]:
    """Title, caption and pixels of each picture of a row."""
    image, mask, maps = read_case(sample, map_sets, metrics)
    size = (image.shape[0], image.shape[1])
    shown = np.round(255 * image).astype(np.uint8)
    result: list[tuple[str, str, np.ndarray | None]] = [
        ("input", "", shown[..., 0] if shown.shape[2] == 1 else shown),
        ("mask", f"{mask.mean():.2%} of pixels", 255 * resize_missing(mask, size)),
    ]
    for map_set in map_sets:
        name, row = method_name(map_set.method), metrics[map_set.method, sample.relative]
        if map_set.method not in maps:
            result.append((name, "no map", None))
            continue
        score_map = maps[map_set.method]
        caption = f"{row.auroc:.3f} / {row.auprc:.3f}"
        result.append((name, caption, overlay(image, resize_map(score_map, size))))
        if map_set.method == leader:
            binary = score_map > otsu_threshold(score_map)
            picture = 255 * resize_missing(binary, size)
            result.append(("its mask by Otsu", f"{binary.mean():.2%} of pixels", picture))
    return result
