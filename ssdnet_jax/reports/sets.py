"""Several labelled sets beside each other: a table for the terminal, and a page."""

import string
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ssdnet_jax.data.files import real_path, write_bytes
from ssdnet_jax.evaluation.evaluate import ALL
from ssdnet_jax.evaluation.summary import Summary
from ssdnet_jax.reports.report_cases import escape
from ssdnet_jax.reports.report_plots import ABSENT, number
from ssdnet_jax.text import one_line

# What is shown of a set: heading, entry of its summary, and words for the page.
COLUMNS = (
    ("AUROC", "auroc_mean", "per image"),
    ("AUPRC", "auprc_mean", "per image"),
    ("pooled AUROC", "auroc_pooled_macro", "by category"),
    ("pooled AUPRC", "auprc_pooled_macro", "by category"),
    ("AUPRO", "aupro_pooled_macro", "by category"),
    ("image AUROC", "image_auroc_calibrated_macro", "by category"),
)
_TEXT = (
    "Pooled metrics take the pixels of all images of a category together, good ones included, and "
    "are means over categories, as published tables have them; AUROC and AUPRC are means over the "
    "defective images, each by itself. AUPRO ends at a false positive rate of 0.3. Image AUROC "
    "compares whole images by their calibrated scores, where a category has good and defective "
    "ones. Below each figure: interval of 95 % by bootstrap over images. Images are called "
    "anomalous at the stated rate of false alarms."
)


def sets_table(summaries: Mapping[str, Summary]) -> list[str]:
    """Lines of a table in plain text: a line a set and method, intervals of AUROC and AUPRC."""
    heads = ["set", "method", "images", *(head for head, _, _ in COLUMNS), "false alarms", "found"]
    rows = [heads]
    for name, summary in summaries.items():
        for method, entries in summary.items():
            entry = entries[ALL]
            cells = [one_line(name), one_line(method), str(entry["images"])]
            for _, key, kind in COLUMNS:
                interval = entry.get(f"{key}_interval") if kind.startswith("per image") else None
                around = f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else ""
                cells.append(f"{number(entry[key], absent=ABSENT)}{around}")
            rows.append([*cells, *(_rate(entry, kind) for kind in ("false_alarms", "detected"))])
    widths = [max(len(row[column]) for row in rows) for column in range(len(heads))]
    return [
        "  ".join(
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _rate(entry: Mapping[str, Any], kind: str) -> str:
    rate = entry["detection"][kind]
    return f"{round(rate['share'] * rate['count'])}/{rate['count']}" if rate else ABSENT


def write_sets_report(
    path: Path,
    summaries: Mapping[str, Summary],
    *,
    folders: Mapping[str, str],
    notes: Mapping[str, str],
) -> None:
    """Writes the page, atomically; `folders` hold the sets' own reports, relative to the page."""
    heads = "".join(f"<th>{head}</th>" for head, _, _ in COLUMNS)
    kinds = "".join(f"<th>{words}</th>" for _, _, words in COLUMNS)
    body = "".join(_lines(name, summary, folders[name]) for name, summary in summaries.items())
    entries = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in notes.items())
    page = (
        f"<h1>{len(summaries)} sets</h1>\n"
        f'<p class="note">{_TEXT}</p>\n'
        '<div class="card scroll"><table><thead>'
        f'<tr><th></th><th></th><th></th>{heads}<th colspan="2">called anomalous</th></tr>'
        f'<tr><th>set</th><th class="left">method</th><th>images</th>{kinds}<th>good</th>'
        f"<th>defective</th></tr></thead>{body}</table></div>\n"
        f'<h2>How they were made</h2>\n<div class="card"><dl>{entries}</dl></div>\n'
        "<footer>The same numbers are in summary.json beside this file; each set's own report, "
        "tables and maps are in its folder.</footer>"
    )
    file = Path(__file__).with_name("report.html").read_text(encoding="utf-8")
    text = string.Template(file).substitute(
        title=f"{len(summaries)} sets: anomaly localization",
        body=page,
        case_columns=1,
        case_width="100%",
    )
    write_bytes(path, text.encode())


def _lines(name: str, summary: Summary, folder: str) -> str:
    lines: list[str] = []
    for index, (method, entries) in enumerate(summary.items()):
        entry = entries[ALL]
        link = f'<a href="{_address(folder)}/report.html">{escape(name)}</a>'
        cells = "".join(_cell(entry, key) for _, key, _ in COLUMNS)
        rates = "".join(f"<td>{_rate(entry, kind)}</td>" for kind in ("false_alarms", "detected"))
        lines.append(
            f"<tr{' class=first' if not index else ''}><td>{'' if index else link}</td>"
            f'<td class="left">{escape(method)}</td><td>{entry["images"]}</td>{cells}{rates}</tr>'
        )
    return f"<tbody>{''.join(lines)}</tbody>"


def _address(folder: str) -> str:
    from urllib.parse import quote

    return escape(quote(folder.encode("utf-8", "surrogateescape")))


def _cell(entry: Mapping[str, Any], key: str) -> str:
    interval = entry.get(f"{key}_interval")
    around = ""
    if interval and entry[key] is not None:
        around = f'<span class="spread">{interval[0]:.3f} – {interval[1]:.3f}</span>'
    return f"<td>{number(entry[key], absent=ABSENT)}{around}</td>"


def set_names(paths: Sequence[Path]) -> list[str]:
    """A name for each set, which its folder of results has: its own, or with its parent's before.

    Raises:
      ValueError: two sets have the same names.
    """
    short = [real_path(path).stem if path.is_file() else real_path(path).name for path in paths]
    names = [
        f"{real_path(path).parent.name}_{name}" if short.count(name) > 1 else name
        for path, name in zip(paths, short, strict=True)
    ]
    for path, name in zip(paths, names, strict=True):
        if names.count(name) > 1:
            raise ValueError(f"{path}: found another set that is called {name}")
    return names
