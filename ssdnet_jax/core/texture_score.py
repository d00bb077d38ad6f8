"""The score of a fit to texture features: where values are distributed unlike anywhere else.

The residual of a feature is not large or small by itself: on a stochastic texture most of it is
grain. What is unusual about an anomaly is the distribution of values around it. So the tiles of
fine features, of coarse ones and of what the fit left of them are compared with the image's typical
tile (`core.patch_statistics`), and each map's distances are measured in its own spread over the
image, which makes them comparable with one another, and comparable between images after. What
counts is where the maps agree (`agreement`).
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ssdnet_jax.core.calibration import in_quartiles
from ssdnet_jax.core.config import ScoreConfig
from ssdnet_jax.core.features import Kind, View, view_of, views
from ssdnet_jax.core.noise import without_noise
from ssdnet_jax.core.patch_statistics import (
    blame_pixels,
    correspondence_errors,
    median_sorted_tile,
    scale_channels,
)
from ssdnet_jax.core.registry import SCORES
from ssdnet_jax.core.score import ScoreMaps, ScoreSettings, from_raw
from ssdnet_jax.core.vgg19 import VGG19Weights

SPREAD = 3.0  # feature pixels, deviation of the weight of a tile around its centre
BLUR, BLUR_SIZE = 1.0, 5  # feature pixels, smoothing within a tile


@SCORES.register_own("tiles")
def tile_score(
    image: Float[Array, "h w c"],
    target: Float[Array, "hh ww d"],
    reconstruction: Float[Array, "hh ww d"],
    vgg19: VGG19Weights | None,
    settings: ScoreSettings,
) -> ScoreMaps:
    """Agreement of `image_distances` and `residual_distance`; of a fit to pixels the latter alone.

    Args:
      image: in [0, 1].
      target: what the network was fitted to; the image, or `core.features.fit_target` of it.
      reconstruction: f_theta(target).
      vgg19: weights; may be None unless features are VGG19's.
      settings: static.
    """
    config, kind = settings.score, settings.features.kind
    distance = residual_distance(target - reconstruction, shape=image.shape[:2], config=config)
    if kind == "pixels":
        return from_raw(distance)
    seen = views(settings.features, coarse_scale=config.coarse_scale, noisy=settings.noisy)
    smooth = without_noise(image)
    common = image_distances(smooth, vgg19, views=seen.compared, kind=kind, config=config)
    maps = jnp.concatenate([common, distance[None]])
    return from_raw(agreement(maps, scale=config.agreement_scale))


def agreement(maps: Float[Array, "n h w"], *, scale: float) -> Float[Array, "h w"]:
    """The shifted geometric mean s (prod_i (1 + max(M_i, 0) / s))^(1/n) - s.

    Of distances far below `scale` it is the mean, far above it the geometric mean: a place that
    one map takes for very unusual and the others do not ends lower than one on which they agree.
    That also narrows what is marked around a defect, since each map spreads in its own way.

    Args:
      maps: distances `in_quartiles`.
      scale: s, in the same units.
    """
    return scale * jnp.expm1(jnp.log1p(jnp.maximum(maps, 0) / scale).mean(0))


def image_distances(
    image: Float[Array, "h w c"],
    vgg19: VGG19Weights | None,
    *,
    views: Sequence[View],
    kind: Kind,
    config: ScoreConfig,
) -> Float[Array, "n h w"]:
    """How unusual each view of the image is around each pixel, `in_quartiles`.

    Args:
      image: in [0, 1].
      vgg19: weights; may be None for "filters".
      views: n looks at the image, static.
      kind: which features.
      config: side of a tile.
    """
    parts = [view_of(image, vgg19, view, kind=kind) for view in views]
    return jnp.stack([_scaled_distances(x, image.shape[:2], config) for x in parts])


def residual_distance(
    residual: Float[Array, "h//2 w//2 n"], *, shape: tuple[int, int], config: ScoreConfig
) -> Float[Array, "h w"]:
    """The same of what the fit left, target - f_theta(target); see `core.features.fit_target`."""
    return _scaled_distances(residual, shape, config)


def _scaled_distances(features: Array, shape: tuple[int, int], config: ScoreConfig) -> Array:
    distances = tile_distances(features, tile_size=config.tile_size)
    return in_quartiles(jax.image.resize(distances, shape, "linear"))


def tile_distances(features: Float[Array, "h w c"], *, tile_size: int) -> Float[Array, "h w"]:
    """Wasserstein distance of the tiles around a pixel to the typical tile, channel by channel.

    Feature Correspondence Analysis (Ardelean and Weyrich, WACV 2024) without its bright frame.
    """
    scaled = scale_channels(features)
    reference = median_sorted_tile(scaled, tile_size=tile_size)
    errors = correspondence_errors(scaled, reference, tile_size=tile_size)
    return blame_pixels(errors, spread=SPREAD, blur=BLUR, blur_size=BLUR_SIZE, border="corrected")
