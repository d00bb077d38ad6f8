"""Tables of the paper's comparison: reproduce.md, table1.csv, robustness.csv, reproduce.json."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ssdnet_jax.data.files import write_bytes
from ssdnet_jax.evaluation.evaluate import ALL, Evaluation
from ssdnet_jax.evaluation.summary import summarize, write_summary
from ssdnet_jax.experiments.reproduce import Protocol, Results
from ssdnet_jax.methods.registry import has_configuration, split_method
from ssdnet_jax.reports.report_plots import number
from ssdnet_jax.text import counted, one_line

METHOD_NAMES = {  # as the paper or the method's own publication has it
    "ssdnet": "SSDnet",
    "pg_lsr": "PG-LSR",
    "glcm": "GLCM",
    "winclip": "WinCLIP",
    "spectral_residual": "SR",
    "rpca": "RPCA",
    "smooth_sparse": "SSD",
    "dip": "DIP",
    "fca": "FCA",
    "qfca": "QFCA",
    "aota": "Aota et al.",
    "grnr": "GRNR",
}
CONFIG_WORDS = {  # what a shipped configuration of SSDnet is, beside the paper
    "grid_literal": "the paper's setting for grid (section 4.2)",
    "grid": "the paper's setting for grid with input noise of 0.1 and a score for uneven light",
    "grid_128_literal": "the paper's setting for grid with patches of half the side, for small "
    "images",
    "grid_128": "`grid` with patches of half the side, for small images",
    "fabric": "the paper's setting for fabric (section 4.2)",
    "fabric_knots": "the paper's setting for the fabric's knots (section 4.2)",
    "auto": "this project's one setting for every texture, which the paper does not have",
}
# Table 1 of arXiv 2509.18354: category -> its name there, how many images, and by method
# (AUPRC, AUROC).
_IN_PAPER = ("pg_lsr", "glcm", "winclip", "spectral_residual", "ssdnet")
_FABRIC = ((0.57, 0.96), (0.38, 0.65), (0.21, 0.80), (0.19, 0.75), (0.67, 0.98))
_GRID = ((0.34, 0.92), (0.02, 0.47), (0.21, 0.88), (0.45, 0.97), (0.60, 0.99))
PUBLISHED: dict[str, tuple[str, int, dict[str, tuple[float, float]]]] = {
    "fabric": ("dot-patterned fabric (HKBU)", 30, dict(zip(_IN_PAPER, _FABRIC, strict=True))),
    "grid": ("MVTec AD grid", 57, dict(zip(_IN_PAPER, _GRID, strict=True))),
}
_METRICS = ("auprc", "auroc")  # in the order of the paper's table


@dataclasses.dataclass(frozen=True)
class Setting:
    """How the numbers were made."""

    name: str  # of the dataset
    protocol: Protocol  # what was compared
    image_size: int  # shorter side at which images were analysed, in pixels; 0: their own size
    config_names: tuple[str, ...]  # the configurations of SSDnet, each with the fields that were
    # changed; empty where it is not compared
    note: str | None  # what the user says about the data
    facts: Mapping[str, str]  # what else to say, as command, device, versions; in the order to show

    @property
    def seeds(self) -> str:
        """The seeds in words."""
        numbers = self.protocol.seeds
        return f"seed{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}"

    @property
    def fitted(self) -> str:
        """The size at which images are scored, in words."""
        return f"{self.image_size} px" if self.image_size else "own size"

    @property
    def corrupted(self) -> str:
        """Which images the curves are about, in words."""
        if not self.protocol.every:
            return "first image of each kind of defect"
        if self.protocol.every == 1:
            return "all defective images"
        return f"1 of {self.protocol.every} defective images"


def method_name(name: str) -> str:
    """The name of a method in tables and figures, "SSDnet (grid)" of "ssdnet:grid"."""
    method, rest = split_method(name)
    shown = METHOD_NAMES.get(method, method)
    rest = Path(rest).stem if has_configuration(name) else rest.replace(":", ", ")
    return f"{shown} ({rest})" if rest else shown


def table_rows(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Table 1: an entry a category and method; "all" is the mean over images of all categories."""
    rows = []
    for category, method, entry in _entries(evaluation):
        of_category = PUBLISHED.get(category.lower(), ("", 0, {}))[2]
        published = of_category.get(split_method(method)[0], (None, None))
        row = _row(category, method, entry)
        row |= {f"{m}_published": v for m, v in zip(_METRICS, published, strict=True)}
        rows.append(row)
    return rows


def curve_rows(results: Results) -> list[dict[str, Any]]:
    """Figs. 5 to 8: an entry a corruption, level, category and method."""
    return [
        {"corruption": kind, "level": level, **_row(*entry)}
        for (kind, level), evaluation in results.curves.items()
        for entry in _entries(evaluation)
    ]


def _entries(evaluation: Evaluation) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Category, method and what `summarize` says of them; "all" only beside several categories."""
    summary = summarize(evaluation)
    categories = [c for c in next(iter(summary.values()), ()) if c != ALL]
    for category in [*categories, ALL] if len(categories) > 1 else categories:
        for method in summary:
            yield category, method, summary[method][category]


def _row(category: str, method: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    row = {"category": category, "method": method, "images": entry["defective"]}
    row |= {"failed": entry["failed"], "seeds": entry["seeds"]}
    for metric in _METRICS:
        row[metric] = entry[f"{metric}_mean"]
        row[f"{metric}_std_over_seeds"] = entry[f"{metric}_std_over_seeds"]
    return row


def write_json(
    path: Path,
    setting: Setting,
    results: Results,
    table: Sequence[Mapping[str, Any]],
    curves: Sequence[Mapping[str, Any]],
) -> None:
    """Writes reproduce.json atomically: the tables, and the numbers of each image behind them."""
    images = [dataclasses.asdict(row) for row in results.clean.rows] if results.clean else []
    corrupted_images = [
        {"corruption": kind, "level": level, **dataclasses.asdict(row)}
        for (kind, level), evaluation in results.curves.items()
        for row in evaluation.rows
    ]
    content = {
        "setting": dataclasses.asdict(setting),
        "failures": dict(results.failures),
        "not_run": dict(results.not_run),
        "table1": table,
        "robustness": curves,
        "images": images,
        "corrupted_images": corrupted_images,
        "published": PUBLISHED,
    }
    write_summary(path, content)


def write_markdown(
    path: Path,
    setting: Setting,
    results: Results,
    table: Sequence[Mapping[str, Any]],
    curves: Sequence[Mapping[str, Any]],
    figures: Mapping[str, str],
) -> None:
    """Writes reproduce.md atomically.

    `table` is of `table_rows`, empty if it is not wanted, and `curves` of `curve_rows`; `figures`
    are title -> path relative to the file, in the order to show.
    """
    parts = [f"# The paper's comparison on {_plain(setting.name)}", _lead(setting, results)]
    if table:
        parts += ["## Table 1", _markdown_table(table), _TABLE_NOTE, _published_table()]
    parts += ["## What differs from the paper", _differences(setting, results)]
    for title, figure in figures.items():
        parts += [f"## {title}", f"![{_plain(title)}]({figure})"]
    for kind, title in (("noise", "Noise"), ("missing", "Missing pixels")):
        if rows := [row for row in curves if row["corruption"] == kind]:
            parts += [f"## {title}, in numbers", _curve_table(rows)]
    if problems := _problems(results):
        parts += ["## Without numbers", problems]
    facts = "\n".join(f"- {name}: {_plain(value)}" for name, value in setting.facts.items())
    parts += ["## How it was made", facts]
    text = "\n\n".join(parts) + "\n"
    write_bytes(path, text.encode("utf-8", "surrogateescape"))


_TABLE_NOTE = (
    "AUPRC (average precision) and AUROC of the pixels of each defective image, mean over images; "
    "± is the standard deviation over seeds, of methods that draw random numbers; bold is the best "
    "of a category. The last two columns are the paper's own figures, on its own images."
)


def _lead(setting: Setting, results: Results) -> str:
    evaluation = results.clean or next(iter(results.curves.values()))
    images = len({row.path for row in evaluation.rows})
    methods = ", ".join(map(method_name, _run_methods(setting, results)))
    fitted = ""
    if setting.config_names:
        names = " and ".join(f"`{_plain(name)}`" for name in setting.config_names)
        fitted = f"SSDnet by the configuration{'s' * (len(setting.config_names) > 1)} {names}, "
    text = (
        f"{counted(images, 'defective image')}, {setting.seeds}, {fitted}scored at "
        f"{setting.fitted}. Methods: {methods}."
    )
    return f"{text} Data: {_plain(setting.note)}." if setting.note else text


def _markdown_table(rows: Sequence[Mapping[str, Any]]) -> str:
    best = {
        (row["category"], metric): max(
            (r[metric] for r in rows if r["category"] == row["category"] and r[metric] is not None),
            default=None,
        )
        for row in rows
        for metric in _METRICS
    }
    lines, last = [], None
    for row in rows:
        label = f"{_plain(row['category'])} ({row['images']})" if row["category"] != last else ""
        last = row["category"]
        cells = [label, method_name(row["method"])]
        if row["failed"]:
            cells[1] += f" ({row['failed']} failed)"
        for metric in _METRICS:
            text = number(row[metric], row[f"{metric}_std_over_seeds"])
            is_best = row[metric] is not None and row[metric] == best[row["category"], metric]
            cells.append(f"**{text}**" if is_best else text)
        cells += [number(row[f"{metric}_published"], digits=2) for metric in _METRICS]
        lines.append(cells)
    head = ["data (images)", "method", "AUPRC", "AUROC", "paper's AUPRC", "paper's AUROC"]
    return markdown_table(head, lines)


def markdown_table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table of cells as Markdown."""
    rows = [f"| {' | '.join(cells)} |" for cells in (head, *lines)]
    return "\n".join([rows[0], f"|{'---|' * len(head)}", *rows[1:]])


def _published_table() -> str:
    methods = [method_name(m) for m in next(iter(PUBLISHED.values()))[2]]
    lines = [
        [f"{name} ({images})", *(f"{auprc:.2f} / {auroc:.2f}" for auprc, auroc in numbers.values())]
        for name, images, numbers in PUBLISHED.values()
    ]
    table = markdown_table(["data (images)", *methods], lines)
    return f"Table 1 of the paper (arXiv 2509.18354), AUPRC / AUROC:\n\n{table}"


def _curve_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """AUPRC / AUROC, a row a category and method, a column a level."""
    levels = list(dict.fromkeys(row["level"] for row in rows))
    lines = []
    keys = dict.fromkeys((row["category"], row["images"], row["method"]) for row in rows)
    found = {(row["category"], row["method"], row["level"]): row for row in rows}
    for category, images, method in keys:
        cells = [f"{_plain(category)} ({images})", method_name(method)]
        for level in levels:
            row = found.get((category, method, level), {})
            cells.append(" / ".join(number(row.get(metric)) for metric in _METRICS))
        lines.append(cells)
    head = ["data (images)", "method", *(f"{level:g}" for level in levels)]
    return f"AUPRC / AUROC by level:\n\n{markdown_table(head, lines)}"


MISSING_WORDS = {"nearest": "the nearest known value", "zero": "0, as if that were their value"}


def _differences(setting: Setting, results: Results) -> str:
    rows = [row for evaluation in results.evaluations for row in evaluation.rows]
    sizes = sorted({(row.width, row.height) for row in rows if row.width and row.height})
    shown = ", ".join(f"{w} x {h}" for w, h in sizes[:4]) + (", ..." if len(sizes) > 4 else "")
    counts: dict[str, set[str]] = {}
    for row in rows:
        counts.setdefault(row.category, set()).add(row.path)
    data = ", ".join(f"{_plain(name)} ({len(paths)})" for name, paths in counts.items())
    theirs = "; ".join(f"{name} ({images})" for name, images, _ in PUBLISHED.values())
    lines = [f"Data: here {data} defective images; there {theirs}."]
    if setting.note:
        lines.append(f"Of this data: {_plain(setting.note)}.")
    lines.append(
        f"Masks and size: maps are compared with the masks of the dataset at the image's own size "
        f"({shown or 'none was read'}). The paper resizes images to 256 x 256 and does not say at "
        f"which size it compares."
    )
    if setting.image_size:
        small = any(min(size) < setting.image_size for size in sizes)
        lines.append(
            f"Resolution: images are resized to {setting.image_size} pixels of their shorter side, "
            f"but for configurations of SSDnet whose own size is named"
            + (
                ". Some are smaller than that and are enlarged: the scale of their texture is not "
                "the one that the setting was made for."
                if small
                else "; the paper's size is 256 x 256."
            )
        )
    else:
        lines.append(
            "Resolution: methods see images at their own size, but for configurations of SSDnet "
            "whose size is named; the paper 256 x 256."
        )
    in_paper = {method for _, _, numbers in PUBLISHED.values() for method in numbers}
    for name in setting.config_names:
        if words := CONFIG_WORDS.get(Path(name.split()[0]).stem):
            lines.append(f"SSDnet by `{_plain(name)}`: {words}.")
    lines.append(
        "Methods: the baselines are written anew from their publications, with published settings."
    )
    run = {split_method(name)[0] for name in _run_methods(setting, results)}
    if absent := [method for method in METHOD_NAMES if method in in_paper - run]:
        lines.append(f"In the paper, not here: {', '.join(map(method_name, absent))}.")
    if new := [m for m in setting.protocol.methods if split_method(m)[0] not in in_paper]:
        lines.append(f"Here, not in the paper: {', '.join(map(method_name, new))}.")
    lines.append("AUPRC is average precision; the paper does not say how it takes the area.")
    if results.curves:
        lines.append(
            f"Noise and missing pixels: {setting.corrupted}; the paper takes one image of each of "
            f"the five kinds of defect of grid. Images are corrupted after they were resized, "
            f"noise is clipped to [0, 1], and all methods of one size and all seeds see the same "
            f"draw; the paper says none of this. SSDnet inpaints missing pixels in a first stage; "
            f"baselines get {MISSING_WORDS[setting.protocol.missing_values]}, the paper does not "
            f"say what they got there."
        )
    return "\n".join(f"- {line}" for line in lines)


def _run_methods(setting: Setting, results: Results) -> list[str]:
    return [m for m in setting.protocol.methods if m not in results.not_run]


def _problems(results: Results) -> str:
    reasons = {**results.not_run, **results.failures}
    lines = [f"- {method_name(m)}: {_plain(reason)}" for m, reason in reasons.items()]
    failed = {(row.method, row.path, row.error) for row in results.failed_rows}
    lines += [f"- {method_name(m)}, {_plain(p)}: {_plain(e)}" for m, p, e in sorted(failed)]
    return "\n".join(lines)


def _plain(text: str) -> str:
    """Text that Markdown shows as it is, in one line: file names may hold anything."""
    return "".join(f"\\{c}" if c in "\\`*_[]<>|#" else c for c in one_line(text))
