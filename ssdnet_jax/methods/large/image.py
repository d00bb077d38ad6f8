"""Features of an image that is too large to be processed at once: statistics, then tile by tile.

A pass over the image for sums gives the means, standard deviations and principal directions of its
features (`analyse`); with them the components of a tile are those of the whole image.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ssdnet_jax.config import TilingConfig
from ssdnet_jax.core import streamed
from ssdnet_jax.core.features import Kind
from ssdnet_jax.core.fit import StopReason
from ssdnet_jax.core.frozen_network import alignment
from ssdnet_jax.core.masked import ALL_OF_IT, ENOUGH
from ssdnet_jax.core.networks import Network
from ssdnet_jax.core.plan import Plan
from ssdnet_jax.core.registry import NETWORKS, TARGETS
from ssdnet_jax.core.streamed import Basis, Source, Sums
from ssdnet_jax.core.tiling import Tile, tile_grid
from ssdnet_jax.core.vgg19 import VGG19Weights
from ssdnet_jax.methods.base import Progress, Report

STEP = 32  # pixels: tiles start at multiples, which stay whole at all scales and strides
COUNTED = 1 << 25  # pixels: of larger images, statistics are those of tiles with about as many
_SMOOTHED = 11  # pixels that smoothing of noise reaches, and halving
_SEEN = 10  # pixels, at its scale, that a feature and resizing to that scale see around it


@dataclasses.dataclass(frozen=True)
class LargeImage:
    """A large image, and how it is cut into tiles."""

    image: np.ndarray  # float32 (h, w, c)
    valid: np.ndarray | None  # bool (h, w), what takes part; None: all
    vgg19: VGG19Weights | None
    plan: Plan
    tiling: TilingConfig
    noise: float

    @property
    def kind(self) -> Kind:
        return "vgg19" if self.plan.target == "vgg19" else "filters"

    @property
    def is_image(self) -> bool:
        """Whether what is fitted is the image itself."""
        return TARGETS[self.plan.target].is_image

    @property
    def scale(self) -> float:
        """Resolution of what is fitted."""
        return 1.0 if self.is_image else self.plan.fitted.scale / 2

    @property
    def network(self) -> Network:
        return NETWORKS[self.plan.fit.network.kind]

    @property
    def feature_margin(self) -> int:
        """Pixels beyond which no feature of any representation sees anything."""
        if self.is_image:
            return 0
        scales = [part.scale for part in (self.plan.fitted, *self.plan.compared)]
        return -(-math.ceil(_SMOOTHED + _SEEN / min(scales)) // STEP) * STEP

    def grid(self, margin: int) -> list[Tile]:
        """Tiles that contribute about `tiling.side` pixels, with at least this margin in pixels."""
        margin = -(-margin // STEP) * STEP
        side = self.tiling.side + 2 * margin
        return tile_grid(self.shape, side=side, margin=margin, step=STEP)

    @property
    def axis(self) -> int:
        """The image's longer axis, 0 or 1."""
        return int(self.image.shape[1] > self.image.shape[0])

    @property
    def bands(self) -> list[list[Tile]]:
        """Tiles of features, those across the longer axis together, in order along it."""
        axis = self.axis

        def start(tile: Tile) -> int:
            return tile.start[axis]

        tiles = sorted(self.grid(self.feature_margin), key=start)
        return [list(band) for _, band in itertools.groupby(tiles, key=start)]

    @property
    def tiles_for_statistics(self) -> list[Tile]:
        """Tiles that statistics of features are computed from: all, or evenly spread ones."""
        every = -(-self.image.shape[0] * self.image.shape[1] // COUNTED)
        return [
            tile
            for row, band in enumerate(self.bands)
            for column, tile in enumerate(band)
            if (column + row * max(1, every // 2)) % every == 0
        ]

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the image, mirrored at its bottom and right.

        They are multiples of STEP, and of what the network's strides need at its scale.
        """
        step = STEP
        while (step * self.scale) % alignment(self.plan.fit.network):
            step += STEP
        height, width = (side + -side % step for side in self.image.shape[:2])
        return height, width

    def cut(self, place: tuple[slice, slice]) -> "CutOut":
        """Pixels of `shape` in a rectangle."""
        image = self.image[place]
        height, width = image.shape[:2]
        valid = np.ones((height, width), np.float32)
        if self.valid is not None:
            valid = self.valid[place].astype(np.float32)
        more = [(0, s.stop - s.start - n) for s, n in zip(place, (height, width), strict=True)]
        if any(after for _, after in more):
            image = np.pad(image, (*more, (0, 0)), mode="reflect")
            valid = np.pad(valid, more, mode="reflect")
        return CutOut(image, valid, (height, width))

    def positions(self, scale: float) -> tuple[int, int]:
        """How many whole positions at `scale` of its resolution the image has along each side."""
        height, width = (int(scale * side) for side in self.image.shape[:2])
        return height, width

    def judged(self, found: np.ndarray) -> np.ndarray:
        """The values of a map of the image at pixels that take part."""
        return found.ravel() if self.valid is None else found[self.valid]


class CutOut(NamedTuple):
    """A rectangle of an image that is mirrored at its bottom and right.

    Attributes:
      image: float32 (h, w, c).
      valid: float32 (h, w), 1 where pixels take part, mirrored likewise.
      inside: height and width of what is not mirrored.
    """

    image: np.ndarray
    valid: np.ndarray
    inside: tuple[int, int]

    def counted(self, weights: Any, scale: float) -> np.ndarray:
        """Weights (h, w) at a scale of the resolution, 0 in the mirrored part."""
        found = np.array(weights)
        rows, columns = (int(scale * side) for side in self.inside)
        found[rows:] = 0
        found[:, columns:] = 0
        return found


class Part(NamedTuple):
    """What the score compares: components of features, or what the fit left of them.

    Attributes:
      sources: with their bases, side by side; none for the image itself.
      scale: positions a pixel.
      fit: whose reconstruction is taken away; None for components as they are.
    """

    sources: tuple[tuple[Source, Basis], ...]
    scale: float
    fit: "FittedNetwork | None" = None


class AnalysedImage(NamedTuple):
    """A large image with what is known of its features."""

    large: LargeImage
    fitted: tuple[tuple[Source, Basis], ...]  # what the network is fitted to, side by side
    compared: tuple[tuple[Source, Basis], ...]

    def compared_parts(self) -> list[Part]:
        """The representations that are compared beside the residual."""
        return [Part((pair,), pair[0].scale / 2) for pair in self.compared]


def analyse(
    image: np.ndarray,
    valid: np.ndarray | None,
    vgg19: VGG19Weights | None,
    plan: Plan,
    tiling: TilingConfig,
    *,
    noise: float,
    report: Report = lambda progress: None,
) -> AnalysedImage:
    """Gathers the statistics of a large image's features; arguments as of `fit_in_tiles`."""
    large = LargeImage(np.asarray(image, np.float32), valid, vgg19, plan, tiling, noise)
    if large.is_image:
        return AnalysedImage(large, (), ())
    fitted = (Source(*plan.fitted[:3]), Source("colours", plan.fitted.scale, 0))
    compared = tuple(Source(*representation[:3]) for representation in plan.compared)
    sources = (*fitted, *compared)
    tiles = large.tiles_for_statistics
    well_known = _well_known(large, sources, tiles)
    totals: dict[Source, tuple[Sums, np.ndarray]] = {}
    for done, tile in enumerate(tiles):
        cut_out = large.cut(tile.outer)
        for alike in _of_one_scale(sources):
            of_sources = _values(large, cut_out, alike)
            for source, (values, weights) in zip(alike, of_sources, strict=True):
                inner = tile.scaled(source.scale / 2).inner_of_outer
                of_inner = np.zeros(weights.shape, np.float32)
                of_inner[inner] = cut_out.counted(weights, source.scale / 2)[inner]
                if source in well_known:
                    of_inner = (of_inner >= ALL_OF_IT).astype(np.float32)
                if source not in totals:
                    shift = np.asarray(values).mean((0, 1), dtype=np.float64)
                    totals[source] = (_no_sums(), shift)
                sums, shift = totals[source]
                found = _sums_of(values, of_inner, shift.astype(np.float32))
                added = jax.tree.map(lambda x, y: x + np.asarray(y, np.float64), sums, found)
                totals[source] = (added, shift)
        report(Progress("features", done + 1, len(tiles), float("nan")))
    # The sums are of values less the shift as float32 has it.
    bases = {
        source: streamed.basis_of(sums, shift.astype(np.float32).astype(np.float64), source)
        for source, (sums, shift) in totals.items()
    }
    return AnalysedImage(
        large,
        tuple((source, bases[source]) for source in fitted),
        tuple((source, bases[source]) for source in compared),
    )


def _well_known(large: LargeImage, sources: Sequence[Source], tiles: Sequence[Tile]) -> set[Source]:
    """The sources of which partly known values are left out of statistics; none where all is known.

    As `core.masked.for_statistics` decides for a whole image.
    """
    if large.valid is None:
        return set()
    known, partly = dict.fromkeys(sources, 0), dict.fromkeys(sources, 0)
    for tile in tiles:
        cut_out = large.cut(tile.outer)
        for source in sources:
            weights = _weights(cut_out.valid, source, kind=large.kind)
            inner_of_outer = tile.scaled(source.scale / 2).inner_of_outer
            inner = cut_out.counted(weights, source.scale / 2)[inner_of_outer]
            known[source] += int(np.count_nonzero(inner >= ALL_OF_IT))
            partly[source] += int(np.count_nonzero(inner))
    return {source for source in sources if known[source] >= ENOUGH * partly[source]}


_weights = jax.jit(streamed.source_weights, static_argnames=("source", "kind"))


def _of_one_scale(sources: Sequence[Source]) -> list[tuple[Source, ...]]:
    """The sources in groups that are computed together: those of a scale share layers.

    Not all together, which takes more memory.
    """
    scales = dict.fromkeys(source.scale for source in sources)
    return [tuple(s for s in dict.fromkeys(sources) if s.scale == scale) for scale in scales]


def _no_sums() -> Sums:
    zero: Any = np.float64(0)
    return Sums(zero, zero, zero)


@functools.partial(jax.jit, static_argnames=("sources", "kind"))
def _jitted_values(
    image: Array,
    valid: Array,
    noise: Array,
    vgg19: VGG19Weights | None,
    sources: tuple[Source, ...],
    kind: Kind,
) -> list[tuple[Array, Array]]:
    # In one program, so that what several sources need is computed once.
    return [
        (
            streamed.source_values(image, noise, vgg19, source, kind=kind),
            streamed.source_weights(valid, source, kind=kind),
        )
        for source in sources
    ]


def _values(
    large: LargeImage, cut_out: CutOut, sources: tuple[Source, ...]
) -> list[tuple[Array, Array]]:
    noise = jnp.float32(large.noise)
    pixels = cut_out.image, cut_out.valid
    return _jitted_values(*pixels, noise, large.vgg19, sources, large.kind)


_sums_of = jax.jit(streamed.sums_of)
residual = jax.jit(jnp.subtract)


@functools.partial(jax.jit, static_argnames=("sources", "kind"))
def _jitted_components(
    image: Array,
    valid: Array,
    noise: Array,
    vgg19: VGG19Weights | None,
    bases: tuple[Basis, ...],
    sources: tuple[Source, ...],
    kind: Kind,
) -> list[tuple[Array, Array]]:
    found = _jitted_values(image, valid, noise, vgg19, sources, kind)
    return [
        (streamed.in_basis(values, basis), weights)
        for (values, weights), basis in zip(found, bases, strict=True)
    ]


def components(
    large: LargeImage, cut_out: CutOut, parts: Sequence[Part]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Components of a tile and their weights, of each part, before a fit is taken away."""
    known = dict(pair for part in parts for pair in part.sources)
    noise = jnp.float32(large.noise)
    found: dict[Source, tuple[Array, Array]] = {}
    for alike in _of_one_scale(tuple(known)):
        bases = tuple(known[source] for source in alike)
        made = _jitted_components(
            *(cut_out.image, cut_out.valid, noise, large.vgg19, bases, alike), kind=large.kind
        )
        found |= zip(alike, made, strict=True)
    result = []
    for part in parts:
        if not part.sources:
            result.append((cut_out.image, cut_out.counted(cut_out.valid, 1)))
            continue
        values = [np.asarray(found[source][0]) for source, _ in part.sources]
        weights = cut_out.counted(found[part.sources[0][0]][1], part.scale)
        together = values[0] if len(values) == 1 else np.concatenate(values, axis=-1)
        result.append((together, weights))
    return result


def fitted_values(analysed: AnalysedImage, cut_out: CutOut) -> tuple[np.ndarray, np.ndarray]:
    """What the network sees of a tile, and how well it is known."""
    large = analysed.large
    return components(large, cut_out, [Part(analysed.fitted, large.scale)])[0]


class FittedNetwork(NamedTuple):
    """A fitted network with the statistics that it normalizes by."""

    params: Any
    statistics: Any
    losses: np.ndarray
    stop: StopReason
    restorations: int


@functools.partial(jax.jit, static_argnames=("apply", "config"))
def _jitted_reconstruction(
    apply: Callable[..., Array], params: Any, statistics: Any, values: Array, config: Any
) -> Array:
    return apply(params, statistics, values[None], config)[0]


def reconstruction(large: LargeImage, fit: FittedNetwork, values: np.ndarray) -> Array:
    """The network's output for a window: that for the image, but for `network_margin` around."""
    apply = large.network.with_statistics
    assert apply is not None
    config = large.plan.fit.network
    return _jitted_reconstruction(apply, fit.params, fit.statistics, values, config)


def network_margin(large: LargeImage) -> int:
    """Positions beyond which nothing reaches a value that the network reconstructs."""
    reach = large.network.receptive_margin
    assert reach is not None
    return reach(large.plan.fit.network)
