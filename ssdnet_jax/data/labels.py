"""Which pixels a label says are defective: masks and regions, checked for what is odd.

Masks come as black with white defects, as small numbers of classes, saved with loss, inverted, or
painted. What can be told from the values is read as it is meant and said; the rest is refused.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ssdnet_jax.data._decode import decode
from ssdnet_jax.data.layouts.names import images_in
from ssdnet_jax.data.layouts.sample import Sample
from ssdnet_jax.data.shapes import rasterize
from ssdnet_jax.errors import InputError

CUT = "has many values, as after saving with loss, and is cut at half of its range"
MOST = "more than half of the mask is defective: is it inverted, with white for good?"
UNSEEN = "more than half of its defective pixels have no score, and take no part in its metrics"
EMPTY = "the mask is empty, so the image counts as good"

_MOST_CLASSES = 16  # values of a mask of classes, black included; more are grey levels
_LARGEST_CLASS = 127  # where the classes are numbered without gaps from 0
_LOSSY = (".jpg", ".jpeg", ".webp")
_DARKEST_WHITE = 32  # of a mask saved with loss; below it is noise that nobody can read


@dataclasses.dataclass(frozen=True)
class Label:
    """The defective pixels of an image."""

    mask: np.ndarray  # bool (H, W), True where defective
    notes: tuple[str, ...] = ()  # what a person should know of it; some of CUT and MOST


def read_label(sample: Sample, shape: tuple[int, int]) -> Label | None:
    """The label of a sample's pixels; None where it has none, a good image or one without masks.

    Args:
      sample: of any layout.
      shape: (height, width) of the image, EXIF orientation applied.

    Raises:
      InputError: a mask that cannot be read, of another size, or refused by `read_label_mask`;
        regions of another size; no mask in the folder; a defect in a good image's mask.
    """
    if sample.mask_path is None:
        return None
    if sample.regions is not None:
        label = Label(_rasterized(sample, shape))
        return dataclasses.replace(label, notes=_notes(label.mask))
    files = images_in(sample.mask_path) if sample.mask_path.is_dir() else [sample.mask_path]
    if not files:
        raise InputError(f"{sample.mask_path}: found no mask in the folder; expected some")
    masks = []
    notes: dict[str, None] = {}
    for path in files:
        label = read_label_mask(path, shape=shape)
        masks.append(label.mask)
        notes |= dict.fromkeys(label.notes)
    mask = np.logical_or.reduce(masks)
    if sample.good and mask.any():
        raise InputError(
            f"{sample.mask_path}: found {np.count_nonzero(mask)} defective pixels in the mask of a "
            f"good image; expected none"
        )
    return Label(mask, tuple(notes))


def read_label_mask(path: Path, *, shape: tuple[int, int] | None = None) -> Label:
    """Reads one mask, of the (height, width) of its image: black is good, all else is defective.

    With up to 16 values, or numbers of classes without gaps, each but 0 is a defect. A mask of many
    8-bit or float values was saved with loss or resized: it is cut at half of its largest value.
    Integers of more bits are numbers of objects. Fully transparent pixels are good. Colours count
    by their brightest channel.

    Raises:
      InputError: unreadable, of another size, NaN or infinite or negative values, everything
        defective, colours on a ground that is not black, or a picture saved with loss that is
        too dark to read.
    """
    raw = decode(path)
    samples = raw.samples
    if shape is not None and samples.shape[:2] != tuple(shape):
        raise InputError(
            f"{path}: found a mask of {samples.shape[0]} x {samples.shape[1]} (height x width); "
            f"expected {shape[0]} x {shape[1]}, the size of its image"
        )
    if not np.isfinite(samples).all() or samples.min() < 0:
        raise InputError(
            f"{path}: found NaN, infinite or negative values; expected a mask, 0 where good"
        )
    _check_colours(path, samples)
    values = samples.max(axis=-1)
    mask, notes = _cut(path, values)
    if raw.alpha is not None:
        mask &= raw.alpha > 0
    if mask.all():
        raise InputError(f"{path}: found every pixel defective; expected a mask, black where good")
    return Label(mask, (*notes, *_notes(mask)))


def _check_colours(path: Path, samples: np.ndarray) -> None:
    """Refuses a painting: colours on another ground than black."""
    if samples.shape[2] != 3 or (samples == samples[..., :1]).all():
        return
    pixels = samples.reshape(-1, 3)
    _, first, counts = np.unique(pixels, axis=0, return_index=True, return_counts=True)
    ground = pixels[first[counts.argmax()]]
    if ground.max() > samples.max() / 8:
        shown = ", ".join(f"{value:g}" for value in ground.tolist())
        raise InputError(
            f"{path}: found a mask in colours, most of it ({shown}); expected a mask that is black "
            f"where good"
        )


def _cut(path: Path, values: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    found = np.unique(values)
    largest = found[-1]
    lossy = path.suffix.lower() in _LOSSY and len(found) > 2
    if lossy and values.dtype == np.uint8 and largest < _DARKEST_WHITE:
        raise InputError(
            f"{path}: found {len(found)} values from {found[0]} to {largest} in a file saved with "
            f"loss; expected black and white, or a file without loss"
        )
    if lossy or _is_grey(values.dtype, found):
        return values > largest / 2, (CUT,)
    return values != 0, ()


def _is_grey(kind: np.dtype, found: np.ndarray) -> bool:
    """Whether the sorted values of a mask are grey levels, not numbers of classes."""
    if kind.kind == "f":
        return len(found) > _MOST_CLASSES
    if kind != np.uint8 or len(found) <= 3:
        return False
    largest = int(found[-1])
    if len(found) > _MOST_CLASSES:
        return not (largest <= _LARGEST_CLASS and largest + 1 == len(found))
    # Ringing: several values close to black and several close to white, none between.
    near = int(np.count_nonzero((found > 0) & (found <= largest // 8)))
    far = int(np.count_nonzero(found >= largest - largest // 8))
    return largest > _LARGEST_CLASS and near >= 1 and far >= 2 and near + far + 1 >= len(found)


def _notes(mask: np.ndarray) -> tuple[str, ...]:
    return (MOST,) if 2 * np.count_nonzero(mask) > mask.size else ()


def _rasterized(sample: Sample, shape: tuple[int, int]) -> np.ndarray:
    regions = sample.regions
    assert regions is not None
    where = f"{sample.mask_path}: {regions.name}"
    if any(regions.size) and regions.size != tuple(shape):
        raise InputError(
            f"{where}: found a size of {regions.size[0]} x {regions.size[1]} (height x width); "
            f"expected {shape[0]} x {shape[1]}, the size of the image"
        )
    try:
        mask = rasterize(regions.shapes, shape)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    if mask.all():
        raise InputError(f"{where}: found every pixel defective; expected regions of defects")
    if regions.shapes and not mask.any():
        raise InputError(f"{where}: found regions without a pixel of the image; expected some")
    return mask


def summarized(notes: Iterable[tuple[str, str]]) -> list[str]:
    """Pairs of an image's path and a note, in a line for each note: the first image, how many."""
    pairs = list(dict.fromkeys(notes))
    counts = Counter(note for _, note in pairs)
    first = {note: path for path, note in reversed(pairs)}
    lines = []
    for note in dict.fromkeys(note for _, note in pairs):
        others = counts[note] - 1
        more = f" (and {others} other{'s' * (others != 1)})" if others else ""
        lines.append(f"{first[note]}{more}: {note}")
    return lines


def image_shape(path: Path) -> tuple[int, int]:
    """(height, width) of an image file, EXIF orientation applied; raises InputError."""
    height, width = decode(path).samples.shape[:2]
    return height, width
