"""Sets whose labels are COCO's polygons or run lengths in a JSON file."""

import os
from collections.abc import Iterator
from pathlib import Path

from ssdnet_jax.data.files import is_file
from ssdnet_jax.data.layouts.names import absolute, checked_name, in_order, relative_name
from ssdnet_jax.data.layouts.sample import DEFECT, GOOD, Sample
from ssdnet_jax.data.shapes import AnnotatedImage, is_coco_file, read_coco
from ssdnet_jax.errors import InputError

_BESIDE = ("", "images", "data", "..", "../images", "../data")  # of the file, where images may lie


def read_coco_layout(root: str | os.PathLike[str]) -> list[Sample]:
    """The images that a COCO file names, whose regions are their defects.

    Args:
      root: the JSON file, or a folder with one such file in it or in its `annotations/`. Images
        lie under their names in the file's folder, its parent, or a folder `images` or `data`
        of either. The category is the name of the folder; a defect is called as the categories
        of its regions, with "+" between. Images without a region are good.

    Raises:
      InputError: no such file or more than one, not COCO's format, or a missing image.
    """
    path = Path(root)
    if path.is_dir():
        found = coco_files(path)
        if len(found) != 1:
            names = ", ".join(str(each.relative_to(path)) for each in found[:5]) or "none"
            raise InputError(
                f"{path}: found these files of COCO's annotations: {names}; expected one, to be "
                f"named by its path"
            )
        (path,) = found
    folder = absolute(path.parent)
    if folder.name == "annotations":
        folder = folder.parent
    samples: dict[str, Sample] = {}
    for name, annotated in read_coco(path).items():
        image = _image(path, name)
        relative = relative_name(Path(name), image, folder)
        if relative in samples:
            raise InputError(f"{path}: found {name} and another name of its image; expected one")
        samples[relative] = Sample(
            path=image,
            relative=relative,
            category=folder.name or path.stem,
            defect=_defect(path, annotated),
            mask_path=absolute(path),
            regions=annotated,
        )
    if not samples:
        raise InputError(f"{path}: found no images; expected some")
    return in_order(samples.values())


def coco_files(folder: Path) -> list[Path]:
    """COCO's files in a folder or its `annotations/`, sorted."""
    found = [*folder.glob("*.json"), *(folder / "annotations").glob("*.json")]
    return sorted(path for path in found if path.is_file() and is_coco_file(path))


def _image(path: Path, name: str) -> Path:
    if "\0" in name:
        raise InputError(f"{path}: found an image's name with a character NUL; expected a path")
    for place in _places(path, name):
        if is_file(place):
            return place
    raise InputError(
        f"{path}: found no image {name}; expected it in {absolute(path.parent)}, its parent, or a "
        f"folder images or data of either"
    )


def _places(path: Path, name: str) -> Iterator[Path]:
    return (absolute(path.parent / folder / name) for folder in _BESIDE)


def _defect(path: Path, annotated: AnnotatedImage) -> str:
    if not annotated.shapes:
        return GOOD
    labels = sorted({shape.label for shape in annotated.shapes if shape.label})
    return checked_name("+".join(labels) or DEFECT, f"{path}: {annotated.name}", "category")
