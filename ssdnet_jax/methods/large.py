"""An image too large to be processed at once: one network fitted to crops, run in tiles.

What is done is that of `methods.ssdnet`, in passes over the image: sums for the means, standard
deviations and principal directions of the features; a fit to random crops; a pass for the scale of
components and the typical tile; a pass for distances. A pass computes the features of each tile
once, all representations together, and forgets them band by band (`methods.bands`). No more is held
at once than the image, its maps, and the features of a few bands.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from ssdnet_jax.config import TilingConfig
from ssdnet_jax.core import streamed
from ssdnet_jax.core.crops import averaged_parameters, fit_crops, init_crop_fit
from ssdnet_jax.core.features import Kind
from ssdnet_jax.core.fit import StopReason, total_steps
from ssdnet_jax.core.frozen_network import alignment
from ssdnet_jax.core.networks import Network
from ssdnet_jax.core.plan import Plan
from ssdnet_jax.core.registry import NETWORKS, TARGETS
from ssdnet_jax.core.score import patch_score
from ssdnet_jax.core.streamed import Basis, Source, Sums
from ssdnet_jax.core.tiling import Tile, tile_grid
from ssdnet_jax.core.vgg19 import VGG19Weights
from ssdnet_jax.methods.bands import Bands, Cut, Window, cuts, even_spans, trimmed, windows
from ssdnet_jax.methods.base import Progress, Report

STEP = 32  # pixels: tiles start at multiples, which stay whole at all scales and strides
_SMOOTHED = 11  # pixels that smoothing of noise reaches, and halving
_SEEN = 10  # pixels that a feature sees around it, at its scale, and resizing to it
_ROWS = 256  # of a map that are enlarged at a time
_COUNTED = 1 << 25  # pixels: of larger images, tiles that hold about as many tell the statistics
_MOST_SORTED_TILES = 20_000  # of which the typical tile is the median: all, or evenly spread ones
_CROPS_FOR_STATISTICS = 8  # of which the network's normalization takes its statistics
_KNOWN = 0.5  # share of a crop that must take part
_TRIES = 100  # crops drawn for one that has it


class TiledFit(NamedTuple):
    """What a large image came to.

    Attributes:
      raw: float32 (h, w), the raw map at the size at which the image is analysed.
      losses: float32 (steps,), the loss of each step.
      stop: why the fit ended.
      restorations: how often the guard undid a blow-up.
    """

    raw: np.ndarray
    losses: np.ndarray
    stop: StopReason
    restorations: int


def is_large(shape: tuple[int, int], tiling: TilingConfig) -> bool:
    """Whether an image analysed at this shape is fitted in crops and scored in tiles."""
    return bool(tiling.above) and shape[0] * shape[1] > tiling.above


def refusal(plan: Plan) -> str | None:
    """Why an image cannot be processed in tiles by this plan; None if it can."""
    if NETWORKS[plan.fit.network.kind].with_statistics is None:
        return f"config.network.kind {plan.fit.network.kind}, which needs a whole image"
    if plan.score.method not in ("tiles", "patches"):
        return f"config.score.method {plan.score.method}, which needs a whole image"
    if plan.fit.loss.w_perc or plan.score.alpha_perc:
        return "a perceptual term, which needs a whole image"
    if plan.fit.fit.permute_ratio:
        return "config.fit.permute_ratio above 0, which needs a whole image"
    scales = [representation.scale for representation in (plan.fitted, *plan.compared)]
    if any((STEP * scale / 2) % 1 for scale in scales):
        return f"config.score.coarse_scale {plan.score.coarse_scale:g}; expected a multiple of 1/16"
    if not TARGETS[plan.target].is_image and plan.target not in ("vgg19", "filters"):
        return f"config.features.kind {plan.target}, which needs a whole image"
    return None


def fit_in_tiles(
    image: np.ndarray,
    valid: np.ndarray | None,
    key: PRNGKeyArray,
    vgg19: VGG19Weights | None,
    plan: Plan,
    tiling: TilingConfig,
    *,
    noise: float,
    report: Report = lambda progress: None,
) -> TiledFit:
    """Fits a network to random crops of an image and scores the image tile by tile.

    Args:
      image: float32 (h, w, c) in [0, 1], of the plan's shape.
      valid: bool (h, w), where the image takes part; None: everywhere.
      key: source of randomness.
      vgg19: weights; may be None unless the plan's target needs them.
      plan: for which there is no `refusal`.
      tiling: sizes of crops and tiles.
      noise: standard deviation of the image's noise (`core.noise.noise_deviation`).
      report: told how far it is.
    """
    seeds = range(plan.seeds)
    keys = [jax.random.fold_in(key, seed) if seed else key for seed in seeds]
    analysed = analyse(image, valid, vgg19, plan, tiling, noise=noise, report=report)
    fits = [_fitted(analysed, key, report) for key in keys]
    maps = [_raw_map(analysed, fit, report) for fit in fits]
    return TiledFit(
        raw=maps[0] if len(maps) == 1 else np.median(maps, axis=0),
        losses=fits[0].losses,
        stop=StopReason(max(fit.stop for fit in fits)),
        restorations=sum(fit.restorations for fit in fits),
    )


def sampled_noise(image: np.ndarray, valid: np.ndarray | None) -> float:
    """`core.noise.noise_deviation` of a large image, from at most about 2^24 of its pixels."""
    rows = max(1, image.shape[0] * image.shape[1] // 2**24)
    diagonals = []
    for start in range(0, image.shape[0] - 1, rows):
        pair = image[start : start + 2]
        diagonal = np.abs(pair[0, :-1] - pair[0, 1:] - pair[1, :-1] + pair[1, 1:])
        if valid is not None:
            known = valid[start : start + 2]
            diagonal = diagonal[known[0, :-1] & known[0, 1:] & known[1, :-1] & known[1, 1:]]
        diagonals.append(diagonal)
    differences = np.concatenate(diagonals)
    return float(np.median(differences, axis=0).mean() / (2 * 0.6745)) if len(differences) else 0.0


@dataclasses.dataclass(frozen=True)
class _Picture:
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
    def counted(self) -> list[Tile]:
        """The tiles that tell the statistics of features: all, or evenly spread ones."""
        every = -(-self.image.shape[0] * self.image.shape[1] // _COUNTED)
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

    def cut(self, place: tuple[slice, slice]) -> tuple[np.ndarray, np.ndarray]:
        """Pixels, and 1 where they take part: not where they are mirrored at the border."""
        image = self.image[place]
        height, width = image.shape[:2]
        valid = np.ones((height, width), np.float32)
        if self.valid is not None:
            valid = self.valid[place].astype(np.float32)
        more = [(0, s.stop - s.start - n) for s, n in zip(place, (height, width), strict=True)]
        if any(after for _, after in more):
            image = np.pad(image, (*more, (0, 0)), mode="reflect")
            valid = np.pad(valid, more)
        return image, valid

    def judged(self, found: np.ndarray) -> np.ndarray:
        """Of a map of the image, the values of pixels that take part."""
        return found.ravel() if self.valid is None else found[self.valid]


class Part(NamedTuple):
    """What the score compares: components of features, or what the fit left of them.

    Attributes:
      sources: with their bases, side by side; none for the image itself.
      scale: positions a pixel.
      fit: whose reconstruction is taken away; None for components as they are.
    """

    sources: tuple[tuple[Source, Basis], ...]
    scale: float
    fit: "_Network | None" = None


class Analysed(NamedTuple):
    """A large image with what is known of its features."""

    picture: _Picture
    fitted: tuple[tuple[Source, Basis], ...]  # side by side what the network is fitted to
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
) -> Analysed:
    """Gathers the statistics of a large image's features; arguments as of `fit_in_tiles`."""
    picture = _Picture(np.asarray(image, np.float32), valid, vgg19, plan, tiling, noise)
    if picture.is_image:
        return Analysed(picture, (), ())
    fitted = (Source(*plan.fitted[:3]), Source("colours", plan.fitted.scale, 0))
    compared = tuple(Source(*representation[:3]) for representation in plan.compared)
    sources = (*fitted, *compared)
    tiles = picture.counted
    totals: dict[Source, tuple[Sums, np.ndarray]] = {}
    for done, tile in enumerate(tiles):
        image, valid = picture.cut(tile.outer)
        for alike in _of_one_scale(sources):
            of_sources = _values(picture, image, valid, alike)
            for source, (values, weights) in zip(alike, of_sources, strict=True):
                inner = tile.scaled(source.scale / 2).inner_of_outer
                of_inner = np.zeros(weights.shape, np.float32)
                of_inner[inner] = np.asarray(weights)[inner]
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
    return Analysed(
        picture,
        tuple((source, bases[source]) for source in fitted),
        tuple((source, bases[source]) for source in compared),
    )


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
    picture: _Picture, image: np.ndarray, valid: np.ndarray, sources: tuple[Source, ...]
) -> list[tuple[Array, Array]]:
    noise = jnp.float32(picture.noise)
    return _jitted_values(image, valid, noise, picture.vgg19, sources, picture.kind)


_sums_of = jax.jit(streamed.sums_of)
_difference = jax.jit(jnp.subtract)


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


def _components(
    picture: _Picture, image: np.ndarray, valid: np.ndarray, parts: Sequence[Part]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Components of a tile, and how well they are known, of each part before its fit."""
    known = dict(pair for part in parts for pair in part.sources)
    noise = jnp.float32(picture.noise)
    found: dict[Source, tuple[Array, Array]] = {}
    for alike in _of_one_scale(tuple(known)):
        bases = tuple(known[source] for source in alike)
        made = _jitted_components(
            image, valid, noise, picture.vgg19, bases, alike, kind=picture.kind
        )
        found |= zip(alike, made, strict=True)
    result = []
    for part in parts:
        if not part.sources:
            result.append((image, valid))
            continue
        values = [np.asarray(found[source][0]) for source, _ in part.sources]
        weights = np.asarray(found[part.sources[0][0]][1])
        together = values[0] if len(values) == 1 else np.concatenate(values, axis=-1)
        result.append((together, weights))
    return result


def _fitted_values(
    analysed: Analysed, image: np.ndarray, valid: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """What the network sees of a tile, and how well it is known."""
    picture = analysed.picture
    return _components(picture, image, valid, [Part(analysed.fitted, picture.scale)])[0]


class _Network(NamedTuple):
    """A fitted network with the statistics that it normalizes by."""

    params: Any
    statistics: Any
    losses: np.ndarray
    stop: StopReason
    restorations: int


def _fitted(analysed: Analysed, key: PRNGKeyArray, report: Report) -> _Network:
    picture = analysed.picture
    settings = picture.plan.fit
    fit_key, place_key, statistics_key = jax.random.split(key, 3)
    crops = _crops(analysed, place_key)
    first = next(crops)
    total = total_steps(first[0].shape[:2], settings)
    state = _init(fit_key, first[0], settings)
    pending = [first]
    while True:
        if state.state.stop != StopReason.RUNNING:
            break
        # Each crop is of one step; the last block may be shorter, which would compile once more.
        steps = min(settings.fit.block_steps, total)
        while len(pending) < steps:
            pending.append(next(crops))
        values, known = (np.stack(parts) for parts in zip(*pending, strict=True))
        pending = []
        state = _fit_crops(state, values, known, settings)
        step = int(state.state.step)
        report(Progress("fit", step, total, float(state.state.history[step - 1])))
    channels = first[0].shape[-1]
    params = _averaged(state, settings, channels=channels)
    crops = _crops(analysed, statistics_key)
    sample = np.stack([next(crops)[0] for _ in range(_CROPS_FOR_STATISTICS)])
    measure = picture.network.measure
    assert measure is not None
    statistics = jax.jit(measure, static_argnums=2)(params, sample, settings.network)
    return _Network(
        params,
        statistics,
        np.asarray(state.state.history[: int(state.state.step)]),
        StopReason(int(state.state.stop)),
        int(state.state.undone),
    )


_averaged = jax.jit(averaged_parameters, static_argnames=("settings", "channels"))
_init = jax.jit(init_crop_fit, static_argnames="settings")
_fit_crops = jax.jit(fit_crops, static_argnames="settings", donate_argnums=0)


def _crops(analysed: Analysed, key: PRNGKeyArray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """What is fitted, in random crops of which enough takes part, and what it counts there."""
    picture = analysed.picture
    margin, shape = picture.feature_margin, picture.shape
    outer = [min(side, picture.tiling.crop + 2 * margin) for side in shape]
    kept = tuple(
        slice(None)
        if size == side
        else slice(int(margin * picture.scale), int((size - margin) * picture.scale))
        for size, side in zip(outer, shape, strict=True)
    )
    generator = np.random.default_rng(np.asarray(jax.random.key_data(key)).tolist())
    while True:
        best: tuple[float, Any] = (-1.0, None)
        for _ in range(_TRIES):
            starts = [
                int(generator.integers((side - size) // STEP + 1)) * STEP
                for side, size in zip(shape, outer, strict=True)
            ]
            rows, columns = (slice(a, a + size) for a, size in zip(starts, outer, strict=True))
            cut_out = picture.cut((rows, columns))
            share = float(cut_out[1].mean())
            best = max(best, (share, cut_out), key=lambda pair: pair[0])
            if share >= _KNOWN:
                break
        image, valid = best[1]
        values, known = (x[kept] for x in _fitted_values(analysed, image, valid))
        yield values, known / np.maximum(known.mean(), np.float32(1e-6))


@functools.partial(jax.jit, static_argnames=("apply", "config"))
def _jitted_reconstruction(
    apply: Callable[..., Array], params: Any, statistics: Any, values: Array, config: Any
) -> Array:
    return apply(params, statistics, values[None], config)[0]


def _reconstruction(picture: _Picture, fit: _Network, values: np.ndarray) -> Array:
    apply = picture.network.with_statistics
    assert apply is not None
    config = picture.plan.fit.network
    return _jitted_reconstruction(apply, fit.params, fit.statistics, values, config)


def _raw_map(analysed: Analysed, fit: _Network, report: Report) -> np.ndarray:
    """The raw map of the image; see `core.score`."""
    picture = analysed.picture
    if picture.plan.score.method == "patches":
        return _patch_map(analysed, fit, report)
    parts = [*analysed.compared_parts(), Part(analysed.fitted, picture.scale, fit)]
    total = len(picture.counted) + sum(map(len, picture.bands))
    count = iter(range(1, total + 1))

    def show() -> None:
        report(Progress("score", next(count), total, float("nan")))

    found = scaled_distances(analysed, parts, show)
    if len(parts) == 1:
        return next(found)
    # `core.texture_score.agreement`, one map at a time and in place: each is as large as the image.
    scale = np.float32(picture.plan.score.agreement_scale)
    agreed = np.zeros(picture.image.shape[:2], np.float32)
    for distances in found:
        np.maximum(distances, 0, out=distances)
        distances /= scale
        np.log1p(distances, out=distances)
        agreed += distances
    agreed /= np.float32(len(parts))
    np.expm1(agreed, out=agreed)
    agreed *= scale
    return agreed


def _patch_map(analysed: Analysed, fit: _Network, report: Report) -> np.ndarray:
    """Eq. 3 without its min-max scaling, of what was fitted."""
    picture = analysed.picture
    reach = _network_margin(picture) + 2 * max(picture.plan.score.patch_sizes)
    tiles = picture.grid(picture.feature_margin + int(reach / picture.scale))
    height, width = picture.image.shape[:2]
    raw = np.zeros(picture.shape, np.float32)
    for done, tile in enumerate(tiles):
        image, valid = picture.cut(tile.outer)
        values, known = _fitted_values(analysed, image, valid)
        mu = _reconstruction(picture, fit, values)
        found = _patch_raw(values, mu, known, picture.plan, image.shape[:2])
        raw[tile.inner] = np.asarray(found)[tile.inner_of_outer]
        report(Progress("score", done + 1, len(tiles), float("nan")))
    return raw[:height, :width]


def _network_margin(picture: _Picture) -> int:
    """Positions beyond which nothing reaches a value that the network reconstructs."""
    reach = picture.network.receptive_margin
    assert reach is not None
    return reach(picture.plan.fit.network)


@functools.partial(jax.jit, static_argnames=("plan", "shape"))
def _patch_raw(values: Array, mu: Array, known: Array, plan: Plan, shape: tuple[int, int]) -> Array:
    from ssdnet_jax.core.target import Target

    channels = jnp.zeros(1, jnp.float32)
    target = Target(values, (), channels, channels, (known,), None)
    return patch_score(target, mu, None, dataclasses.replace(plan, shape=shape)).raw


class _Scale(NamedTuple):
    """How a part's components are compared, over the image."""

    extremes: np.ndarray
    reference: np.ndarray


def scaled_distances(
    analysed: Analysed, parts: Sequence[Part], show: Callable[[], None] = lambda: None
) -> Iterator[np.ndarray]:
    """Tile distances of parts (`core.texture_score`), in quartiles, at the image's size.

    Args:
      analysed: the image.
      parts: of it, all of which are computed in two passes, the first over `counted` tiles.
      show: called after each tile of a pass.
    """
    maps = _distances(analysed, parts, _scales(analysed, parts, show), show)
    for part in parts:
        yield _in_quartiles(analysed.picture, *maps.pop(0), part.scale)  # and forgotten


def _scales(analysed: Analysed, parts: Sequence[Part], show: Callable[[], None]) -> list["_Scale"]:
    picture = analysed.picture
    references = [_Reference(picture, part) for part in parts]
    tiles = picture.counted
    if len(tiles) == sum(map(len, picture.bands)):
        for of_parts in _sweep(analysed, parts, show):
            for reference, of_part in zip(references, of_parts, strict=True):
                for window in of_part:
                    reference.add(window)
        return [reference.result() for reference in references]
    for tile in tiles:
        made = _components(picture, *picture.cut(tile.outer), parts)
        for reference, part, of_part in zip(references, parts, made, strict=True):
            reference.add(_window_of_tile(picture, part, tile, *of_part))
        show()
    return [reference.result() for reference in references]


def _window_of_tile(
    picture: _Picture, part: Part, tile: Tile, values: np.ndarray, weights: np.ndarray
) -> Window:
    """What can be taken from a tile alone, without its neighbours."""
    at_scale, size = tile.scaled(part.scale), picture.plan.score.tile_size
    margin = 0
    if part.fit is not None:
        margin = _network_margin(picture)
        values = np.asarray(_difference(values, _reconstruction(picture, part.fit, values)))
    inner, place = [], []
    for axis in (0, 1):
        start, stop = at_scale.start[axis], at_scale.stop[axis]
        first, last = at_scale.inner_start[axis], at_scale.inner_stop[axis]
        if start > 0:
            first = max(first, start + margin)
        if tile.stop[axis] < picture.shape[axis]:
            last = min(last, stop - margin - size)
        last = max(first, last)
        place.append(slice(first, last))
        inner.append(slice(first - start, last - start))
    return Window(values, weights, (inner[0], inner[1]), (place[0], place[1]))


def _distances(
    analysed: Analysed, parts: Sequence[Part], scales: Sequence["_Scale"], show: Callable[[], None]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """`streamed.known_distances` over the image, of each part."""
    picture = analysed.picture
    maps = []
    for part in parts:
        shape = [int(part.scale * side) for side in picture.shape]
        maps.append((np.zeros(shape, np.float32), np.zeros(shape, np.float32)))
    for of_parts in _sweep(analysed, parts, show):
        for of_part, scale, sums in zip(of_parts, scales, maps, strict=True):
            for window in of_part:
                found = _known_distances(
                    *(window.values, window.weights, scale.extremes, scale.reference),
                    tile_size=picture.plan.score.tile_size,
                )
                for whole, of_window in zip(sums, found, strict=True):
                    whole[window.place] = np.asarray(of_window)[window.inner]
    return maps


_known_distances = jax.jit(streamed.known_distances, static_argnames="tile_size")


def _completed(total: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Distances whose unknown share is what is usual in the image."""
    counted = known > 1 - 1e-5
    if counted.mean() < 0.5:  # as where little is known of the image
        counted = known >= min(0.5, float(known.max()))
    usual = np.median(total[counted] / known[counted])
    return np.asarray(total + (1 - known) * usual)


def _in_quartiles(
    picture: _Picture, total: np.ndarray, known: np.ndarray, scale: float
) -> np.ndarray:
    """Distances at a scale as `core.calibration.in_quartiles`, at the image's size."""
    at_pixels = _enlarged(_completed(total, known), scale, picture.image.shape[:2])
    median, quartile = np.quantile(picture.judged(at_pixels), [0.5, 0.75])
    spread = np.float32(quartile - median)
    if spread <= 0:
        return np.zeros_like(at_pixels)
    at_pixels -= np.float32(median)
    at_pixels /= spread
    return at_pixels


def _enlarged(found: np.ndarray, scale: float, shape: tuple[int, ...]) -> np.ndarray:
    """The upper left of a map, resized as by `jax.image.resize`, linearly, without its copies."""
    if scale == 1:
        return found[: shape[0], : shape[1]].copy()
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
    """Of `side` pixels along an axis, the positions before and behind, and the latter's share."""
    places = np.clip((np.arange(side) + 0.5) * scale - 0.5, 0, length - 1)
    first = places.astype(int)
    share = (places - first).astype(np.float32)
    return first, np.minimum(first + 1, length - 1), share


def _sweep(
    analysed: Analysed, parts: Sequence[Part], show: Callable[[], None]
) -> Iterator[list[Iterator[Window]]]:
    """A pass over the image: of each band the windows of each part, in any order.

    What is around a window's inner part suffices for the distances of its tiles. Features are
    computed once.
    """
    picture, axis = analysed.picture, analysed.picture.axis
    kept = [(Bands(axis), Bands(axis)) for _ in parts]
    ways = [_Ways.of(picture, part) for part in parts]
    todo = iter(picture.bands)
    for number in range(len(picture.bands)):
        along = [way.along[number] for way in ways]
        for cut, (values, weights) in zip(along, kept, strict=True):
            values.forget(cut.start)
            weights.forget(cut.start)
        while any(v.stop < cut.stop for cut, (v, _) in zip(along, kept, strict=True)):
            made = _band(analysed, parts, next(todo), show)
            for (values, weights), of_part in zip(kept, made, strict=True):
                values.append(of_part[0])
                weights.append(of_part[1])
        yield [
            _windows(picture, part, way, cut, *of_part)
            for part, way, cut, of_part in zip(parts, ways, along, kept, strict=True)
        ]


class _Ways(NamedTuple):
    """How a part is cut into windows."""

    along: list[Cut]  # the longer axis, one a band
    across: list[Cut]
    margin: int  # that distances need around a window's inner part
    trimmed: tuple[int, int]  # shape of what they are computed of

    @classmethod
    def of(cls, picture: _Picture, part: Part) -> "_Ways":
        axis, scale = picture.axis, part.scale
        margin = streamed.score_margin(picture.plan.score.tile_size)
        inner = [band[0].scaled(scale) for band in picture.bands]
        along = [(tile.inner_start[axis], tile.inner_stop[axis]) for tile in inner]
        most = max(1, int(picture.tiling.side * scale))
        across = even_spans(int(picture.shape[1 - axis] * scale), most)
        sides = [max(b - a for a, b in spans) + 2 * margin for spans in (along, across)]
        reach, align = 0, 1
        if part.fit is not None:
            reach, align = _network_margin(picture), alignment(picture.plan.fit.network)
        return cls(
            cuts(along, margin=margin + reach, align=align),
            cuts(across, margin=margin + reach, align=align),
            margin,
            (sides[axis], sides[1 - axis]),
        )


def _windows(
    picture: _Picture, part: Part, way: _Ways, along: Cut, values: Bands, weights: Bands
) -> Iterator[Window]:
    for window in windows(values, weights, along, way.across, picture.axis):
        if part.fit is not None:
            left = _difference(window.values, _reconstruction(picture, part.fit, window.values))
            window = window._replace(values=np.asarray(left))
        yield trimmed(window, margin=way.margin, shape=way.trimmed)


def _band(
    analysed: Analysed, parts: Sequence[Part], tiles: Sequence[Tile], show: Callable[[], None]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Components of a band, and how well they are known, of each part."""
    picture = analysed.picture
    columns: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in parts]
    for tile in tiles:
        made = _components(picture, *picture.cut(tile.outer), parts)
        for column, part, (values, weights) in zip(columns, parts, made, strict=True):
            inner = tile.scaled(part.scale).inner_of_outer
            # Copied: a part of an array would hold all of it.
            column.append((values[inner].copy(), weights[inner].copy()))
        show()
    across = 1 - picture.axis
    return [
        (
            np.concatenate([values for values, _ in column], axis=across),
            np.concatenate([weights for _, weights in column], axis=across),
        )
        for column in columns
    ]


class _Reference:
    """Gathers the extremes of a part's components and its typical tile, over the image."""

    def __init__(self, picture: _Picture, part: Part):
        self._size = picture.plan.score.tile_size
        self._shape = [int(part.scale * side) for side in picture.shape]
        most = self._shape[0] * self._shape[1] / self._size**2 / _MOST_SORTED_TILES
        self._every = max(1, math.ceil(np.sqrt(most)))
        self._lows: list[np.ndarray] = []
        self._highs: list[np.ndarray] = []
        self._tiles: list[np.ndarray] = []
        self._shares: list[float] = []

    def add(self, window: Window) -> None:
        size = self._size
        counted = window.weights[window.inner] >= 0.5
        if counted.any():
            known = window.values[window.inner][counted]
            self._lows.append(known.min(0))
            self._highs.append(known.max(0))
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
        extremes = np.stack([np.min(self._lows, axis=0), np.max(self._highs, axis=0)])
        shares = np.asarray(self._shares)
        enough = min(16, len(shares))
        chosen = shares >= min(np.sort(shares)[-enough], 1 - 1e-5)
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
