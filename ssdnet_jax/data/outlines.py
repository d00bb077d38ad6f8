"""Regions of a mask as numbers that annotation programs read: COCO's run lengths, and polygons.

COCO's format: https://cocodataset.org/#format-data. Coordinates are (x, y) in pixels from the upper
left corner of the image, so that the centre of its first pixel is at (0.5, 0.5).
"""

import numpy as np

Ring = list[tuple[float, float]]  # points of a closed line, the first one again at its end


def run_lengths(inside: np.ndarray, top_left: tuple[int, int], size: tuple[int, int]) -> str:
    """COCO's compressed run lengths, down the columns, of a region in an image.

    Args:
      inside: bool (h, w), which pixels of its box belong to the region.
      top_left: row and column of the box.
      size: height and width of the image.
    """
    (top, left), (height, width) = top_left, size
    columns, rows = np.nonzero(inside.T)
    places = (columns + left) * height + rows + top  # ascending
    breaks = np.flatnonzero(np.diff(places) > 1)
    starts = places[np.r_[0, breaks + 1]]
    ends = places[np.r_[breaks, len(places) - 1]] + 1
    edges = np.ravel(np.column_stack((starts, ends)))
    counts = np.diff(np.r_[0, edges, height * width])
    return _compressed(counts[:-1] if counts[-1] == 0 else counts)


def _compressed(counts: np.ndarray) -> str:
    """As COCO's `rleToString`: differences to the count before last, five bits a letter."""
    letters = []
    for i, count in enumerate(counts.tolist()):
        value = count - int(counts[i - 2]) if i > 2 else count
        while True:
            bits = value & 0x1F
            value >>= 5  # of a negative number, rounding down
            more = value != (-1 if bits & 0x10 else 0)
            letters.append(chr((bits | 0x20 if more else bits) + 48))
            if not more:
                break
    return "".join(letters)


def polygon(inside: np.ndarray, top_left: tuple[int, int]) -> list[Ring]:
    """The outline of a connected region, and those of the holes in it.

    It runs along the edges of pixels, cutting corners by half a pixel.

    Args:
      inside: bool (h, w), which pixels of its box belong to the region.
      top_left: row and column of the box.
    """
    from skimage.measure import find_contours

    top, left = top_left
    padded = np.pad(inside, 1).astype(np.float64)
    lines = find_contours(padded, 0.5, fully_connected="high")
    # A pixel's centre is at its row and column here, those of the padding one before.
    rings = [_without_straight(line[:, ::-1] + (left - 0.5, top - 0.5)) for line in lines]
    rings.sort(key=lambda ring: -abs(_signed_area(ring)))
    return [ring if (_signed_area(ring) > 0) == (i == 0) else ring[::-1]
            for i, ring in enumerate(rings)]  # fmt: skip


def _without_straight(points: np.ndarray) -> Ring:
    """The points of a closed line at which it turns."""
    points = points[:-1]
    before, after = points - np.roll(points, 1, axis=0), np.roll(points, -1, axis=0) - points
    turns = np.abs(before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]) > 1e-9
    kept = [(float(x), float(y)) for x, y in points[turns]]
    return [*kept, kept[0]]


def _signed_area(ring: Ring) -> float:
    x, y = np.array(ring).T
    return float(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1]) / 2)
