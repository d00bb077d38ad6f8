"""Raw score maps on disk: finding, reading, and laying them out for the scripts of others."""

import contextlib
import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from ssdnet_jax.data._decode import decode
from ssdnet_jax.data.files import link_or_copy, safe_relative
from ssdnet_jax.data.images import write_tiff_map
from ssdnet_jax.data.layouts.sample import Sample
from ssdnet_jax.errors import InputError
from ssdnet_jax.text import shortened

MAP_SUFFIXES = (".tiff", ".tif", ".npy", ".npz", ".png")


def find_map(folder: Path, sample: Sample) -> Path:
    """The map of a sample below a folder that any program may have filled; raises InputError.

    Looked for, in this order and with any of `MAP_SUFFIXES`: the image's relative path with its
    own suffix kept, then without it, then CATEGORY/test/DEFECT/NAME as MVTec AD's evaluation code
    has it.
    """
    relative = PurePosixPath(sample.relative)
    stems = (
        sample.relative,
        str(relative.with_suffix("")),
        str(safe_relative(sample.category, "test", sample.defect, relative.stem)),
    )
    for stem in stems:
        for suffix in MAP_SUFFIXES:
            path = folder / f"{stem}{suffix}"
            # A folder of maps may be that of the images: an image is not its own map.
            if path.is_file() and not (sample.path.exists() and path.samefile(sample.path)):
                return path
    raise InputError(
        f"{sample.relative}: found no map in {folder}; expected {stems[0]}.tiff or "
        f"{stems[1]}.tiff (or {', '.join(MAP_SUFFIXES[1:])})"
    )


def find_own_map(folder: Path, samples: Sequence[Sample]) -> Callable[[Sample], Path]:
    """`find_map` for all samples of a set, where none may have the map of another.

    Names without a suffix, or without the folder, may be those of several images.

    Returns:
      A function of one of the samples, which raises InputError as `find_map` does, and for a map
      that other samples would have too.
    """
    found: dict[str, Path] = {}
    for sample in samples:
        with contextlib.suppress(InputError):
            found[sample.relative] = find_map(folder, sample)
    owners: dict[Path, list[str]] = {}
    for relative, path in found.items():
        owners.setdefault(path, []).append(relative)

    def find(sample: Sample) -> Path:
        path = found.get(sample.relative) or find_map(folder, sample)
        others = [name for name in owners.get(path, ()) if name != sample.relative]
        if others:
            raise InputError(
                f"{path}: found one map for {sample.relative} and {shortened(others[0], 100)}; "
                f"expected one an image, such as {sample.relative}.tiff"
            )
        return path

    return find


def read_map(path: str | os.PathLike[str]) -> np.ndarray:
    """Reads a raw score map: float32 values of shape (H, W), NaN where a pixel takes no part.

    Args:
      path: TIFF or .npy, an .npz that holds one array, or a grey PNG; of shape (H, W), (H, W, 1) or
        (1, H, W), of a PNG also three equal channels.

    Raises:
      InputError: unreadable, of another shape or kind, with infinite values, or NaN everywhere.
    """
    path = Path(path)
    try:
        values = _read_array(path)
    except InputError:
        raise
    except Exception as error:  # decoders fail on damaged files in too many ways to list
        reason = shortened(str(error), 140) or type(error).__name__
        raise InputError(
            f"{path}: cannot be read as a map ({reason}); expected a TIFF, .npy, .npz or grey PNG "
            f"of (H, W)"
        ) from error
    if values.ndim == 3 and 1 in (values.shape[0], values.shape[2]):
        values = values[0] if values.shape[0] == 1 else values[..., 0]
    if values.ndim != 2 or not values.size or values.dtype.kind not in "fiub":
        raise InputError(
            f"{path}: found {values.dtype} of shape {values.shape}; expected real numbers of (H, W)"
        )
    with np.errstate(over="ignore", invalid="ignore"):  # infinite; NaN of any kind stays NaN
        values = values.astype(np.float32)
    if bad := np.count_nonzero(np.isinf(values)):
        raise InputError(
            f"{path}: found {bad} values that are infinite as float32; expected finite scores, NaN "
            f"where a pixel takes no part"
        )
    if np.isnan(values).all():
        raise InputError(f"{path}: found NaN everywhere; expected the score of some pixel")
    return values


def _read_array(path: Path) -> np.ndarray:
    suffix = path.suffix.lower()
    if suffix == ".npy":
        return np.load(path, allow_pickle=False)
    if suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            if len(arrays.files) != 1:
                raise InputError(
                    f"{path}: found {len(arrays.files)} arrays "
                    f"({', '.join(arrays.files)}); expected one, the map"
                )
            return arrays[arrays.files[0]]
    samples = decode(path).samples
    if suffix == ".png" and samples.shape[2] == 3:
        if (samples != samples[..., :1]).any():
            raise InputError(f"{path}: found a picture in colours; expected a map, a grey PNG")
        samples = samples[..., :1]
    return samples


def mvtec_names(samples: Sequence[Sample]) -> dict[str, PurePosixPath]:
    """Where MVTec AD's code expects each map, CATEGORY/test/DEFECT/NAME.tiff, by relative path.

    Images of one defect that differ in suffix or folder only keep both in the name.

    Raises:
      InputError: a category, defect or name that would lead out of the folder.
    """
    plain = {
        s.relative: safe_relative(s.category, "test", s.defect, PurePosixPath(s.relative).stem)
        for s in samples
    }
    uses = Counter(plain.values())
    return {
        relative: path.with_name(
            f"{path.name if uses[path] == 1 else relative.replace('/', '_')}.tiff"
        )
        for relative, path in plain.items()
    }


def put_maps(folder: Path, samples: Sequence[Sample], find: Callable[[Sample], Path]) -> None:
    """Lays maps out as MVTec AD's evaluation code reads them: TIFF as hard links where possible.

    Else they are copied; maps of another kind are written as float32 TIFF. Samples whose map
    cannot be found or read are left out.
    """
    for sample, name in zip(samples, mvtec_names(samples).values(), strict=True):
        target = folder / name
        try:
            source = find(sample)
            if source.suffix.lower() in (".tiff", ".tif"):
                link_or_copy(source, target)
            else:
                write_tiff_map(target, read_map(source))
        except (InputError, FileNotFoundError):
            target.unlink(missing_ok=True)  # of an earlier run
