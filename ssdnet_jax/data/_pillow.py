"""Pictures that Pillow decodes, with all bits of their samples."""

import dataclasses
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFile

from ssdnet_jax.data._raw_image import RawImage, check_pixel_count, full_scale
from ssdnet_jax.data.formats import HEIF
from ssdnet_jax.errors import InputError

EXIF_ORIENTATION = 0x0112

# 16-bit colour: Pillow keeps one byte of each sample. For PNG its big-endian raw mode keeps the
# upper byte, the little-endian one the lower byte; grey + alpha is four bytes a pixel, as RGBA is.
_PNG_16_BIT = {"RGB;16B": "RGB;16L", "RGBA;16B": "RGBA;16L", "LA;16B": "RGBA"}
# libtiff gives samples in the byte order of the machine: native keeps the upper byte.
_OTHER_ORDER = "B" if sys.byteorder == "little" else "L"
_TIFF_16_BIT = {f"{mode};16N": f"{mode};16{_OTHER_ORDER}" for mode in ("RGB", "RGBA")}


def decode_pillow(path: Path, formats: tuple[str, ...], *, frame: int = 0) -> RawImage:
    """Reads one frame of a file in one of some formats, by Pillow's names of them."""
    if HEIF.pillow[0] in formats:
        _register_heif(path)
    with Image.open(path, formats=formats) as image:
        if frame:
            image.seek(frame)
        check_pixel_count(path, image.height, image.width)
        animated = image.format not in ("TIFF", "MPO") and getattr(image, "is_animated", False)
        notes = ("only the first of several frames is used",) if animated else ()
        raw = _load(path, image, frame)
        key = image.info.get("transparency")
        if raw.full_scale == 65535.0 and raw.alpha is None and key is not None:
            transparent = (raw.samples == np.asarray(key)).all(axis=-1)
            raw = dataclasses.replace(raw, alpha=1.0 - transparent)
        # After loading: Pillow turns some TIFFs upright itself, and then drops the tag.
        orientation, problem = _orientation(image)
    return dataclasses.replace(raw, notes=notes + raw.notes + problem).upright(orientation)


def _register_heif(path: Path) -> None:
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        raise InputError(
            f"{path}: found HEIF/HEIC, which needs the package pillow-heif; expected it installed: "
            f"pip install 'ssdnet-jax[formats]'"
        ) from None
    register_heif_opener()


def _orientation(image: Image.Image) -> tuple[int | None, tuple[str, ...]]:
    """The EXIF orientation, and what is wrong with it."""
    try:
        found = image.getexif().get(EXIF_ORIENTATION)
    except Exception:  # a damaged block fails in too many ways to list; the picture may be sound
        return None, ("its EXIF block cannot be read; taken to be upright",)
    if found is None or (isinstance(found, int) and 0 <= found <= 8):
        return found, ()
    return None, (f"EXIF orientation {found!r:.20} is none of 1 to 8; taken to be upright",)


def _load(path: Path, image: ImageFile.ImageFile, frame: int) -> RawImage:
    tile: Any = image.tile[0] if image.tile else None
    if image.format == "PNG" and tile and tile.args in _PNG_16_BIT:
        return _split_alpha(_load_16_bit_png(path, image, tile), 65535.0)
    if image.format == "TIFF" and tile and tile.codec_name == "libtiff":
        mode, *rest = tile.args
        if mode in _TIFF_16_BIT and len(image.tile) == 1:
            lower = tile._replace(args=(_TIFF_16_BIT[mode], *rest))
            return _split_alpha(_both_bytes(path, image, lower, frame), 65535.0)
        if ";16" in mode and mode.partition(";")[0] not in ("I",):
            raise InputError(
                f"{path}: found 16-bit samples of kind {mode.partition(';')[0]}, compressed; "
                f"expected no or ZIP compression"
            )
    image.load()
    return _from_pillow_image(image)


def _load_16_bit_png(path: Path, image: ImageFile.ImageFile, tile: Any) -> np.ndarray:
    """Both bytes of a 16-bit colour or grey + alpha PNG, uint16 (H, W, C)."""
    other = tile._replace(args=_PNG_16_BIT[tile.args])
    if tile.args == "LA;16B":
        image.tile = [other]
        both = np.asarray(image).astype(np.uint16)
        return both[..., 0::2] * 256 + both[..., 1::2]
    return _both_bytes(path, image, other, 0)


def _both_bytes(path: Path, image: ImageFile.ImageFile, lower: Any, frame: int) -> np.ndarray:
    """Samples of 16 bits, read twice: upper bytes as Pillow reads them, and lower ones."""
    upper = np.asarray(image).astype(np.uint16)
    with Image.open(path, formats=(str(image.format),)) as again:
        if frame:
            again.seek(frame)
        again.tile = [lower]
        samples = upper * 256 + np.asarray(again)
    return samples


def _from_pillow_image(image: Image.Image) -> RawImage:
    """Samples of a loaded Pillow image, whatever its mode."""
    notes: tuple[str, ...] = ()
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
        return RawImage(np.asarray(image).astype(np.uint16)[..., None], 65535.0)
    if image.mode in ("I", "F"):
        samples = np.asarray(image)[..., None]
        return RawImage(samples, full_scale(samples.dtype))
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


def _split_alpha(samples: np.ndarray, scale: float) -> RawImage:
    """Separates a trailing alpha channel of (H, W, 1 to 4)."""
    if samples.shape[2] in (1, 3):
        return RawImage(samples, scale)
    return RawImage(samples[..., :-1], scale, samples[..., -1] / np.float32(scale))
