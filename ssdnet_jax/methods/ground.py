"""The ground behind a part: flat borders and flat ground, found on the host before anything else.

A product on a black or white ground, a scan with bars at its sides: the ground is no texture, and a
score that compares places of an image with one another takes either for unlike the other. Ground
has one colour, up to noise, from a whole side or all four corners of the image up to a sharp
edge, and it lies around one thing: the rest is one piece, varies more, and hardly has the ground's
colour itself.

A texture from edge to edge has no such part: its flat places recur inside, or fade into the rest,
or no side is flat all along. Nor has a flat surface with a stain, which is too small to be the
product. Where the part is nearly convex all of its convex hull is judged, so that a piece that is
broken out of its edge, through which one sees the ground, is found and not taken for ground.
"""

import functools
from collections.abc import Iterator

import numpy as np

_MOST_SIDE = 512  # pixels: of larger images every second pixel is looked at, or every third, ...
_MARGIN = 2  # pixels that are looked at: the edge between ground and part is a mixture of both
_FLATNESS = 0.03  # of the image's range: standard deviation of the ground at most
_TOLERANCE = 4.0  # standard deviations by which a pixel of the ground may differ from its colour
_LEAST_TOLERANCE = 0.02  # of the image's range, likewise
_EDGE = 0.08  # of the image's range: by how much the part differs from the ground beside it
_NEAR, _FAR = (1, 3), (16, 32)  # pixels that are looked at: beside the ground, and further on
_SHARP = 0.7  # of what the part differs by further on: by how much it does beside the ground
_SIDE = 0.98  # share of a side, or of a corner, that has the ground's colour
_CORNER = 0.02  # side of the square in a corner, of the image's shorter side
_SMALLEST_GROUND, _SMALLEST_PART = 0.01, 0.1  # of the image
_ONE_PIECE = 0.85  # share of the rest that its largest piece has
_RECURRING = 0.15  # share of the rest that may have the ground's colour
_CONTRAST = 3.0  # standard deviation of the rest in units of the ground's
_CONVEX = 0.05  # of the part: by how much its hull may exceed a part that is taken for convex


def find_ground(pixels: np.ndarray, known: np.ndarray) -> np.ndarray | None:
    """Which pixels are ground, bool (H, W); None where no ground is found.

    Args:
      pixels: float (H, W, C).
      known: bool (H, W), False where a pixel has no value or takes no part anyway.
    """
    from scipy import ndimage

    step = -(-max(known.shape) // _MOST_SIDE)
    small, small_known = pixels[::step, ::step], known[::step, ::step]
    if not small_known.any():
        return None
    low, high = np.percentile(small if small_known.all() else small[small_known], [0.1, 99.9])
    span = float(high - low)
    ground = np.zeros(small_known.shape, bool)
    alike = ground.copy()
    for colour, places in _candidates(small, small_known):
        found, of_colour = _flat_part(small, small_known, colour, places, span)
        ground |= found
        alike |= of_colour if found.any() else found
    if not _lies_around_one_part(small, small_known, ground, alike, span):
        return None
    ground = _without_hull(ground, small_known)
    ground = ndimage.binary_dilation(ground, iterations=_MARGIN)
    whole = np.repeat(np.repeat(ground, step, axis=0), step, axis=1)
    return whole[: known.shape[0], : known.shape[1]] & known


def _candidates(
    pixels: np.ndarray, known: np.ndarray
) -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
    """Colours that the ground may have, each with the masks of places that must then have it."""
    size = max(2, round(_CORNER * min(known.shape)))
    starts = (slice(None, size), slice(-size, None))
    corners = [_mask(known.shape, rows, columns) for rows in starts for columns in starts]
    everywhere = slice(None)
    lines = (slice(None, 1), slice(-1, None))
    sides = [_mask(known.shape, line, everywhere) for line in lines]
    sides += [_mask(known.shape, everywhere, line) for line in lines]
    for places in ([side] for side in sides):
        if (counted := places[0] & known).sum() * 2 > places[0].sum():
            yield np.median(pixels[counted], axis=0), places
    if all((corner & known).any() for corner in corners):
        yield np.median(pixels[np.logical_or.reduce(corners) & known], axis=0), corners


def _mask(shape: tuple[int, int], rows: slice, columns: slice) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[rows, columns] = True
    return mask


def _flat_part(
    pixels: np.ndarray,
    known: np.ndarray,
    colour: np.ndarray,
    places: list[np.ndarray],
    span: float,
) -> tuple[np.ndarray, np.ndarray]:
    """The flat region of a colour that holds given places, and all pixels of that colour.

    Both are empty if there is no such region.
    """
    from scipy import ndimage

    nothing = np.zeros(known.shape, bool)
    at_places = np.abs(pixels[np.logical_or.reduce(places) & known] - colour).max(axis=-1)
    # Not the median: of noise that is cut off at black, half of the values are black.
    deviation = np.quantile(at_places, 0.9) / 1.645
    if deviation > _FLATNESS * span:
        return nothing, nothing
    # Channel by channel: numpy takes ten times as long over an axis of three.
    channels = (np.abs(pixels[..., c] - colour[c]) for c in range(pixels.shape[2]))
    distance = functools.reduce(np.maximum, channels)
    tolerance = max(_TOLERANCE * deviation, _LEAST_TOLERANCE * span)
    alike = (distance <= tolerance) & known
    if any(alike[place & known].mean() < _SIDE for place in places):
        return nothing, nothing
    radius = max(1, min(known.shape) // 128)
    labels, _ = ndimage.label(_opened(alike | ~known, radius) & known)
    held = np.unique(labels[np.logical_or.reduce(places)])
    found = np.isin(labels, held[held > 0])
    if found.mean() < _SMALLEST_GROUND or pixels[found].std(axis=0).max() > _FLATNESS * span:
        return nothing, nothing
    if not _has_sharp_edge(found, known, distance, radius, span):
        return nothing, nothing
    return found, alike


def _has_sharp_edge(
    found: np.ndarray, known: np.ndarray, distance: np.ndarray, radius: int, span: float
) -> bool:
    """Whether the colour changes at the edge of a region, and hardly any more further on.

    Where it goes on changing, the region is the dark side of an image whose light fades.
    """
    from scipy import ndimage

    away = ndimage.distance_transform_edt(~found) - radius
    near, far = (distance[(away > start) & (away <= stop) & known] for start, stop in (_NEAR, _FAR))
    if not near.size or not far.size:
        return False
    step = np.median(near)
    return bool(step >= _EDGE * span and step >= _SHARP * np.median(far))


def _opened(mask: np.ndarray, radius: int) -> np.ndarray:
    """Without what is narrower than 2 `radius` + 1; beyond the border it goes on."""
    from scipy import ndimage

    # One axis after the other, which the opening by a square can do, on edges that are repeated.
    found = np.pad(mask, 2 * radius, mode="edge").view(np.uint8)
    for filtered in (ndimage.minimum_filter1d, ndimage.maximum_filter1d):
        for axis in (0, 1):
            found = filtered(found, 2 * radius + 1, axis, mode="constant", cval=0)
    return found[2 * radius : -2 * radius, 2 * radius : -2 * radius].view(bool)


def _lies_around_one_part(
    pixels: np.ndarray, known: np.ndarray, ground: np.ndarray, alike: np.ndarray, span: float
) -> bool:
    rest = known & ~ground
    if not ground.any() or rest.sum() < _SMALLEST_PART * known.size:
        return False
    if (alike & rest).sum() > _RECURRING * rest.sum():
        return False
    if _largest_piece(rest).sum() < _ONE_PIECE * rest.sum():
        return False
    deviations = [pixels[part].std(axis=0).max() for part in (ground & alike, rest)]
    return deviations[1] > max(_CONTRAST * deviations[0], 0.01 * span)


def _largest_piece(mask: np.ndarray) -> np.ndarray:
    from scipy import ndimage

    labels, _ = ndimage.label(mask, np.ones((3, 3)))
    return labels == np.bincount(labels[mask]).argmax()


def _without_hull(ground: np.ndarray, known: np.ndarray) -> np.ndarray:
    """The ground without what lies within the hull of a part that is nearly convex."""
    from skimage.morphology import convex_hull_image

    part = _largest_piece(_opened(known & ~ground, 1))
    hull = convex_hull_image(part)
    if (hull & ground).sum() > _CONVEX * part.sum():
        return ground
    return ground & ~hull
