"""Folder layouts of labelled test sets: which image belongs to which mask."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

from ssdnet_jax.data.images import IMAGE_SUFFIXES, is_image_name
from ssdnet_jax.errors import InputError

GOOD = "good"


@dataclasses.dataclass(frozen=True)
class Sample:
    """One test image and its label.

    Attributes:
        path: absolute path of the image.
        relative: the same relative to the root of the set, with forward slashes.
        category: the kind of object or texture, such as "grid".
        defect: the kind of defect, or "good".
        mask_path: absolute path of the mask; None for "good" images.
    """

    path: Path
    relative: str
    category: str
    defect: str
    mask_path: Path | None


def read_mvtec_layout(
    root: str | os.PathLike[str],
    *,
    categories: Sequence[str] | None = None,
    mask_suffix: str = "_mask",
) -> list[Sample]:
    """Lists the test images of a data set laid out as MVTec AD is.

    `CATEGORY/test/DEFECT/NAME.png` has its mask in
    `CATEGORY/ground_truth/DEFECT/NAME<mask_suffix>.png`; the defect "good" has none. Training
    images are not looked at. Layout: Bergmann et al., MVTec AD, CVPR 2019.

    Args:
        root: the folder that holds the categories.
        categories: the categories wanted; None for all.
        mask_suffix: what a mask's name has after the image's name ("" in some data sets).

    Returns:
        Samples sorted by their relative path.

    Raises:
        InputError: no such root, no category in it, an unknown category, no test image, or a
            defective image without a mask.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; expected the root of a set in MVTec AD layout")
    root = root.absolute()
    found = [folder.name for folder in _subfolders(root) if (folder / "test").is_dir()]
    if not found:
        hint = (
            " (this looks like one category: give its parent)" if (root / "test").is_dir() else ""
        )
        raise InputError(f"{root}: found no CATEGORY/test/ folder{hint}; expected MVTec AD layout")
    unknown = sorted(set(categories or ()) - set(found))
    if unknown:
        raise InputError(
            f"{root}: found no category {', '.join(unknown)}; expected some of {', '.join(found)}"
        )

    samples = []
    for category in found if categories is None else sorted(set(categories)):
        for folder in _subfolders(root / category / "test"):
            for path in folder.iterdir():
                if not is_image_name(path.name):
                    continue
                samples.append(
                    Sample(
                        path=path,
                        relative=path.relative_to(root).as_posix(),
                        category=category,
                        defect=folder.name,
                        mask_path=None if folder.name == GOOD else _find_mask(path, mask_suffix),
                    )
                )
    if not samples:
        raise InputError(
            f"{root}: found no images in CATEGORY/test/DEFECT/; expected files of "
            f"{' '.join(IMAGE_SUFFIXES)}"
        )
    return sorted(samples, key=lambda sample: sample.relative)


def _subfolders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _find_mask(path: Path, mask_suffix: str) -> Path:
    """The mask of a defective image: PNG as in MVTec AD, else any other known suffix."""
    folder = path.parents[2] / "ground_truth" / path.parent.name
    expected = folder / f"{path.stem}{mask_suffix}.png"
    candidates = [expected, *(expected.with_suffix(suffix) for suffix in IMAGE_SUFFIXES)]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise InputError(f"{path}: found no mask for this defective image; expected {expected}")
