"""File formats: from a file to its stored samples, upright, before any scaling or checking."""

import dataclasses
import re
import threading
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from ssdnet_jax.errors import InputError

if TYPE_CHECKING:
    import tifffile

# Pillow's own default limit. Fixed here, so that it also holds for TIFF and .npy, and where
# another library has lifted Image.MAX_IMAGE_PIXELS.
MAX_PIXELS = 89_478_485

PILLOW_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP", "PPM")
_EXPECTED = "PNG, JPEG, TIFF, BMP, GIF, WebP, PGM/PPM or .npy"
_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_EXIF_ORIENTATION = 0x0112

# 16-bit colour PNG: Pillow keeps one byte of each sample. Its big-endian raw mode keeps the upper
# byte, the little-endian one the lower byte; grey + alpha is four bytes a pixel, as RGBA is.
_PNG_16_BIT = {"RGB;16B": "RGB;16L", "RGBA;16B": "RGBA;16L", "LA;16B": "RGBA"}

# catch_warnings changes a process-wide list: one thread at a time.
_open_lock = threading.Lock()


@dataclasses.dataclass(frozen=True)
class RawImage:
    """An image as its file stores it."""

    samples: np.ndarray  # (H, W, C) of any real dtype, C in {1, 3}
    full_scale: float | None  # the sample that means 1.0; None for signed integers, ...
    alpha: np.ndarray | None = None  # (H, W) opacity in [0, 1]; None: no transparency
    notes: tuple[str, ...] = ()  # what was dropped or converted on the way, one line each

    def upright(self, orientation: int | None) -> "RawImage":
        """Turned as an EXIF/TIFF orientation (1 to 8) says."""
        alpha = None if self.alpha is None else _upright(self.alpha, orientation)
        return dataclasses.replace(self, samples=_upright(self.samples, orientation), alpha=alpha)


def decode(path: Path) -> RawImage:
    """Reads one image file of any supported format, EXIF orientation applied."""
    try:
        if not path.exists():
            what = "a link that leads nowhere" if path.is_symlink() else "no such file"
            raise InputError(f"{path}: {what}; expected an image file")
        if path.is_dir():
            raise InputError(f"{path}: found a folder; expected an image file")
        with path.open("rb") as file:
            head = file.read(8)
        if not head:
            raise InputError(f"{path}: the file is empty (0 bytes); expected {_EXPECTED}")
        if head.startswith(_TIFF_MAGIC):
            return _decode_tiff(path)
        if head.startswith(b"\x93NUMPY"):
            return _decode_npy(path)
        return _decode_pillow(path)
    except (InputError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise InputError(f"{path}: not an image in a known format; expected {_EXPECTED}") from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        numbers = re.findall(r"\d+", str(error))  # Pillow says what it found in words only
        pixels = numbers[0] if numbers else f"more than {MAX_PIXELS}"
        raise InputError(
            f"{path}: found {pixels} pixels; expected at most {MAX_PIXELS} in all"
        ) from error
    except PermissionError as error:
        raise InputError(f"{path}: no permission to read; expected a readable file") from error
    except Exception as error:  # decoders fail on damaged files in too many ways to list
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"{path}: cannot be decoded ({reason}); expected a complete image file"
        ) from error


def _check_pixel_count(path: Path, height: int, width: int) -> None:
    if height * width > MAX_PIXELS:
        raise InputError(
            f"{path}: found {height} x {width} pixels (height x width); expected at most "
            f"{MAX_PIXELS} in all"
        )


def _upright(array: np.ndarray, orientation: int | None) -> np.ndarray:
    """Applies an EXIF/TIFF orientation (1 to 8) to (H, W, ...)."""
    if orientation in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    return array[:, ::-1] if orientation in (2, 3, 6, 7) else array


def _first_frame_note(frames: int) -> tuple[str, ...]:
    return (f"only the first of {frames} frames is used",) if frames > 1 else ()


def _decode_npy(path: Path) -> RawImage:
    stored = np.load(path, mmap_mode="r", allow_pickle=False)
    if stored.ndim not in (2, 3) or (stored.ndim == 3 and stored.shape[2] not in (1, 3)):
        raise InputError(
            f"{path}: found an array of shape {stored.shape}; expected (H, W), (H, W, 1) or "
            "(H, W, 3)"
        )
    if stored.size == 0:
        raise InputError(f"{path}: found an array of shape {stored.shape}; expected some pixels")
    _check_pixel_count(path, *stored.shape[:2])
    samples = np.array(stored).reshape(*stored.shape[:2], -1)
    return RawImage(samples, _full_scale(samples.dtype))


def _full_scale(dtype: np.dtype) -> float | None:
    scales = {"b": 1.0, "f": 1.0, "u": {1: 255.0, 2: 65535.0}.get(dtype.itemsize)}
    return scales.get(dtype.kind)


def _decode_pillow(path: Path) -> RawImage:
    with _open_lock, warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        image = Image.open(path, formats=PILLOW_FORMATS)
    with image:
        _check_pixel_count(path, image.height, image.width)
        notes = _first_frame_note(getattr(image, "n_frames", 1))
        raw_mode = image.tile[0].args if image.format == "PNG" and image.tile else None
        if raw_mode in _PNG_16_BIT:
            samples = _load_16_bit_png(path, image, raw_mode)
        else:
            image.load()
            samples = None
        # After load(): Pillow turns some TIFFs upright itself, and then drops the tag.
        orientation = image.getexif().get(_EXIF_ORIENTATION)
        raw = _from_pillow_image(image) if samples is None else _split_alpha(samples, 65535.0)
        key = image.info.get("transparency")
        if raw.full_scale == 65535.0 and raw.alpha is None and key is not None:
            transparent = (raw.samples == np.asarray(key)).all(axis=-1)
            raw = dataclasses.replace(raw, alpha=1.0 - transparent)
    return dataclasses.replace(raw, notes=notes + raw.notes).upright(orientation)


def _load_16_bit_png(path: Path, image: ImageFile.ImageFile, raw_mode: str) -> np.ndarray:
    """Both bytes of a 16-bit colour or grey + alpha PNG, uint16 (H, W, C)."""
    if raw_mode == "LA;16B":
        image.tile = [image.tile[0]._replace(args=_PNG_16_BIT[raw_mode])]
        both = np.asarray(image).astype(np.uint16)
        return both[..., 0::2] * 256 + both[..., 1::2]
    upper = np.asarray(image).astype(np.uint16)
    with Image.open(path, formats=("PNG",)) as again:
        again.tile = [again.tile[0]._replace(args=_PNG_16_BIT[raw_mode])]
        return upper * 256 + np.asarray(again)


def _from_pillow_image(image: Image.Image) -> RawImage:
    """Samples of a loaded Pillow image, whatever its mode."""
    notes: tuple[str, ...] = ()
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
        return RawImage(np.asarray(image).astype(np.uint16)[..., None], 65535.0)
    if image.mode in ("I", "F"):
        samples = np.asarray(image)[..., None]
        return RawImage(samples, _full_scale(samples.dtype))
    if image.mode == "1" and not image.has_transparency_data:
        return RawImage(np.asarray(image)[..., None], 1.0)
    if image.has_transparency_data:
        image = image.convert("LA" if image.mode in ("LA", "La", "L") else "RGBA")
    elif image.mode not in ("L", "RGB"):
        if image.mode == "CMYK":
            notes = ("converted from CMYK to RGB without its colour profile",)
        image = image.convert("RGB")
    raw = _split_alpha(np.atleast_3d(np.asarray(image)), 255.0)
    return dataclasses.replace(raw, notes=notes)


def _split_alpha(samples: np.ndarray, full_scale: float) -> RawImage:
    """Separates a trailing alpha channel of (H, W, 1 to 4)."""
    if samples.shape[2] in (1, 3):
        return RawImage(samples, full_scale)
    return RawImage(samples[..., :-1], full_scale, samples[..., -1] / np.float32(full_scale))


def _decode_tiff(path: Path) -> RawImage:
    import tifffile

    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages.first
        _check_pixel_count(path, page.imagelength, page.imagewidth)
        notes = _first_frame_note(len(tiff.pages))
        kinds = tifffile.PHOTOMETRIC
        bits = page.bitspersample
        grey = page.photometric in (kinds.MINISBLACK, kinds.MINISWHITE)
        if bits == 1 or not (grey or page.photometric == kinds.RGB):
            return _decode_pillow(path)  # palette, CMYK, YCbCr: Pillow knows their colours
        if page.axes not in ("YX", "YXS", "SYX") or page.samplesperpixel > 8 or page.dtype is None:
            raise InputError(
                f"{path}: found a TIFF page of shape {page.shape}, axes {page.axes}; expected one "
                "picture of 1 or 3 channels"
            )
        try:
            samples = page.asarray()
        except (KeyError, ValueError, ImportError) as error:
            if "imagecodecs" not in str(error):
                raise
            return _decode_tiff_by_pillow(path, page)
        if page.axes == "SYX":
            samples = np.moveaxis(samples, 0, -1)
        samples = np.atleast_3d(samples)
        extras = page.extrasamples
        orientation = page.tags.valueof(_EXIF_ORIENTATION)

    scale = _full_scale(samples.dtype)
    if scale is not None and samples.dtype.kind == "u":
        scale = float(2**bits - 1)  # 12-bit samples come in 16-bit words
    channels = samples.shape[2] - len(extras)
    if channels not in (1, 3):
        raise InputError(f"{path}: found {channels} channels; expected 1 or 3")
    colour, alpha = samples[..., :channels], None
    if page.photometric == kinds.MINISWHITE and scale is not None:
        colour = np.asarray(scale, samples.dtype) - colour
    if extras and extras[0] in (1, 2) and scale is not None:
        alpha = samples[..., channels] / np.float32(scale)
        if extras[0] == 1:  # associated: the colour is stored multiplied by alpha
            opacity = np.where(alpha > 0, alpha, 1.0)[..., None]
            limit = scale if samples.dtype.kind == "u" else np.inf
            colour = np.minimum(colour / opacity, limit).astype(np.float32)
    elif extras:
        notes += (f"{len(extras)} extra channels without a meaning are ignored",)
    return RawImage(colour, scale, alpha, notes).upright(orientation)


def _decode_tiff_by_pillow(path: Path, page: "tifffile.TiffPage") -> RawImage:
    """TIFF compressions that tifffile leaves to the imagecodecs package (LZW, PackBits, JPEG)."""
    import tifffile

    bits = page.bitspersample
    if bits > 8 and page.samplesperpixel > 1:
        compression = tifffile.COMPRESSION(page.compression).name
        raise InputError(
            f"{path}: found {bits}-bit colour with {compression} compression; expected "
            "no or ZIP compression, or the imagecodecs package installed"
        )
    raw = _decode_pillow(path)
    return dataclasses.replace(raw, full_scale=2.0**bits - 1) if 8 < bits < 16 else raw
