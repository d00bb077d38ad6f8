"""Feature Correspondence Analysis (Ardelean and Weyrich, WACV 2024), the strongest rival."""

from typing import Literal

import jax
from jaxtyping import Array, Float, PRNGKeyArray

from ssdnet_jax.baselines import fca_features
from ssdnet_jax.baselines.pixels import check, check_channels, check_odd, check_word, compiled
from ssdnet_jax.core.patch_statistics import Border, tile_distances
from ssdnet_jax.core.vgg19 import VGG19Weights, needed
from ssdnet_jax.errors import ConfigError, InputError

Features = Literal["vgg19", "random", "colour", "laws"]


@compiled
def fca(
    image: Float[Array, "h w c"],
    *,
    features: Features = "vgg19",
    vgg19: VGG19Weights | None = None,
    key: PRNGKeyArray | None = None,
    tile_size: int = 9,
    spread: float = 3.0,
    blur: float = 1.0,
    blur_size: int = 5,
    border: Border = "published",
) -> Float[Array, "h w"]:
    """Maps where the features around a pixel are distributed unlike those of the whole image.

    Nothing is fitted. The values of each channel within a tile are sorted and compared with the
    image's median sorted tile (a Wasserstein distance); each difference is sent back to the pixel
    its value came from, and a pixel adds up what all tiles around it say. Source: Ardelean and
    Weyrich, High-Fidelity Zero-Shot Texture Anomaly Localization Using Feature Correspondence
    Analysis, WACV 2024.

    Args:
      image: grey or RGB in [0, 1].
      features: "vgg19" (conv2_2), "random" (32 random kernels of 7 x 7), "colour" (the pixels) or
        "laws" (Laws' nine masks); each channel is scaled to [0, 1].
      vgg19: weights for "vgg19", from `ssdnet_jax.load_vgg19_weights`.
      key: draws the kernels of "random"; by default `jax.random.key(0)`.
      tile_size: side of a tile in feature pixels, odd, at least 3; VGG19's feature pixels are two
        image pixels wide.
      spread: standard deviation, in feature pixels, of the weight of a tile around its centre
        (sigma_p), above 0.
      blur: standard deviation of the smoothing within a tile in feature pixels (sigma_s); 0: none.
      blur_size: side of the smoothing window (k_s), odd, below 2 tile_size.
      border: "published" reproduces the authors' maps and their bright frame; "corrected" mirrors
        the image, not its features, counts only tiles within the map, and gives pixels that fewer
        tiles reach a share of the map's median.

    Returns:
      Raw map of the image's size, at least 0, in units of the scaled features' range.

    Raises:
      ConfigError: an option outside of its range, or "vgg19" without weights.
      InputError: not (H, W, 1) or (H, W, 3), or smaller than two tiles.
    """
    check_channels(image)
    check_word("features", features, Features)
    check_word("border", border, Border)
    if features == "vgg19" and vgg19 is None:
        raise ConfigError(
            'features is "vgg19" and vgg19 is None; expected weights, for example '
            "vgg19=ssdnet_jax.load_vgg19_weights(), or other features"
        )
    check_odd("tile_size", tile_size, 3)
    check_odd("blur_size", blur_size)
    check(blur_size < 2 * tile_size, "blur_size", blur_size, "it below 2 tile_size")
    if not spread > 0 or not blur >= 0:
        raise ConfigError(f"spread is {spread} and blur {blur}; expected above 0 and at least 0")
    smallest = 2 * tile_size * (2 if features == "vgg19" else 1)
    if min(image.shape[:2]) < smallest:
        raise InputError(
            f"image has {image.shape[0]} x {image.shape[1]} pixels; "
            f"expected at least {smallest} a side, two tiles"
        )
    if features == "vgg19":
        feature_map = fca_features.vgg19_feature_map(needed(vgg19), image, border=border)
    elif features == "random":
        key = jax.random.key(0) if key is None else key
        feature_map = fca_features.random_kernel_features(key, image)
    elif features == "laws":
        feature_map = fca_features.laws_features(image)
    else:
        feature_map = image
    score_map = tile_distances(
        feature_map,
        tile_size=tile_size,
        spread=spread,
        blur=blur,
        blur_size=blur_size,
        border=border,
    )
    return jax.image.resize(score_map, image.shape[:2], "linear")
