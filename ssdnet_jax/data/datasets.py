"""Layouts of labelled test sets: which image belongs to which mask."""

import csv
import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from ssdnet_jax.data.images import IMAGE_SUFFIXES, find_images, is_image_name
from ssdnet_jax.errors import ConfigError, InputError

GOOD = "good"
DEFECT = "defect"  # where a layout does not say which
MASK_SUFFIXES = ("_mask", "", "_gt", "_GT", "_label", "_ground_truth")


@dataclasses.dataclass(frozen=True)
class Sample:
    """One test image and its label."""

    path: Path  # absolute path of the image
    relative: str  # its name within the set, with forward slashes and without "..": the path
    # relative to the root of the set, where the layout does not say otherwise
    category: str  # the kind of object or texture, such as "grid"
    defect: str  # the kind of defect, or "good"
    mask_path: Path | None  # absolute path of the mask; None for "good" images


def read_dataset(
    root: str | os.PathLike[str],
    *,
    categories: Sequence[str] | None = None,
    mask_suffix: str | None = None,
    masks: str | os.PathLike[str] | None = None,
) -> list[Sample]:
    """Lists the test images of a data set in any layout known here, sorted by their relative path.

    A .csv file is read by `read_csv_layout`; with `masks`, a folder of images by
    `read_folder_layout`; any other folder by `read_mvtec_layout`.

    Args:
        root: the CSV file or the folder.
        categories: the categories wanted; None for all.
        mask_suffix: what a mask's name has after the image's name; None for the one of
            `MASK_SUFFIXES` that the most images have a mask by.
        masks: the folder of masks beside a plain folder of images.

    Raises:
        InputError: as the readers do, or an unknown category.
        ConfigError: `masks` or `mask_suffix` with a CSV file, which names the masks itself.
    """
    root = Path(root)
    if root.suffix.lower() == ".csv":
        if masks is not None or mask_suffix is not None:
            option = "masks" if masks is not None else "mask_suffix"
            raise ConfigError(
                f"{option}: found a value with {root}; expected none, as a CSV file names its masks"
            )
        samples = read_csv_layout(root)
    elif masks is not None:
        samples = read_folder_layout(root, masks=masks, mask_suffix=mask_suffix)
    else:
        return read_mvtec_layout(root, categories=categories, mask_suffix=mask_suffix)
    wanted = _chosen(root, categories, {sample.category for sample in samples})
    return [sample for sample in samples if sample.category in wanted]


def read_mvtec_layout(
    root: str | os.PathLike[str],
    *,
    categories: Sequence[str] | None = None,
    mask_suffix: str | None = None,
) -> list[Sample]:
    """`read_dataset` of a data set laid out as MVTec AD is.

    `CATEGORY/test/DEFECT/NAME.png` has its mask in
    `CATEGORY/ground_truth/DEFECT/NAME<mask_suffix>.png`; the defect "good" has none. Training
    images are not looked at. Layout: Bergmann et al., MVTec AD, CVPR 2019.

    The root is the folder that holds the categories, or the folder of one category. The latter is
    read as the set in its parent folder with that category alone, so that an image has the same
    relative path either way.

    Raises:
        InputError: no such root, no category in it, an unknown category, no test image, or a
            defective image without a mask.
    """
    root = _folder(root, "expected the root of a set in MVTec AD layout")
    found = [folder.name for folder in _subfolders(root) if (folder / "test").is_dir()]
    if not found and (root / "test").is_dir() and root.name:
        root, found = root.parent, [root.name]
    if not found:
        raise InputError(f"{root}: found no CATEGORY/test/ folder; expected MVTec AD layout")

    images = [
        path
        for category in sorted(_chosen(root, categories, found))
        for folder in _subfolders(root / category / "test")
        for path in folder.iterdir()
        if is_image_name(path.name)
    ]
    if not images:
        raise InputError(
            f"{root}: found no images in CATEGORY/test/DEFECT/; expected files of "
            f"{' '.join(IMAGE_SUFFIXES)}"
        )
    defective = [path for path in images if path.parent.name != GOOD]
    masks = _mvtec_masks(defective, mask_suffix)
    return _sorted(
        Sample(
            path=path,
            relative=path.relative_to(root).as_posix(),
            category=path.parents[2].name,
            defect=path.parent.name,
            mask_path=masks.get(path),
        )
        for path in images
    )


def read_folder_layout(
    root: str | os.PathLike[str], *, masks: str | os.PathLike[str], mask_suffix: str | None = None
) -> list[Sample]:
    """`read_dataset` of a folder of images whose masks lie in another one under the same names.

    `ROOT/bent/7.jpg` has its mask in `MASKS/bent/7.png`, of any known file type and with the
    `mask_suffix` of all masks after the name. Images without a mask are good. The category is the
    name of the root; the defect is the first subfolder, or "defect" in the root itself. Both
    folders are searched recursively; `masks` is left out of a root that holds it.

    Raises:
        InputError: no such folder, no images or no masks in it, a mask without an image, or a mask
            for an image in a subfolder "good".
    """
    root = _folder(root, "expected a folder of images")
    masks = _folder(masks, "expected the folder of masks")
    if masks.resolve() == root.resolve():
        raise InputError(f"{masks}: found images and masks in one folder; expected two folders")
    images = [path for path in find_images(root)[1] if not (root / path).is_relative_to(masks)]
    if not images:
        raise InputError(f"{root}: found no images besides the masks in {masks}")
    by_name = _by_name(find_images(masks)[1])
    stems = [path.with_suffix("").as_posix() for path in images]
    if mask_suffix is None:
        mask_suffix = _most_common_suffix(stems, by_name)
        if mask_suffix is None:
            raise InputError(
                f"{masks}: found no mask named as an image of {root}; looked for "
                f"{_looked_for(stems[0])}"
            )
    unused = sorted(by_name.keys() - {f"{stem}{mask_suffix}" for stem in stems})
    if unused:
        name = unused[0]
        if name.endswith(mask_suffix):
            expected = f"{root / name.removesuffix(mask_suffix)} with the suffix of an image"
        else:
            expected = f"a name that ends in {mask_suffix}, as those of other masks"
        raise InputError(
            f"{masks / by_name[name]}: found no image of this mask; expected {expected}"
        )

    samples = []
    for path, stem in zip(images, stems, strict=True):
        mask = by_name.get(f"{stem}{mask_suffix}")
        folder = path.parts[0] if path.parts[1:] else DEFECT
        if mask is not None and folder == GOOD:
            raise InputError(f"{masks / mask}: found a mask of an image in {GOOD}/; expected none")
        samples.append(
            Sample(
                path=root / path,
                relative=path.as_posix(),
                category=root.name,
                defect=GOOD if mask is None else folder,
                mask_path=None if mask is None else masks / mask,
            )
        )
    return _sorted(samples)


def read_csv_layout(path: str | os.PathLike[str]) -> list[Sample]:
    """`read_dataset` of the images that a CSV file names, a row an image.

    The first line has the names of the columns: `image`, `mask` (empty for good images) and, if
    wanted, `category` (else the name of the CSV's folder) and `defect` (else "defect"); others are
    not looked at. Paths are absolute or relative to the CSV's folder. UTF-8, separated by commas.

    An image's `relative` is its path from the CSV's folder. For an image that lies elsewhere it is
    `_up/` for each `../` before a relative path, so that the whole may move, and `_root/` before an
    absolute path, so that the CSV may move.

    Raises:
        InputError: no such file, not such a table, a missing column, a missing image or mask
            file, an image twice, or a mask that a good image has or a defective one lacks.
    """
    path = Path(path)
    folder = _absolute(path.parent)
    samples: dict[str, Sample] = {}
    lines: dict[str, int] = {}
    for line, row in _csv_rows(path):
        where = f"{path}, line {line}"
        image = _listed_file(row["image"], folder, f"{where}: found no image file")
        relative = _csv_relative(Path(row["image"]), image, folder)
        if relative in samples:
            raise InputError(
                f"{where}: found {row['image']} again, or one that goes by the same name, after "
                f"line {lines[relative]}; expected each image once"
            )
        mask = None
        if row["mask"]:
            mask = _listed_file(row["mask"], folder, f"{where}: found no mask file")
        defect = row.get("defect") or (DEFECT if mask else GOOD)
        if (mask is None) != (defect == GOOD):
            raise InputError(
                f"{where}: found the defect {defect!r} {'with' if mask else 'without'} a mask; "
                f"expected a mask for each defect and none for {GOOD!r}"
            )
        category = row.get("category") or folder.name or path.stem
        samples[relative] = Sample(image, relative, category, defect, mask)
        lines[relative] = line
    if not samples:
        raise InputError(f"{path}: found no rows below the header; expected one an image")
    return _sorted(samples.values())


def _csv_rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Line numbers and rows, names and values stripped of blanks."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected a CSV file of images and masks")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = [name.strip() for name in next(reader, [])]
            for name in ("image", "mask"):
                if header.count(name) != 1:
                    raise InputError(
                        f"{path}, line 1: found the columns {','.join(header) or '(none)'}; "
                        f"expected one column {name!r}"
                    )
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


def _listed_file(written: str, folder: Path, problem: str) -> Path:
    path = _absolute(folder / written)
    if not written or not path.is_file():
        raise InputError(f"{problem} {path if written else '(empty)'}; expected one")
    return path


def _csv_relative(written: Path, path: Path, folder: Path) -> str:
    if path.is_relative_to(folder):
        return path.relative_to(folder).as_posix()
    if written.is_absolute():
        return Path("_root", *path.parts[1:]).as_posix()
    parts = Path(os.path.relpath(path, folder)).parts
    return Path(*("_up" if part == ".." else part for part in parts)).as_posix()


def _mvtec_masks(images: Sequence[Path], mask_suffix: str | None) -> dict[Path, Path]:
    """The mask of each defective image."""
    truth = {path.parent: path.parents[2] / "ground_truth" / path.parent.name for path in images}
    by_name: dict[str, Path] = {}
    for folder in truth.values():
        if folder.is_dir():
            by_name |= _by_name(path for path in folder.iterdir() if is_image_name(path.name))
    stems = {path: (truth[path.parent] / path.stem).as_posix() for path in images}
    if mask_suffix is None:
        mask_suffix = _most_common_suffix(stems.values(), by_name)
    for path, stem in sorted(stems.items()):
        if mask_suffix is None:
            raise InputError(
                f"{path}: found no mask for this defective image, nor for any other; looked for "
                f"{_looked_for(stem)}"
            )
        if f"{stem}{mask_suffix}" not in by_name:
            raise InputError(
                f"{path}: found no mask for this defective image; expected {stem}{mask_suffix}.png"
            )
    return {path: by_name[f"{stem}{mask_suffix}"] for path, stem in stems.items()}


def missing_masks(masks: str | os.PathLike[str], relatives: Iterable[Path]) -> dict[Path, Path]:
    """Which mask file says which pixels of an image are missing.

    Args:
        masks: one file for all images, or a folder that has masks of any known file type under the
            relative names of images; images without one are complete.
        relatives: paths of the images.

    Raises:
        InputError: there is neither, or no mask in the folder has the name of an image.
    """
    masks, relatives = Path(masks), list(relatives)
    if masks.is_file():
        return dict.fromkeys(relatives, masks)
    if not masks.is_dir():
        raise InputError(f"{masks}: no such file or folder; expected masks of missing pixels")
    by_name = _by_name(find_images(masks)[1])
    named = {path: by_name.get(path.with_suffix("").as_posix()) for path in relatives}
    found = {path: masks / mask for path, mask in named.items() if mask is not None}
    if not found:
        raise InputError(
            f"{masks}: found no mask named as an image; looked for "
            f"{relatives[0].with_suffix('').as_posix()} with one of {' '.join(IMAGE_SUFFIXES)}"
        )
    return found


def _by_name(paths: Iterable[Path]) -> dict[str, Path]:
    """Files by their path without its suffix; of several the first in `IMAGE_SUFFIXES` order."""
    ordered = sorted(paths, key=lambda path: IMAGE_SUFFIXES.index(path.suffix.lower()))
    return {path.with_suffix("").as_posix(): path for path in reversed(ordered)}


def _most_common_suffix(stems: Iterable[str], by_name: Mapping[str, Path]) -> str | None:
    """The one of `MASK_SUFFIXES` by which the most images have a mask; None if there is no mask."""
    stems = list(stems)
    found = {suffix: sum(stem + suffix in by_name for stem in stems) for suffix in MASK_SUFFIXES}
    best = max(MASK_SUFFIXES, key=lambda suffix: found[suffix])
    return best if found[best] else None


def _looked_for(stem: str) -> str:
    endings = ", ".join(suffix or "nothing" for suffix in MASK_SUFFIXES)
    return f"{stem} followed by one of: {endings}; then {' '.join(IMAGE_SUFFIXES)}"


def _folder(path: str | os.PathLike[str], expected: str) -> Path:
    if not Path(path).is_dir():
        raise InputError(f"{path}: no such folder; {expected}")
    return _absolute(Path(path))


def _absolute(path: Path) -> Path:
    """Without "..", and links not followed: names stay those that the user knows."""
    return Path(os.path.normpath(path.absolute()))


def _subfolders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _chosen(root: Path, categories: Sequence[str] | None, found: Iterable[str]) -> set[str]:
    found = set(found)
    unknown = sorted(set(categories or ()) - found)
    if unknown:
        raise InputError(
            f"{root}: found no category {', '.join(unknown)}; expected some of "
            f"{', '.join(sorted(found))}"
        )
    return found if categories is None else set(categories)


def _sorted(samples: Iterable[Sample]) -> list[Sample]:
    return sorted(samples, key=lambda sample: sample.relative)
