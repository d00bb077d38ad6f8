"""Labelled test sets: which layout one has, and its images with their labels."""

import dataclasses
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from ssdnet_jax.data.images import IMAGE_SUFFIXES, find_images
from ssdnet_jax.data.layouts.beside import (
    KOLEKTOR2_SUFFIX,
    KOLEKTOR_SUFFIX,
    TILE_FOLDER,
    dagm_classes,
    has_masks_beside,
    read_dagm_layout,
    read_folder_layout,
    read_kolektor2_layout,
    read_kolektor_layout,
    read_magnetic_tile_layout,
)
from ssdnet_jax.data.layouts.coco import coco_files, read_coco_layout
from ssdnet_jax.data.layouts.mvtec import (
    TRUTH,
    categories_in,
    read_labels_layout,
    read_mvtec_ad2_layout,
    read_mvtec_layout,
    read_mvtec_loco_layout,
)
from ssdnet_jax.data.layouts.names import by_name, chosen, subfolder, subfolders
from ssdnet_jax.data.layouts.sample import Sample
from ssdnet_jax.data.layouts.tables import (
    VISA_COLUMNS,
    VISA_FILE,
    csv_columns,
    read_csv_layout,
    read_visa_layout,
)
from ssdnet_jax.data.shapes import is_coco_file
from ssdnet_jax.errors import ConfigError, InputError

AUTO = "auto"  # the layout is found out


@dataclasses.dataclass(frozen=True)
class Layout:
    """A layout of sets: how it is recognized and read."""

    words: str  # what people call it, for a sentence
    read: Callable[..., list[Sample]]  # of a root, and `takes`
    evidence: Callable[[Path], str]  # what in a root says that it has this layout; empty if nothing
    takes: tuple[str, ...] = ()  # what else `read` takes: categories, mask_suffix, masks


def _category_evidence(root: Path, fits: Callable[[Path], bool]) -> str:
    """The first category with a folder `test` of which something holds."""
    for folder in categories_in(root, "test"):
        if fits(folder):
            return f"{folder.name}/test/"
    return ""


def _has_mask_folders(category: Path) -> bool:
    return any(subfolders(folder) for folder in subfolders(category / TRUTH))


def _is_ok_or_ko(category: Path) -> bool:
    return {"ok", "ko"} & {folder.name for folder in subfolders(category / "test")} != set()


def _has_truth(category: Path) -> bool:
    return subfolder(category, TRUTH) is not None


def _mvtec(root: Path) -> str:
    return _category_evidence(
        root,
        lambda folder: (
            _has_truth(folder) and not _has_mask_folders(folder) and not _is_ok_or_ko(folder)
        ),
    )


def _labels(root: Path) -> str:
    if any(_has_truth(folder) for folder in categories_in(root, "test")):
        return ""
    return _category_evidence(root, lambda folder: True)


def _mvtec_ad2(root: Path) -> str:
    return next((f"{f.name}/test_public/" for f in categories_in(root, "test_public")), "")


def _visa(root: Path) -> str:
    path = root / VISA_FILE if root.is_dir() else root
    is_table = path.suffix.lower() == ".csv" and set(VISA_COLUMNS) <= set(csv_columns(path))
    return f"{path.name} with the columns {','.join(VISA_COLUMNS)}" if is_table else ""


def _csv(root: Path) -> str:
    return root.name if root.suffix.lower() == ".csv" and not _visa(root) else ""


def _kolektor(root: Path) -> str:
    found = (f for f in subfolders(root) if has_masks_beside(f, KOLEKTOR_SUFFIX))
    return next((f"{folder.name}/*{KOLEKTOR_SUFFIX}.*" for folder in found), "")


def _kolektor2(root: Path) -> str:
    test = subfolder(root, "test")
    found = test is not None and has_masks_beside(test, KOLEKTOR2_SUFFIX)
    return f"test/*{KOLEKTOR2_SUFFIX}.*" if found else ""


def _magnetic_tile(root: Path) -> str:
    for folder in subfolders(root):
        if (images := subfolder(folder, TILE_FOLDER)) and has_masks_beside(images, ""):
            return f"{folder.name}/{TILE_FOLDER}/ with .png beside"
    return ""


def _dagm(root: Path) -> str:
    return next((f"{folder.name}/Test/Label/" for folder in dagm_classes(root)), "")


def _coco(root: Path) -> str:
    if root.is_dir():
        return next((str(path.relative_to(root)) for path in coco_files(root)), "")
    return root.name if root.suffix.lower() == ".json" and is_coco_file(root) else ""


_BY_NAME = ("categories", "mask_suffix")
LAYOUTS: dict[str, Layout] = {
    "mvtec": Layout("MVTec AD", read_mvtec_layout, _mvtec, _BY_NAME),
    "mvtec_loco": Layout(
        "MVTec LOCO AD, a folder of masks an image",
        read_mvtec_loco_layout,
        lambda root: _category_evidence(root, _has_mask_folders),
        ("categories",),
    ),
    "mvtec_ad2": Layout("MVTec AD 2", read_mvtec_ad2_layout, _mvtec_ad2, _BY_NAME),
    "visa": Layout("VisA, its test images", read_visa_layout, _visa, ("categories",)),
    "btad": Layout(
        "BTAD, folders ok and ko",
        read_mvtec_layout,
        lambda root: _category_evidence(root, lambda f: _has_truth(f) and _is_ok_or_ko(f)),
        _BY_NAME,
    ),
    "kolektor": Layout("KolektorSDD", read_kolektor_layout, _kolektor),
    "kolektor2": Layout("KolektorSDD2, its test images", read_kolektor2_layout, _kolektor2),
    "magnetic_tile": Layout("magnetic tiles", read_magnetic_tile_layout, _magnetic_tile),
    "dagm": Layout("DAGM 2007, its test images", read_dagm_layout, _dagm, ("categories",)),
    "coco": Layout("COCO annotations", read_coco_layout, _coco),
    "csv": Layout("a table of images and masks", read_csv_layout, _csv),
    "labels": Layout("labels of whole images, no masks", read_labels_layout, _labels, _BY_NAME[:1]),
    "folder": Layout(
        "images and masks in two folders",
        read_folder_layout,
        lambda root: "",  # only where the folder of masks is named
        ("masks", "mask_suffix"),
    ),
}


def find_layout(root: str | os.PathLike[str]) -> tuple[str, str]:
    """Which of `LAYOUTS` a set has, and what in it says so.

    Raises:
      InputError: no such folder or file, none of the layouts, or more than one; also where a
        folder in it is a set of another layout, which would be left out.
    """
    root = Path(root)
    if not root.exists():
        raise InputError(f"{root}: no such folder or file; expected a labelled set")
    found = _evidence(root)
    if len(found) > 1:
        both = " and ".join(f"{name} ({text})" for name, text in found.items())
        raise InputError(
            f"{root}: found {len(found)} layouts, {both}; expected --layout="
            f"{' or --layout='.join(found)}"
        )
    if not found:
        raise InputError(
            f"{root}: found no layout of a labelled set (no CATEGORY/test/, for example); expected "
            f"one of {', '.join(LAYOUTS)}, as docs/usage.md describes them"
        )
    layout, text = next(iter(found.items()))
    for folder in subfolders(root):
        others = _evidence(folder)
        if others and layout not in others:
            other, seen = next(iter(others.items()))
            raise InputError(
                f"{root}: found the layout {layout} ({text}), and in {folder.name}/ the layout "
                f"{other} ({seen}); expected --layout={layout} to leave that out, or its folders "
                f"one by one, with commas between"
            )
    return layout, text


def _evidence(root: Path) -> dict[str, str]:
    """Which layouts a folder may have, and what says so."""
    return {name: text for name, each in LAYOUTS.items() if (text := each.evidence(root))}


def find_sets(root: str | os.PathLike[str]) -> list[Path]:
    """The set itself, or the sets that a folder holds.

    Raises:
      InputError: as `find_layout`, where neither the root nor a folder in it is a set.
    """
    root = Path(root)
    if not root.is_dir() or _evidence(root):
        return [root]
    return [folder for folder in subfolders(root) if _evidence(folder)] or [root]


def read_dataset(
    root: str | os.PathLike[str],
    *,
    layout: str = AUTO,
    categories: Sequence[str] | None = None,
    mask_suffix: str | None = None,
    masks: str | os.PathLike[str] | None = None,
    report: Callable[[str], object] = lambda text: None,
) -> list[Sample]:
    """Lists the test images of a data set in any layout known here, sorted by their relative path.

    Args:
      root: the folder of the set, or its CSV or JSON file.
      layout: one of `LAYOUTS`, or "auto": found out; with `masks` it is "folder".
      categories: the categories wanted; None for all.
      mask_suffix: what a mask's name has after the image's name; None for the one that the most
        images have a mask by.
      masks: the folder of masks beside a plain folder of images.
      report: told which layout was found, in a line.

    Raises:
      InputError: as `find_layout` and the reader do, or an unknown category.
      ConfigError: an unknown layout, or `masks` or `mask_suffix` with a layout that names masks
        itself.
    """
    root = Path(root)
    text = ""
    if layout == AUTO and masks is not None and root.suffix.lower() not in (".csv", ".json"):
        layout = "folder"
    elif layout == AUTO:
        layout, text = find_layout(root)
    if layout not in LAYOUTS:
        raise ConfigError(
            f"--layout: found {layout!r}; expected {AUTO} or one of {', '.join(LAYOUTS)}"
        )
    entry = LAYOUTS[layout]
    for name, value in (("masks", masks), ("mask_suffix", mask_suffix)):
        if value is not None and name not in entry.takes:
            raise ConfigError(
                f"{name}: found a value with {root}; expected none, as the layout {layout} "
                f"({entry.words}) says where its masks are"
            )
    if layout == "folder" and masks is None:
        raise ConfigError("masks: found none with the layout folder; expected the folder of masks")
    given: dict[str, Any] = dict(categories=categories, mask_suffix=mask_suffix, masks=masks)
    samples = entry.read(root, **{name: given[name] for name in entry.takes})
    if text:
        report(f"{root}: layout {layout} ({entry.words}), by {text}")
    if "categories" in entry.takes:
        return samples
    wanted = chosen(root, categories, {sample.category for sample in samples})
    return [sample for sample in samples if sample.category in wanted]


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
    named = by_name(find_images(masks)[1])
    of_images = {path: named.get(path.with_suffix("").as_posix()) for path in relatives}
    found = {path: masks / mask for path, mask in of_images.items() if mask is not None}
    if not found:
        raise InputError(
            f"{masks}: found no mask named as an image; looked for "
            f"{relatives[0].with_suffix('').as_posix()} with one of {' '.join(IMAGE_SUFFIXES)}"
        )
    return found
