"""Sets that a CSV file lists: one of the user's own, or VisA's."""

import csv
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from ssdnet_jax.data.files import is_file
from ssdnet_jax.data.layouts.names import absolute, checked_name, in_order, relative_name
from ssdnet_jax.data.layouts.sample import DEFECT, GOOD, Sample, is_good_name
from ssdnet_jax.errors import InputError

VISA_FILE = "split_csv/1cls.csv"
VISA_COLUMNS = ("object", "split", "label", "image", "mask")


def read_csv_layout(path: str | os.PathLike[str]) -> list[Sample]:
    """The images that a CSV file names, a row an image.

    The first line has the names of the columns: `image`; `mask` (empty for good images), or `label`
    for images that are labelled as a whole only (good, ok, normal, free or 0; anything else is a
    kind of defect); and, if wanted, `category` (else the name of the CSV's folder) and `defect`
    (else the label, else "defect"). Others are not looked at. Paths are absolute or relative to the
    CSV's folder. UTF-8, separated by commas.

    An image's `relative` is its path from the CSV's folder. For an image that lies elsewhere it is
    `_up/` for each `../` before a relative path, so that the whole may move, and `_root/` before an
    absolute path, so that the CSV may move.

    Raises:
      InputError: no such file, not such a table, a missing column, a missing image or mask
        file, an image twice, a defective image without a mask where there is a column for it,
        or a category or defect that is no name for a folder below another.
    """
    path = Path(path)
    folder = absolute(path.parent)
    samples: dict[str, Sample] = {}
    lines: dict[str, int] = {}
    for line, row in _rows(path, ("image",), one_of=("mask", "label")):
        where = f"{path}, line {line}"
        image = _listed_file(row["image"], folder, f"{where}: found no image file")
        relative = relative_name(Path(row["image"]), image, folder)
        if relative in samples:
            raise InputError(
                f"{where}: found {row['image']} again, or one that goes by the same name, after "
                f"line {lines[relative]}; expected each image once"
            )
        mask = None
        if row.get("mask"):
            mask = _listed_file(row["mask"], folder, f"{where}: found no mask file")
        defect = _defect(row, where, has_mask=mask is not None)
        category = row.get("category") or folder.name or path.stem
        checked_name(category, where, "category")
        samples[relative] = Sample(image, relative, category, defect, mask)
        lines[relative] = line
    if not samples:
        raise InputError(f"{path}: found no rows below the header; expected one an image")
    return in_order(samples.values())


def _defect(row: dict[str, str], where: str, *, has_mask: bool) -> str:
    written = row.get("defect") or row.get("label", "")
    if not written and "mask" not in row:
        raise InputError(f"{where}: found no label; expected good, or a kind of defect")
    name = written or (DEFECT if has_mask else GOOD)
    if is_good_name(name) or name == "0":
        return GOOD
    if not has_mask and "mask" in row:
        raise InputError(
            f"{where}: found the defect {name!r} without a mask; expected a mask for each defect, "
            f"or no column of masks and a column 'label'"
        )
    return checked_name(name, where, "defect")


def read_visa_layout(
    root: str | os.PathLike[str], *, categories: Sequence[str] | None = None
) -> list[Sample]:
    """The test images of a data set laid out as VisA is, by its `split_csv/1cls.csv`.

    Its columns are object, split, label, image and mask, its paths relative to the root; objects
    are the categories, rows of other splits than "test" are left out. `root` is the folder or that
    file. Layout: Zou et al., SPot-the-Difference (VisA), ECCV 2022.

    Raises:
      InputError: as `read_csv_layout`, or no row of the split "test".
    """
    path = Path(root)
    path = path / VISA_FILE if path.is_dir() else path
    folder = absolute(path.parent.parent if path.parent.name == "split_csv" else path.parent)
    samples: dict[str, Sample] = {}
    for line, row in _rows(path, VISA_COLUMNS):
        if row["split"].lower() != "test" or (categories and row["object"] not in categories):
            continue
        where = f"{path}, line {line}"
        image = _listed_file(row["image"], folder, f"{where}: found no image file")
        relative = relative_name(Path(row["image"]), image, folder)
        if relative in samples:
            raise InputError(f"{where}: found {row['image']} again; expected each image once")
        mask = None
        if row["mask"]:
            mask = _listed_file(row["mask"], folder, f"{where}: found no mask file")
        good = is_good_name(row["label"])
        if mask is None and not good:
            raise InputError(f"{where}: found an anomaly without a mask; expected one")
        category = checked_name(row["object"], where, "object")
        defect = GOOD if good else checked_name(row["label"] or DEFECT, where, "label")
        samples[relative] = Sample(image, relative, category, defect, mask)
    if not samples:
        raise InputError(f"{path}: found no rows of the split 'test'; expected VisA's table")
    return in_order(samples.values())


def csv_columns(path: Path) -> tuple[str, ...]:
    """The names in the first line of a CSV file; none of what cannot be read."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return tuple(name.strip() for name in next(csv.reader(file), []))
    except (OSError, ValueError, csv.Error):
        return ()


def _rows(
    path: Path, columns: Sequence[str], *, one_of: Sequence[str] = ()
) -> Iterator[tuple[int, dict[str, str]]]:
    """Line numbers and rows, names and values stripped of blanks."""
    if not is_file(path):
        raise InputError(f"{path}: no such file; expected a CSV file of images and masks")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = [name.strip() for name in next(reader, [])]
            _check_header(path, header, columns, one_of)
            for values in reader:
                if not any(values):
                    continue
                if len(values) != len(header):
                    raise InputError(
                        f"{path}, line {reader.line_num}: found {len(values)} values; expected "
                        f"{len(header)}, as many as columns"
                    )
                stripped = (value.strip() for value in values)
                yield reader.line_num, dict(zip(header, stripped, strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"{path}: found no UTF-8 table of comma-separated values: {error}"
        ) from None


def _check_header(
    path: Path, header: Sequence[str], columns: Sequence[str], one_of: Sequence[str]
) -> None:
    found = f"{path}, line 1: found the columns {','.join(header) or '(none)'}"
    for name in columns:
        if header.count(name) != 1:
            raise InputError(f"{found}; expected one column {name!r}")
    if one_of and not set(one_of) & set(header):
        raise InputError(f"{found}; expected one column {' or '.join(map(repr, one_of))}")
    doubled = sorted({name for name in header if name and header.count(name) > 1})
    if doubled:
        raise InputError(f"{found}; expected one column {doubled[0]!r}")


def _listed_file(written: str, folder: Path, problem: str) -> Path:
    if "\0" in written:
        raise InputError(f"{problem} (a name with a character NUL); expected one")
    path = absolute(folder / written)
    if not written or not is_file(path):
        raise InputError(f"{problem} {path if written else '(empty)'}; expected one")
    return path
