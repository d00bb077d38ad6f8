"""TIFF: pages that are pictures, samples of any type, and bounds on what a page may decode to."""

import dataclasses
import itertools
import lzma
import math
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ssdnet_jax.data._pillow import EXIF_ORIENTATION, decode_pillow
from ssdnet_jax.data._raw_image import (
    PART_BYTES,
    Put,
    RawImage,
    check_byte_count,
    check_pixel_count,
    full_scale,
    whole,
)
from ssdnet_jax.errors import InputError

if TYPE_CHECKING:
    import tifffile

_PIECE = 2**20  # bytes: how much is decompressed at a time to learn how much there is
_LZMA_MEMORY = 2**28  # bytes that the dictionary of an LZMA stream may take
_READ_AGAIN = 16  # how often strips may share their bytes before a file is taken for a bomb


def picture_pages(path: Path) -> list[int]:
    """Which pages of a TIFF are pictures of their own, counted from 1.

    Thumbnails, lower resolutions of a pyramid and transparency masks say that they are none.

    Raises:
      Exception: the file is damaged, in too many ways to list.
    """
    import tifffile

    with tifffile.TiffFile(path) as tiff:
        pages = tiff.pages
        if len(pages) == 1:
            return [1]
        return [i + 1 for i in range(len(pages)) if _is_picture(_page(pages, i))]


def _page(pages: Any, index: int) -> "tifffile.TiffPage":
    return pages.get(index, cache=False)


def _is_picture(page: "tifffile.TiffPage") -> bool:
    return not (page.is_reduced or page.is_mask)


def decode_tiff(path: Path, page_number: int | None) -> RawImage:
    """Reads a page, counted from 1; without a number the first, with a note if there are more."""
    import tifffile

    with tifffile.TiffFile(path) as tiff:
        page, index, notes = _chosen_page(path, tiff, page_number)
        raw = _decode_page(path, page, frame=index)
    return dataclasses.replace(raw, notes=notes + raw.notes)


def decode_tiff_parts(path: Path, page_number: int | None, put: Put) -> tuple[str, ...]:
    """As `decode_tiff`, strip by strip or tile by tile; returns the notes.

    Pages of other kinds, and those that are stored lying or in another way that only Pillow knows,
    are one part.
    """
    import tifffile

    with tifffile.TiffFile(path) as tiff:
        page, index, notes = _chosen_page(path, tiff, page_number)
        parts = _parts(page)
        try:
            first = next(parts, None)
        except Exception:  # the way that reads all at once says what is wrong, or has another way
            first = None
        if first is None:
            return notes + whole(_decode_page(path, page, frame=index), put)
        size = (page.imagelength, page.imagewidth)
        for place, samples in itertools.chain([first], parts):
            raw = _with_meaning(path, page, samples)
            put(raw, place, size)
    return notes + raw.notes


def _chosen_page(
    path: Path, tiff: "tifffile.TiffFile", number: int | None
) -> tuple["tifffile.TiffPage", int, tuple[str, ...]]:
    """A page, its index, and a note if it was not said which of several."""
    count = len(tiff.pages)
    index = (number or 1) - 1
    if index >= count:
        raise InputError(f"{path}: found {count} pages; expected a page {index + 1}")
    page = _page(tiff.pages, index)
    several = number is None and count > 1
    notes = (f"only the first of {count} pages is used",) if several else ()
    _check_size(path, page)
    return page, index, notes


def _parts(page: "tifffile.TiffPage") -> Iterator[tuple[tuple[slice, slice], np.ndarray]]:
    """Rows and columns of the parts of a page, and their samples (h, w, S).

    Nothing if the page has to be read as a whole.
    """
    import tifffile

    if (
        not _is_plain(page)
        or page.compression not in (tifffile.COMPRESSION.NONE, *_DECOMPRESSORS)
        or page.tags.valueof(EXIF_ORIENTATION) not in (None, 0, 1)
    ):
        return
    if not page.is_contiguous:
        yield from _segments(page)
    elif page.fillorder == 1 and page.predictor == 1:
        yield from _stored_rows(page)


def _planes(page: "tifffile.TiffPage") -> int:
    """1 where the samples of a pixel lie together, else how many of them there are."""
    return page.samplesperpixel if page.axes == "SYX" else 1


def _stored_rows(
    page: "tifffile.TiffPage",
) -> Iterator[tuple[tuple[slice, slice], np.ndarray]]:
    """Some rows at a time of a page that lies in its file as it is."""
    height, width, planes = page.imagelength, page.imagewidth, _planes(page)
    assert page.dtype is not None  # of a plain page
    stored = np.dtype(page.parent.byteorder + page.dtype.char)
    samples = page.samplesperpixel // planes
    row = width * samples
    rows = max(1, PART_BYTES // (row * planes * stored.itemsize))
    file = page.parent.filehandle
    for start in range(0, height, rows):
        stop = min(start + rows, height)
        parts = []
        for plane in range(planes):
            file.seek(page.dataoffsets[0] + (plane * height + start) * row * stored.itemsize)
            found = file.read_array(stored, count=(stop - start) * row)
            parts.append(found.reshape(stop - start, width, samples))
        yield (slice(start, stop), slice(0, width)), _together(parts)


def _segments(page: "tifffile.TiffPage") -> Iterator[tuple[tuple[slice, slice], np.ndarray]]:
    """Strips or tiles, with all samples of their pixels."""
    planes = _planes(page)
    count = len(page.dataoffsets) // planes
    file = page.parent.filehandle
    for number in range(count):
        parts = []
        for index in range(number, number + planes * count, count):
            file.seek(page.dataoffsets[index])
            size = page.databytecounts[index]
            decoded = page.decode(file.read(size) if size else None, index, _fullsize=False)
            segment, (_, _, top, left, _), shape = decoded
            rows = slice(top, min(top + shape[1], page.imagelength))
            columns = slice(left, min(left + shape[2], page.imagewidth))
            cut = (rows.stop - rows.start, columns.stop - columns.start)
            if segment is None:  # a hole in the file
                part = np.full((*cut, shape[-1]), page.nodata, page.dtype)
            else:
                part = segment[0, : cut[0], : cut[1]]
            parts.append(part)
        yield (rows, columns), _together(parts)


def _together(planes: list[np.ndarray]) -> np.ndarray:
    return planes[0] if len(planes) == 1 else np.concatenate(planes, axis=-1)


def _is_plain(page: "tifffile.TiffPage") -> bool:
    """Whether a page is grey or RGB, of samples that need no table of colours."""
    import tifffile

    kinds = tifffile.PHOTOMETRIC
    grey = page.photometric in (kinds.MINISBLACK, kinds.MINISWHITE)
    return (
        page.bitspersample != 1
        and (grey or page.photometric == kinds.RGB)
        and page.axes in ("YX", "YXS", "SYX")
        and page.samplesperpixel <= 8
        and page.dtype is not None
    )


def _decode_page(path: Path, page: "tifffile.TiffPage", *, frame: int) -> RawImage:
    import tifffile

    kinds, codes = tifffile.PHOTOMETRIC, tifffile.COMPRESSION
    bits = page.bitspersample
    grey = page.photometric in (kinds.MINISBLACK, kinds.MINISWHITE)
    if bits == 1 or not (grey or page.photometric == kinds.RGB):
        # palette, CMYK, YCbCr: Pillow knows their colours
        return decode_pillow(path, ("TIFF",), frame=frame)
    if page.axes not in ("YX", "YXS", "SYX") or page.samplesperpixel > 8 or page.dtype is None:
        raise InputError(
            f"{path}: found a TIFF page of shape {page.shape}, axes {page.axes}; expected one "
            "picture of 1 or 3 channels"
        )
    if page.compression not in (codes.NONE, *_DECOMPRESSORS):
        return _decode_by_pillow(path, page, frame)
    try:
        samples = page.asarray(maxworkers=1)  # in this thread, whose warnings are caught
    except (KeyError, ValueError, ImportError) as error:
        if "imagecodecs" not in str(error):  # which is not needed: Pillow can do the same
            raise
        return _decode_by_pillow(path, page, frame)
    if page.axes == "SYX":
        samples = np.moveaxis(samples, 0, -1)
    return _with_meaning(path, page, np.atleast_3d(samples))


def _with_meaning(path: Path, page: "tifffile.TiffPage", samples: np.ndarray) -> RawImage:
    """Stored samples (H, W, S) as colour and alpha, upright."""
    import tifffile

    notes: tuple[str, ...] = ()
    scale = full_scale(samples.dtype)
    if scale is not None and samples.dtype.kind == "u":
        scale = float(2**page.bitspersample - 1)  # 12-bit samples come in 16-bit words
    extras = page.extrasamples
    channels = samples.shape[2] - len(extras)
    if channels not in (1, 3):
        raise InputError(f"{path}: found {channels} channels; expected 1 or 3")
    colour, alpha = samples[..., :channels], None
    if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE and scale is not None:
        colour = np.asarray(scale, samples.dtype) - colour
    if extras and extras[0] in (1, 2) and scale is not None:
        alpha = samples[..., channels] / np.float32(scale)
        if extras[0] == 1:  # associated: the colour is stored multiplied by alpha
            opacity = np.where(alpha > 0, alpha, 1.0)[..., None]
            limit = scale if samples.dtype.kind == "u" else np.inf
            colour = np.minimum(colour / opacity, limit).astype(np.float32)
    elif extras:
        notes += (f"{len(extras)} extra channels without a meaning are ignored",)
    orientation = page.tags.valueof(EXIF_ORIENTATION)
    return RawImage(colour, scale, alpha, notes).upright(orientation)


def _decode_by_pillow(path: Path, page: "tifffile.TiffPage", frame: int) -> RawImage:
    """Compressions that tifffile leaves to the imagecodecs package (LZW, PackBits, JPEG, ...)."""
    import tifffile

    raw = decode_pillow(path, ("TIFF",), frame=frame)
    bits = page.bitspersample
    if bits <= 8:
        return raw
    if 8 < bits < 16:
        raw = dataclasses.replace(raw, full_scale=2.0**bits - 1)
    white_is_zero = page.photometric == tifffile.PHOTOMETRIC.MINISWHITE
    if white_is_zero and raw.full_scale is not None:  # Pillow inverts up to 8 bits only
        inverted = np.asarray(raw.full_scale, raw.samples.dtype) - raw.samples
        raw = dataclasses.replace(raw, samples=inverted)
    return raw


def _check_size(path: Path, page: "tifffile.TiffPage") -> None:
    """Refuses a page that would decode to much more than a picture, before that is done."""
    height, width = page.imagelength, page.imagewidth
    check_pixel_count(path, height, width)
    if not isinstance(page.bitspersample, int):
        raise InputError(f"{path}: found samples of different sizes; expected one size for all")
    sample = max(page.bitspersample, 8) // 8
    check_byte_count(path, height * width * page.samplesperpixel * max(page.imagedepth, 1) * sample)
    segment = math.prod(page.chunks) * sample
    check_byte_count(path, segment)
    check_byte_count(path, segment * math.prod(page.chunked))
    places = list(zip(page.dataoffsets, page.databytecounts, strict=False))
    needed = math.prod(page.chunked)
    # Decoders leave zeros where one is missing; an offset of 0 would be the file's header. Old
    # files do not say how long their only strip is.
    is_plain = page.compression == 1 and needed == 1
    if (stored := sum(start > 0 and (count > 0 or is_plain) for start, count in places)) < needed:
        raise InputError(
            f"{path}: found {stored} strips or tiles with pixels; expected {needed}, as many as an "
            f"image of {height} x {width} has"
        )
    decompress = _DECOMPRESSORS.get(page.compression)
    file = page.parent.filehandle
    claimed = sum(page.databytecounts)
    if claimed > _READ_AGAIN * file.size:
        raise InputError(
            f"{path}: its strips or tiles claim {claimed} bytes; expected at most the file's "
            f"{file.size}"
        )
    if decompress is None:
        return
    for start, count in places:
        file.seek(start)
        found = decompress(file.read(min(count, file.size)), segment)
        if found > segment:
            raise InputError(
                f"{path}: a strip or tile decompresses to more than its {segment} bytes; expected "
                f"what the file declares"
            )


def _inflated_bytes(data: bytes, most: int) -> int:
    """How many bytes a ZIP stream decompresses to, counted until there are more than `most`."""
    stream, found = zlib.decompressobj(), 0
    while data and not stream.eof and found <= most:
        piece = stream.decompress(data, _PIECE)
        data = stream.unconsumed_tail
        found += len(piece)
        if not piece and not data:
            break
    return found


def _unpacked_lzma_bytes(data: bytes, most: int) -> int:
    """How many bytes LZMA data decompress to, likewise; it may be several streams in a row."""
    found = 0
    while data and found <= most:
        stream = lzma.LZMADecompressor(memlimit=_LZMA_MEMORY)
        while not stream.eof and found <= most:
            piece = stream.decompress(data, _PIECE)
            data = b""
            found += len(piece)
            if stream.needs_input and not piece:
                return found
        data = stream.unused_data if stream.eof else b""
    return found


_DECOMPRESSORS: dict[int, Callable[[bytes, int], int]] = {
    8: _inflated_bytes,
    32946: _inflated_bytes,
    34925: _unpacked_lzma_bytes,
}
