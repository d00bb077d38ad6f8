"""An image as a user gives it, checked and brought to the size at which it is analysed."""

from typing import Any, NamedTuple

import numpy as np

from ssdnet_jax.config import Config
from ssdnet_jax.data.images import resize_image, resize_missing
from ssdnet_jax.errors import InputError

_ROUNDING = 1e-6  # how far values may leave [0, 1], as those of resampled images do
SMALLEST_SIDE = 8  # pixels: in less there is no texture that an image could be unlike


class ResizedImage(NamedTuple):
    """An image as it came and at the size at which it is analysed; see `Prepared`."""

    pixels: np.ndarray
    missing: np.ndarray
    fitted: np.ndarray
    fitted_missing: np.ndarray


def resized_image(image: Any, config: Config, *, missing: np.ndarray | None = None) -> ResizedImage:
    """Checks an image and resizes it to `config.image_size`.

    Args:
      image: (H, W) or (H, W, C) with C in {1, 3}; float in [0, 1], or uint8 or uint16. NaN means
        that a pixel is missing. Three equal channels are taken for one.
      config: of it `image_size`.
      missing: bool (H, W), True where a pixel is not known.

    Raises:
      InputError: the image has a wrong shape, type or range, or is constant.
    """
    pixels, unknown = _as_image(image, missing)
    size = pixels.shape[:2] if config.image_size == 0 else (config.image_size, config.image_size)
    return ResizedImage(pixels, unknown, *_resize_known(pixels, unknown, size))


def _as_image(image: Any, missing: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Checks an image and brings it to float32 (H, W, C) with a mask of missing pixels."""
    pixels = np.asarray(image)
    shape = pixels.shape
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3):
        raise InputError(f"image has shape {shape}; expected (H, W), (H, W, 1) or (H, W, 3)")
    if min(shape[:2]) < SMALLEST_SIDE:
        raise InputError(
            f"image is {shape[0]} x {shape[1]} pixels; expected at least {SMALLEST_SIDE} a side"
        )
    if pixels.dtype in (np.uint8, np.uint16):
        pixels = pixels.astype(np.float32) / np.iinfo(pixels.dtype).max
    elif not np.issubdtype(pixels.dtype, np.floating):
        raise InputError(f"image is {pixels.dtype}; expected float in [0, 1], uint8 or uint16")
    unknown = np.isnan(pixels).any(axis=-1)
    if missing is not None:
        if np.shape(missing) != unknown.shape:
            raise InputError(
                f"mask of missing pixels has shape {np.shape(missing)}; expected {unknown.shape}"
            )
        unknown |= np.asarray(missing, bool)
    if unknown.all():
        raise InputError("every pixel is missing; expected an image")
    known = pixels[~unknown]
    low, high = known.min(), known.max()
    if not (low >= -_ROUNDING and high <= 1 + _ROUNDING):
        raise InputError(f"image has values from {low:.6g} to {high:.6g}; expected [0, 1]")
    if (known == known[0]).all():
        color = ", ".join(f"{value:.3g}" for value in known[0])
        raise InputError(f"image is constant ({color} everywhere); expected a picture of something")
    pixels = np.where(unknown[..., None], 0, np.clip(pixels, 0, 1))
    if (pixels == pixels[..., :1]).all():  # grey, whether it was read from a file or not
        pixels = pixels[..., :1]
    return pixels.astype(np.float32), unknown


def _resize_known(
    pixels: np.ndarray, missing: np.ndarray, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Resizes an image so that missing pixels, which hold 0, do not darken their neighbours."""
    if not missing.any():
        return resize_image(pixels, size), np.zeros(size, bool)
    share = resize_image((~missing).astype(np.float32)[..., None], size)
    known = resize_image(pixels, size) / np.maximum(share, 1e-6)
    fitted_missing = resize_missing(missing, size)
    return np.where(fitted_missing[..., None], 0, np.clip(known, 0, 1)), fitted_missing
