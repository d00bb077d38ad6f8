"""CSV tables that any program may open: one writer for all of them, and its reader.

UTF-8 (RFC 4180), lines end in a line feed. Text that a spreadsheet would take for a formula,
because it begins with = + - @ or a control character, has an apostrophe before it (OWASP, "CSV
injection"); `read_lines` takes it away again, so that every text comes back as it was.
"""

import csv
import io
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ssdnet_jax.data.files import write_bytes

# Text that begins with apostrophes before such a character gets one more: this can be undone.
_WRITTEN = re.compile(r"'*[=+\-@\t\r\n]")
_READ = re.compile(r"'+[=+\-@\t\r\n]")


def csv_line(values: Iterable[Any]) -> bytes:
    """One line: None is an empty cell, a float has nine digits, which bring a float32 back exactly.

    Bytes of a file name that are no UTF-8 (`os.fsdecode`) stay as they are.
    """
    text = io.StringIO()
    # The writer quotes what looks like its own end of line, and both \r and \n need quotes.
    csv.writer(text, lineterminator="\r\n").writerow(map(_cell, values))
    return f"{text.getvalue()[:-2]}\n".encode("utf-8", "surrogateescape")


def write_table(
    path: str | os.PathLike[str], columns: Sequence[str], rows: Iterable[Iterable[Any]]
) -> None:
    """Writes a table of named columns, atomically."""
    write_bytes(path, b"".join(map(csv_line, [columns, *rows])))


def read_lines(path: Path) -> Iterator[list[str]]:
    """The cells of each line of a table that `csv_line` has written, as text.

    Raises:
      csv.Error: the table is damaged.
    """
    text = path.read_bytes().decode("utf-8", "surrogateescape")
    for cells in csv.reader(io.StringIO(text, newline="")):
        yield [cell[1:] if _READ.match(cell) else cell for cell in cells]


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.9g}"
    if isinstance(value, str) and _WRITTEN.match(value):
        return f"'{value}"
    return str(value)
