"""Finding the place within a tile: a score map that follows its image, by a guided filter.

A map whose tiles are as wide as a defect, or wider, ends beside it. The image says where: in a
window of a few pixels the map is explained, by linear regression, from what the image is there,
its brightness, how far that is from usual, and its colours, and what is explained has the image's
resolution (He, Sun and Tang, Guided image filtering, ECCV 2010). What the image does not explain
stays as it is: a defect that differs from its surroundings in nothing local is not lost.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from ssdnet_jax.core import masked, order_statistics
from ssdnet_jax.core.features import principal_components, standardize
from ssdnet_jax.core.linear import solved
from ssdnet_jax.core.smoothing import smoothed

_BLUR = 1.0  # pixels, standard deviation: finer detail of the image is grain
_RADIUS = 4  # pixels: windows of 9 x 9
_SMALL_RADIUS = 2  # pixels, of the smoothing of what is not explained
_RIDGE = 0.1  # variance of a guide, of 1 over the image, from which a window can be explained
REACH = 2 * _RADIUS  # pixels that `filtered` sees around a pixel
BACKGROUND = 0.95  # share of pixels below which values are not what stands out


def guide_of(
    image: Float[Array, "h w c"], valid: Float[Array, "h w"] | None = None
) -> Float[Array, "h w guides"]:
    """What a map may follow: brightness, its distance from its median, and colours.

    All are slightly smoothed, with mean 0 and standard deviation 1. Colours are the principal
    components of the image but the main one, c - 1 of them; a grey image has none.

    Args:
      image: in [0, 1].
      valid: above 0 where a pixel takes part; None: everywhere.
    """
    grey = standardize(image.mean(-1, keepdims=True), valid)
    middle = (
        order_statistics.median(grey.ravel())
        if valid is None
        else masked.median(grey[..., 0], valid > 0)
    )
    colours = None
    if image.shape[-1] > 1:
        centred = image - image.mean((0, 1))
        components = principal_components(centred, count=image.shape[-1], weights=valid)
        colours = components[..., 1:]
    return standardize(smooth_guides(grey, middle, colours), valid)


def smooth_guides(
    grey: Float[Array, "h w 1"],
    middle: Float[Array, ""],
    colours: Float[Array, "h w colours"] | None,
) -> Float[Array, "h w guides"]:
    """Guides of an image or of a part of it, before they are brought to mean 0 and deviation 1.

    Args:
      grey: brightness, of mean 0 and standard deviation 1 over the image.
      middle: its median over the image.
      colours: principal components of the image but the main one; None of a grey image.

    Returns:
      Guides, of which those within 3 pixels of the part's borders are not those of the image.
    """
    guides = [grey, jnp.abs(grey - middle)]
    if colours is not None:
        guides.append(colours)
    smooth = [smoothed(one, _BLUR) for one in jnp.moveaxis(jnp.concatenate(guides, -1), -1, 0)]
    return jnp.stack(smooth, axis=-1)


def follow(
    values: Float[Array, "h w"],
    guide: Float[Array, "h w guides"],
    valid: Float[Array, "h w"] | None = None,
) -> Float[Array, "h w"]:
    """A map with the detail that the guide explains of it in windows of 9 x 9 pixels.

    The map is smoothed twice by windows of 5 x 5, and the part of the guided filter that comes from
    the guide is added. A constant guide adds nothing. A constant map stays. The guide is to change
    where values lie, not how far they stand out: if the largest one has grown, the range above the
    95th percentile of the map is compressed until it is as large as before.

    Args:
      values: the map.
      guide: of the same image, each channel of standard deviation 1.
      valid: above 0 where a pixel takes part; None: everywhere. Others do not count.
    """
    weights = jnp.ones_like(values) if valid is None else (valid > 0).astype(values.dtype)
    found = filtered(values, guide, weights)
    base = masked.quantiles(values, weights > 0, jnp.array([BACKGROUND], values.dtype))[0]
    before, after = (jnp.where(weights > 0, x, -jnp.inf).max() - base for x in (values, found))
    share = jnp.where(after > before, before / jnp.where(after > 0, after, 1.0), 1.0)
    return jnp.where(found > base, base + share * (found - base), found)


def filtered(
    values: Float[Array, "h w"], guide: Float[Array, "h w guides"], weights: Float[Array, "h w"]
) -> Float[Array, "h w"]:
    """`follow` without that compression, of a part of a map as of the whole.

    Args:
      values: of the part.
      guide: likewise.
      weights: 1 where a pixel takes part, else 0.

    Returns:
      The map, which within `REACH` pixels of the part's borders is not that of the whole.
    """
    smooth = values[..., None]
    for _ in range(2):
        smooth = _means(smooth, weights, radius=_SMALL_RADIUS)
    return smooth[..., 0] + _explained(values, guide, weights)


def _explained(values: Array, guide: Array, weights: Array) -> Float[Array, "h w"]:
    """What the guided filter has beyond the mean over windows: sum of mean(a) g - mean(a m).

    a are the coefficients of ridge regression in the window around a pixel, m the means of guides
    in it.
    """
    count = guide.shape[-1]
    pairs = [(i, j) for i in range(count) for j in range(i, count)]
    products = [guide[..., i] * guide[..., j] for i, j in pairs]
    moments = jnp.concatenate(
        [values[..., None], guide, guide * values[..., None], jnp.stack(products, -1)], axis=-1
    )
    means = _means(moments, weights, radius=_RADIUS)
    of_values, of_guide = means[..., 0], means[..., 1 : 1 + count]
    right = means[..., 1 + count : 1 + 2 * count] - of_guide * of_values[..., None]
    of_pairs = {pair: means[..., 1 + 2 * count + place] for place, pair in enumerate(pairs)}
    in_rows = [[of_pairs[min(i, j), max(i, j)] for j in range(count)] for i in range(count)]
    covariances = jnp.stack([jnp.stack(row, axis=-1) for row in in_rows], axis=-2)
    covariances = covariances - of_guide[..., :, None] * of_guide[..., None, :]
    coefficients = solved(covariances + _RIDGE * jnp.eye(count, dtype=values.dtype), right)
    shifts = coefficients * of_guide
    averaged = _means(jnp.concatenate([coefficients, shifts], -1), weights, radius=_RADIUS)
    return (averaged[..., :count] * guide - averaged[..., count:]).sum(-1)


def _means(
    values: Float[Array, "h w n"], weights: Float[Array, "h w"], *, radius: int
) -> Float[Array, "h w n"]:
    """Means over square windows of the pixels that count; 0 where none does."""
    weighted = jnp.concatenate([values * weights[..., None], weights[..., None]], axis=-1)
    for axis in (0, 1):
        window = [1, 1, 1]
        window[axis] = 2 * radius + 1
        weighted = lax.reduce_window(weighted, 0.0, lax.add, window, (1, 1, 1), "SAME")
    count = weighted[..., -1:]
    return weighted[..., :-1] / jnp.maximum(count, 0.5)
