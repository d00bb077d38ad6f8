"""An image as a user gives it, checked and brought to the size and range at which it is analysed.

Not every pixel of an image takes part. Scattered pixels without a value are inpainted and judged
(paper section 5.2). What is ignored, ground (`methods.ground`), and what has no value over a whole
tile, is not: the image is cropped to the rest, and what is left of it inside is filled by mirroring
the rest and has no weight.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import numpy as np

from ssdnet_jax.config import Config, fits
from ssdnet_jax.data.images import resize_image, resize_map, resize_missing
from ssdnet_jax.errors import InputError
from ssdnet_jax.methods.ground import find_ground

Size = tuple[int, int]  # height and width, pixels

_ROUNDING = 1e-6  # how far values may leave [0, 1], as those of resampled images do
_TILE = 9  # pixels of what is analysed: a square that has no value is inpainted up to this side
_DETAILED = 1.2  # pixels of the image a pixel of what is analysed: from there it has detail
SMALLEST_SIDE = 8  # pixels: in less there is no texture that an image could be unlike
_SMALL_RANGE = 0.2  # of full scale: images that use less are stretched
_PERCENTILES = (0.1, 99.9)  # of the values, between which an image uses its range
_OUTLIERS = 0.5  # of the range between them: how far beyond it values are kept apart


@dataclasses.dataclass(frozen=True)
class Layout:
    """Which part of an image takes part, and where what is analysed lies in it."""

    ignored: np.ndarray  # bool (H, W), pixels that are not judged
    window: tuple[slice, slice]  # rows and columns of the image that are analysed
    valid: np.ndarray  # bool (h, w), of what is analysed: False where pixels take no part

    @property
    def masked(self) -> bool:
        """Whether pixels of what is analysed take no part."""
        return not self.valid.all()

    @property
    def window_shape(self) -> tuple[int, int]:
        """Height and width of the window, in pixels of the image."""
        rows, columns = self.window
        return rows.stop - rows.start, columns.stop - columns.start

    def place(self, found: np.ndarray) -> np.ndarray:
        """A map (h, w) of what was analysed as one (H, W) of the image; NaN where not judged."""
        placed = np.full(self.ignored.shape, np.nan, np.float32)
        placed[self.window] = resize_map(fill_nearest(found, ~self.valid), self.window_shape)
        placed[self.ignored] = np.nan
        return placed

    def place_picture(self, found: np.ndarray, image: np.ndarray) -> np.ndarray:
        """A picture (hh, ww, C) of what was analysed within an image (H, W, C)."""
        placed = image.copy()
        placed[self.window] = resize_image(found, self.window_shape)
        return np.where(self.ignored[..., None], image, placed)


class ResizedImage(NamedTuple):
    """An image as it came and at the size at which it is analysed; see `Prepared`."""

    pixels: np.ndarray
    missing: np.ndarray
    fitted: np.ndarray
    fitted_missing: np.ndarray
    layout: Layout | None
    used_range: tuple[float, float] | None
    ground: float | None
    detail: np.ndarray | None
    lacks_detail: bool = False


def resized_image(
    image: Any,
    config: Config,
    *,
    missing: np.ndarray | None = None,
    ignored: np.ndarray | None = None,
    detailed: bool = False,
) -> ResizedImage:
    """Checks an image and brings it to the size and range at which it is analysed.

    Args:
      image: (H, W) or (H, W, C) with C in {1, 3}; float in [0, 1], or uint8 or uint16. NaN means
        that a pixel is missing. Three equal channels are taken for one.
      config: of it `image_size`, `ground` and `range`.
      missing: bool (H, W), True where a pixel is not known.
      ignored: bool (H, W), True where a pixel is not to be judged.
      detailed: whether `detail` is wanted: the image at twice the size at which it is analysed. It
        is made of images that have more pixels than are analysed, and none to be inpainted.

    Raises:
      InputError: the image has a wrong shape, type or range, or is constant, or too little of it is
        left to be judged.
    """
    pixels, unknown = _as_image(image, missing, ignored)
    ignored = _as_mask(ignored, unknown.shape, "ignored")
    _check_values(pixels, ~(unknown | ignored))
    pixels = _in_range(pixels, unknown)
    if all((pixels[..., 0] == pixels[..., c]).all() for c in range(1, pixels.shape[2])):
        pixels = pixels[..., :1]  # grey, whether it was read from a file or not
    ground = None
    if config.ground == "auto":
        found = find_ground(pixels, ~(unknown | ignored))
        if found is not None:
            ground, ignored = float(found.mean()), ignored | found
    layout, inside, unknown = _layout(unknown, ignored, config)
    if layout is None:
        size = analysed_size(unknown.shape, config)
        every = pixels.reshape(-1, pixels.shape[2])
        used = _used_range(pixels[~unknown] if unknown.any() else every, config)
        in_range = stretched(pixels, used)
        fitted = resize_known(in_range, unknown, size)
        detail = _detail(in_range, unknown, size, config) if detailed else None
        lacking = detailed and _lacks_detail(unknown.shape, size, config)
        return ResizedImage(pixels, unknown, *fitted, None, used, ground, detail, lacking)
    window = layout.window
    cut, cut_unknown = pixels[window], unknown[window]
    used = _used_range(cut[~(inside | cut_unknown)], config)
    filled = fill_mirrored(stretched(cut, used), inside, avoid=cut_unknown)
    fitted = resize_known(filled, cut_unknown, layout.valid.shape)
    detail = _detail(filled, cut_unknown, layout.valid.shape, config) if detailed else None
    lacking = detailed and _lacks_detail(cut_unknown.shape, layout.valid.shape, config)
    return ResizedImage(pixels, unknown, *fitted, layout, used, ground, detail, lacking)


def _detail(
    pixels: np.ndarray, missing: np.ndarray, size: tuple[int, ...], config: Config
) -> np.ndarray | None:
    """An image at twice the size at which it is analysed, as 16-bit floats have it; or None."""
    has_detail = _has_detail(pixels.shape[:2], size)
    if not has_detail or _too_large_for_detail(size, config) or missing.any():
        return None
    height, width = (2 * side for side in size)
    return resize_image(pixels, (height, width)).astype(np.float16).astype(np.float32)


def _has_detail(shape: tuple[int, ...], size: tuple[int, ...]) -> bool:
    """Whether an image of `shape` shows more than when it is analysed at `size`."""
    return min(side / fitted for side, fitted in zip(shape, size, strict=True)) >= _DETAILED


def _too_large_for_detail(size: tuple[int, ...], config: Config) -> bool:
    """Whether twice this size, at which an image is analysed, is more than is analysed at once."""
    return bool(config.tiling.above) and 4 * size[0] * size[1] > config.tiling.above


def _lacks_detail(shape: tuple[int, ...], size: tuple[int, ...], config: Config) -> bool:
    return _has_detail(shape, size) and _too_large_for_detail(size, config)


def analysed_size(shape: tuple[int, int], config: Config) -> tuple[int, int]:
    """Height and width, in pixels, at which an image of `shape` is analysed.

    `config.image_size` is the shorter side. The longer one keeps the aspect up to a sixteenth: it
    is a whole number of eighths of the shorter, so that images of nearly the same shape share
    compiled programs.
    """
    short = config.image_size
    if short == 0:
        return shape
    eighth = max(1, short // 8)
    height, width = (
        max(short, round(short * side / min(shape) / eighth) * eighth) for side in shape
    )
    return height, width


def stretched(pixels: np.ndarray, used: tuple[float, float] | None) -> np.ndarray:
    """Pixels with the range that they use brought to [0, 1], cut off there; None: as they are."""
    if used is None:
        return pixels
    low, high = used
    # In place: a large image is held often enough.
    found = np.subtract(pixels, low, dtype=np.float32)
    found /= np.float32(high - low)
    return np.clip(found, 0, 1, out=found)


def unstretched(pixels: np.ndarray, used: tuple[float, float] | None) -> np.ndarray:
    """The inverse of `stretched` where nothing was cut off."""
    if used is None:
        return pixels
    low, high = used
    return (low + pixels * (high - low)).astype(np.float32)


def fill_nearest(image: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """An image (h, w, c) or (h, w) whose missing pixels have the value of the nearest known one."""
    if not missing.any():
        return image
    from scipy.ndimage import distance_transform_edt

    nearest = distance_transform_edt(missing, return_distances=False, return_indices=True)
    filled = image.copy()
    filled[missing] = image[tuple(nearest[:, missing])]
    return filled


def fill_mirrored(
    image: np.ndarray, unknown: np.ndarray, *, avoid: np.ndarray | None = None
) -> np.ndarray:
    """An image (h, w, c) whose unknown pixels continue the rest, mirrored where the rest ends.

    What is mirrored to outside of the rest, because the rest is narrow there, takes the value of
    the nearest pixel of the rest. Pixels to `avoid` keep their values and are not copied.
    """
    if not unknown.any():
        return image
    from scipy.ndimage import distance_transform_edt

    not_to_copy = unknown if avoid is None else unknown | avoid
    nearest = distance_transform_edt(not_to_copy, return_distances=False, return_indices=True)
    shape = np.array(unknown.shape)[:, None, None]
    # The mirror is the edge of the nearest pixel that is known, which is not repeated.
    opposite = np.clip(2 * nearest - np.indices(unknown.shape), 0, shape - 1)
    source = nearest[:, *opposite]
    return np.where(unknown[..., None], image[tuple(source)], image)


def _as_image(
    image: Any, missing: np.ndarray | None, ignored: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Checks an image's shape and type: as float (H, W, C), and a mask of missing pixels."""
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
    # Channel by channel: numpy takes ten times as long over an axis of three.
    channels = (np.isnan(pixels[..., channel]) for channel in range(pixels.shape[2]))
    unknown = functools.reduce(np.logical_or, channels)
    return pixels, unknown | _as_mask(missing, unknown.shape, "missing")


def _in_range(pixels: np.ndarray, unknown: np.ndarray) -> np.ndarray:
    """Pixels as float32 in [0, 1], 0 where not known; the array itself if it is that already.

    A large image is held often enough.
    """
    found = np.asarray(pixels, np.float32)
    if unknown.any():
        return np.where(unknown[..., None], np.float32(0), np.clip(found, 0, 1))
    return np.clip(found, 0, 1) if found.min() < 0 or found.max() > 1 else found


def _as_mask(mask: np.ndarray | None, shape: tuple[int, int], what: str) -> np.ndarray:
    if mask is None:
        return np.zeros(shape, bool)
    if np.shape(mask) != shape:
        raise InputError(f"mask of {what} pixels has shape {np.shape(mask)}; expected {shape}")
    return np.asarray(mask, bool)


def _check_values(pixels: np.ndarray, counted: np.ndarray) -> None:
    if not counted.any():
        raise InputError("every pixel is missing or ignored; expected an image")
    known = pixels.reshape(-1, pixels.shape[2]) if counted.all() else pixels[counted]
    low, high = known.min(), known.max()
    if not (low >= -_ROUNDING and high <= 1 + _ROUNDING):
        raise InputError(f"image has values from {low:.6g} to {high:.6g}; expected [0, 1]")
    if (known[:999] == known[0]).all() and (known == known[0]).all():
        color = ", ".join(f"{value:.3g}" for value in known[0])
        raise InputError(f"image is constant ({color} everywhere); expected a picture of something")


def _layout(
    unknown: np.ndarray, ignored: np.ndarray, config: Config
) -> tuple[Layout | None, np.ndarray, np.ndarray]:
    """The layout of an image (None: all of it is judged), and two masks.

    The first says what takes no part within the layout's window; the second, which pixels of the
    image are to be inpainted: those not known, and ignored parts so thin that a tile sees beyond.
    """
    from scipy.ndimage import binary_propagation

    without = unknown | ignored
    size = analysed_size(unknown.shape, config)
    tile = [
        max(1, round(_TILE * side / fitted))
        for side, fitted in zip(unknown.shape, size, strict=True)
    ]
    wide = _wide_parts(without, tile)
    # The thin ends of what is ignored go with the rest of it, wherever they lead.
    wide |= binary_propagation(wide & ignored, mask=ignored)
    not_judged = ignored | wide
    if not not_judged.any():
        return None, not_judged, unknown
    window = bounding_box(~not_judged)
    if window is None or min(s.stop - s.start for s in window) < SMALLEST_SIDE:
        raise InputError(
            f"{np.count_nonzero(~not_judged)} pixels are left beside those that are missing, "
            f"ignored or ground; expected at least {SMALLEST_SIDE} x {SMALLEST_SIDE}"
        )
    inside = wide[window]
    valid = ~resize_missing(inside, _window_size(inside.shape, unknown.shape, config))
    if not valid.any():
        raise InputError(
            "nothing is left beside pixels that are missing, ignored or ground; expected an image"
        )
    return Layout(not_judged, window, valid), inside, without & ~wide


def _window_size(window: Size, whole: Size, config: Config) -> Size:
    """Height and width at which a window of an image is analysed: about at the whole image's scale.

    Its texture then is as large as it would be without what was cropped away. A small window is
    enlarged: its shorter side is half of `config.image_size` or more, in whole eighths of it, so
    that windows of nearly the same shape share compiled programs.
    """
    full = config.image_size
    eighths = round(8 * min(window) / min(whole))
    short = full * min(max(eighths, 4), 8) // 8
    if full == 0 or not fits(config, (short, short)):
        short = full
    return analysed_size(window, dataclasses.replace(config, image_size=short))


def _wide_parts(mask: np.ndarray, tile: list[int]) -> np.ndarray:
    """Parts of a mask that hold a whole tile, up to a tile beyond each: the rest is scattered."""
    from scipy.ndimage import binary_propagation, maximum_filter, minimum_filter

    if not mask.any():
        return mask
    # Beyond the border there is nothing to inpaint from either.
    inner = minimum_filter(mask, tile, mode="nearest")
    if not inner.any():
        return np.zeros_like(mask)
    # A tile's centre is its middle pixel in one direction, and in the other for an even side.
    origin = [-(1 - side % 2) for side in tile]
    opened = maximum_filter(inner, tile, mode="constant", origin=origin) & mask
    near = maximum_filter(opened, [2 * side + 1 for side in tile], mode="constant")
    return binary_propagation(opened, mask=mask & near)


def bounding_box(mask: np.ndarray) -> tuple[slice, slice] | None:
    """Rows and columns of the smallest rectangle around what is marked; None if nothing is."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if not rows.size:
        return None
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def _used_range(values: np.ndarray, config: Config) -> tuple[float, float] | None:
    """The range that values (n, c) are stretched from for the fit; None: they stay as they are."""
    if config.range == "full":
        return None
    if config.range != "auto":
        low, high = map(float, config.range.split(","))
        return low, high
    if _uses_much(values):
        return None
    low, high = (float(v) for v in np.percentile(values, _PERCENTILES))
    if high - low >= _SMALL_RANGE:
        return None
    # A few values beyond are kept apart, hot pixels are cut off.
    beyond = _OUTLIERS * (high - low)
    low, high = max(float(values.min()), low - beyond), min(float(values.max()), high + beyond)
    return (low, high) if high > low else None


def _uses_much(values: np.ndarray) -> bool:
    """Whether the values certainly use more than a small range, without sorting all of them.

    Percentiles of a few of the values are the ends of a range; enough of all values must lie beyond
    each end.
    """
    few = values[:: max(1, len(values) // 4096)]
    low, high = np.percentile(few, [1, 99])
    least = values.size * _PERCENTILES[0] / 100 + 2
    beyond = min(np.count_nonzero(values <= low), np.count_nonzero(values >= high))
    return bool(high - low >= _SMALL_RANGE and beyond >= least)


def resize_known(
    pixels: np.ndarray, missing: np.ndarray, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Resizes an image so that missing pixels, which hold 0, do not darken their neighbours.

    Args:
      pixels: float32 (H, W, C), 0 where missing.
      missing: bool (H, W).
      size: height and width, in pixels.

    Returns:
      The image at that size, and which of its pixels hold a missing one.
    """
    same = pixels.shape[:2] == tuple(size)
    if not missing.any():
        return pixels if same else resize_image(pixels, size), np.zeros(size, bool)
    if same:
        return np.where(missing[..., None], np.float32(0), pixels), missing.copy()
    share = resize_image((~missing).astype(np.float32)[..., None], size)
    known = resize_image(pixels, size) / np.maximum(share, 1e-6)
    fitted_missing = resize_missing(missing, size)
    return np.where(fitted_missing[..., None], 0, np.clip(known, 0, 1)), fitted_missing
