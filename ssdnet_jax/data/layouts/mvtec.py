"""Sets with a folder of test images for each kind of defect: MVTec AD, LOCO, AD 2, BTAD, labels.

    CATEGORY/test/DEFECT/NAME.png
    CATEGORY/ground_truth/DEFECT/NAME_mask.png

MVTec LOCO has a folder of masks for each image, MVTec AD 2 keeps both in `test_public`, BTAD calls
its folders `ok` and `ko`, and a set that is labelled as a whole only has no ground truth at all.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from ssdnet_jax.data.images import IMAGE_SUFFIXES
from ssdnet_jax.data.layouts.names import (
    by_name,
    chosen,
    existing_folder,
    images_in,
    in_order,
    looked_for,
    most_common_suffix,
    subfolder,
    subfolders,
)
from ssdnet_jax.data.layouts.sample import GOOD, Sample, is_good_name
from ssdnet_jax.errors import InputError

TRUTH = "ground_truth"
_MVTEC = "expected MVTec AD layout"


def read_mvtec_layout(
    root: str | os.PathLike[str],
    *,
    categories: Sequence[str] | None = None,
    mask_suffix: str | None = None,
) -> list[Sample]:
    """The test images of a data set laid out as MVTec AD is, or BTAD.

    `CATEGORY/test/DEFECT/NAME.png` has its mask in
    `CATEGORY/ground_truth/DEFECT/NAME<mask_suffix>.png`; the defect "good" (or "ok", "normal",
    "free") needs none. Training images are not looked at. Layout: Bergmann et al., MVTec AD,
    CVPR 2019; Mishra et al., VT-ADL (BTAD), ISIE 2021.

    The root is the folder that holds the categories, or the folder of one category. The latter is
    read as the set in its parent folder with that category alone, so that an image has the same
    relative path either way.

    Raises:
      InputError: no such root, no category in it, an unknown category, no test image, or a
        defective image without a mask.
    """
    root, images = _test_images(root, "test", categories)
    truth = {path: path.parents[2] / TRUTH / path.parent.name for path in images}
    return _samples(root, images, _masks_by_name(images, truth, mask_suffix))


def read_mvtec_ad2_layout(
    root: str | os.PathLike[str],
    *,
    categories: Sequence[str] | None = None,
    mask_suffix: str | None = None,
) -> list[Sample]:
    """The public test images of a data set laid out as MVTec AD 2 is.

    `CATEGORY/test_public/bad/NAME.png` has its mask in
    `CATEGORY/test_public/ground_truth/bad/NAME_mask.png`; the private test sets have no labels.
    Layout: Heckler-Kram et al., MVTec AD 2, arXiv 2503.21622.

    Raises:
      InputError: as `read_mvtec_layout`.
    """
    root, images = _test_images(root, "test_public", categories)
    truth = {path: path.parents[1] / TRUTH / path.parent.name for path in images}
    return _samples(root, images, _masks_by_name(images, truth, mask_suffix))


def read_mvtec_loco_layout(
    root: str | os.PathLike[str], *, categories: Sequence[str] | None = None
) -> list[Sample]:
    """The test images of a data set laid out as MVTec LOCO AD is.

    `CATEGORY/test/DEFECT/NAME.png` has its masks in `CATEGORY/ground_truth/DEFECT/NAME/`, one a
    defect; their union counts. (The set's own metric, sPRO, is not computed here.) Layout:
    Bergmann et al., Beyond Dents and Scratches, IJCV 2022.

    Raises:
      InputError: as `read_mvtec_layout`.
    """
    root, images = _test_images(root, "test", categories)
    masks: dict[Path, Path] = {}
    for path in images:
        folder = path.parents[2] / TRUTH / path.parent.name / path.stem
        if images_in(folder):
            masks[path] = folder
        elif not is_good_name(path.parent.name):
            raise InputError(
                f"{path}: found no mask for this defective image; expected some in {folder}/"
            )
    return _samples(root, images, masks)


def read_labels_layout(
    root: str | os.PathLike[str], *, categories: Sequence[str] | None = None
) -> list[Sample]:
    """Test images that are labelled as a whole only: `CATEGORY/test/good`, `CATEGORY/test/bad`.

    Any folder but "good" (or "ok", "normal", "free") is a kind of defect.

    Raises:
      InputError: no such root, no category in it, an unknown category or no test image.
    """
    root, images = _test_images(root, "test", categories)
    return _samples(root, images, {})


def categories_in(root: Path, test: str) -> list[Path]:
    """Folders that have a folder `test` of folders, or the root itself if it has."""

    def holds(folder: Path) -> bool:
        found = subfolder(folder, test)
        return found is not None and bool(subfolders(found))

    found = [folder for folder in subfolders(root) if holds(folder)]
    return found or ([root] if holds(root) and root.name else [])


def _test_images(
    root: str | os.PathLike[str], test: str, categories: Sequence[str] | None
) -> tuple[Path, list[Path]]:
    """The folder that holds the categories, and all their test images."""
    root = existing_folder(root, "expected the root of a set in MVTec AD layout")
    found = categories_in(root, test)
    if not found:
        raise InputError(f"{root}: found no CATEGORY/{test}/ folder; {_MVTEC}")
    if found == [root]:
        root = root.parent
    names = chosen(root, categories, (folder.name for folder in found))
    images = [
        path
        for category in sorted(names)
        for folder in subfolders(root / category / test)
        if folder.name != TRUTH
        for path in images_in(folder)
    ]
    if not images:
        raise InputError(
            f"{root}: found no images in CATEGORY/{test}/DEFECT/; expected files of "
            f"{' '.join(IMAGE_SUFFIXES)}"
        )
    return root, images


def _samples(root: Path, images: Sequence[Path], masks: dict[Path, Path]) -> list[Sample]:
    return in_order(
        Sample(
            path=path,
            relative=path.relative_to(root).as_posix(),
            category=path.relative_to(root).parts[0],
            defect=GOOD if is_good_name(path.parent.name) else path.parent.name,
            mask_path=masks.get(path),
        )
        for path in images
    )


def _masks_by_name(
    images: Sequence[Path], truth: dict[Path, Path], mask_suffix: str | None
) -> dict[Path, Path]:
    """The mask of each defective image, and of those good ones that have one."""
    named = by_name(path for folder in set(truth.values()) for path in images_in(folder))
    stems = {path: (truth[path] / path.stem).as_posix() for path in images}
    if mask_suffix is None:
        mask_suffix = most_common_suffix(stems.values(), named)
    masks = {
        path: named[f"{stem}{mask_suffix}"]
        for path, stem in stems.items()
        if mask_suffix is not None and f"{stem}{mask_suffix}" in named
    }
    for path, stem in sorted(stems.items()):
        if path in masks or is_good_name(path.parent.name):
            continue
        if mask_suffix is None:
            raise InputError(
                f"{path}: found no mask for this defective image, nor for any other; looked for "
                f"{looked_for(stem)}"
            )
        raise InputError(
            f"{path}: found no mask for this defective image; expected {stem}{mask_suffix}.png"
        )
    return masks
