"""The tile score of an image that is too large to be processed at once, in passes over the image.

A pass computes the features of each tile once, all representations together, and forgets them band
by band (`methods.large.bands`).
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np

from ssdnet_jax.core import streamed
from ssdnet_jax.core.frozen_network import alignment
from ssdnet_jax.core.masked import ALL_OF_IT, ENOUGH, WELL_KNOWN
from ssdnet_jax.core.patch_statistics import ALL_KNOWN, ENOUGH_TILES
from ssdnet_jax.core.tiling import Tile
from ssdnet_jax.methods.large.bands import (
    Bands,
    Cut,
    Window,
    cuts,
    ended,
    even_spans,
    trimmed,
    windows,
)
from ssdnet_jax.methods.large.image import (
    AnalysedImage,
    LargeImage,
    Part,
    components,
    network_margin,
    reconstruction,
    residual,
)

_MOST_SORTED_TILES = 20_000  # of which the typical tile is the median: all, or evenly spread ones
_ROWS = 256  # of a map that are enlarged at a time


class _Scale(NamedTuple):
    """How a part's components are compared, over the image."""

    extremes: np.ndarray
    reference: np.ndarray


class DistanceMap:
    """Tile distances of a part of an image, kept at the part's resolution."""

    def __init__(self, large: LargeImage, distances: np.ndarray, scale: float):
        self._large, self._distances, self._scale = large, distances, scale
        self._units: tuple[np.float32, np.float32] | None = None

    def at_pixels(self) -> np.ndarray:
        """At the image's size, `core.calibration.in_quartiles`: float32 (h, w), a new array."""
        shape = self._large.image.shape[:2]
        found = _enlarged(self._distances, self._scale, shape)
        if self._units is None:
            self._units = _usual(self._large, found)
        return _in_units(found, *self._units)


def in_quartiles(large: LargeImage, values: np.ndarray) -> np.ndarray:
    """`core.calibration.in_quartiles` of a map of the image, in place."""
    return _in_units(values, *_usual(large, values))


def distance_maps(
    analysed: AnalysedImage, parts: Sequence[Part], show: Callable[[], None] = lambda: None
) -> list[DistanceMap]:
    """Tile distances of parts (`core.texture_score`), a map each.

    Args:
      analysed: the image.
      parts: of it, all of which are computed in two passes, the first over
        `LargeImage.tiles_for_statistics`.
      show: called after each tile of a pass.
    """
    maps = _distances(analysed, parts, _scales(analysed, parts, show), show)
    return [DistanceMap(analysed.large, _completed(*maps.pop(0)), part.scale) for part in parts]


def _scales(
    analysed: AnalysedImage, parts: Sequence[Part], show: Callable[[], None]
) -> list["_Scale"]:
    large = analysed.large
    references = [_Reference(large, part) for part in parts]
    tiles = large.tiles_for_statistics
    if len(tiles) == sum(map(len, large.bands)):
        for of_parts in _sweep(analysed, parts, show):
            for reference, of_part in zip(references, of_parts, strict=True):
                for window in of_part:
                    reference.add(window)
        return [reference.result() for reference in references]
    for tile in tiles:
        made = components(large, large.cut(tile.outer), parts)
        for reference, part, (values, weights) in zip(references, parts, made, strict=True):
            reference.add(_window_of_tile(large, part, tile, values, weights))
        show()
    return [reference.result() for reference in references]


def _window_of_tile(
    large: LargeImage, part: Part, tile: Tile, values: np.ndarray, weights: np.ndarray
) -> Window:
    """What can be taken from a tile alone, without its neighbours."""
    at_scale, size = tile.scaled(part.scale), large.plan.score.tile_size
    margin = 0
    if part.fit is not None:
        margin = network_margin(large)
        values = np.asarray(residual(values, reconstruction(large, part.fit, values)))
    inner, place = [], []
    for axis in (0, 1):
        start, stop = at_scale.start[axis], at_scale.stop[axis]
        first, last = at_scale.inner_start[axis], at_scale.inner_stop[axis]
        if start > 0:
            first = max(first, start + margin)
        if tile.stop[axis] < large.shape[axis]:
            last = min(last, stop - margin - size)
        last = max(first, last)
        place.append(slice(first, last))
        inner.append(slice(first - start, last - start))
    return Window(values, weights, (inner[0], inner[1]), (place[0], place[1]))


def _distances(
    analysed: AnalysedImage,
    parts: Sequence[Part],
    scales: Sequence["_Scale"],
    show: Callable[[], None],
) -> list[tuple[np.ndarray, np.ndarray]]:
    """`streamed.known_distances` over the image, of each part."""
    large = analysed.large
    maps = []
    for part in parts:
        shape = large.positions(part.scale)
        maps.append((np.zeros(shape, np.float32), np.zeros(shape, np.float32)))
    for of_parts in _sweep(analysed, parts, show):
        for of_part, scale, sums in zip(of_parts, scales, maps, strict=True):
            for window in of_part:
                ranked = None
                if large.valid is not None:
                    ranked = (window.weights >= WELL_KNOWN).astype(np.float32)
                found = _known_distances(
                    *(window.values, window.weights, scale.extremes, scale.reference),
                    tile_size=large.plan.score.tile_size,
                    ranked=ranked,
                )
                for whole, of_window in zip(sums, found, strict=True):
                    whole[window.place] = np.asarray(of_window)[window.inner]
    return maps


_known_distances = jax.jit(streamed.known_distances, static_argnames="tile_size")


def _completed(total: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Distances from sums of weighted errors; unknown shares are given the image's median."""
    counted = known >= ALL_OF_IT
    if counted.sum() < ENOUGH * (known > 0).sum():  # `core.masked.for_statistics`
        counted = known > 0
    usual = np.median(total[counted] / known[counted])
    return np.asarray(total + (1 - known) * usual)


def _usual(large: LargeImage, values: np.ndarray) -> tuple[np.float32, np.float32]:
    """The median of a map, and the distance of its upper quartile from it."""
    median, quartile = np.quantile(large.judged(values), [0.5, 0.75])
    return np.float32(median), np.float32(quartile - median)


def _in_units(values: np.ndarray, median: np.float32, spread: np.float32) -> np.ndarray:
    if spread <= 0:
        values[:] = 0
        return values
    values -= median
    values /= spread
    return values


def _enlarged(found: np.ndarray, scale: float, shape: tuple[int, ...]) -> np.ndarray:
    """A map resized as by `jax.image.resize`, linearly, without its copies."""
    if scale == 1:
        return found.copy()
    result = np.empty(shape, np.float32)
    (up, down, below), (left, right, beside) = (
        _neighbours(side, n, scale) for side, n in zip(shape, found.shape, strict=True)
    )
    for start in range(0, shape[0], _ROWS):
        rows = slice(start, start + _ROWS)
        share = below[rows, None]
        band = found[up[rows]] * (1 - share) + found[down[rows]] * share
        result[rows] = band[:, left] * (1 - beside) + band[:, right] * beside
    return result


def _neighbours(side: int, length: int, scale: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For `side` pixels along an axis: the positions before and behind each, the latter's share."""
    # An odd last row of the image at twice this scale has no position: resizing stretches the rest.
    scale *= 2 * length / round(2 * scale * side)
    places = np.clip((np.arange(side) + 0.5) * scale - 0.5, 0, length - 1)
    first = places.astype(int)
    share = (places - first).astype(np.float32)
    return first, np.minimum(first + 1, length - 1), share


def _sweep(
    analysed: AnalysedImage, parts: Sequence[Part], show: Callable[[], None]
) -> Iterator[list[Iterator[Window]]]:
    """A pass over the image: of each band the windows of each part, in any order.

    What is around a window's inner part suffices for the distances of its tiles. Features are
    computed once.
    """
    large, axis = analysed.large, analysed.large.axis
    kept = [(Bands(axis), Bands(axis)) for _ in parts]
    divisions = [_Division.of(large, part) for part in parts]
    todo = iter(large.bands)
    for number in range(len(large.bands)):
        along = [division.along[number] for division in divisions]
        for cut, (values, weights) in zip(along, kept, strict=True):
            values.forget(cut.start)
            weights.forget(cut.start)
        while any(v.stop < cut.stop for cut, (v, _) in zip(along, kept, strict=True)):
            made = _band(analysed, parts, next(todo), show)
            for (values, weights), of_part in zip(kept, made, strict=True):
                values.append(of_part[0])
                weights.append(of_part[1])
        yield [
            _windows(large, part, division, cut, *of_part)
            for part, division, cut, of_part in zip(parts, divisions, along, kept, strict=True)
        ]


class _Division(NamedTuple):
    """How a part is cut into windows."""

    along: list[Cut]  # the longer axis, one a band
    across: list[Cut]
    margin: int  # that distances need around a window's inner part
    trimmed: tuple[int, int]  # shape of what they are computed of

    @classmethod
    def of(cls, large: LargeImage, part: Part) -> "_Division":
        axis, scale = large.axis, part.scale
        margin = streamed.score_margin(large.plan.score.tile_size)
        inner = [band[0].scaled(scale) for band in large.bands]
        along = [(tile.inner_start[axis], tile.inner_stop[axis]) for tile in inner]
        most = max(1, int(large.tiling.side * scale))
        across = even_spans(int(large.shape[1 - axis] * scale), most)
        sides = [max(b - a for a, b in spans) + 2 * margin for spans in (along, across)]
        reach, align = 0, 1
        if part.fit is not None:
            reach, align = network_margin(large), alignment(large.plan.fit.network)
        return cls(
            cuts(along, margin=margin + reach, align=align),
            cuts(across, margin=margin + reach, align=align),
            margin,
            (sides[axis], sides[1 - axis]),
        )


def _windows(
    large: LargeImage, part: Part, division: _Division, along: Cut, values: Bands, weights: Bands
) -> Iterator[Window]:
    for window in windows(values, weights, along, division.across, large.axis):
        if part.fit is not None:
            left = residual(window.values, reconstruction(large, part.fit, window.values))
            window = window._replace(values=np.asarray(left))
        window = trimmed(window, margin=division.margin, shape=division.trimmed)
        # Tiles of a whole image end where it does.
        yield ended(window, large.positions(part.scale))


def _band(
    analysed: AnalysedImage, parts: Sequence[Part], tiles: Sequence[Tile], show: Callable[[], None]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Components of a band, and how well they are known, of each part."""
    large = analysed.large
    columns: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in parts]
    for tile in tiles:
        made = components(large, large.cut(tile.outer), parts)
        for column, part, (values, weights) in zip(columns, parts, made, strict=True):
            inner = tile.scaled(part.scale).inner_of_outer
            # Copied: a part of an array would hold all of it.
            column.append((values[inner].copy(), weights[inner].copy()))
        show()
    across = 1 - large.axis
    return [
        (
            np.concatenate([values for values, _ in column], axis=across),
            np.concatenate([weights for _, weights in column], axis=across),
        )
        for column in columns
    ]


class _Extremes:
    """The smallest and the largest of values that count, of each component."""

    def __init__(self) -> None:
        self.count = 0
        self._found: list[np.ndarray] = []

    def add(self, values: np.ndarray, counted: np.ndarray) -> None:
        if counted.any():
            of_them = values[counted]
            self.count += len(of_them)
            self._found.append(np.stack([of_them.min(0), of_them.max(0)]))

    def result(self) -> np.ndarray:
        low, high = np.moveaxis(np.stack(self._found), 1, 0)
        return np.stack([low.min(0), high.max(0)])


class _Reference:
    """Gathers the extremes of a part's components and its typical tile, over the image."""

    def __init__(self, large: LargeImage, part: Part):
        self._size = large.plan.score.tile_size
        self._shape = large.positions(part.scale)
        most = self._shape[0] * self._shape[1] / self._size**2 / _MOST_SORTED_TILES
        self._every = max(1, math.ceil(np.sqrt(most)))
        self._known, self._partly = _Extremes(), _Extremes()
        self._tiles: list[np.ndarray] = []
        self._shares: list[float] = []

    def add(self, window: Window) -> None:
        size = self._size
        values, weights = window.values[window.inner], window.weights[window.inner]
        self._known.add(values, weights >= ALL_OF_IT)
        self._partly.add(values, weights > 0)
        rows, columns = (
            self._starts(place, inner, length)
            for place, inner, length in zip(window.place, window.inner, self._shape, strict=True)
        )
        for row in rows:
            for column in columns:
                place = (slice(row, row + size), slice(column, column + size))
                tile = window.values[place].reshape(size**2, -1)
                self._tiles.append(np.sort(tile, axis=0))
                self._shares.append(float(window.weights[place].mean()))

    def _starts(self, place: slice, inner: slice, length: int) -> list[int]:
        """Starts, within the window, of the sorted tiles that begin in its inner part."""
        size = self._size
        numbers = range(-(-place.start // size), -(-place.stop // size))
        return [
            number * size - place.start + inner.start
            for number in numbers
            if number % self._every == 0 and (number + 1) * size <= length
        ]

    def result(self) -> _Scale:
        # `core.masked.for_statistics`.
        enough = self._known.count >= ENOUGH * self._partly.count
        extremes = (self._known if enough else self._partly).result()
        shares = np.asarray(self._shares)
        fewest = min(ENOUGH_TILES, len(shares))
        chosen = shares >= min(np.sort(shares)[-fewest], ALL_KNOWN)
        middle = (int(chosen.sum()) - 1) // 2
        of_them = [tile for tile, is_chosen in zip(self._tiles, chosen, strict=True) if is_chosen]
        self._tiles.clear()
        # Place by place: all of them together are as large as a band.
        typical = np.stack(
            [
                np.partition(np.stack([tile[place] for tile in of_them]), middle, axis=0)[middle]
                for place in range(self._size**2)
            ]
        )
        low, high = extremes
        return _Scale(extremes, (typical - low) / (high - low + np.float32(1e-8)))
