"""Which maps of an image to trust, decided by the maps themselves.

No map sees every defect: fine features see nothing on carpet, tiles see little of a crack, marks
see the outline of a stain only. What distinguishes a map that sees something is known without a
label: its largest values are far above its usual ones, and they lie together. All of this is said
of maps in logarithms, log(1 + M / s) of a map M `in_quartiles` (`core.calibration`), whose mean is
the logarithm of the maps' agreement.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ssdnet_jax.core.masked import quantiles

PEAK = 0.0025  # share of pixels: an image's largest values, fewer than a defect has
TOP = 0.01  # share of pixels whose places are looked at
BLOCKS = 16  # along each side, in which places are told apart
_SHARPNESS = 3.0  # of weights, for each unit of logarithm
_LEAST_WEIGHT = 0.4  # of a map in the agreement; that of the map with the highest peak is 1

BACKGROUND = 0.95  # share of pixels on which there is no mark
BACKGROUND_SHARES = (0.75, BACKGROUND)  # shares of pixels, where maps are brought to one size
_PEAK_OF_NOISE = 0.42  # of marks in white noise of 256 x 256 pixels
_CERTAIN = 0.4  # above it: marks that are certain
_LYING_TOGETHER = 5.5  # blocks that hold the top of a map of tiles, where tiles and marks are equal
_UNEVEN = 0.6  # share of the variance of brightness in its trend, from which light is uneven
_LOSS_BY_UNEVENNESS = 5.0  # of logarithm of the tiles' weight, for each unit beyond


def agreement(
    logarithms: Float[Array, "n h w"], valid: Float[Array, "h w"] | None = None
) -> Float[Array, "h w"]:
    """The weighted mean of maps in logarithms; a map without a peak counts less.

    Weights are max(exp(3 (p - p_max)), 0.4) of the maps' peaks p: none is left out, for where maps
    differ only in what they add to a defect, all of them narrow its place.

    Args:
      logarithms: of the maps.
      valid: above 0 where a pixel takes part; None: everywhere.
    """
    counted = _counted(logarithms[0], valid)
    peaks = jnp.stack([peak(one, counted) for one in logarithms])
    return jnp.tensordot(shares_of_maps(peaks), logarithms, 1)


def shares_of_maps(peaks: Float[Array, " n"]) -> Float[Array, " n"]:
    """What each map counts in `agreement` by its peak; 1 in sum."""
    weights = jnp.maximum(jnp.exp(_SHARPNESS * (peaks - peaks.max())), _LEAST_WEIGHT)
    return weights / weights.sum()


def with_marks(
    tiles: Float[Array, "h w"],
    marks: Float[Array, "n h w"],
    unevenness: Float[Array, ""],
    valid: Float[Array, "h w"] | None = None,
) -> Float[Array, "h w"]:
    """The weighted sum of the agreement of tiles and of marks, all in logarithms.

    Of marks only what is above their 95th percentile is added: elsewhere tiles decide alone. Below
    its own 95th percentile the sum is brought to the size of the tiles' agreement
    (`on_background`). A map's weight grows with its peak, as in `agreement`. That of marks goes to
    0 where their peak is that of white noise; that of tiles falls with the number of places in
    which their largest values lie, to the third power, and where the light is uneven.

    Args:
      tiles: the agreement of the maps that compare tiles.
      marks: maps of `core.matched_filter`.
      unevenness: `core.matched_filter.trend_share` of the image.
      valid: above 0 where a pixel takes part; None: everywhere.
    """
    counted = _counted(tiles, valid)
    maps, peaks = [tiles], []
    for one in marks:
        background = quantiles(one, counted, jnp.array([BACKGROUND], one.dtype))[0]
        above = jnp.maximum(one - background, 0)
        peaks.append(peak(above, counted))
        maps.append(above)
    shares = shares_with_marks(
        peak(tiles, counted), places(tiles, counted), unevenness, jnp.stack(peaks)
    )
    found = jnp.tensordot(shares, jnp.stack(maps), 1)
    low = jnp.array(BACKGROUND_SHARES, found.dtype)
    own, background = (quantiles(one, counted, low) for one in (found, tiles))
    return on_background(found, own, background)


def shares_with_marks(
    peak_of_tiles: Float[Array, ""],
    places_of_tiles: Float[Array, ""],
    unevenness: Float[Array, ""],
    peaks_of_marks: Float[Array, " n"],
) -> Float[Array, "n+1"]:
    """What tiles and, after them, each mark count in `with_marks`; 1 in sum.

    Args:
      peak_of_tiles: `peak` of the agreement of tiles.
      places_of_tiles: `places` of it.
      unevenness: `core.matched_filter.trend_share` of the image.
      peaks_of_marks: `peak` of what marks have above their background.
    """
    scattered = jnp.log(places_of_tiles / _LYING_TOGETHER)
    beyond = jnp.maximum(unevenness - _UNEVEN, 0)
    of_tiles = _SHARPNESS * (peak_of_tiles - scattered) - _LOSS_BY_UNEVENNESS * beyond
    certain = jnp.clip((peaks_of_marks - _PEAK_OF_NOISE) / _CERTAIN, 1e-4, 1)
    of_marks = _SHARPNESS * peaks_of_marks + jnp.log(certain)
    certainties = jnp.concatenate([of_tiles[None], of_marks])
    weights = jnp.exp(certainties - certainties.max())
    return weights / weights.sum()


def on_background(
    found: Float[Array, "h w"], own: Float[Array, "2"], background: Float[Array, "2"]
) -> Float[Array, "h w"]:
    """The map, its background brought to that of tiles; the order of its values stays.

    Where marks have most of the weight, little is left of what tiles say of the background. A peak
    is to be as many times the usual spread as in a map of tiles alone.

    Args:
      found: the map, or a part of it.
      own: its quantiles `BACKGROUND_SHARES`.
      background: those of tiles.
    """
    zero = jnp.zeros(1, found.dtype)
    own, background = (jnp.concatenate([zero, values]) for values in (own, background))
    below = jnp.interp(found, own, background)
    return jnp.where(found <= own[-1], below, background[-1] + found - own[-1])


def peak(values: Float[Array, "h w"], counted: Bool[Array, "h w"]) -> Float[Array, ""]:
    """Mean of the largest quarter of a percent of the values that count."""
    return _mean(values, _top(values, counted, PEAK))


def places(values: Float[Array, "h w"], counted: Bool[Array, "h w"]) -> Float[Array, ""]:
    """In how many of 16 x 16 blocks the largest percent of the values lies; about 1 to 256.

    The exponential of the entropy of their distribution over blocks.
    """
    top = _top(values, counted, TOP).astype(values.dtype)
    rows, columns = (
        (jnp.arange(side) * BLOCKS // side == jnp.arange(BLOCKS)[:, None]).astype(values.dtype)
        for side in values.shape
    )
    shares = (rows @ top @ columns.T).ravel()
    shares = shares / jnp.maximum(shares.sum(), 1)
    logarithms = jnp.log(jnp.where(shares > 0, shares, 1.0))
    return jnp.exp(-(shares * logarithms).sum())


def _counted(values: Array, valid: Array | None) -> Bool[Array, "h w"]:
    return jnp.ones(values.shape, bool) if valid is None else valid > 0


def _top(values: Array, counted: Array, share: float) -> Bool[Array, "h w"]:
    limit = quantiles(values, counted, jnp.array([1 - share], values.dtype))[0]
    return counted & (values >= limit)


def _mean(values: Array, chosen: Array) -> Array:
    return jnp.where(chosen, values, 0).sum() / jnp.maximum(chosen.sum(), 1)
