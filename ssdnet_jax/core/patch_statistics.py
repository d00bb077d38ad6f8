"""Overlapping square tiles of a feature map against the typical one: sorted values, ranks, errors.

The pieces of Feature Correspondence Analysis (Ardelean and Weyrich, High-Fidelity Zero-Shot Texture
Anomaly Localization Using Feature Correspondence Analysis, WACV 2024), each a pure function.

Every pixel is the centre of one tile; around the border the map is mirrored. Sorting each tile
outright would be most of the work, and its results would have to be sent back to the pixels they
came from. Neither is needed: a pixel's place in a sorted tile is the number of tile members that
come before it, and these counts are sums over windows of comparisons which neighbouring tiles
share (`correspondence_errors`).

The same sums are ordered in two ways. A CPU goes through them by rows of a few channels, whose
comparisons stay in its cache; any other device takes all rows at once, as far as memory allows.
"""

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from ssdnet_jax.core import masked, order_statistics
from ssdnet_jax.core.order_statistics import at_ranks
from ssdnet_jax.core.smoothing import gaussian, mirror

Border = Literal["published", "corrected"]

SPREAD = 3.0  # feature pixels, standard deviation of the weight of a tile around its centre
BLUR, BLUR_SIZE = 1.0, 5  # feature pixels, smoothing within a tile

WORKING_BYTES = 2**28  # that `correspondence_errors` takes of a device that is no CPU, about
_CHANNELS_ON_CPU = 9  # of a row, at most: the comparisons of more do not stay in a core's cache

ALL_KNOWN = 1 - 1e-5  # of a tile's features, up to rounding
ENOUGH_TILES = 9  # of which the typical tile is the median, where there are so many


def tile_distances(
    features: Float[Array, "h w c"],
    *,
    tile_size: int,
    spread: float = SPREAD,
    blur: float = BLUR,
    blur_size: int = BLUR_SIZE,
    border: Border = "corrected",
    weights: Float[Array, "h w"] | None = None,
) -> Float[Array, "h w"]:
    """Wasserstein distance of the tiles around a pixel to the typical tile, channel by channel.

    Feature Correspondence Analysis of any feature map, each channel scaled to [0, 1].

    Args:
      features: of the image.
      tile_size: side of a tile, feature pixels, odd, at least 3.
      spread: as for `scatter_errors`, as are `blur`, `blur_size` and `border`.
      blur: see there.
      blur_size: see there.
      border: see there.
      weights: how well each feature is known, in [0, 1]: tiles count by what they know. None: all
        are known. With a "corrected" border only.
    """
    scaled = scale_channels(features, weights)
    reference = median_sorted_tile(scaled, tile_size=tile_size, weights=weights)
    errors = correspondence_errors(scaled, reference, tile_size=tile_size, weights=weights)
    return scatter_errors(
        errors, spread=spread, blur=blur, blur_size=blur_size, border=border, weights=weights
    )


def scale_channels(
    features: Float[Array, "h w c"], weights: Float[Array, "h w"] | None = None
) -> Float[Array, "h w c"]:
    """(F - min F) / (max F - min F) of each channel; a constant channel becomes 0.

    With weights the extremes are those of known features, and others may leave [0, 1].
    """
    if weights is None:
        low, high = features.min((0, 1)), features.max((0, 1))
    else:
        counted = (masked.for_statistics(weights) > 0)[..., None]
        low = jnp.where(counted, features, jnp.inf).min((0, 1))
        high = jnp.where(counted, features, -jnp.inf).max((0, 1))
    return (features - low) / (high - low + 1e-8)


def median_sorted_tile(
    features: Float[Array, "h w c"],
    *,
    tile_size: int,
    weights: Float[Array, "h w"] | None = None,
) -> Float[Array, "{tile_size}**2 c"]:
    """The typical tile: elementwise median over tiles of their values sorted by channel.

    Tiles do not overlap and start at the top left; a rest at the right and bottom is left out. Of
    an even number of tiles the lower of the two middle values is taken.

    With weights only tiles count whose features are all known; if there are fewer than 9 of
    them, the 9 whose features are known best.
    """
    rows, columns = (n // tile_size for n in features.shape[:2])
    channels = features.shape[2]
    tiles = features[: rows * tile_size, : columns * tile_size]
    tiles = tiles.reshape(rows, tile_size, columns, tile_size, channels)
    tiles = tiles.transpose(1, 3, 0, 2, 4).reshape(tile_size**2, rows * columns, channels)
    across_tiles = _sorted(tiles).swapaxes(1, 2)  # channels before tiles
    if weights is None:
        return _at_rank(across_tiles, jnp.int32((rows * columns - 1) // 2))
    shares = weights[: rows * tile_size, : columns * tile_size]
    shares = shares.reshape(rows, tile_size, columns, tile_size).mean((1, 3)).ravel()
    enough = min(ENOUGH_TILES, rows * columns)
    counted = shares >= jnp.minimum(jnp.sort(shares)[-enough], ALL_KNOWN)
    return _at_rank(jnp.where(counted, across_tiles, jnp.inf), (counted.sum() - 1) // 2)


def _at_rank(values: Float[Array, "*rest n"], rank: Int[Array, ""]) -> Float[Array, "*rest"]:
    return at_ranks(values, rank[None])[0][..., 0]


def _sorted(x: Float[Array, "m *rest"]) -> Float[Array, "m *rest"]:
    """Sorts along the first axis.

    On a CPU, whose sort in XLA takes several times as long, by a bitonic network of comparisons
    (Batcher 1968), each of which is one of many values at once.
    """
    return lax.platform_dependent(x, cpu=_bitonic, default=functools.partial(jnp.sort, axis=0))


def _bitonic(x: Float[Array, "m *rest"]) -> Float[Array, "m *rest"]:
    count, rest = x.shape[0], x.shape[1:]
    whole = 1 << (count - 1).bit_length()
    filling = (*((0, 0) for _ in rest),)
    x = jnp.pad(x, ((0, whole - count), *filling), constant_values=jnp.inf)
    size = 2
    while size <= whole:
        low, high = jnp.split(x.reshape(-1, size, *rest), 2, axis=1)
        high = high[:, ::-1]
        x = jnp.concatenate([jnp.minimum(low, high), jnp.maximum(low, high)[:, ::-1]], 1)
        apart = size // 4
        while apart:
            low, high = jnp.split(x.reshape(-1, 2 * apart, *rest), 2, axis=1)
            x = jnp.concatenate([jnp.minimum(low, high), jnp.maximum(low, high)], 1)
            apart //= 2
        size *= 2
    return x.reshape(whole, *rest)[:count]


def correspondence_errors(
    features: Float[Array, "h w c"],
    reference: Float[Array, "{tile_size}**2 c"],
    *,
    tile_size: int,
    weights: Float[Array, "h w"] | None = None,
) -> Float[Array, "h+{tile_size}-1 w+{tile_size}-1 {tile_size} {tile_size}"]:
    """How far each member of each tile is from its counterpart in `reference`.

    The member of rank r in its tile corresponds to the reference's value of rank r; of equal
    members the one further up, or left of the other, comes first.

    Args:
      features: the feature map.
      reference: sorted values of a tile, channel by channel (`median_sorted_tile`).
      tile_size: odd, in feature pixels.
      weights: how well each pixel of the map is known. A member's rank is then that among the well
        known members of its tile, in proportion to how many there are. None: all are known.

    Returns:
      Mean over channels of |F(b) - reference(rank of b)|, at [b, o]: b is a pixel of the map
      mirrored by tile_size // 2 at each side and o its place in the tile. The tile's top left is
      b - o; values of tiles that lie outside of the mirrored map are meaningless.
    """
    n, margin = tile_size, tile_size // 2
    beyond = jnp.pad(mirror(features, margin=margin), ((n - 1, n - 1), (n - 1, n - 1), (0, 0)))
    known = None
    if weights is not None:
        well_known = masked.well_known(weights)[..., None].astype(features.dtype)
        known = jnp.pad(mirror(well_known, margin=margin)[..., 0] > 0, n - 1)
    by_row = lax.platform_dependent(
        beyond,
        reference,
        known,
        cpu=functools.partial(_errors_by_row, n=n, order_for=_in_cache),
        default=functools.partial(_errors_by_row, n=n, order_for=_side_by_side),
    )
    # The count at [i, j] is that of the tile which ends i rows below and j columns right of b.
    return by_row[:, ::-1, ::-1].transpose(0, 3, 1, 2)


class _Order(NamedTuple):
    """In which order sums are computed; it changes them by rounding only.

    Attributes:
      rows: how many rows of pixels are taken at once.
      channels: how many channels of them.
      each: (function, n) -> its results for 0 to n - 1, stacked.
      window_sums: running sums over n neighbours along the first axis.
    """

    rows: int
    channels: int
    each: Callable[[Callable[[Any], Array], int], Array]
    window_sums: Callable[[Array, int], Array]


def _in_cache(width: int, channels: int, n: int) -> _Order:
    blocks = -(-channels // _CHANNELS_ON_CPU)
    return _Order(1, -(-channels // blocks), _one_by_one, _scanned_sums)


def _side_by_side(width: int, channels: int, n: int) -> _Order:
    bytes_of_row = (2 * n) ** 2 * width * channels
    return _Order(max(1, WORKING_BYTES // bytes_of_row), channels, _unrolled, _summed_slices)


def _errors_by_row(
    beyond: Float[Array, "tall wide c"],
    reference: Float[Array, "{n}**2 c"],
    known: Bool[Array, "tall wide"] | None,
    *,
    n: int,
    order_for: Callable[[int, int, int], _Order],
) -> Float[Array, "tall-2*({n}-1) {n} {n} wide-2*({n}-1)"]:
    """Errors of `correspondence_errors` by row, counts of a tile, and column."""
    height, width = (side - 2 * (n - 1) for side in beyond.shape[:2])
    channels = beyond.shape[2]
    order = order_for(width, channels, n)
    together = order.channels
    blocks = -(-channels // together)
    # Channels that fill up the last block are 0, as is their reference: they have no error.
    values, tables = (_in_blocks(x, blocks, together) for x in (beyond.swapaxes(1, 2), reference.T))

    def error_row(row: Int[Array, ""]) -> Float[Array, "n n w"]:
        known_strip = None if known is None else lax.dynamic_slice_in_dim(known, row, 2 * n - 1)

        def of_block(block: Int[Array, ""] | int) -> Float[Array, "n n w"]:
            strip = lax.dynamic_slice_in_dim(values[block], row, 2 * n - 1)
            centre = strip[n - 1, :, n - 1 : n - 1 + width]
            if known_strip is None:
                ranks = _ranks(strip, centre, n, order)
            else:
                ranks = _ranks_among(strip, known_strip, centre, n, order)
            table = tables[block].reshape(-1)
            offsets = jnp.arange(together)[:, None] * n**2

            def errors(place: Int[Array, ""] | int) -> Float[Array, "n w"]:
                index = ranks[place].astype(jnp.int32) + offsets
                found = table.at[index].get(mode="promise_in_bounds")  # a rank is one of the table
                return jnp.abs(centre - found).sum(-2)

            return order.each(errors, n)

        if blocks == 1:
            return of_block(0)
        nothing = jnp.zeros((n, n, width), beyond.dtype)
        return lax.fori_loop(0, blocks, lambda block, sums: sums + of_block(block), nothing)

    rows = jnp.arange(height)
    if order.rows >= height:
        return jax.vmap(error_row)(rows) / channels
    return lax.map(error_row, rows, batch_size=order.rows if order.rows > 1 else None) / channels


def _in_blocks(x: Float[Array, "*rest c w"], blocks: int, size: int) -> Float[Array, "b *rest s w"]:
    """Channels in blocks of one size, the last of which is filled up with zeros."""
    before, (channels, width) = x.shape[:-2], x.shape[-2:]
    filling = (*len(before) * ((0, 0),), (0, blocks * size - channels), (0, 0))
    return jnp.moveaxis(jnp.pad(x, filling).reshape(*before, blocks, size, width), -3, 0)


def _ranks(
    strip: Float[Array, "2*{n}-1 c wide"],
    centre: Float[Array, "c wide-2*({n}-1)"],
    n: int,
    order: _Order,
) -> Int[Array, "{n} {n} c wide-2*({n}-1)"]:
    """Number of tile members before each pixel of a row, for all n x n tiles that contain it.

    Each comparison of a pixel with one of its neighbours is made once and counted in all tiles
    that hold both.
    """
    counts = jnp.int8 if n**2 <= 128 else jnp.int16  # the smaller, the faster
    width = centre.shape[1]
    rows = jnp.arange(2 * n - 1)[:, None, None]

    def comes_before(column: Int[Array, ""] | int) -> Int[Array, "rows c w"]:
        neighbours = lax.dynamic_slice_in_dim(strip, column, width, axis=2)
        earlier = (rows < n - 1) | ((rows == n - 1) & (column < n - 1))
        return ((neighbours < centre) | ((neighbours == centre) & earlier)).astype(counts)

    in_columns = order.window_sums(order.each(comes_before, 2 * n - 1), n)
    return order.window_sums(jnp.swapaxes(in_columns, 0, 1), n)


def _ranks_among(
    strip: Float[Array, "2*{n}-1 c wide"],
    known: Bool[Array, "2*{n}-1 wide"],
    centre: Float[Array, "c wide-2*({n}-1)"],
    n: int,
    order: _Order,
) -> Int[Array, "{n} {n} c wide-2*({n}-1)"]:
    """`_ranks` among the known members of a tile, brought to the size of a whole tile."""
    width = centre.shape[1]
    # What is infinite comes before nothing.
    before = _ranks(jnp.where(known[:, None], strip, jnp.inf), centre, n, order)
    columns = jnp.arange(2 * n - 1)[:, None] + jnp.arange(width)
    counted = known.astype(jnp.int32)[:, columns].transpose(1, 0, 2)
    in_columns = order.window_sums(counted, n)
    members = order.window_sums(jnp.swapaxes(in_columns, 0, 1), n)[:, :, None]
    ranks = ((2 * before.astype(jnp.int32) + 1) * n**2) // (2 * jnp.maximum(members, 1))
    return jnp.minimum(ranks, n**2 - 1)  # what is itself not known may come after all members


def _one_by_one(function: Callable[[Any], Array], count: int) -> Array:
    return lax.map(function, jnp.arange(count))


def _unrolled(function: Callable[[Any], Array], count: int) -> Array:
    return jnp.stack([function(i) for i in range(count)])


def _scanned_sums(x: Int[Array, "m *rest"], n: int) -> Int[Array, "m-{n}+1 *rest"]:
    """Running sums as a scan.

    XLA on a CPU would fuse an unrolled sum into its consumer and repeat it there for each of the
    consumer's elements.
    """

    def step(total: Array, i: Int[Array, ""]) -> tuple[Array, Array]:
        entering, leaving = (lax.dynamic_index_in_dim(x, j, 0, keepdims=False) for j in (i + n, i))
        return total + entering - leaving, total

    first = functools.reduce(lax.add, [x[i] for i in range(n)])
    last, sums = lax.scan(step, first, jnp.arange(x.shape[0] - n))
    return jnp.concatenate([sums, last[None]])


def _summed_slices(x: Int[Array, "m *rest"], n: int) -> Int[Array, "m-{n}+1 *rest"]:
    """Running sums without a loop."""
    count = x.shape[0] - n + 1
    return functools.reduce(lax.add, [x[i : i + count] for i in range(n)])


def scatter_errors(
    errors: Float[Array, "h w n n"],
    *,
    spread: float,
    blur: float,
    blur_size: int,
    border: Border,
    weights: Float[Array, "h-n+1 w-n+1"] | None = None,
) -> Float[Array, "h-n+1 w-n+1"]:
    """Adds up what all tiles say about a pixel.

    Within each tile the errors are smoothed by a Gaussian and weighted by another, centred on
    the tile, whose weights add up to 1; tiles are then added where they overlap. All of it is
    linear, so the errors of a pixel are first summed over tiles, once for each place in the
    smoothing window.

    Args:
      errors: of `correspondence_errors`.
      spread: standard deviation of the weights, feature pixels.
      blur: standard deviation of the smoothing, feature pixels; 0: no smoothing.
      blur_size: side of the smoothing window, odd, below 2 n.
      border: "published" adds the tiles of all pixels. Those near the border hold mirrored values,
        hence few different ones, and look unusual: a bright frame. "corrected" adds only tiles
        that lie within the map; where they do not have all of the weight, the rest of it goes to
        the map's median, for what is not known is taken to be usual.
      weights: how well each pixel of the map is known, in [0, 1]; the rest of its error's weight is
        treated likewise. None: all are known. With "corrected" only.

    Raises:
      ValueError: the map is so small that no pixel has all of its tiles within it.
    """
    n = errors.shape[-1]
    height, width = errors.shape[0] - n + 1, errors.shape[1] - n + 1
    if min(height, width) < 2 * n - 1:
        raise ValueError(f"map of {height} x {width}; expected at least {2 * n - 1} a side")
    margin = n // 2 if border == "corrected" else 0
    rows, columns = (_valid(length, n, margin) for length in (height, width))
    inside = jnp.asarray(rows)[:, None, :, None] & jnp.asarray(columns)[None, :, None, :]
    errors = jnp.where(inside, errors, 0.0)
    shares = _shares(n, spread, blur, blur_size).astype(np.float32)
    if weights is not None:
        total, known = scatter_known(errors, weights, spread=spread, blur=blur, blur_size=blur_size)
        counted = masked.for_statistics(known) > 0
        usual = masked.median(total / jnp.where(known > 0, known, 1.0), counted)
        return total + (1 - known) * usual
    total = _scattered(errors, shares, (height, width))
    if border == "published":
        return total
    of_tile = gaussian(n, spread)
    known = np.outer(
        *((axis @ of_tile)[n // 2 : axis.shape[0] - n // 2] for axis in (rows, columns))
    )
    usual = order_statistics.median(total[n - 1 : height - n + 1, n - 1 : width - n + 1].ravel())
    return total + (1 - known.astype(np.float32)) * usual


def scatter_known(
    errors: Float[Array, "h w n n"],
    weights: Float[Array, "h-n+1 w-n+1"],
    *,
    spread: float,
    blur: float,
    blur_size: int,
) -> tuple[Float[Array, "h-n+1 w-n+1"], Float[Array, "h-n+1 w-n+1"]]:
    """Adds up what the tiles within a map say about a pixel, as far as they know it.

    Args:
      errors: of `correspondence_errors`.
      weights: how well each pixel of the map is known, in [0, 1].
      spread: as for `scatter_errors`, as are `blur` and `blur_size`.
      blur: see there.
      blur_size: see there.

    Returns:
      Sums of weighted errors, and the share of the full weight that they have, in [0, 1].
    """
    n = errors.shape[-1]
    height, width = weights.shape
    inside = (_valid(height, n, n // 2), _valid(width, n, n // 2))
    inside = inside[0][:, None, :, None] & inside[1][None, :, None, :]
    shares = _shares(n, spread, blur, blur_size).astype(np.float32)
    of_members = _member_weights(weights, n) * inside
    total, known = (
        _scattered(x, shares, (height, width)) for x in (errors * of_members, of_members)
    )
    return total, known


def _member_weights(
    weights: Float[Array, "h w"], n: int
) -> Float[Array, "h+{n}-1 w+{n}-1 {n} {n}"]:
    """What the error of each member of each tile counts, at [b, o] as in `correspondence_errors`.

    A tile of which little is known is a small sample, which differs from the typical tile by chance
    already: it counts as far as it is known, a tile that is known to one half or less not at all.
    """
    mirrored = mirror(weights[..., None], margin=n // 2)[..., 0]
    sums = lax.reduce_window(mirrored, 0.0, lax.add, (n, n), (1, 1), "VALID")
    of_tiles = jnp.clip(2 * sums / n**2 - 1, 0, 1)
    rows, columns = (
        np.clip(np.arange(length + n - 1)[:, None] - np.arange(n), 0, length - 1)
        for length in weights.shape
    )
    return mirrored[..., None, None] * of_tiles[rows[:, None, :, None], columns[:, None, :]]


def _scattered(
    errors: Float[Array, "h w n n"], shares: np.ndarray, shape: tuple[int, int]
) -> Float[Array, "{shape[0]} {shape[1]}"]:
    """Sums of what the members of all tiles send to each pixel, by `_shares`."""
    (height, width), n, k = shape, errors.shape[-1], shares.shape[0]
    sums = jnp.einsum("hwij,klij->hwkl", errors, shares, precision=lax.Precision.HIGHEST)

    # sums[b, d] goes from the pixel b of the mirrored map to the pixel b + d - k // 2.
    padded = jnp.pad(sums, ((k // 2, k // 2), (k // 2, k // 2), (0, 0), (0, 0)))
    first = n // 2 + 2 * (k // 2)
    total = jnp.zeros((height, width), errors.dtype)
    for row in range(k):
        for column in range(k):
            top, left = first - row, first - column
            total += padded[top : top + height, left : left + width, row, column]
    return total


def _valid(length: int, n: int, margin: int) -> np.ndarray:
    """Whether the tile that holds pixel b at place o counts; (b, o).

    b counts from the start of the mirrored map; tiles start in [margin, length - margin).
    """
    start = np.arange(length + n - 1)[:, None] - np.arange(n)[None, :]
    return (start >= margin) & (start < length - margin)


def _shares(n: int, spread: float, blur: float, blur_size: int) -> np.ndarray:
    """Share of the error at place o that reaches place o + d - k // 2, at [d, o]."""
    k = blur_size if blur else 1
    smooth = _smoothing_matrix(n, blur, k)
    places = np.arange(n)
    axis = np.zeros((k, n))
    for d in range(-(k // 2), k // 2 + 1):
        target = places + d
        inside = (target >= 0) & (target < n)
        axis[d + k // 2, inside] = (
            gaussian(n, spread)[target[inside]] * smooth[target[inside], places[inside]]
        )
    return np.einsum("ki,lj->klij", axis, axis)


def _smoothing_matrix(n: int, blur: float, k: int) -> np.ndarray:
    """Gaussian smoothing of n values, mirrored at both ends, as a matrix."""
    if not blur:
        return np.eye(n)
    padded = np.pad(np.eye(n), ((k // 2, k // 2), (0, 0)), mode="reflect")
    return sum(weight * padded[i : i + n] for i, weight in enumerate(gaussian(k, blur)))
