"""Overlapping tiles of an image that is too large to be processed at once.

All tiles of a grid have one shape, so that they share compiled programs. Each is responsible for
its inner part, which lies at least `margin` from those of its borders that are not the image's; the
inner parts fill the image without overlap.
"""

import itertools
from typing import NamedTuple

from ssdnet_jax.core.arrays import Size


class Tile(NamedTuple):
    """One tile; pixels along both axes, (row, column).

    Attributes:
      start: first pixel of the tile.
      stop: pixel behind its last.
      inner_start: first pixel that is taken from this tile.
      inner_stop: pixel behind the last that is.
    """

    start: tuple[int, int]
    stop: tuple[int, int]
    inner_start: tuple[int, int]
    inner_stop: tuple[int, int]

    @property
    def outer(self) -> tuple[slice, slice]:
        """The tile's pixels of the image."""
        return _slices(self.start, self.stop)

    @property
    def inner(self) -> tuple[slice, slice]:
        """The pixels of the image that are taken from this tile."""
        return _slices(self.inner_start, self.inner_stop)

    @property
    def inner_of_outer(self) -> tuple[slice, slice]:
        """The same pixels, counted from the tile's start."""
        starts = tuple(i - s for i, s in zip(self.inner_start, self.start, strict=True))
        stops = tuple(i - s for i, s in zip(self.inner_stop, self.start, strict=True))
        return _slices(starts, stops)

    def scaled(self, factor: float) -> "Tile":
        """The same tile of the image at `factor` of its size; all numbers must stay whole."""
        numbers = [tuple(factor * n for n in pair) for pair in self]
        if any(n != int(n) for pair in numbers for n in pair):
            raise ValueError(f"{self} at {factor} of its size does not lie on whole pixels")
        return Tile(*(_pair(pair) for pair in numbers))


def tile_grid(shape: Size, *, side: int, margin: int, step: int) -> list[Tile]:
    """Tiles of `side` pixels, or of the image where it is smaller, row by row.

    Args:
      shape: height and width of the image, multiples of `step`.
      side: of a tile, a multiple of `step` and larger than 2 `margin`.
      margin: pixels at a tile's border that are not taken from it, at least; a multiple of `step`.
      step: pixels of which all starts and inner parts are multiples.

    Raises:
      ValueError: the numbers do not fit together.
    """
    if any(length % step for length in (*shape, side, margin)) or side <= 2 * margin:
        raise ValueError(f"no tiles of {side} pixels, margin {margin}, step {step} in {shape}")
    rows, columns = (_spans(length, side, margin, step) for length in shape)
    return [Tile(*zip(row, column, strict=True)) for row in rows for column in columns]


def _spans(length: int, side: int, margin: int, step: int) -> list[tuple[int, int, int, int]]:
    """(start, stop, inner start, inner stop) along one axis; starts are evenly spread."""
    if length <= side:
        return [(0, length, 0, length)]
    advances = -(-(length - side) // (side - 2 * margin))
    steps = (length - side) // step
    starts = [number * steps // advances * step for number in range(advances + 1)]
    # The middle of each overlap, which is at least two margins wide.
    cuts = [
        (before + side + after) // 2 // step * step for before, after in itertools.pairwise(starts)
    ]
    return [
        (start, start + side, first, last)
        for start, first, last in zip(starts, [0, *cuts], [*cuts, length], strict=True)
    ]


def _slices(starts: tuple[int, ...], stops: tuple[int, ...]) -> tuple[slice, slice]:
    rows, columns = (slice(a, b) for a, b in zip(starts, stops, strict=True))
    return rows, columns


def _pair(numbers: tuple[float, ...]) -> tuple[int, int]:
    first, second = (int(n) for n in numbers)
    return first, second
