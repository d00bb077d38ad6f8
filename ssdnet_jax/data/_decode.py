"""From a file to its stored samples, upright, before any scaling or checking."""

import dataclasses
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import UnidentifiedImageError

from ssdnet_jax.data._library_messages import library_messages, summary
from ssdnet_jax.data._pillow import decode_pillow
from ssdnet_jax.data._raw_image import (
    PART_BYTES,
    Put,
    RawImage,
    check_byte_count,
    check_pixel_count,
    full_scale,
    whole,
)
from ssdnet_jax.data._tiff import decode_tiff, decode_tiff_parts, picture_pages
from ssdnet_jax.data.formats import EXPECTED, NPY, TIFF, file_format
from ssdnet_jax.errors import InputError
from ssdnet_jax.text import shortened

_PAGE = re.compile(r"(.+)#([1-9][0-9]{0,8})", re.DOTALL)
_MOST_OF_REASON = 140  # characters of what a decoder says

_T = TypeVar("_T")


def file_and_page(path: Path) -> tuple[Path, int | None]:
    """The file that a path means, and which of its pages: `stack.tif#3` is the third, from 1.

    A file whose own name ends so is meant itself.
    """
    match = _PAGE.fullmatch(path.name)
    if match is None or path.exists() or path.is_symlink():
        return path, None
    return path.with_name(match[1]), int(match[2])


def pages(path: Path) -> list[Path]:
    """The pictures of a file: itself, or `stack.tif#1`, `stack.tif#2`, ... of several pages.

    A file that cannot be read is itself: the reader says what is wrong.
    """
    try:
        if file_format(path) is not TIFF:
            return [path]
        with library_messages():
            numbers = picture_pages(path)
    except Exception:  # decoders fail on damaged files in too many ways to list
        return [path]
    if len(numbers) <= 1:
        return [path]
    return [path.with_name(f"{path.name}#{number}") for number in numbers]


def decode(path: Path) -> RawImage:
    """Reads one picture of any supported format, EXIF orientation applied.

    `path` may name a page, as `file_and_page` says. What the decoders warn of is among the notes.
    """
    raw, messages = _with_one_line_errors(path, _decode)
    return dataclasses.replace(raw, notes=raw.notes + messages)


def decode_parts(path: Path, put: Put) -> tuple[str, ...]:
    """As `decode`, in parts where the format allows it: strips and tiles of a TIFF, rows of .npy.

    No more is decoded at once than a part. Other formats are one part.

    Args:
      path: as for `decode`.
      put: given each part and where it lies in the picture; together they are all of it.

    Returns:
      The notes.
    """

    def read(path: Path, file: Path, page: int | None) -> tuple[str, ...]:
        form = file_format(file)
        if form is TIFF:
            return decode_tiff_parts(file, page, put)
        if form is NPY and page is None:
            return _decode_npy_rows(file, put)
        return whole(_decode(path, file, page), put)

    notes, messages = _with_one_line_errors(path, read)
    return notes + messages


def _with_one_line_errors(
    path: Path, read: Callable[[Path, Path, int | None], _T]
) -> tuple[_T, tuple[str, ...]]:
    """What `read` makes of a path, its file and its page, and what decoders warned of."""
    file, page = file_and_page(path)
    try:
        _check_regular_file(file)
        with library_messages() as messages:
            found = read(path, file, page)
        return found, summary(messages)
    except InputError:
        raise
    except MemoryError as error:  # also of a length in a damaged file
        raise InputError(
            f"{path}: takes more memory than there is, or says so because it is damaged; expected "
            f"a smaller or complete image file"
        ) from error
    except UnidentifiedImageError as error:
        raise InputError(f"{path}: not an image that can be read; expected {EXPECTED}") from error
    except PermissionError as error:
        raise InputError(f"{path}: no permission to read; expected a readable file") from error
    except Exception as error:  # decoders fail on damaged files in too many ways to list
        reason = shortened(str(error), _MOST_OF_REASON) or type(error).__name__
        raise InputError(
            f"{path}: cannot be decoded ({reason}); expected a complete image file"
        ) from error


def _check_regular_file(path: Path) -> None:
    """Opening a pipe or a device would wait, or never end."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        what = "a link that leads nowhere" if path.is_symlink() else "no such file"
        raise InputError(f"{path}: {what}; expected an image file") from None
    except OSError as error:  # links in circles, names that are too long
        if path.is_symlink():
            raise InputError(f"{path}: a link that leads nowhere; expected an image file") from None
        reason = error.strerror or error
        raise InputError(f"{path}: cannot be found ({reason}); expected an image file") from error
    if stat.S_ISDIR(mode):
        raise InputError(f"{path}: found a folder; expected an image file")
    if not stat.S_ISREG(mode):
        what = "a pipe" if stat.S_ISFIFO(mode) else "a device or socket"
        raise InputError(f"{path}: found {what}; expected an image file")


def _decode(path: Path, file: Path, page: int | None) -> RawImage:
    form = file_format(file)
    if form is None:
        if not file.stat().st_size:
            raise InputError(f"{path}: the file is empty (0 bytes); expected {EXPECTED}")
        raise InputError(f"{path}: not an image in a known format; expected {EXPECTED}")
    if form is TIFF:
        return decode_tiff(file, page)
    if page is not None:
        raise InputError(f"{path}: found {form.name}; expected TIFF, which has pages")
    if form is NPY:
        return _decode_npy(file)
    return decode_pillow(file, form.pillow)


def _decode_npy(path: Path) -> RawImage:
    samples = np.array(_stored_npy(path))
    return RawImage(samples, full_scale(samples.dtype))


def _decode_npy_rows(path: Path, put: Put) -> tuple[str, ...]:
    stored = _stored_npy(path)
    height, width, channels = stored.shape
    rows = max(1, PART_BYTES // (width * channels * stored.itemsize))
    for start in range(0, height, rows):
        samples = np.array(stored[start : start + rows])
        place = (slice(start, start + len(samples)), slice(0, width))
        put(RawImage(samples, full_scale(samples.dtype)), place, (height, width))
    return ()


def _stored_npy(path: Path) -> np.ndarray:
    """The file's array (H, W, C), which is mapped and not read."""
    stored = np.load(path, mmap_mode="r", allow_pickle=False)
    if stored.ndim not in (2, 3) or (stored.ndim == 3 and stored.shape[2] not in (1, 3)):
        raise InputError(
            f"{path}: found an array of shape {stored.shape!s:.80}; expected (H, W), (H, W, 1) or "
            "(H, W, 3)"
        )
    check_pixel_count(path, *stored.shape[:2])
    check_byte_count(path, stored.nbytes)
    return np.atleast_3d(stored)
