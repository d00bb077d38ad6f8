"""Regions of images written as numbers: COCO's polygons and run lengths, read and rasterized.

COCO's format: https://cocodataset.org/#format-data. Coordinates are (x, y) in pixels from the upper
left corner of the image, so that the centre of its first pixel is at (0.5, 0.5).
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ssdnet_jax.data.json_values import parse_json
from ssdnet_jax.errors import InputError

Polygon = tuple[tuple[float, float], ...]  # points, x and y

LARGEST_SIDE = 2**20  # of an image that a file declares, in pixels; more is no image


@dataclasses.dataclass(frozen=True)
class Shape:
    """One region: the union of polygons, or run lengths."""

    label: str  # name of its category
    polygons: tuple[Polygon, ...] = ()  # of at least three points each
    runs: tuple[int, ...] = ()  # lengths of runs of pixels outside and inside in turn, outside
    # first, down the columns; their sum is the number of pixels of `size`
    size: tuple[int, int] = (0, 0)  # (height, width) that `runs` are of


@dataclasses.dataclass(frozen=True)
class AnnotatedImage:
    """One image that an annotation file names."""

    name: str  # path as written, with forward slashes
    size: tuple[int, int]  # (height, width) in pixels; (0, 0) where the file does not say
    shapes: tuple[Shape, ...]  # empty for an image without a region


def is_coco_file(path: Path) -> bool:
    """Whether a file is a JSON object with COCO's lists `images` and `annotations`."""
    try:
        found = _read_json(path)
    except InputError:
        return False
    return isinstance(found, dict) and {"images", "annotations"} <= found.keys()


def read_coco(path: Path) -> dict[str, AnnotatedImage]:
    """The images of a COCO file by name, with their polygons and run lengths.

    Raises:
      InputError: no such file, no JSON, or not COCO's format: a list or a field is missing, an
        image is there twice, an annotation of no image, a region that is a box only, a polygon
        of fewer than three finite points, or run lengths that do not fill their size.
    """
    found = _read_json(path)
    if not isinstance(found, dict):
        raise InputError(f"{path}: found JSON that is no object; expected COCO's annotations")
    images: dict[Any, tuple[str, tuple[int, int]]] = {}
    names: set[str] = set()
    for number, entry in enumerate(_entries(path, found, "images")):
        where = f"{path}: image {number}"
        name = entry.get("file_name")
        if not isinstance(name, str) or not name:
            raise InputError(f"{where}: found no file_name; expected the path of the image")
        name = PurePosixPath(name.replace("\\", "/")).as_posix()
        key = _key(entry.get("id"), f"{where}: id")
        if name in names or key in images:
            raise InputError(f"{where}: found {name} or its id {key} again; expected each once")
        names.add(name)
        images[key] = (name, _size(entry.get("height", 0), entry.get("width", 0), where))
    labels = {
        _key(entry.get("id"), f"{path}: category {number}: id"): str(entry.get("name", ""))
        for number, entry in enumerate(_entries(path, found, "categories", needed=False))
    }
    shapes: dict[Any, list[Shape]] = {key: [] for key in images}
    for number, entry in enumerate(_entries(path, found, "annotations")):
        where = f"{path}: annotation {number}"
        key = _key(entry.get("image_id"), f"{where}: image_id")
        if key not in images:
            raise InputError(f"{where}: found image_id {key}; expected the id of one of the images")
        category = entry.get("category_id")
        label = labels.get(category, "") if isinstance(category, int | str) else ""
        size = images[key][1]
        shapes[key].append(_shape(entry.get("segmentation"), label, size, where))
    return {
        name: AnnotatedImage(name, size, tuple(shapes[key])) for key, (name, size) in images.items()
    }


def as_polygon(points: np.ndarray) -> Polygon:
    """Points, float (n, 2), x and y, as a shape holds them."""
    return tuple((x, y) for x, y in points.tolist())


def rasterize(shapes: Iterable[Shape], size: tuple[int, int]) -> np.ndarray:
    """The union of regions as bool (height, width): the pixels whose centre lies in one.

    What lies outside of the image is cut off.

    Raises:
      InputError: run lengths of another size.
    """
    from skimage.draw import polygon2mask

    mask = np.zeros(size, bool)
    for shape in shapes:
        for points in shape.polygons:
            # To skimage the centre of the first pixel is at (0, 0); far points change nothing
            # within the image that near ones on the same side do not.
            mask |= polygon2mask(size, np.asarray(points)[:, ::-1] - 0.5)
        if shape.runs:
            if shape.size != tuple(size):
                raise InputError(
                    f"found run lengths of {shape.size[0]} x {shape.size[1]} (height x width); "
                    f"expected {size[0]} x {size[1]}, the size of the image"
                )
            inside = np.arange(len(shape.runs)) % 2 == 1
            mask |= np.repeat(inside, shape.runs).reshape(size[::-1]).T
    return mask


def _read_json(path: Path) -> Any:
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected COCO's annotations")
    try:
        return parse_json(path.read_text(encoding="utf-8-sig"))
    except (ValueError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: found no JSON ({reason}); expected COCO's annotations") from None


def _entries(
    path: Path, found: Mapping[str, Any], name: str, *, needed: bool = True
) -> Sequence[Mapping[str, Any]]:
    entries = found.get(name, None if needed else [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise InputError(f"{path}: found no list {name!r} of objects; expected COCO's annotations")
    return entries


def _key(value: Any, where: str) -> int | str:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise InputError(f"{where}: found {value!r:.40}; expected a number or a word")
    return value


def _size(height: Any, width: Any, where: str) -> tuple[int, int]:
    for value in (height, width):
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < LARGEST_SIDE:
            raise InputError(f"{where}: found the side {value!r:.40}; expected a number of pixels")
    return height, width


def _shape(written: Any, label: str, size: tuple[int, int], where: str) -> Shape:
    if isinstance(written, list) and written:
        if not isinstance(written[0], list):
            written = [written]  # one polygon without the list around it, as some tools write it
        return Shape(label, polygons=tuple(_polygon(numbers, where) for numbers in written))
    if isinstance(written, dict):
        of = written.get("size")
        if not isinstance(of, list) or len(of) != 2:
            raise InputError(f"{where}: found run lengths of size {of!r:.40}; expected two numbers")
        run_size = _size(of[0], of[1], where)
        if any(size) and run_size != size:
            raise InputError(
                f"{where}: found run lengths of {of[0]} x {of[1]} (height x width); expected "
                f"{size[0]} x {size[1]}, the size of its image"
            )
        counts = written.get("counts")
        runs = _decompressed(counts) if isinstance(counts, str) else counts
        numbers = isinstance(runs, list) and all(type(run) is int and run >= 0 for run in runs)
        if not numbers or not runs or sum(runs) != math.prod(run_size):
            raise InputError(
                f"{where}: found run lengths that do not fill {of[0]} x {of[1]} pixels; expected "
                f"their sum to be {math.prod(run_size)}"
            )
        return Shape(label, runs=tuple(runs), size=run_size)
    raise InputError(
        f"{where}: found no polygon and no run lengths in its segmentation (a box alone does not "
        f"say which pixels); expected one of them"
    )


def _polygon(numbers: Any, where: str) -> Polygon:
    try:
        points = np.asarray(numbers, np.float64).reshape(-1, 2)
    except (TypeError, ValueError, OverflowError):
        points = np.empty((0, 2))
    if len(points) < 3 or not (np.abs(points) < LARGEST_SIDE).all():
        raise InputError(
            f"{where}: found a polygon that is not at least three pairs x, y of finite numbers of "
            f"pixels; expected [x1, y1, x2, y2, x3, y3, ...]"
        )
    return as_polygon(points)


def _decompressed(text: str) -> list[int] | None:
    """Run lengths of COCO's compressed text; None where it is damaged.

    Each character less 48 has five bits of a number, lowest first, and 32 where more follow; the
    highest bit of the last is the sign. From the fourth number on a number is the difference to the
    one two before it (`rleFrString` of cocoapi's maskApi.c).
    """
    runs: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 60:
            return None
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    return runs if not shift else None
