"""report.html: what an evaluation found, as one page that needs no other file and no network."""

import string
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ssdnet_jax.data.files import write_bytes
from ssdnet_jax.data.layouts.sample import Sample
from ssdnet_jax.evaluation.evaluate import ALL, METRICS, Evaluation, ImageMetrics, MapSet
from ssdnet_jax.evaluation.summary import IMAGE_METRICS, Summary, means_over_seeds
from ssdnet_jax.reports.report_cases import CASES, best_and_worst, case_card, escape
from ssdnet_jax.reports.report_detection import detection_section
from ssdnet_jax.reports.report_plots import (
    ABSENT,
    METHOD_COLORS,
    METRIC_NAMES,
    Curve,
    Values,
    box_plots,
    curves,
    number,
)
from ssdnet_jax.text import counted

Entry = Mapping[str, Any]  # of a `Summary`, what there is to say of some images
_SHOWN_PROBLEMS = 50
_SHOWN_DEFECTS = 12  # more are folded away
_DEFINITIONS = {
    "AUROC": "Area under the ROC curve of the pixels: the chance that a defective pixel scores "
    "higher than a normal one. 0.5 is chance.",
    "AUPRC": "Average precision: the step sum of precision over recall. Chance is the share of "
    "defective pixels.",
    "F1-max": "Largest F1 that any one threshold reaches.",
    "AUPRO": "Area under the curve of per-region overlap, the mean share of each connected defect "
    "that is found, up to a false positive rate of 0.3, divided by 0.3.",
    "Per image": "The metric of each defective image alone, then the mean over images. Each image "
    "may have a threshold of its own.",
    "Pooled": "The metric of the pixels of all images together, good ones included: one threshold "
    "for all.",
    "Image AUROC": "Defective against good images, an image's score being the maximum of its map; "
    "calibrated: that maximum over the map's median, in units of the map's own usual spread.",
    "±": "Standard deviation over seeds of a seed's figure.",
    "0.700 – 0.800": "Confidence interval of 95 % by bootstrap over images: what as many other "
    "images of the same kind might have given.",
}

_TILES = {
    "auroc_mean": "AUROC, mean of images",
    "auprc_mean": "AUPRC, mean of images",
    "aupro_mean": "AUPRO, mean of images",
    "auroc_pooled": "AUROC, pooled pixels",
    "auprc_pooled": "AUPRC, pooled pixels",
    "image_auroc_calibrated": "AUROC of images, calibrated",
}


def write_report(
    path: Path,
    *,
    name: str,
    samples: Sequence[Sample],
    map_sets: Sequence[MapSet],
    evaluation: Evaluation,
    summary: Summary,
    notes: Mapping[str, str],
    stated: float,
) -> None:
    """Writes the report, atomically.

    `samples` are all that were evaluated, `map_sets` those whose maps and curves are shown, one a
    method; `notes` say how the numbers were made, in the order to show; `stated` is the false-alarm
    rate at which images are called anomalous.
    """
    title = f"{name}: anomaly localization"
    sections = [
        _head(name, evaluation, summary),
        _tiles(summary),
        _tables(summary),
        _box_plots(evaluation, summary),
        _curves(evaluation, summary, map_sets),
        detection_section(evaluation.rows, _swatched(summary), stated),
        _cases(samples, map_sets, evaluation.rows),
        _problems(evaluation.rows),
        _protocol(notes),
    ]
    columns = 2 + len(map_sets)
    template = string.Template(Path(__file__).with_suffix(".html").read_text(encoding="utf-8"))
    page = template.substitute(
        title=escape(title),
        body="\n".join(filter(None, sections)),
        case_columns=columns,
        case_width=f"min(100%, {150 * columns}px)",
    )
    write_bytes(path, page.encode())


def _head(name: str, evaluation: Evaluation, summary: Summary) -> str:
    entries = next(iter(summary.values()))
    entry = entries[ALL]
    rows = evaluation.rows
    sizes = sorted({(r.height, r.width) for r in rows if r.height is not None and r.width})
    words = [counted(entry["images"], "image")]
    if entry["good"]:
        words[0] += f" ({entry['defective']} defective, {entry['good']} good)"
    if len(entries) > 2:
        words.append(f"{len(entries) - 1} categories")
    if len(sizes) == 1:
        words.append(f"{sizes[0][1]} × {sizes[0][0]} pixels")
    elif sizes:
        low, high = min(sizes, key=lambda s: s[0] * s[1]), max(sizes, key=lambda s: s[0] * s[1])
        words.append(f"from {low[1]} × {low[0]} to {high[1]} × {high[0]} pixels")
    words.append(counted(len(summary), "method"))
    seeds = sorted({row.seed for row in rows if row.seed is not None})
    if seeds:
        words.append(f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}")
    return f'<h1>{escape(name)}</h1>\n<p class="lead">{" · ".join(words)}</p>'


def _tiles(summary: Summary) -> str:
    """The figures to remember; with several methods the table says them better."""
    if len(summary) > 1:
        return ""
    entry = next(iter(summary.values()))[ALL]
    cells = [
        f'<div class="tile"><b>{number(entry[name], absent=ABSENT)}</b><span>{text}</span></div>'
        for name, text in _TILES.items()
        if entry[name] is not None
    ]
    return f'<div class="tiles">{"".join(cells)}</div>'


def _tables(summary: Summary) -> str:
    categories = [c for c in next(iter(summary.values())) if c != ALL]
    several = len(categories) > 1
    bodies = []
    for category in [*categories, ALL] if several else categories:
        entries = {method: of_method[category] for method, of_method in summary.items()}
        label = "All images" if category == ALL else category
        bodies.append(_table_body(label, entries, _COLUMNS, total=category == ALL))
    if several:
        entries = {method: of_method[ALL] for method, of_method in summary.items()}
        bodies.append(_table_body("Mean of categories", entries, _MACRO_COLUMNS, total=True))
    groups = {"per image, mean": _METRIC_NAMES, "pooled pixels": _METRIC_NAMES}
    groups["image AUROC"] = ("maximum", "calibrated")
    main = _table("category", groups, "".join(bodies))
    return f"<h2>Results</h2>\n{main}\n{_defect_table(summary, categories)}"


# Number and, where there is one, its spread over seeds.
_COLUMNS = (
    *((f"{name}_mean", f"{name}_std_over_seeds") for name in METRICS),
    *((f"{name}_pooled", f"{name}_pooled_std_over_seeds") for name in METRICS),
    *((name, f"{name}_std_over_seeds") for name in IMAGE_METRICS),
)
_MACRO_COLUMNS = (
    *((f"{name}_macro", "") for name in METRICS),
    *((f"{name}_pooled_macro", "") for name in METRICS),
    *((f"{name}_macro", "") for name in IMAGE_METRICS),
)
_METRIC_NAMES = tuple(METRIC_NAMES[name] for name in METRICS)


def _table(first: str, groups: Mapping[str, Sequence[str]], body: str) -> str:
    """A table of methods, whose columns of numbers stand in groups with a title."""
    titles = "".join(
        f'<th class="group" colspan="{len(names)}"><span>{title}</span></th>'
        for title, names in groups.items()
    )
    heads = "".join(f"<th>{name}</th>" for names in groups.values() for name in names)
    return (
        '<div class="card scroll"><table><thead>'
        f"<tr><th></th><th></th><th></th>{titles}</tr>"
        f'<tr><th>{first}</th><th class="left">method</th><th>images</th>{heads}</tr></thead>'
        f"{body}</table></div>"
    )


def _lines(
    label: str, entries: Mapping[str, Entry], numbers: Callable[[Entry], Iterable[str]]
) -> str:
    """A line a method; the cells behind the number of images are what `numbers` gives."""
    lines = []
    for index, (method, entry) in enumerate(entries.items()):
        lines.append(
            f"<tr{' class=first' if index == 0 else ''}>"
            f"<td>{escape(label) if index == 0 else ''}</td>"
            f'<td class="left">{_swatch(index)}{escape(method)}</td>'
            f"<td>{entry['images']}</td>{''.join(numbers(entry))}</tr>"
        )
    return "".join(lines)


def _table_body(
    label: str, entries: Mapping[str, Entry], columns: Sequence[tuple[str, str]], *, total: bool
) -> str:
    best = {name: _best([entry[name] for entry in entries.values()]) for name, _ in columns}

    def numbers(entry: Entry) -> Iterator[str]:
        for name, spread in columns:
            value, extra = entry[name], entry.get(spread)
            mark = ' class="best"' if value is not None and value == best[name] else ""
            note = "" if extra is None else f'<span class="spread">± {extra:.3f}</span>'
            if interval := entry.get(f"{name}_interval"):
                note += f'<span class="spread">{interval[0]:.3f} – {interval[1]:.3f}</span>'
            yield f"<td{mark}>{number(value, absent=ABSENT)}{note}</td>"

    return f"<tbody{' class=total' if total else ''}>{_lines(label, entries, numbers)}</tbody>"


def _best(values: Sequence[float | None]) -> float | None:
    """The largest, if it is larger than any other."""
    numbers = {value for value in values if value is not None}
    return max(numbers) if len(numbers) > 1 else None


def _defect_table(summary: Summary, categories: Sequence[str]) -> str:
    columns = [f"{name}_{kind}" for kind in ("mean", "median") for name in METRICS]
    lines = [
        _lines(
            f"{category} / {defect}",
            {method: entries[category]["defects"][defect] for method, entries in summary.items()},
            lambda entry: [f"<td>{number(entry[name], absent=ABSENT)}</td>" for name in columns],
        )
        for category in categories
        for defect in next(iter(summary.values()))[category]["defects"]
    ]
    groups = {"per image, mean": _METRIC_NAMES, "per image, median": _METRIC_NAMES}
    table = _table("defect", groups, f"<tbody>{''.join(lines)}</tbody>")
    return f"<details><summary>Numbers by kind of defect</summary>{table}</details>"


def _box_plots(evaluation: Evaluation, summary: Summary) -> str:
    methods = list(summary)
    # An image counts once, with its mean over seeds.
    means = {name: means_over_seeds(evaluation.rows, name) for name in ("auroc", "auprc")}
    if not means["auroc"]:
        return ""

    def groups(label: Callable[[ImageMetrics], str]) -> dict[str, Values]:
        found: dict[str, dict[str, dict[str, list[float]]]] = {}
        for name, images in means.items():
            for row, mean in images:
                values = found.setdefault(label(row), {}).setdefault(row.method, {})
                values.setdefault(name, []).append(mean)
        return {
            f"{key} ({max(len(v['auroc']) for v in found[key].values())})": found[key]
            for key in sorted(found)
        }

    several = len(next(iter(summary.values()))) > 2
    overall = groups(lambda row: "All images")
    if several:
        overall |= groups(lambda row: row.category)
    by_defect = groups(lambda row: f"{row.category} / {row.defect}" if several else row.defect)
    text = (
        "Each dot is an image; boxes reach from quartile to quartile, the line is the median. In "
        "brackets: how many images."
    )
    if any(entries[ALL]["seeds"] > 1 for entries in summary.values()):
        text += " An image counts once, with its mean over seeds."
    return (
        f'<h2>Spread over images</h2>\n<p class="note">{text}</p>\n'
        f'<div class="card">{_legend(methods)}{box_plots(overall, methods)}'
        f"{_by_defect_plot(by_defect, methods)}</div>"
    )


def _by_defect_plot(groups: dict[str, Values], methods: Sequence[str]) -> str:
    plot = box_plots(groups, methods)
    if len(groups) > _SHOWN_DEFECTS:
        return f"<details><summary>By kind of defect</summary>{plot}</details>"
    return f"<h3>By kind of defect</h3>{plot}"


def _curves(evaluation: Evaluation, summary: Summary, map_sets: Sequence[MapSet]) -> str:
    panels: dict[str, tuple[str, str, dict[str, list[Curve]]]] = {
        "ROC": ("false positive rate", "true positive rate", {}),
        "Precision and recall": ("recall", "precision", {}),
        "PRO": ("false positive rate", "per-region overlap", {}),
    }
    for map_set in map_sets:
        categories = [c for c in summary[map_set.method] if c != ALL]
        for category in [ALL, *categories] if len(categories) > 1 else [ALL]:
            pooled = evaluation.pooled.get((map_set.method, map_set.seed, category))
            if pooled is None or not len(pooled.roc[0]):  # pixels of one class only
                continue
            of_category = (pooled.roc, pooled.precision_recall, pooled.pro)
            for title, curve in zip(panels, of_category, strict=True):
                panels[title][2].setdefault(map_set.method, []).append(curve)
    if not panels["ROC"][2]:
        return ""
    text = "Pixels of all images together"
    if len(next(iter(summary.values()))) > 2:
        text += "; faint: single categories"
    if any(entries[ALL]["seeds"] > 1 for entries in summary.values()):
        text += f"; seed {map_sets[0].seed}"
    return (
        f'<h2>Curves</h2>\n<p class="note">{text}. Dashed: chance in the ROC.</p>\n'
        f'<div class="card">{_legend(list(summary))}{curves(panels)}</div>'
    )


def _cases(
    samples: Sequence[Sample], map_sets: Sequence[MapSet], rows: Sequence[ImageMetrics]
) -> str:
    first = {map_set.method: map_set.seed for map_set in map_sets}
    shown = {(r.method, r.path): r for r in rows if first[r.method] == r.seed}
    by_path = {sample.relative: sample for sample in samples}
    leader = map_sets[0]
    best, worst = best_and_worst(
        [row for row in shown.values() if row.method == leader.method],
        CASES if len(map_sets) <= 4 else CASES // 2,
    )
    if not best:
        return ""
    numbers = "AUROC / AUPRC under each heat map"
    if len(map_sets) > 1:
        numbers += f"; ordered by the AUPRC of {escape(leader.method)}"
    if len({row.seed for row in rows}) > 1:
        numbers += f"; seed {leader.seed}"
    parts = [f'<h2>Best and worst cases</h2>\n<p class="note">{numbers}.</p>']
    for title, chosen in (("Highest AUPRC", best), ("Lowest AUPRC", worst)):
        cards = "\n".join(case_card(by_path[row.path], map_sets, shown) for row in chosen)
        if cards:
            parts.append(f'<h3>{title}</h3>\n<div class="cases">{cards}</div>')
    return "\n".join(parts)


def _problems(rows: Sequence[ImageMetrics]) -> str:
    failed = [row for row in rows if row.status != "ok"]
    if not failed:
        return ""
    lines = "".join(
        f'<tr class="first"><td class="wrap">{escape(row.path)}</td>'
        f'<td class="left">{escape(row.method)}</td>'
        f'<td class="left wrap bad">{escape(row.error)}</td></tr>'
        for row in failed[:_SHOWN_PROBLEMS]
    )
    more = len(failed) - _SHOWN_PROBLEMS
    rest = f'<p class="note">{more} more in metrics.csv.</p>' if more > 0 else ""
    return (
        "<h2>Without metrics</h2>\n"
        f'<p class="note">{counted(len(failed), "map")} could not be evaluated and count nowhere '
        f'above.</p>\n<div class="card scroll"><table><thead><tr><th>image</th>'
        '<th class="left">method</th><th class="left">why</th></tr></thead>'
        f"<tbody>{lines}</tbody></table>{rest}</div>"
    )


def _protocol(notes: Mapping[str, str]) -> str:
    def pairs(entries: Mapping[str, str]) -> str:
        return "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in entries.items())

    return (
        "<h2>What the numbers mean</h2>\n"
        '<p class="note">Raw maps are compared with the masks at the size of the image, without '
        "any threshold or normalization before.</p>\n"
        f'<div class="card"><dl>{pairs(_DEFINITIONS)}</dl></div>\n'
        f'<h2>How they were made</h2>\n<div class="card"><dl>{pairs(notes)}</dl></div>\n'
        "<footer>SSDnet: a network fitted to the one image it looks at (arXiv 2509.18354). "
        "The same numbers are in metrics.csv and summary.json beside this file.</footer>"
    )


def _swatched(methods: Iterable[str]) -> dict[str, str]:
    return {method: _swatch(index) for index, method in enumerate(methods)}


def _legend(methods: Sequence[str]) -> str:
    if len(methods) < 2:
        return ""
    entries = [f"<span>{_swatch(i)}{escape(method)}</span>" for i, method in enumerate(methods)]
    return f'<div class="legend">{"".join(entries)}</div>'


def _swatch(index: int) -> str:
    color = f"var(--method-{index % METHOD_COLORS})"
    return f'<span class="swatch" style="background:{color}"></span>'
