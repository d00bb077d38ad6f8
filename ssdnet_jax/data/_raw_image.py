"""An image as its file stores it, and how large one may be."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ssdnet_jax.errors import InputError

# Below twice Pillow's own limit, where it refuses. Fixed here, so that it also holds for TIFF and
# .npy, and where another library has lifted Image.MAX_IMAGE_PIXELS.
MAX_PIXELS = 150_000_000
BYTES_A_PIXEL = 12
"""Bytes of samples that a pixel may have in its file: three channels of float32."""
PART_BYTES = 2**24
"""Bytes of samples that are read at once where a file can be read in parts of any length."""


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


Put = Callable[[RawImage, tuple[slice, slice], tuple[int, int]], None]
"""Takes a part of an image, its rows and columns, and the image's height and width."""


def whole(raw: RawImage, put: Put) -> tuple[str, ...]:
    """Gives an image as one part; returns its notes."""
    height, width = raw.samples.shape[:2]
    put(raw, (slice(0, height), slice(0, width)), (height, width))
    return raw.notes


def _upright(array: np.ndarray, orientation: int | None) -> np.ndarray:
    """Applies an EXIF/TIFF orientation (1 to 8) to (H, W, ...)."""
    if orientation in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    return array[:, ::-1] if orientation in (2, 3, 6, 7) else array


def full_scale(dtype: np.dtype) -> float | None:
    """The sample of a type that means 1.0; None where nothing says so."""
    scales = {"b": 1.0, "f": 1.0, "u": {1: 255.0, 2: 65535.0}.get(dtype.itemsize)}
    return scales.get(dtype.kind)


def check_pixel_count(path: Path, height: int, width: int) -> None:
    """Raises InputError for a picture that is too large, or that has no pixels."""
    if height * width > MAX_PIXELS:
        raise InputError(
            f"{path}: found {height} x {width} pixels (height x width); expected at most "
            f"{MAX_PIXELS} in all"
        )
    if min(height, width) < 1:
        raise InputError(f"{path}: found {height} x {width} pixels; expected some")


def check_byte_count(path: Path, count: int) -> None:
    """Raises InputError for samples that would take too much memory once decoded."""
    if count > BYTES_A_PIXEL * MAX_PIXELS:
        raise InputError(
            f"{path}: found {count} bytes of samples once decoded; expected at most "
            f"{BYTES_A_PIXEL * MAX_PIXELS}"
        )
