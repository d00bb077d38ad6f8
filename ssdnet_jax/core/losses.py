"""The patch loss of Eq. 2: reconstruction, perceptual inner product, aggregation over resolutions.

How sums are scaled, so that the paper's stopping thresholds have a meaning:

* The reconstruction term of a resolution is the error of a pixel (the squared one, in the paper)
  averaged over the patches N_r *and* over the m_r x m_r x C values of a patch. The threshold 1e-4
  is then a mean squared error: a root mean square of 0.01 in image units, the standard deviation of
  the paper's input noise.
* The inner product of a patch is summed over the 128 feature channels and averaged over the
  112 x 112 feature positions, then averaged over the patches. A woven-fabric patch has an inner
  product of 100-330 with itself and of 80-120 with a flat patch, so the threshold -100 is passed
  soon after the start. Averaged over channels as well it could never be reached; summed over the
  positions it would be met before the first step.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ssdnet_jax.core import patches as patch_grid
from ssdnet_jax.core import terms as _terms  # noqa: F401, fills the registries
from ssdnet_jax.core.arrays import Size
from ssdnet_jax.core.config import LossConfig
from ssdnet_jax.core.registry import (
    AGGREGATIONS,
    PERCEPTUAL_SIMILARITIES,
    RECONSTRUCTION_ERRORS,
)
from ssdnet_jax.core.resize import resize_bilinear
from ssdnet_jax.core.vgg19 import VGG19Weights, needed, vgg19_features


def steps_per_epoch(shape: Size, config: LossConfig) -> int:
    """Steps in which minibatches of `patches_per_step` visit every patch once.

    With several resolutions, that of the one with most patches.
    """
    return max(
        -(-patch_grid.patch_count(shape, size=size, stride=stride) // config.patches_per_step)
        for size, stride in zip(config.patch_sizes, config.patch_strides, strict=True)
    )


def image_loss(
    key: PRNGKeyArray,
    step: Int[Array, ""],
    image: Float[Array, "h w c"],
    reconstruction: Float[Array, "h w c"],
    known: Float[Array, "h w"],
    vgg19: VGG19Weights | None,
    config: LossConfig,
    features: Float[Array, "hh ww f"] | None = None,
) -> Float[Array, ""]:
    """Eq. 2 for a network that saw the whole image.

    The reconstruction term takes all patches at every step, without cutting them out, and so does
    the perceptual term where VGG19 sees the image; where it sees patches, they are a minibatch,
    drawn without replacement within an epoch.

    Args:
      key: fixes the order of patches; the same at every step of a fit.
      step: number of the optimizer step.
      image: y in [0, 1].
      reconstruction: f_theta(y).
      known: weight of each pixel in the reconstruction term: 1 where y is known and 0 where it is
        missing, or `core.target.loss_weights`. VGG19 sees images times min(known, 1).
      vgg19: weights of phi; may be None if w_perc is 0.
      config: sizes, weights and aggregation.
      features: `constant_features` of the image; None: they are computed here.
    """
    error = RECONSTRUCTION_ERRORS[config.reconstruction](image, reconstruction) * known
    if config.w_perc and config.perceptual_view == "image":
        if features is None:
            features = constant_features(image, known, vgg19, config)
        similarity = PERCEPTUAL_SIMILARITIES[config.perceptual](
            features, image_features(reconstruction, known, vgg19, config)
        )

    def resolution(index: int, size: int, stride: int) -> Array:
        loss: Array | float = 0.0
        if config.w_rec:
            loss += config.w_rec * mean_over_patches(error, size=size, stride=stride)
        if config.w_perc and config.perceptual_view == "image":
            # Features have half of the image's resolution.
            size, stride = max(1, size // 2), max(1, stride // 2)
            loss -= config.w_perc * mean_over_patches(similarity, size=size, stride=stride)
        elif config.w_perc:
            corners = minibatch_corners(
                jax.random.fold_in(key, index), step, image.shape[:2], size, stride, config
            )
            y, f = (
                patch_grid.patches_at(x, corners, size=size)
                for x in (_without_unknown(image, known), _without_unknown(reconstruction, known))
            )
            loss -= config.w_perc * perceptual_term(y, f, vgg19, config)
        return jnp.asarray(loss)

    return aggregate([resolution(*r) for r in _resolutions(config)], config.aggregation)


def mean_over_patches(error: Float[Array, "h w"], *, size: int, stride: int) -> Float[Array, ""]:
    """1/N_r sum_p of the mean of `error` over patch p, by weighting pixels with their coverage."""
    count = patch_grid.patch_count(error.shape, size=size, stride=stride)
    covered = patch_grid.coverage(error.shape, size=size, stride=stride)
    return jnp.sum(error * covered) / (count * size**2)


def perceptual_term(
    y: Float[Array, "n m m c"],
    f: Float[Array, "n m m c"],
    vgg19: VGG19Weights | None,
    config: LossConfig,
) -> Float[Array, ""]:
    """Mean over patches of <phi(y), phi(f)>, the paper's unnormalized inner product."""
    return jnp.mean(patch_similarities(y, f, vgg19, config))


def patch_similarities(
    y: Float[Array, "n m m c"],
    f: Float[Array, "n m m c"],
    vgg19: VGG19Weights | None,
    config: LossConfig,
) -> Float[Array, " n"]:
    """<phi(y), phi(f)> of each pair of patches, resized to `perceptual_size` (section 3.3).

    Averaged over feature positions; the inner product itself is a sum over feature channels.
    """

    def phi(patches: Array) -> Array:
        return _features(resize_bilinear(patches, size=config.perceptual_size), vgg19, config)

    return jnp.mean(PERCEPTUAL_SIMILARITIES[config.perceptual](phi(y), phi(f)), axis=(1, 2))


def image_features(
    image: Float[Array, "h w c"],
    known: Float[Array, "h w"],
    vgg19: VGG19Weights | None,
    config: LossConfig,
) -> Float[Array, "h//2 w//2 f"]:
    """Phi of a whole image, whose missing pixels are black."""
    return _features(_without_unknown(image, known)[None], vgg19, config)[0]


def _without_unknown(image: Array, known: Array) -> Array:
    """The image times min(known, 1): black where it is not known."""
    return image * jnp.minimum(known, 1.0)[..., None]


def constant_features(
    image: Float[Array, "h w c"],
    known: Float[Array, "h w"],
    vgg19: VGG19Weights | None,
    config: LossConfig,
) -> Float[Array, "h//2 w//2 f"] | None:
    """`image_features` of y, the same at each step; None where the loss does not need them."""
    if config.w_perc and config.perceptual_view == "image":
        return image_features(image, known, vgg19, config)
    return None


def _features(images: Array, vgg19: VGG19Weights | None, config: LossConfig) -> Array:
    weights = jax.tree.map(lambda x: x.astype(config.perceptual_precision), dict(needed(vgg19)))
    features = vgg19_features(weights, images, layer=config.perceptual_layer)
    return features.astype(jnp.float32)


def minibatch_corners(
    key: PRNGKeyArray,
    step: Int[Array, ""],
    shape: Size,
    size: int,
    stride: int,
    config: LossConfig,
) -> Int[Array, "n 2"]:
    """Corners of the patches that a step visits: a new random order of all patches each epoch.

    The last minibatch of an epoch is filled up from the epoch's beginning.
    """
    corners = jnp.asarray(patch_grid.patch_corners(shape, size=size, stride=stride))
    count, batch = corners.shape[0], config.patches_per_step
    steps = -(-count // batch)
    order = jax.random.permutation(jax.random.fold_in(key, step // steps), count)
    return corners[order[((step % steps) * batch + jnp.arange(batch)) % count]]


def aggregate(terms: list[Float[Array, "*shape"]], aggregation: str) -> Array:
    """Lambda over resolutions, by name: the mean, the maximum, the minimum, ..."""
    return AGGREGATIONS[aggregation](jnp.stack(terms))


def _resolutions(config: LossConfig) -> list[tuple[int, int, int]]:
    sizes = zip(config.patch_sizes, config.patch_strides, strict=True)
    return [(index, size, stride) for index, (size, stride) in enumerate(sizes)]
