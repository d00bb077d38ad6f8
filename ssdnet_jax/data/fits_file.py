"""Fits on disk, fits/PATH.npz of a work folder: what scoring again needs."""

import dataclasses
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ssdnet_jax.core.fit import StopReason
from ssdnet_jax.data.files import link_or_copy, write_atomically
from ssdnet_jax.errors import InputError
from ssdnet_jax.text import shortened

# Of each array: how many axes it has, and whether it holds floats or integers.
_ARRAYS = {
    "image": (3, np.floating),
    "reconstructions": (4, np.floating),
    "losses": (2, np.floating),
    "stop": (1, np.integer),
    "restorations": (1, np.integer),
    "size": (1, np.integer),
}
_MASKS = ("ignored", "valid")  # bits in bytes, where not all of an image is judged
_DETAIL = "detail"
_FINITE = ("image", "reconstructions")
_BY_SEED = ("reconstructions", "losses", "stop", "restorations")


@dataclasses.dataclass(frozen=True)
class StoredFits:
    """The fits of one image, one entry a seed."""

    image: np.ndarray  # float32 (h, w, C) in [0, 1], the image at the size at which it was fitted
    reconstructions: np.ndarray  # float32 (seeds, hh, ww, d), f_theta of what was fitted
    losses: np.ndarray  # float32 (seeds, steps), the loss of each step, NaN after the last
    stop: np.ndarray  # int (seeds,), why each fit ended (`core.fit.StopReason`)
    restorations: np.ndarray  # int (seeds,), how often the guard undid a blow-up
    size: np.ndarray  # int (2,), height and width of the image in its file, in pixels
    path: Path | None = None  # the file that holds them already, if there is one
    ignored: np.ndarray | None = None  # bool, pixels of the image in its file that are not judged;
    # None where all are
    valid: np.ndarray | None = None  # bool (h, w), of the fitted image: False where pixels take no
    # part; None with `ignored`
    detail: np.ndarray | None = None  # float32 (2h, 2w, C) as 16-bit floats have it, the image at
    # twice the size at which it was fitted; None where it has no such detail


def write_fits(path: Path, fits: StoredFits) -> None:
    """Writes fits, or links the file that holds them already."""
    if fits.path is not None:
        link_or_copy(fits.path, path)
        return
    arrays = {name: getattr(fits, name) for name in _ARRAYS}
    if fits.ignored is not None:
        arrays |= {name: np.packbits(getattr(fits, name)) for name in _MASKS}
    if fits.detail is not None:
        arrays[_DETAIL] = fits.detail.astype(np.float16)
    write_atomically(path, lambda file: np.savez(file, **arrays))


def write_tiled_note(path: Path, losses: np.ndarray) -> None:
    """Notes that an image was fitted in crops: what was fitted is too large to be kept."""
    write_atomically(path, lambda file: np.savez(file, losses_of_crops=losses))


def read_fits(path: Path) -> StoredFits:
    """What `write_fits` wrote; raises InputError if it is not there, or damaged, or of tiles."""
    try:
        _check_stored(path)
        with np.load(path, allow_pickle=False) as file:
            if "losses_of_crops" in file:
                raise ValueError("a large image, fitted in crops, of which no fit is kept")
            arrays = {name: file[name] for name in _ARRAYS}
            packed = {name: file[name] for name in _MASKS if name in file}
            detail = file[_DETAIL] if _DETAIL in file.files else None
        for name, (axes, kind) in _ARRAYS.items():
            array = arrays[name]
            if array.ndim != axes or not array.size or not np.issubdtype(array.dtype, kind):
                raise ValueError(f"{name} is {array.dtype} of shape {array.shape}")
            if name in _FINITE and not np.isfinite(array).all():
                raise ValueError(f"{name} is not finite")
        if len({len(arrays[name]) for name in _BY_SEED}) != 1 or len(arrays["size"]) != 2:
            raise ValueError("arrays of different lengths")
        if arrays["size"].min() < 1 or np.isnan(arrays["losses"][:, 0]).any():
            raise ValueError("an image without pixels, or a fit without steps")
        for stop in arrays["stop"].tolist():
            StopReason(stop)
        shapes = {"ignored": arrays["size"], "valid": arrays["image"].shape[:2]}
        masks = {name: _unpacked(bits, shapes[name]) for name, bits in packed.items()}
        if len(masks) == 1 or not all(mask.any() for mask in masks.values()):
            raise ValueError("masks of what is judged that do not fit together")
        if detail is not None:
            detail = _checked_detail(detail, arrays["image"].shape)
    except Exception as error:  # damaged archives fail in too many ways to list
        reason = shortened(str(error), 140) or type(error).__name__
        raise InputError(f"{path}: cannot be read ({reason}); expected fits of ssdnet") from error
    return StoredFits(**arrays, path=path, **masks, detail=detail)


def _checked_detail(detail: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    expected = (2 * shape[0], 2 * shape[1], shape[2])
    if detail.dtype != np.float16 or detail.shape != expected or not np.isfinite(detail).all():
        raise ValueError(f"detail is {detail.dtype} of shape {detail.shape}")
    return detail.astype(np.float32)


def _unpacked(bits: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    height, width = map(int, shape)
    if bits.dtype != np.uint8 or bits.shape != (-(-height * width // 8),):
        raise ValueError(f"a mask of {bits.dtype} and shape {bits.shape}")
    return np.unpackbits(bits, count=height * width).astype(bool).reshape(height, width)


def _check_stored(path: Path) -> None:
    """Raises ValueError unless all parts are stored as they are: none can grow when it is read."""
    if not path.is_file():
        raise ValueError("no such file" if not path.exists() else "no regular file")
    with zipfile.ZipFile(path) as archive:
        for part in archive.infolist():
            if part.compress_type != zipfile.ZIP_STORED or part.file_size > path.stat().st_size:
                raise ValueError(f"{part.filename:.40} is compressed")
