"""Sets whose masks lie beside their images or in a folder of their own, under the same names."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from ssdnet_jax.data.files import real_path
from ssdnet_jax.data.images import find_images
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
from ssdnet_jax.data.layouts.sample import DEFECT, GOOD, Sample, is_good_name
from ssdnet_jax.errors import InputError

KOLEKTOR_SUFFIX = "_label"
KOLEKTOR2_SUFFIX = "_GT"
TILE_FOLDER = "Imgs"


def read_folder_layout(
    root: str | os.PathLike[str], *, masks: str | os.PathLike[str], mask_suffix: str | None = None
) -> list[Sample]:
    """The images of a folder whose masks lie in another one under the same names.

    `ROOT/bent/7.jpg` has its mask in `MASKS/bent/7.png`, of any known file type and with the
    `mask_suffix` of all masks after the name. Images without a mask are good. The category is the
    name of the root; the defect is the first subfolder, or "defect" in the root itself. Both
    folders are searched recursively; `masks` is left out of a root that holds it.

    Raises:
      InputError: no such folder, no images or no masks in it, or a mask without an image.
    """
    root = existing_folder(root, "expected a folder of images")
    masks = existing_folder(masks, "expected the folder of masks")
    if real_path(masks) == real_path(root):
        raise InputError(f"{masks}: found images and masks in one folder; expected two folders")
    images = [path for path in find_images(root)[1] if not (root / path).is_relative_to(masks)]
    if not images:
        raise InputError(f"{root}: found no images besides the masks in {masks}")
    named = by_name(find_images(masks)[1])
    stems = [path.with_suffix("").as_posix() for path in images]
    if mask_suffix is None:
        mask_suffix = most_common_suffix(stems, named)
        if mask_suffix is None:
            raise InputError(
                f"{masks}: found no mask named as an image of {root}; looked for "
                f"{looked_for(stems[0])}"
            )
    unused = sorted(named.keys() - {f"{stem}{mask_suffix}" for stem in stems})
    if unused:
        name = unused[0]
        if name.endswith(mask_suffix):
            expected = f"{root / name.removesuffix(mask_suffix)} with the suffix of an image"
        else:
            expected = f"a name that ends in {mask_suffix}, as those of other masks"
        raise InputError(f"{masks / named[name]}: found no image of this mask; expected {expected}")

    samples = []
    for path, stem in zip(images, stems, strict=True):
        mask = named.get(f"{stem}{mask_suffix}")
        folder = path.parts[0] if path.parts[1:] else DEFECT
        samples.append(
            Sample(
                path=root / path,
                relative=path.as_posix(),
                category=root.name,
                defect=GOOD if mask is None or is_good_name(folder) else folder,
                mask_path=None if mask is None else masks / mask,
            )
        )
    return in_order(samples)


def read_kolektor_layout(root: str | os.PathLike[str]) -> list[Sample]:
    """KolektorSDD: `kos01/Part0.jpg` with its mask `kos01/Part0_label.bmp`, black for a good one.

    Layout: Tabernik et al., Journal of Intelligent Manufacturing 2019.

    Raises:
      InputError: no such folder, no such images, or an image without a mask.
    """
    root = existing_folder(root, "expected KolektorSDD's folder")
    return _beside(root, subfolders(root), KOLEKTOR_SUFFIX, lambda folder: DEFECT)


def read_kolektor2_layout(root: str | os.PathLike[str]) -> list[Sample]:
    """KolektorSDD2: `test/20000.png` with its mask `test/20000_GT.png`, black for a good one.

    Layout: Bozic et al., Computers in Industry 2021.

    Raises:
      InputError: no such folder, no such images, or an image without a mask.
    """
    root = existing_folder(root, "expected KolektorSDD2's folder")
    test = subfolder(root, "test")
    return _beside(root, [test] if test else [], KOLEKTOR2_SUFFIX, lambda folder: DEFECT)


def read_magnetic_tile_layout(root: str | os.PathLike[str]) -> list[Sample]:
    """Magnetic tile defects: `MT_Crack/Imgs/NAME.jpg` with its mask `MT_Crack/Imgs/NAME.png`.

    The defect is the folder's name without "MT_"; "MT_Free" holds good images, whose masks are
    black. Layout: Huang et al., The Visual Computer 2020.

    Raises:
      InputError: no such folder, no such images, or an image without a mask.
    """
    root = existing_folder(root, "expected the folder of magnetic tiles")
    folders = [each for folder in subfolders(root) if (each := subfolder(folder, TILE_FOLDER))]
    return _beside(root, folders, "", lambda folder: folder.parent.name.removeprefix("MT_"))


def has_masks_beside(folder: Path, suffix: str) -> bool:
    """Whether an image of a folder has a mask of its own name and this suffix beside it."""
    return bool(_masks_beside(folder, suffix))


def _masks_beside(folder: Path, suffix: str) -> dict[Path, Path]:
    """The masks of the images of a folder; with an empty suffix images are all but the PNGs."""
    files = images_in(folder)
    if suffix:
        named = by_name(path for path in files if path.stem.endswith(suffix))
        images = [path for path in files if not path.stem.endswith(suffix)]
    else:
        named = by_name(path for path in files if path.suffix.lower() == ".png")
        images = [path for path in files if path.suffix.lower() != ".png"]
    found = {path: named.get(f"{path.with_suffix('').as_posix()}{suffix}") for path in images}
    return {path: mask for path, mask in found.items() if mask is not None}


def _beside(
    root: Path, folders: Sequence[Path], suffix: str, defect: Callable[[Path], str]
) -> list[Sample]:
    samples = []
    for folder in folders:
        masks = _masks_beside(folder, suffix)
        own = set(masks.values())
        for path in images_in(folder):
            if path in own:
                continue
            if path not in masks:
                raise InputError(
                    f"{path}: found no mask beside this image; expected {path.stem}{suffix}.png"
                )
            name = defect(folder)
            samples.append(
                Sample(
                    path=path,
                    relative=path.relative_to(root).as_posix(),
                    category=root.name,
                    defect=GOOD if is_good_name(name) else name,
                    mask_path=masks[path],
                )
            )
    if not samples:
        raise InputError(f"{root}: found no images with a mask NAME{suffix}.png beside them")
    return in_order(samples)


def read_dagm_layout(
    root: str | os.PathLike[str], *, categories: Sequence[str] | None = None
) -> list[Sample]:
    """DAGM 2007: `Class1/Test/0001.PNG`, a defective one with `Class1/Test/Label/0001_label.PNG`.

    Masks are ellipses around the defect. Training images are not looked at. `root` holds the
    classes or is one. Layout: Wieler and Hahn, DAGM symposium 2007.

    Raises:
      InputError: no such folder, no such images, or an unknown category.
    """
    root = existing_folder(root, "expected DAGM's folder")
    found = dagm_classes(root)
    if found == [root]:
        root = root.parent
    names = chosen(root, categories, (folder.name for folder in found))
    samples = []
    for folder in found:
        if folder.name not in names:
            continue
        masks = by_name(images_in(folder / "Test" / "Label"))
        for path in images_in(folder / "Test"):
            mask = masks.get((path.parent / "Label" / f"{path.stem}_label").as_posix())
            samples.append(
                Sample(
                    path=path,
                    relative=path.relative_to(root).as_posix(),
                    category=folder.name,
                    defect=DEFECT if mask else GOOD,
                    mask_path=mask,
                )
            )
    if not samples:
        raise InputError(f"{root}: found no images in CLASS/Test/; expected DAGM's layout")
    return in_order(samples)


def dagm_classes(root: Path) -> list[Path]:
    """Folders that have a folder `Test` with a folder `Label`, or the root itself if it has."""

    def holds(folder: Path) -> bool:
        test = subfolder(folder, "Test")
        return test is not None and subfolder(test, "Label") is not None

    return [each for each in subfolders(root) if holds(each)] or ([root] if holds(root) else [])
