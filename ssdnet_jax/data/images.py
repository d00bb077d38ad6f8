"""Images and maps on disk: decoding, finding, resizing, writing.

Contract: an image is float32 (H, W, C) in [0, 1] with C in {1, 3}; a mask is bool (H, W); a score
map is float (H, W). Sizes are (height, width) in pixels.
"""

import dataclasses
import fnmatch
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from ssdnet_jax.data._decode import decode, decode_parts, file_and_page, pages
from ssdnet_jax.data._raw_image import RawImage
from ssdnet_jax.data.files import write_atomically
from ssdnet_jax.data.formats import FORMATS, file_format
from ssdnet_jax.data.resize import resize
from ssdnet_jax.errors import InputError

IMAGE_SUFFIXES = tuple(suffix for each in FORMATS for suffix in each.suffixes)


@dataclasses.dataclass(frozen=True)
class DecodedImage:
    """One image read from a file."""

    pixels: np.ndarray  # float32 (H, W, C) in [0, 1], C 1 (grey) or 3 (colour); 0 where missing
    missing: np.ndarray | None  # bool (H, W), True where there is no value (NaN or masked); None if
    # every pixel is there
    warnings: tuple[str, ...]  # what the reader dropped or converted, one line each
    ignored: np.ndarray | None = None  # bool (H, W), True where a pixel is not to be judged (fully
    # transparent); None if every pixel is


def read_image(
    path: str | os.PathLike[str], *, missing_mask: str | os.PathLike[str] | None = None
) -> DecodedImage:
    """Reads an image file as float32 in [0, 1].

    Integer samples are divided by their full scale (255, 65535, ...), float samples are taken as
    they are. A colour file whose three channels are equal everywhere is returned as one channel.
    EXIF orientation is applied; of several frames the first is read. The format is recognized by
    the content, not the suffix.

    Args:
      path: a file in one of `data.formats`: PNG, JPEG, TIFF, .npy ((H, W) or (H, W, C)), ...;
        `stack.tif#3` is the third page of a TIFF.
      missing_mask: a mask file of the image's size (`read_mask`); what it marks counts as missing
        too.

    Raises:
      InputError: the file is missing, empty, damaged, not an image, larger than 150,000,000
        pixels, has no pixel that is not missing, or holds values outside [0, 1] or infinite.
    """
    path = Path(path)
    picture = _Picture(path)
    notes = decode_parts(path, picture.put)
    pixels, missing, ignored = picture.pixels, picture.missing, picture.ignored
    if picture.partial:
        notes += (f"{picture.partial} partially transparent pixels are read as opaque",)
    if missing_mask is not None:
        missing |= read_mask(missing_mask, shape=missing.shape)
    valueless = missing | ignored
    if valueless.all():
        raise InputError(
            f"{path}: every pixel is missing (NaN, transparent or masked); expected an image"
        )
    pixels[valueless] = 0
    if picture.is_float:
        _check_float_range(path, pixels)
    np.clip(pixels, 0.0, 1.0, out=pixels)
    if all((pixels[..., 0] == pixels[..., c]).all() for c in range(pixels.shape[2])):
        pixels = np.ascontiguousarray(pixels[..., :1])
    masks = (mask if mask.any() else None for mask in (missing, ignored))
    return DecodedImage(pixels, next(masks), notes, next(masks))


class _Picture:
    """The parts of a file put together, in float32: no more of it is held twice than a part."""

    def __init__(self, path: Path):
        self._path = path
        self._shape: tuple[int, int] | None = None
        self.partial = 0  # pixels that are transparent in part
        self.is_float = False

    def put(self, raw: RawImage, place: tuple[slice, slice], shape: tuple[int, int]) -> None:
        samples = raw.samples
        if raw.full_scale is None:
            raise InputError(
                f"{self._path}: found {samples.dtype} samples; expected uint8, uint16 or float in "
                "[0, 1]"
            )
        if self._shape is None:
            self._shape = shape
            self.pixels = np.empty((*shape, samples.shape[2]), np.float32)
            self.missing, self.ignored = np.zeros(shape, bool), np.zeros(shape, bool)
            self.is_float = raw.full_scale == 1.0
        if samples.dtype.kind in "fc":
            self.missing[place] = np.isnan(samples).any(axis=-1)
        if raw.alpha is not None:
            self.ignored[place] = raw.alpha == 0
            self.partial += int(np.count_nonzero((raw.alpha > 0) & (raw.alpha < 1)))
        with np.errstate(over="ignore", invalid="ignore"):  # infinite; NaN of any kind stays NaN
            self.pixels[place] = samples
        self.pixels[place] /= np.float32(raw.full_scale)


def _check_float_range(path: Path, values: np.ndarray) -> None:
    low, high = values.min(), values.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        raise InputError(f"{path}: found infinite values; expected values in [0, 1], NaN = missing")
    if low < -1e-6 or high > 1 + 1e-6:  # rounding of a resampled image is let through
        raise InputError(
            f"{path}: found float values from {low:.6g} to {high:.6g}; expected [0, 1]"
        )


def read_mask(path: str | os.PathLike[str], *, shape: tuple[int, int] | None = None) -> np.ndarray:
    """Reads a mask file as bool (H, W): True where any channel is not zero.

    Fully transparent pixels are False; palette files count by colour, so black is False.

    Args:
      path: a file of any format that `read_image` knows, or of any integer type.
      shape: the (height, width) of the image it belongs to, EXIF orientation applied.

    Raises:
      InputError: unreadable as for `read_image`, NaN or infinite values, or another size.
    """
    path = Path(path)
    raw = decode(path)
    if not np.isfinite(raw.samples).all():
        raise InputError(f"{path}: found NaN or infinite values; expected a mask of finite values")
    mask = (raw.samples != 0).any(axis=-1)
    if raw.alpha is not None:
        mask &= raw.alpha > 0
    if shape is not None and mask.shape != tuple(shape):
        raise InputError(
            f"{path}: found a mask of {mask.shape[0]} x {mask.shape[1]} (height x width); expected "
            f"{shape[0]} x {shape[1]}, the size of its image"
        )
    return mask


@dataclasses.dataclass(frozen=True)
class FoundImages:
    """What a file name, a folder or a glob stands for."""

    root: Path  # a file's folder, the folder itself, or a glob's longest parent without wildcards
    images: list[Path]  # relative to the root, sorted
    others: list[Path]  # likewise, files that are no images by their name nor by their content
    unreadable: list[Path]  # likewise, folders that could not be searched


def find_images(pattern: str | os.PathLike[str]) -> tuple[Path, list[Path]]:
    """The root and the images of `search_images`."""
    found = search_images(pattern)
    return found.root, found.images


def search_images(pattern: str | os.PathLike[str]) -> FoundImages:
    """Lists the images that a file name, a folder or a glob stands for.

    Folders are searched recursively, following links but never in circles; names that start with a
    dot are skipped. An image is a file whose name ends in one of `IMAGE_SUFFIXES` in any case, or
    whose content is in one of `data.formats`. In a glob `**` stands for any number of folders.

    Raises:
      InputError: nothing is there, or no image.
    """
    path = Path(pattern)
    if _is_folder(path):
        root, wanted, depth, none = path, None, None, "found no images in the folder"
    elif os.path.lexists(file_and_page(path)[0]):
        return FoundImages(path.parent, [Path(path.name)], [], [])
    else:
        literal = next((i for i, part in enumerate(path.parts) if _has_wildcard(part)), None)
        if literal is None:
            raise InputError(
                f"{path}: no such file or folder; expected an image, a folder or a glob"
            )
        root, wanted = Path(*path.parts[:literal]), path.parts[literal:]
        depth = None if "**" in wanted else len(wanted)
        none = "the glob matches no image"
    unreadable: list[Path] = []
    images: list[Path] = []
    others: list[Path] = []
    for relative in _walk(root, unreadable, depth):
        if relative.name.startswith(".") or not (
            wanted is None or _matches(relative.parts, wanted)
        ):
            continue
        known = is_image_name(relative.name) or _has_image_content(root / relative)
        (images if known else others).append(relative)
    if not images:
        raise InputError(f"{path}: {none}; expected files of {' '.join(IMAGE_SUFFIXES)}")
    lists = (sorted(each, key=Path.as_posix) for each in (images, others, unreadable))
    return FoundImages(root, *lists)


def with_pages(root: Path, images: Iterable[Path]) -> list[Path]:
    """The same images, a TIFF of several pages as its pages: `stack.tif#1`, `stack.tif#2`, ..."""
    return [relative.with_name(page.name) for relative in images for page in pages(root / relative)]


def image_file(path: Path) -> Path:
    """The file in which an image is: of the page `stack.tif#3` the file `stack.tif`."""
    return file_and_page(path)[0]


def is_image_name(name: str) -> bool:
    """Whether a file name has a known image suffix (any case) and is not hidden."""
    return not name.startswith(".") and name.lower().endswith(IMAGE_SUFFIXES)


def _has_image_content(path: Path) -> bool:
    try:
        return file_format(path) is not None
    except OSError:  # not to be read, or gone
        return False


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # names that no file can have
        return False


def _has_wildcard(part: str) -> bool:
    return any(character in part for character in "*?[")


def _matches(names: tuple[str, ...], patterns: tuple[str, ...]) -> bool:
    if not patterns:
        return not names
    if patterns[0] == "**":
        return any(_matches(names[i:], patterns[1:]) for i in range(len(names) + 1))
    return (
        bool(names)
        and fnmatch.fnmatchcase(names[0], patterns[0])
        and _matches(names[1:], patterns[1:])
    )


def _walk(root: Path, unreadable: list[Path], depth: int | None = None) -> Iterator[Path]:
    """Files below `root` relative to it, at most `depth` names deep, each folder visited once."""
    visited = set()
    folders = [Path()]
    while folders:
        relative = folders.pop()
        try:
            status = (root / relative).stat()
            if (status.st_dev, status.st_ino) in visited:
                continue
            visited.add((status.st_dev, status.st_ino))
            entries = list(os.scandir(root / relative))
        except OSError:
            unreadable.append(relative)
            continue
        subfolders = []
        for entry in entries:
            path = relative / entry.name
            if not _is_folder_entry(entry):
                yield path
            elif not entry.name.startswith(".") and (depth is None or len(path.parts) < depth):
                subfolders.append(path)
        folders += sorted(subfolders, reverse=True)


def _is_folder_entry(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in circles
        return False


def resize_image(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes an image, bilinearly, smoothed before shrinking (`skimage.transform.resize`).

    Float (H, W, C) in [0, 1] becomes float32 of the size, (height, width), that is wanted.
    """
    return np.clip(_resize(pixels, size), 0.0, 1.0)


def resize_map(score_map: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes a float map (H, W) to (height, width), bilinearly, within its own range.

    Pixels that take no part, NaN, lend nothing to their neighbours; a new pixel of which they make
    up more than half is NaN.
    """
    known = ~np.isnan(score_map)
    if known.all():
        resized = _resize(score_map, size)
    else:
        share = _resize(known.astype(np.float32), size)
        sums = _resize(np.where(known, score_map, 0), size)
        resized = np.where(share >= 0.5, sums / np.maximum(share, 0.5), np.nan)
    low, high = np.nanmin(score_map), np.nanmax(score_map)
    return np.clip(resized, np.float32(low), np.float32(high))


def _resize(array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    _check_size(size)
    return resize(array, size)


def resize_missing(missing: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes a mask of missing pixels: True where any missing pixel overlaps the new pixel."""
    _check_size(size)
    result = np.asarray(missing, bool)
    for axis, target in enumerate(size):
        source = result.shape[axis]
        start = np.arange(target) * source // target
        stop = -(-(np.arange(target) + 1) * source // target)
        counts = np.insert(np.cumsum(result, axis=axis), 0, 0, axis=axis)
        result = counts.take(stop, axis=axis) > counts.take(start, axis=axis)
    return result


def _check_size(size: tuple[int, int]) -> None:
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"size is {size}; expected (height, width), both at least 1")


def write_tiff_map(path: str | os.PathLike[str], score_map: np.ndarray) -> None:
    """Writes a map (H, W) as a float32 TIFF, atomically.

    It is not compressed: that saves a quarter of the size, for most of the time that all other
    files of an image take.
    """
    import tifffile

    values = np.asarray(score_map, np.float32)
    _check_two_axes(values)
    write_atomically(
        path,
        lambda file: tifffile.imwrite(file, values, photometric="minisblack", metadata=None),
    )


def write_mask_png(path: str | os.PathLike[str], mask: np.ndarray) -> None:
    """Writes a bool mask (H, W) as an 8-bit grey PNG of 0 and 255, atomically."""
    mask = np.asarray(mask, bool)
    _check_two_axes(mask)
    write_atomically(path, lambda file: Image.fromarray(mask * np.uint8(255)).save(file, "PNG"))


def _check_two_axes(array: np.ndarray) -> None:
    if array.ndim != 2:
        raise ValueError(f"found an array of shape {array.shape}; expected (H, W)")
