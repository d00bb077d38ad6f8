"""Quantized Feature Correspondence Analysis (Ardelean, Rueckbeil and Weyrich, arXiv 2510.15602)."""

from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from ssdnet_jax.baselines.pixels import check, check_features, check_odd, compiled, smooth
from ssdnet_jax.core.features import feature_maps
from ssdnet_jax.core.patch_statistics import median_sorted_tile, scale_channels
from ssdnet_jax.core.vgg19 import VGG19Weights


@compiled
def qfca(
    image: Float[Array, "h w c"],
    *,
    features: Literal["vgg19", "filters"] = "vgg19",
    vgg19: VGG19Weights | None = None,
    bins: int = 16,
    tile_size: int = 9,
    blur: float = 1.0,
) -> Float[Array, "h w"]:
    """Feature Correspondence Analysis of values that are quantized, on histograms of tiles.

    What `fca` finds by sorting the values of each tile follows from counts here: of a tile's
    histogram it is known which ranks the values of a bin have, so how far they are from their
    counterparts in the median sorted tile; that error, one for all of them, goes to all pixels of
    the tile with a value in that bin. Source: Ardelean, Rueckbeil and Weyrich, Quantized FCA:
    Efficient Zero-Shot Texture Anomaly Detection, arXiv 2510.15602.

    The publication's text could not be had in full here: this is the algorithm that its abstract
    and summaries state, the mismatch of FCA for quantized values with box sums for all windows.
    Its additional preprocessing by principal components ("QFCA+") is left out, and so are its
    WideResNet-50 features, whose weights are not part of this project.

    Args:
      image: grey or RGB in [0, 1].
      features: "vgg19" (conv2_2), or "filters", Gabor filters and colours, which need no weights;
        each channel is scaled to [0, 1] and the image mirrored at its borders.
      vgg19: weights for "vgg19", from `ssdnet_jax.load_vgg19_weights`.
      bins: into which the range of each channel is divided, at least 2.
      tile_size: side of a tile in feature pixels, odd, at least 3; a feature pixel is two image
        pixels wide.
      blur: standard deviation of the smoothing of the map in feature pixels; 0: none.

    Returns:
      Raw map of the image's size, at least 0, in units of the scaled features' range.

    Raises:
      ConfigError: an option outside of its range, or "vgg19" without weights.
      InputError: not (H, W, 1) or (H, W, 3), or smaller than two tiles.
    """
    check(bins >= 2, "bins", bins, "at least 2")
    check_odd("tile_size", tile_size, 3)
    check(blur >= 0, "blur", blur, "at least 0")
    check_features(image, features, vgg19, smallest=4 * tile_size)
    scaled = scale_channels(feature_maps(image, vgg19, kind=features).coarse)
    quantized = jnp.minimum(jnp.floor(scaled * bins), bins - 1).astype(jnp.int32)
    errors = quantized_correspondence(quantized, bins=bins, tile_size=tile_size) / bins
    score_map = smooth(errors, sigma=blur, size=2 * round(3 * blur) + 1, mode="reflect")
    return jax.image.resize(score_map, image.shape[:2], "linear")


def quantized_correspondence(
    values: Int[Array, "h w c"], *, bins: int, tile_size: int
) -> Float[Array, "h w"]:
    """Mean over channels of the errors that the tiles around a pixel send to it, in bins.

    Tiles lie within the map. Where fewer than `tile_size`**2 of them hold a pixel, as near the
    border, the others are taken to have the median error.

    Args:
      values: in 0 to bins - 1.
      bins: number of values.
      tile_size: side of a tile, odd, in pixels of the map.
    """
    members = tile_size**2
    reference = median_sorted_tile(values.astype(jnp.float32), tile_size=tile_size)

    def of_channel(
        value: Int[Array, "h w"], typical: Float[Array, " members"]
    ) -> Float[Array, "h w"]:
        # first[b, m]: sum of |b - typical| over the first m ranks.
        differences = jnp.abs(jnp.arange(bins)[:, None] - typical)
        first = jnp.pad(jnp.cumsum(differences, axis=1), ((0, 0), (1, 0)))
        held = value == jnp.arange(bins)[:, None, None]
        counts = _window_sums(held.astype(jnp.float32), tile_size)
        upto = jnp.cumsum(counts, axis=0)
        ranks = jnp.stack([upto - counts, upto]).astype(jnp.int32)
        before, through = (jax.vmap(jnp.take)(first, each) for each in ranks)
        errors = (through - before) / jnp.maximum(counts, 1)
        return jnp.where(held, _sent_back(errors, tile_size), 0).sum(0)

    def add(total: Array, channel: tuple[Array, Array]) -> tuple[Array, None]:
        return total + of_channel(*channel), None

    shape = values.shape[:2]
    channels = (jnp.moveaxis(values, -1, 0), reference.T)
    total = lax.scan(add, jnp.zeros(shape), channels)[0] / (members * values.shape[-1])
    share = _sent_back(jnp.ones((1, *(n - tile_size + 1 for n in shape))), tile_size)[0] / members
    return total + (1 - share) * jnp.median(total / share)


def _sent_back(of_tiles: Float[Array, "b h w"], size: int) -> Float[Array, "b hh ww"]:
    """Sums over all tiles that hold a pixel; tiles are at [their top, their left]."""
    around = size - 1
    return _window_sums(jnp.pad(of_tiles, ((0, 0), (around, around), (around, around))), size)


def _window_sums(x: Float[Array, "b h w"], size: int) -> Float[Array, "b hh ww"]:
    """Sums over all windows of side `size` that lie within x."""
    rows = lax.reduce_window(x, 0.0, lax.add, (1, size, 1), (1, 1, 1), "VALID")
    return lax.reduce_window(rows, 0.0, lax.add, (1, 1, size), (1, 1, 1), "VALID")
