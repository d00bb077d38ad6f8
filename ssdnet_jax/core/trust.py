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

_PEAK = 0.0025  # share of pixels: an image's largest values, fewer than a defect has
_TOP = 0.01  # share of pixels whose places are looked at
_BLOCKS = 16  # along each side
_SHARPNESS = 3.0  # of weights, for each unit of logarithm
_LEAST_WEIGHT = 0.4  # of a map in the agreement; that of the map with the highest peak is 1

_BACKGROUND = 0.95  # share of pixels on which there is no mark
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
    weights = jnp.maximum(jnp.exp(_SHARPNESS * (peaks - peaks.max())), _LEAST_WEIGHT)
    return jnp.tensordot(weights / weights.sum(), logarithms, 1)


def with_marks(
    tiles: Float[Array, "h w"],
    marks: Float[Array, "n h w"],
    unevenness: Float[Array, ""],
    valid: Float[Array, "h w"] | None = None,
) -> Float[Array, "h w"]:
    """The weighted sum of the agreement of tiles and of marks, all in logarithms.

    Of marks only what is above the 95th percentile of the image is added: elsewhere tiles decide
    alone, and below its 95th percentile the sum is brought to their size. A map's weight grows with
    its peak, as in `agreement`. That of marks goes to 0 where their peak is that of white noise;
    that of tiles falls with the number of places in which their largest values lie, to the third
    power, and where the light is uneven.

    Args:
      tiles: the agreement of the maps that compare tiles.
      marks: maps of `core.matched_filter`.
      unevenness: `core.matched_filter.trend_share` of the image.
      valid: above 0 where a pixel takes part; None: everywhere.
    """
    counted = _counted(tiles, valid)
    scattered = jnp.log(places(tiles, counted) / _LYING_TOGETHER)
    beyond = jnp.maximum(unevenness - _UNEVEN, 0)
    certainties = [_SHARPNESS * (peak(tiles, counted) - scattered) - _LOSS_BY_UNEVENNESS * beyond]
    maps = [tiles]
    for one in marks:
        background = quantiles(one, counted, jnp.array([_BACKGROUND], one.dtype))[0]
        above = jnp.maximum(one - background, 0)
        of_mark = peak(above, counted)
        certain = jnp.clip((of_mark - _PEAK_OF_NOISE) / _CERTAIN, 1e-4, 1)
        certainties.append(_SHARPNESS * of_mark + jnp.log(certain))
        maps.append(above)
    weights = jnp.exp(jnp.stack(certainties) - jnp.stack(certainties).max())
    found = jnp.tensordot(weights / weights.sum(), jnp.stack(maps), 1)
    return _on_background(found, tiles, counted)


def _on_background(found: Array, tiles: Array, counted: Array) -> Float[Array, "h w"]:
    """The map with the background of tiles; which pixel has more than another does not change.

    Where marks have most of the weight, little is left of what tiles say of the background. A peak
    is to be as many times the usual spread as in a map of one kind.
    """
    shares = jnp.array([0.75, _BACKGROUND], found.dtype)
    own, background = (
        jnp.concatenate([jnp.zeros(1, found.dtype), quantiles(one, counted, shares)])
        for one in (found, tiles)
    )
    below = jnp.interp(found, own, background)
    return jnp.where(found <= own[-1], below, background[-1] + found - own[-1])


def peak(values: Float[Array, "h w"], counted: Bool[Array, "h w"]) -> Float[Array, ""]:
    """Mean of the largest quarter of a percent of the values that count."""
    return _mean(values, _top(values, counted, _PEAK))


def places(values: Float[Array, "h w"], counted: Bool[Array, "h w"]) -> Float[Array, ""]:
    """In how many of 16 x 16 blocks the largest percent of the values lies; about 1 to 256.

    The exponential of the entropy of their distribution over blocks.
    """
    top = _top(values, counted, _TOP).astype(values.dtype)
    rows, columns = (
        (jnp.arange(side) * _BLOCKS // side == jnp.arange(_BLOCKS)[:, None]).astype(values.dtype)
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
