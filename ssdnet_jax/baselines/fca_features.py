"""Feature maps for Feature Correspondence Analysis: an image in [0, 1] in, (h, w, features) out.

VGG19 features have half of the image's height and width, the others all of it.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

from ssdnet_jax.core.features import VGG19_MARGIN
from ssdnet_jax.core.patch_statistics import Border
from ssdnet_jax.core.smoothing import mirror
from ssdnet_jax.core.vgg19 import VGG19Weights, vgg19_features

# Level, edge, spot and ripple (Laws 1980).
_LAWS_VECTORS = np.array(
    [[1, 4, 6, 4, 1], [-1, -2, 0, 2, 1], [-1, 0, 2, 0, -1], [1, -4, 6, -4, 1]], np.float32
)
_LAWS_PAIRS = [(i, j) for i in range(4) for j in range(i, 4) if (i, j) != (0, 0)]
_LAWS_WINDOW = 15  # pixels, side of the window whose mean brightness is removed


def vgg19_feature_map(
    weights: VGG19Weights,
    image: Float[Array, "h w c"],
    *,
    border: Border = "published",
) -> Float[Array, "h//2 w//2 features"]:
    """VGG19 features (conv2_2) of the whole image at its own resolution.

    Args:
      weights: from `ssdnet_jax.load_vgg19_weights`.
      image: grey or RGB in [0, 1].
      border: "published" surrounds the image by zeros as VGG19 does, which makes features of a
        frame of about four feature pixels unlike all others; "corrected" mirrors the image.
    """
    if border == "published":
        return vgg19_features(weights, image[None])[0]
    height, width = (side // 2 for side in image.shape[:2])
    features = vgg19_features(weights, mirror(image, margin=VGG19_MARGIN)[None])[0]
    first = VGG19_MARGIN // 2
    return features[first : first + height, first : first + width]


def random_kernel_features(
    key: PRNGKeyArray, image: Float[Array, "h w c"], *, count: int = 32, size: int = 7
) -> Float[Array, "h w count"]:
    """Responses to `count` Gaussian kernels of norm 1 and side `size` (odd)."""
    shape = (size, size, image.shape[-1], count)
    kernels = jax.random.normal(key, shape)
    kernels /= jnp.sqrt(jnp.sum(lax.square(kernels), axis=(0, 1, 2)))
    return _correlate(mirror(image, margin=size // 2), kernels)


def laws_features(image: Float[Array, "h w c"]) -> Float[Array, "h w 9"]:
    """Responses to Laws' 5 x 5 masks, a mask averaged with its transpose.

    Colours are averaged and the mean of 15 x 15 pixels removed first. Laws' last step, the mean
    of absolute responses over a window, is left to the statistics of tiles. Source: Laws, Rapid
    texture identification, SPIE 238 (1980).
    """
    grey = image.mean(-1, keepdims=True)
    window = jnp.full((_LAWS_WINDOW, _LAWS_WINDOW, 1, 1), 1 / _LAWS_WINDOW**2)
    grey -= _correlate(mirror(grey, margin=_LAWS_WINDOW // 2), window)
    masks = [
        (
            np.outer(_LAWS_VECTORS[i], _LAWS_VECTORS[j])
            + np.outer(_LAWS_VECTORS[j], _LAWS_VECTORS[i])
        )
        / 2
        for i, j in _LAWS_PAIRS
    ]
    return _correlate(mirror(grey, margin=2), jnp.asarray(np.stack(masks, -1)[:, :, None]))


def _correlate(image: Float[Array, "h w i"], kernels: Float[Array, "k k i o"]) -> Array:
    return lax.conv_general_dilated(
        image[None], kernels, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )[0]
