"""Distance to nearest neighbours within the image (Aota, Tong and Okatani, WACV 2023)."""

from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from ssdnet_jax.baselines.pixels import (
    box_mean,
    check,
    check_features,
    check_odd,
    compiled,
    of_distances,
    smooth,
)
from ssdnet_jax.core.features import feature_maps
from ssdnet_jax.core.vgg19 import VGG19Weights


@compiled
def aota(
    image: Float[Array, "h w c"],
    *,
    features: Literal["vgg19", "filters"] = "vgg19",
    vgg19: VGG19Weights | None = None,
    neighbours: float = 0.25,
    window: int = 5,
    stride: int = 4,
    blur: float = 3.0,
) -> Float[Array, "h w"]:
    """Maps where features have no likeness elsewhere in the image.

    Nothing is fitted. Features are averaged over a window; each is then compared with all of the
    image, itself included, and scores the mean squared distance to its nearest neighbours. Where
    in the image a neighbour lies does not matter. A defect is found as long as it covers a
    smaller share of the image than `neighbours`. Source: Aota, Tong and Okatani, Zero-Shot versus
    Many-Shot: Unsupervised Texture Anomaly Detection, WACV 2023, as the authors of Feature
    Correspondence Analysis implemented it (github.com/TArdelean/AnomalyLocalizationFCA).

    What differs: the publication has features of the second block of a WideResNet-50, 1600 of an
    image of 320 x 320 pixels, and 400 neighbours, a quarter; its weights are not part of this
    project. Here they are VGG19's conv2_2, at every `stride`-th position, or a bank of filters.
    The image is mirrored at its borders.

    Args:
      image: grey or RGB in [0, 1].
      features: "vgg19", or "filters", Gabor filters and colours, which need no weights.
      vgg19: weights for "vgg19", from `ssdnet_jax.load_vgg19_weights`.
      neighbours: share of the image's features that are the nearest, in (0, 1].
      window: side of the window over which features are averaged, odd; a feature pixel is two
        image pixels wide.
      stride: every `stride`-th position is compared, in both directions; half of it takes 16 times
        as long.
      blur: standard deviation of the Gaussian over the map, in image pixels; 0: none.

    Returns:
      Raw map of the image's size, at least 0, in squared units of the features.

    Raises:
      ConfigError: an option outside of its range, or "vgg19" without weights.
      InputError: not (H, W, 1) or (H, W, 3), or smaller than two windows.
    """
    check(0 < neighbours <= 1, "neighbours", neighbours, "a share above 0 and up to 1")
    check_odd("window", window)
    check(stride >= 1, "stride", stride, "at least 1")
    check(blur >= 0, "blur", blur, "at least 0")
    check_features(image, features, vgg19, smallest=2 * max(2 * window, stride, 8))
    coarse = feature_maps(image, vgg19, kind=features).coarse
    averaged = box_mean(coarse, size=window)[stride // 2 :: stride, stride // 2 :: stride]
    height, width, channels = averaged.shape
    count = max(1, round(neighbours * height * width))
    distances = neighbour_distances(averaged.reshape(-1, channels), count=count)
    score_map = jax.image.resize(distances.reshape(height, width), image.shape[:2], "linear")
    return smooth(score_map, sigma=blur, size=2 * round(3 * blur) + 1, mode="reflect")


def neighbour_distances(features: Float[Array, "n c"], *, count: int) -> Float[Array, " n"]:
    """Mean squared distance of each feature to the `count` nearest, of which it is one itself."""
    means = of_distances(features, lambda squares: -lax.top_k(-squares, count)[0].mean())
    return jnp.maximum(means, 0)
