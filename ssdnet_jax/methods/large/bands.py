"""Passes over a map that is made band by band and forgotten behind, in windows that overlap.

A band goes across the map along its longer axis, so that what is held at once is bounded by the
shorter one. Windows of one kind have one shape, so that they share compiled programs.
"""

import collections
import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

Spans = Sequence[tuple[int, int]]  # starts and stops along an axis, without gap or overlap


class Cut(NamedTuple):
    """A window along one axis, in positions of the map.

    Attributes:
      start: first position.
      stop: position behind the last.
      first: first position that is taken from the window.
      last: position behind the last that is.
    """

    start: int
    stop: int
    first: int
    last: int


class Window(NamedTuple):
    """Values of a part of a map.

    Attributes:
      values: (h, w, n).
      weights: (h, w), how well each is known.
      inner: what is taken from this window, rows and columns of it.
      place: the same in the map.
    """

    values: np.ndarray
    weights: np.ndarray
    inner: tuple[slice, slice]
    place: tuple[slice, slice]


def cuts(spans: Spans, *, margin: int, align: int = 1) -> list[Cut]:
    """Windows of one length around spans, with at least `margin` on both sides within the map.

    Args:
      spans: what is taken from each window; together they are the axis, whose length is a multiple
        of `align`.
      margin: positions.
      align: positions of which starts are multiples.
    """
    length = spans[-1][1]
    side = max(stop - start for start, stop in spans) + 2 * margin + align - 1
    side = min(length, -(-side // align) * align)
    return [
        Cut(start, start + side, first, last)
        for first, last in spans
        for start in [min(max(first - margin, 0) // align * align, length - side)]
    ]


def even_spans(length: int, most: int) -> Spans:
    """An axis in parts of nearly one length, `most` at most."""
    count = -(-length // most)
    ends = [number * length // count for number in range(count + 1)]
    return list(itertools.pairwise(ends))


class Bands:
    """The bands of a map that are still needed; arrays (h, w, ...) along `axis`, 0 or 1."""

    def __init__(self, axis: int):
        self._axis = axis
        self._parts: collections.deque[tuple[int, np.ndarray]] = collections.deque()
        self.stop = 0  # position behind the last one that there is

    def append(self, band: np.ndarray) -> None:
        """Adds the next band."""
        self._parts.append((self.stop, band))
        self.stop += band.shape[self._axis]

    def forget(self, before: int) -> None:
        """Drops bands that lie before a position."""
        while self._parts and self._parts[0][0] + self._parts[0][1].shape[self._axis] <= before:
            self._parts.popleft()

    def window(self, along: tuple[int, int], across: tuple[int, int]) -> np.ndarray:
        """A copy of the values between starts and stops along the axis and across it."""
        pieces = []
        for start, part in self._parts:
            first = max(along[0] - start, 0)
            last = min(along[1] - start, part.shape[self._axis])
            if first < last:
                pieces.append(part[_by_axis(self._axis, slice(first, last), slice(*across))])
        return np.concatenate(pieces, axis=self._axis)


def windows(
    values: Bands, weights: Bands, along: Cut, across: Sequence[Cut], axis: int
) -> Iterator[Window]:
    """The windows of a band, once it and what is around it are there.

    Args:
      values: bands of the map.
      weights: likewise, how well each of its values is known.
      along: the band along the axis.
      across: windows across it.
      axis: of the bands.
    """
    for cut in across:
        place = (along.start, along.stop), (cut.start, cut.stop)
        yield Window(
            values.window(*place),
            weights.window(*place),
            _by_axis(axis, *(slice(c.first - c.start, c.last - c.start) for c in (along, cut))),
            _by_axis(axis, *(slice(c.first, c.last) for c in (along, cut))),
        )


def trimmed(window: Window, *, margin: int, shape: tuple[int, int]) -> Window:
    """A window cut down to `shape` or less, with at least `margin` around what is taken from it.

    Args:
      window: whose inner part and margins it holds.
      margin: positions, unless the window ends before.
      shape: the same for all windows of a kind, at least that of the inner part and its margins.
    """
    places = []
    for taken, length, side in zip(window.inner, window.weights.shape, shape, strict=True):
        start = min(max(taken.start - margin, 0), max(length - side, 0))
        places.append(slice(start, min(start + side, length)))
    inner = tuple(
        slice(i.start - p.start, i.stop - p.start)
        for i, p in zip(window.inner, places, strict=True)
    )
    rows, columns = places
    return window._replace(
        values=window.values[rows, columns],
        weights=window.weights[rows, columns],
        inner=(inner[0], inner[1]),
    )


def ended(window: Window, shape: tuple[int, int]) -> Window:
    """A window cut off where a map of `shape` ends, which is not before its inner part begins."""
    outer, inner, place = [], [], []
    for taken, of_map, length in zip(window.inner, window.place, shape, strict=True):
        last = max(0, length - (of_map.start - taken.start))
        outer.append(slice(0, last))
        inner.append(slice(taken.start, min(taken.stop, last)))
        place.append(slice(of_map.start, min(of_map.stop, length)))
    return Window(
        window.values[outer[0], outer[1]],
        window.weights[outer[0], outer[1]],
        (inner[0], inner[1]),
        (place[0], place[1]),
    )


def _by_axis(axis: int, along: slice, across: slice) -> tuple[slice, slice]:
    return (along, across) if axis == 0 else (across, along)
