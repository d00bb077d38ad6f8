"""Best and worst cases of the report: small pictures inside the page."""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ssdnet_jax.data.images import read_image, resize_image, resize_map, resize_missing
from ssdnet_jax.data.layouts.sample import Sample
from ssdnet_jax.errors import InputError
from ssdnet_jax.evaluation.evaluate import ImageMetrics, MapSet, read_pair
from ssdnet_jax.figures.heatmap import outline, overlay, to_rgb
from ssdnet_jax.reports.report_plots import number
from ssdnet_jax.text import one_line

SIDE = 256  # pixels, the longest side of a picture
CASES = 6  # best ones and as many worst ones
_JPEG_QUALITY = 82
_OUTLINE: dict[str, Any] = {"color": (255, 40, 90), "width": 2}


class Case(NamedTuple):
    """What is shown of an image."""

    image: np.ndarray  # float (h, w, C) in [0, 1], no side longer than `SIDE`
    mask: np.ndarray  # bool (H, W), at the size of the comparison
    maps: dict[str, np.ndarray]  # by method (H, W); without those that could not be evaluated


def read_case(
    sample: Sample, map_sets: Sequence[MapSet], rows: Mapping[tuple[str, str], ImageMetrics]
) -> Case:
    """Reads a defective image, its mask and its maps, one at least; raises InputError.

    `rows` are those of the map sets, of which there is one a method, by method and path.
    """
    image = read_image(sample.path).pixels
    factor = min(1.0, SIDE / max(image.shape[:2]))
    size = (max(1, round(image.shape[0] * factor)), max(1, round(image.shape[1] * factor)))
    usable = [m for m in map_sets if rows[m.method, sample.relative].status == "ok"]
    pairs = {m.method: read_pair(sample, m) for m in usable}
    mask = next(mask for mask, _ in pairs.values() if mask is not None)
    maps = {method: score_map for method, (_, score_map) in pairs.items()}
    return Case(resize_image(image, size), mask, maps)


def ranked(rows: Sequence[ImageMetrics]) -> list[ImageMetrics]:
    """The rows that have an AUPRC, the highest first."""
    return sorted((r for r in rows if r.auprc is not None), key=lambda row: -(row.auprc or 0.0))


def best_and_worst(
    rows: Sequence[ImageMetrics], count: int = CASES
) -> tuple[list[ImageMetrics], list[ImageMetrics]]:
    """The images of highest and of lowest AUPRC, best and worst first; none is in both.

    `rows` are of one method and seed, those without AUPRC are left out; `count` of each at most.
    """
    ordered = ranked(rows)
    count = min(count, (len(ordered) + 1) // 2)
    return ordered[:count], ordered[count:][::-1][:count]


def case_card(
    sample: Sample, map_sets: Sequence[MapSet], rows: Mapping[tuple[str, str], ImageMetrics]
) -> str:
    """A card, in HTML, of a defective image, its mask and a heat map of each method.

    A map that could not be evaluated is left blank, as is an image that cannot be read. `rows` are
    as in `read_case`.
    """
    title = escape(sample.relative)
    name = escape(f"{sample.category} / {sample.defect} / {sample.path.name}")
    head = f'<p class="name" title="{title}"><span>{name}</span></p>'
    try:
        image, mask, maps = read_case(sample, map_sets, rows)
    except InputError as error:
        return f'<article class="case">{head}<p class="note">{escape(str(error))}</p></article>'
    size = (image.shape[0], image.shape[1])
    figures = [
        _figure(to_rgb(image), "input", "image"),
        _figure(outline(image, resize_missing(mask, size), **_OUTLINE), "mask", "mask"),
    ]
    for map_set in map_sets:
        if map_set.method not in maps:
            figures.append("<figure><figcaption>no map</figcaption></figure>")
            continue
        row = rows[map_set.method, sample.relative]
        prefix = f"{map_set.method} " if len(map_sets) > 1 else ""
        figures.append(
            _figure(
                overlay(image, resize_map(maps[map_set.method], size)),
                f"{prefix}{row.auroc:.3f} / {row.auprc:.3f}",
                f"{map_set.method}: AUROC {row.auroc:.4f}, AUPRC {row.auprc:.4f}, "
                f"F1-max {row.f1_max:.4f}, AUPRO {number(row.aupro, digits=4, absent='none')}",
            )
        )
    pictures = f'<div class="pictures">{"".join(figures)}</div>'
    return f'<article class="case">{head}{pictures}</article>'


def escape(text: str) -> str:
    """Text for a page: file names may hold anything."""
    return html.escape(one_line(text))


def _figure(pixels: np.ndarray, caption: str, description: str) -> str:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=_JPEG_QUALITY, optimize=True)
    data = base64.b64encode(file.getvalue()).decode("ascii")
    text, long_text = escape(caption), escape(description)
    return (
        f'<figure><img src="data:image/jpeg;base64,{data}" width="{pixels.shape[1]}" '
        f'height="{pixels.shape[0]}" alt="{long_text}" title="{long_text}">'
        f"<figcaption>{text}</figcaption></figure>"
    )
