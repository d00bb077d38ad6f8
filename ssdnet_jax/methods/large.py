"""An image too large to be processed at once: one network fitted to crops, run in tiles.

What is done is that of `methods.ssdnet`, in passes over the image: sums for the means, standard
deviations and principal directions of the features; a fit to random crops; a pass for the scale of
components and the typical tile; a pass for distances. No more is held at once than the image, its
maps at the resolution of the features, and what one tile needs, so memory hardly depends on how
much is computed.
"""

import dataclasses
import functools
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
from ssdnet_jax.core.networks import Network
from ssdnet_jax.core.plan import Plan
from ssdnet_jax.core.registry import NETWORKS, TARGETS
from ssdnet_jax.core.score import patch_score
from ssdnet_jax.core.streamed import Basis, Source, Sums
from ssdnet_jax.core.tiling import Tile, tile_grid
from ssdnet_jax.core.vgg19 import VGG19Weights
from ssdnet_jax.methods.base import Progress, Report

STEP = 32  # pixels: tiles start at multiples, which stay whole at all scales and strides
_FEATURE_MARGIN = 32  # pixels beyond which a feature sees nothing, at half of the image's size
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
      params: theta, one vector a seed.
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
    maps = [_raw_map(analysed, fit, report)[: image.shape[0], : image.shape[1]] for fit in fits]
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

    def grid(self, margin: int) -> list[Tile]:
        """Tiles with at least this margin, in pixels."""
        margin = -(-margin // STEP) * STEP
        side = self.tiling.side + 2 * margin
        side = -(-side // STEP) * STEP + 2 * STEP
        return tile_grid(self.shape, side=side, margin=margin, step=STEP)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the image, mirrored to multiples of STEP at its bottom and right."""
        height, width = (side + -side % STEP for side in self.image.shape[:2])
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
        """Of a map of the mirrored image, the values of pixels that take part."""
        found = found[: self.image.shape[0], : self.image.shape[1]]
        return found.ravel() if self.valid is None else found[self.valid]


class Part(NamedTuple):
    """A feature representation that the score compares, or what the fit left of one.

    Attributes:
      get: (pixels of a tile, 1 where they take part) -> its components and how well each is known.
      scale: positions a pixel of the image.
      margin: pixels of a tile's border beyond which its distances are those of the whole image.
    """

    get: Callable[[np.ndarray, np.ndarray], tuple[Array, Array]]
    scale: float
    margin: int


class Analysed(NamedTuple):
    """A large image with what is known of its features."""

    picture: _Picture
    fitted: tuple[tuple[Source, Basis], ...]  # side by side what the network is fitted to
    compared: tuple[tuple[Source, Basis], ...]

    def grid(self, margin: int) -> list[Tile]:
        """The image's tiles with at least this margin, in pixels."""
        return self.picture.grid(margin)

    def compared_parts(self) -> list[Part]:
        """The representations that are compared beside the residual."""
        reach = streamed.score_margin(self.picture.plan.score.tile_size)
        parts = []
        for source, basis in self.compared:
            get = functools.partial(_components, self, source=source, basis=basis)
            margin = _FEATURE_MARGIN + int(2 * reach / source.scale) + 1
            parts.append(Part(get, source.scale / 2, margin))
        return parts


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
    tiles = picture.grid(2 * _FEATURE_MARGIN)
    totals: dict[Source, tuple[Sums, np.ndarray]] = {}
    for done, tile in enumerate(tiles):
        image, valid = picture.cut(tile.outer)
        of_sources = _values(picture, image, valid, sources)
        for source, (values, weights) in zip(sources, of_sources, strict=True):
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
_in_basis = jax.jit(streamed.in_basis)


def _components(
    analysed: Analysed, image: np.ndarray, valid: np.ndarray, source: Source, basis: Basis
) -> tuple[Array, Array]:
    ((values, weights),) = _values(analysed.picture, image, valid, (source,))
    return _in_basis(values, basis), weights


def _fitted_values(analysed: Analysed, image: np.ndarray, valid: np.ndarray) -> tuple[Array, Array]:
    """What the network sees of a tile, and how well it is known."""
    if analysed.picture.is_image:
        return jnp.asarray(image), jnp.asarray(valid)
    sources, bases = zip(*analysed.fitted, strict=True)
    found = _values(analysed.picture, image, valid, sources)
    parts = [_in_basis(x, basis) for (x, _), basis in zip(found, bases, strict=True)]
    return _side_by_side(parts), found[0][1]


@jax.jit
def _side_by_side(parts: list[Array]) -> Array:
    return jnp.concatenate(parts, axis=-1)


class _Network(NamedTuple):
    """A fitted network with the statistics that it normalizes by."""

    params: Any
    statistics: Any
    losses: np.ndarray
    stop: StopReason
    restorations: int


def _fitted(analysed: Analysed, key: PRNGKeyArray, report: Report) -> _Network:
    picture = analysed.picture
    # Its crops are drawn here, each from another part of the picture.
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
    margin = 0 if picture.is_image else _FEATURE_MARGIN
    shape = picture.shape
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
        # Cut by numpy: JAX would compile each cut anew.
        values, known = (np.asarray(x)[kept] for x in _fitted_values(analysed, image, valid))
        yield values, known / np.maximum(known.mean(), np.float32(1e-6))


@functools.partial(jax.jit, static_argnames=("apply", "config"))
def _jitted_reconstruction(
    apply: Callable[..., Array], params: Any, statistics: Any, values: Array, config: Any
) -> Array:
    return apply(params, statistics, values[None], config)[0]


def _reconstruction(picture: _Picture, fit: _Network, values: Array) -> Array:
    apply = picture.network.with_statistics
    assert apply is not None
    config = picture.plan.fit.network
    return _jitted_reconstruction(apply, fit.params, fit.statistics, values, config)


def _raw_map(analysed: Analysed, fit: _Network, report: Report) -> np.ndarray:
    """The raw map of the padded image; see `core.score`."""
    picture = analysed.picture
    reach = picture.network.receptive_margin
    assert reach is not None
    of_network = int(reach(picture.plan.fit.network) / picture.scale)
    if picture.plan.score.method == "patches":
        return _patch_map(analysed, fit, of_network, report)
    score_margin = streamed.score_margin(picture.plan.score.tile_size)

    def residual(image: np.ndarray, valid: np.ndarray) -> tuple[Array, Array]:
        values, known = _fitted_values(analysed, image, valid)
        return _difference(values, _reconstruction(picture, fit, values)), known

    margin = of_network + 2 * _FEATURE_MARGIN + int(score_margin / picture.scale) + 1
    parts = [*analysed.compared_parts(), Part(residual, picture.scale, margin)]
    total = 2 * sum(len(analysed.grid(part.margin)) for part in parts)
    count = iter(range(1, total + 1))

    def show() -> None:
        report(Progress("score", next(count), total, float("nan")))

    # `core.texture_score.agreement`, one map at a time.
    logarithms: np.ndarray | None = None
    agreement_scale = picture.plan.score.agreement_scale
    for part in parts:
        found = scaled_distances(analysed, part, show)
        if len(parts) == 1:
            return found
        # In place: these are as large as the image.
        np.maximum(found, 0, out=found)
        found /= np.float32(agreement_scale)
        np.log1p(found, out=found)
        logarithms = found if logarithms is None else np.add(logarithms, found, out=found)
    assert logarithms is not None
    logarithms /= np.float32(len(parts))
    np.expm1(logarithms, out=logarithms)
    logarithms *= np.float32(agreement_scale)
    return logarithms


def _patch_map(analysed: Analysed, fit: _Network, of_network: int, report: Report) -> np.ndarray:
    """Eq. 3 without its min-max scaling, of what was fitted."""
    picture = analysed.picture
    config = picture.plan.score
    patch = max(config.patch_sizes)
    tiles = picture.grid(of_network + 2 * _FEATURE_MARGIN + int(2 * patch / picture.scale))
    raw = np.zeros(picture.shape, np.float32)
    for done, tile in enumerate(tiles):
        image, valid = picture.cut(tile.outer)
        values, known = _fitted_values(analysed, image, valid)
        mu = _reconstruction(picture, fit, values)
        found = _patch_raw(values, mu, known, picture.plan, image.shape[:2])
        raw[tile.inner] = np.asarray(found)[tile.inner_of_outer]
        report(Progress("score", done + 1, len(tiles), float("nan")))
    return raw


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
    analysed: Analysed, part: Part, show: Callable[[], None] = lambda: None
) -> np.ndarray:
    """Tile distances of a part (`core.texture_score`), in quartiles, at the image's size.

    Args:
      analysed: the image.
      part: of it.
      show: called after each tile, twice a tile.
    """
    picture, scale = analysed.picture, part.scale
    size = picture.plan.score.tile_size
    tiles = analysed.grid(part.margin)
    reference = _reference(picture, part, tiles, show)
    shape = tuple(int(scale * side) for side in picture.shape)
    total, known = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    window = _window_sides(tiles, scale, streamed.score_margin(size))
    for tile in tiles:
        components, weights = (np.asarray(x) for x in part.get(*picture.cut(tile.outer)))
        at_scale = tile.scaled(scale)
        places = _window(at_scale, window, streamed.score_margin(size))
        found = _known_distances(components[places], weights[places], *reference, tile_size=size)
        inner = tuple(
            slice(i.start - p.start, i.stop - p.start)
            for i, p in zip(at_scale.inner_of_outer, places, strict=True)
        )
        for whole, of_tile in zip((total, known), found, strict=True):
            whole[at_scale.inner] = np.asarray(of_tile)[inner]
        show()
    counted = known > 1 - 1e-5
    if counted.mean() < 0.5:  # as where little is known of the image
        counted = known >= min(0.5, float(known.max()))
    usual = np.median(total[counted] / known[counted])
    distances = total + (1 - known) * usual
    at_pixels = np.asarray(_resized(distances, picture.shape))
    median, quartile = np.quantile(picture.judged(at_pixels), [0.5, 0.75])
    spread = np.float32(quartile - median)
    if spread <= 0:
        return np.zeros_like(at_pixels)
    scaled = at_pixels - np.float32(median)
    scaled /= spread
    return scaled


_resized = jax.jit(functools.partial(jax.image.resize, method="linear"), static_argnums=1)
_known_distances = jax.jit(streamed.known_distances, static_argnames="tile_size")


def _window_sides(tiles: Sequence[Tile], scale: float, margin: int) -> tuple[int, int]:
    """Of the windows that hold a tile's inner part and `margin` around it, the same for all."""
    at_scale = [tile.scaled(scale) for tile in tiles]
    rows, columns = (
        min(
            max(t.inner_stop[axis] - t.inner_start[axis] for t in at_scale) + 2 * margin,
            at_scale[0].stop[axis] - at_scale[0].start[axis],
        )
        for axis in (0, 1)
    )
    return rows, columns


def _window(tile: Tile, sides: tuple[int, int], margin: int) -> tuple[slice, ...]:
    places = []
    for axis, side in enumerate(sides):
        length = tile.stop[axis] - tile.start[axis]
        first = tile.inner_start[axis] - tile.start[axis] - margin
        first = min(max(first, 0), length - side)
        places.append(slice(first, first + side))
    return tuple(places)


def _reference(
    picture: _Picture, part: Part, tiles: Sequence[Tile], show: Callable[[], None]
) -> _Scale:
    """Extremes of the components and the typical tile, over the image."""
    size, scale = picture.plan.score.tile_size, part.scale
    shape = [int(scale * side) for side in picture.shape]
    every = max(1, int(np.sqrt(shape[0] * shape[1] / size**2 / _MOST_SORTED_TILES)))
    lows, highs, sorted_tiles, shares = [], [], [], []
    for tile in tiles:
        components, weights = (np.asarray(x) for x in part.get(*picture.cut(tile.outer)))
        at_scale = tile.scaled(scale)
        counted = weights[at_scale.inner_of_outer] >= 0.5
        if counted.any():
            inner = components[at_scale.inner_of_outer][counted]
            lows.append(inner.min(0))
            highs.append(inner.max(0))
        rows, columns = (_tile_starts(at_scale, axis, shape[axis], size, every) for axis in (0, 1))
        for row in rows:
            for column in columns:
                place = (slice(row, row + size), slice(column, column + size))
                sorted_tiles.append(np.sort(components[place].reshape(size**2, -1), axis=0))
                shares.append(weights[place].mean())
        show()
    extremes = np.stack([np.min(lows, axis=0), np.max(highs, axis=0)])
    enough = min(16, len(shares))
    chosen = np.asarray(shares) >= min(np.sort(shares)[-enough], 1 - 1e-5)
    of_them = np.stack([t for t, is_chosen in zip(sorted_tiles, chosen, strict=True) if is_chosen])
    middle = (len(of_them) - 1) // 2
    typical = np.partition(of_them, middle, axis=0)[middle]
    low, high = extremes
    return _Scale(extremes, (typical - low) / (high - low + np.float32(1e-8)))


def _tile_starts(tile: Tile, axis: int, length: int, size: int, every: int) -> list[int]:
    """Starts, within the tile, of the sorted tiles that begin in its inner part."""
    first, stop = tile.inner_start[axis], tile.inner_stop[axis]
    numbers = range(-(-first // size), -(-stop // size))
    return [
        number * size - tile.start[axis]
        for number in numbers
        if number % every == 0 and (number + 1) * size <= length
    ]
