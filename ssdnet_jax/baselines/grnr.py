"""Global-regularized neighbourhood regression (GRNR; Yao et al., arXiv 2406.07333)."""

from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from ssdnet_jax.baselines.pixels import (
    box_mean,
    check,
    check_features,
    compiled,
    of_distances,
    smooth,
)
from ssdnet_jax.core.features import feature_maps
from ssdnet_jax.core.linear import solved
from ssdnet_jax.core.smoothing import mirror
from ssdnet_jax.core.vgg19 import VGG19Weights

_RIDGE = 1e-4  # of the mean square of a neighbourhood: equal neighbours are no error


@compiled
def grnr(
    image: Float[Array, "h w c"],
    *,
    features: Literal["vgg19", "filters"] = "vgg19",
    vgg19: VGG19Weights | None = None,
    normal: int = 40,
    weight: float = 5.0,
    strides: tuple[int, ...] = (2, 4),
    blur: float = 3.0,
) -> Float[Array, "h w"]:
    """Maps where neither the neighbours of a feature nor normal features explain it.

    Nothing is fitted beside one small regression a position: the 8 features around a position are
    combined linearly so that the combination is near the feature itself and near the image's
    normal features, those of the smallest mean distance to all. What it misses of the feature is
    the score; the scores at several strides are multiplied. Source: Yao et al., Global-Regularized
    Neighborhood Regression for Efficient Zero-Shot Texture Anomaly Detection, arXiv 2406.07333,
    and its authors' demonstration (github.com/hmyao22/GRNR).

    What differs: the publication has features of the second and the third block of a
    WideResNet-50, 8 and 16 pixels apart, whose weights are not part of this project, and leaves
    out a tenth of the image at each side. Here they are VGG19's conv2_2, or a bank of filters,
    averaged over blocks of `strides`, and the image is mirrored. A small ridge stands in for the
    noise that keeps the regression solvable there.

    Args:
      image: grey or RGB in [0, 1].
      features: "vgg19", or "filters", Gabor filters and colours, which need no weights.
      vgg19: weights for "vgg19", from `ssdnet_jax.load_vgg19_weights`.
      normal: number of normal features.
      weight: lambda, of each normal feature beside the feature itself, at least 0.
      strides: sides of the blocks over which features are averaged, in feature pixels, which are
        two image pixels wide.
      blur: standard deviation of the Gaussian over each map, in image pixels; 0: none.

    Returns:
      Raw map of the image's size, at least 0, in units of the features to the power of the number
      of strides.

    Raises:
      ConfigError: an option outside of its range, or "vgg19" without weights.
      InputError: not (H, W, 1) or (H, W, 3), or smaller than 3 blocks of the largest stride.
    """
    check(normal >= 1, "normal", normal, "at least 1")
    check(weight >= 0, "weight", weight, "at least 0")
    legal = len(strides) > 0 and min(strides) >= 1
    check(legal, "strides", strides, "one or more numbers of at least 1")
    check(blur >= 0, "blur", blur, "at least 0")
    check_features(image, features, vgg19, smallest=max(16, 6 * max(strides)))
    coarse = feature_maps(image, vgg19, kind=features).coarse
    product = jnp.ones(image.shape[:2], coarse.dtype)
    for stride in strides:
        errors = regression_errors(_blocks(coarse, stride), normal=normal, weight=weight)
        errors = jax.image.resize(errors, image.shape[:2], "linear")
        product *= smooth(errors, sigma=blur, size=2 * round(3 * blur) + 1, mode="reflect")
    return product


def regression_errors(
    features: Float[Array, "h w c"], *, normal: int, weight: float
) -> Float[Array, "h w"]:
    """Norm of what the regression leaves of each feature.

    With S the matrix of a feature's 8 neighbours, q the feature and m the mean of the N normal
    features, |q - W S|^2 + weight N |m - W S|^2 is smallest, up to a constant, where W S is the
    projection of (q + weight N m) / (1 + weight N) on the span of the neighbours.
    """
    height, width, channels = features.shape
    averaged = box_mean(features, size=3)  # as published, but for its border of zeros
    mean = normal_features(averaged.reshape(-1, channels), count=normal).mean(0)
    around = mirror(averaged, margin=1)
    neighbours = jnp.stack(
        [
            around[row : row + height, column : column + width]
            for row in range(3)
            for column in range(3)
            if (row, column) != (1, 1)
        ],
        axis=2,
    )
    target = (averaged + weight * normal * mean) / (1 + weight * normal)
    products = jnp.einsum("hwnc,hwmc->hwnm", neighbours, neighbours)
    ridge = _RIDGE * jnp.trace(products, axis1=2, axis2=3)[..., None, None] / 8
    by_neighbour = jnp.einsum("hwnc,hwc->hwn", neighbours, target)
    tiny = jnp.finfo(features.dtype).tiny
    combined = solved(products + (ridge + tiny) * jnp.eye(8), by_neighbour)
    explained = jnp.einsum("hwn,hwnc->hwc", combined, neighbours)
    return jnp.linalg.norm(averaged - explained, axis=-1)


def normal_features(features: Float[Array, "n c"], *, count: int) -> Float[Array, "k c"]:
    """The `count` features (all, if there are fewer) whose mean distance to all is smallest."""
    means = of_distances(features, lambda squares: jnp.sqrt(jnp.maximum(squares, 0)).mean())
    return features[lax.top_k(-means, min(count, features.shape[0]))[1]]


def _blocks(features: Float[Array, "h w c"], side: int) -> Float[Array, "hh ww c"]:
    """Means of blocks of `side` x `side`; a rest at the right and bottom is left out."""
    height, width = (n // side for n in features.shape[:2])
    cut = features[: height * side, : width * side]
    return cut.reshape(height, side, width, side, -1).mean((1, 3))
