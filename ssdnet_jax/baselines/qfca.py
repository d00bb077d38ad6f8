"""Quantized Feature Correspondence Analysis (Ardelean, Rueckbeil and Weyrich, arXiv 2510.15602)."""

from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from ssdnet_jax.baselines.pixels import check, check_features, check_odd, compiled, smooth
from ssdnet_jax.core.features import feature_maps
from ssdnet_jax.core.patch_statistics import median_sorted_tile, mirror, scale_channels
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
    """Mean over channels and tiles of the errors that the tiles around a pixel send to it, in bins.

    Args:
      values: in 0 to bins - 1.
      bins: number of values.
      tile_size: side of a tile, odd. Tiles lie within the map, but for those around its border,
        where it is mirrored.
    """
    members = tile_size**2
    reference = median_sorted_tile(values.astype(jnp.float32), tile_size=tile_size)

    def of_channel(
        channel: tuple[Int[Array, "h w"], Float[Array, " members"]],
    ) -> Float[Array, "h w"]:
        value, typical = channel
        # first[b, m]: sum of |b - typical| over the first m ranks.
        differences = jnp.abs(jnp.arange(bins)[:, None] - typical)
        first = jnp.pad(jnp.cumsum(differences, axis=1), ((0, 0), (1, 0)))
        held = value == jnp.arange(bins)[:, None, None]
        counts = _tile_sums(held.astype(jnp.float32), tile_size)
        upto = jnp.cumsum(counts, axis=0)
        ranks = jnp.stack([upto - counts, upto]).astype(jnp.int32)
        before, through = (jax.vmap(jnp.take)(first, each) for each in ranks)
        errors = (through - before) / jnp.maximum(counts, 1)
        sent = _tile_sums(errors, tile_size) / members
        return jnp.where(held, sent, 0).sum(0)

    by_channel = (jnp.moveaxis(values, -1, 0), reference.T)
    total, _ = lax.scan(
        lambda sums, channel: (sums + of_channel(channel), None),
        jnp.zeros(values.shape[:2]),
        by_channel,
    )
    return total / values.shape[-1]


def _tile_sums(x: Float[Array, "b h w"], size: int) -> Float[Array, "b h w"]:
    """Sums over the tile around each position; the map is mirrored."""
    padded = jnp.moveaxis(mirror(jnp.moveaxis(x, 0, -1), margin=size // 2), -1, 0)
    rows = lax.reduce_window(padded, 0.0, lax.add, (1, size, 1), (1, 1, 1), "VALID")
    return lax.reduce_window(rows, 0.0, lax.add, (1, 1, size), (1, 1, 1), "VALID")
