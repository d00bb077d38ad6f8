"""Texture features that a network can be fitted to instead of pixels.

Smooth stains on a stochastic texture are easier to reconstruct than the texture, so the residual of
pixels says little about them. Features of small neighbourhoods, at half the image's resolution,
have edges and grain as values of their own. Two kinds: VGG19's, and for when there are no weights
the image's patches and a bank of oriented filters.
"""

import functools
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from ssdnet_jax.core.arrays import Size
from ssdnet_jax.core.masked import for_statistics, known_share, weighted_moments
from ssdnet_jax.core.plan import Representation
from ssdnet_jax.core.smoothing import mirror
from ssdnet_jax.core.vgg19 import VGG19Weights, max_pool2x2, needed, vgg19_features

Kind = Literal["vgg19", "filters"]

VGG19_MARGIN = 8  # pixels, even, at least the 7 that conv2_2 sees beyond its own pixel
_PATCH = 4  # pixels, even, so that blocks of 2 x 2 have a patch around their middle
_REACH = {  # pixels that a feature sees beyond its own block of 2 x 2
    ("vgg19", "fine"): 2,
    ("vgg19", "coarse"): 7,
    ("filters", "fine"): _PATCH // 2 - 1,
    ("filters", "coarse"): 5,
}
_ORIENTATIONS = 6
_WAVELENGTHS = (
    (4.0, 1.6),
    (7.0, 2.6),
)  # pixels, with the standard deviation of the window around it
_FILTER_RADIUS = 5  # pixels
_ROUNDING = 1e-5  # of a feature's size: deviations up to this are rounding, not texture


class FeatureMaps(NamedTuple):
    """Features of an image at half of its resolution, or at every second of their positions.

    Attributes:
      fine: of the smallest neighbourhoods (VGG19: conv1_2; filters: patches of 4 x 4 pixels, whose
        principal components are filters that the image itself gives, Chan et al., PCANet, 2015).
      coarse: of larger ones (VGG19: conv2_2; filters: Gabor filters and the colours).
    """

    fine: Float[Array, "hh ww f"]
    coarse: Float[Array, "hh ww g"]


def feature_maps(
    image: Float[Array, "h w c"], vgg19: VGG19Weights | None, *, kind: Kind, stride: int = 1
) -> FeatureMaps:
    """Features of an image in [0, 1], which is mirrored at its borders.

    Args:
      image: grey or RGB; an odd last row or column has no features of its own.
      vgg19: weights; may be None for "filters".
      kind: which features.
      stride: 1 or 2; every `stride`-th position is kept, in both directions.
    """
    if kind == "vgg19":
        return _vgg19_maps(needed(vgg19), image, stride)
    return FeatureMaps(_patches(image, stride), every(_filter_responses(image), stride))


def represent(
    image: Float[Array, "h w c"],
    vgg19: VGG19Weights | None,
    representation: Representation,
    *,
    kind: Kind,
    weights: Float[Array, "hh ww"] | None = None,
) -> Float[Array, "hh ww n"]:
    """The principal components of an image's features, at half of the representation's scale.

    Args:
      image: in [0, 1].
      vgg19: weights; may be None for "filters".
      representation: static; layer, scale and number of components.
      kind: which features.
      weights: `feature_weights`, or None where all of the image takes part.
    """
    at_scale = resized(image, scale=representation.scale)
    maps = feature_maps(at_scale, vgg19, kind=kind, stride=representation.stride)
    # Without the barrier a CPU computes these once for each product of them, and products slowly.
    features = lax.optimization_barrier(standardize(getattr(maps, representation.layer), weights))
    return principal_components(features, count=representation.components, weights=weights)


def feature_weights(
    valid: Float[Array, "h w"], representation: Representation, *, kind: Kind
) -> Float[Array, "hh ww"]:
    """How well each feature of a representation is known, in [0, 1] (`masked.known_share`).

    Args:
      valid: 1 where a pixel of the image takes part, 0 where it does not.
      representation: static.
      kind: which features.
    """
    at_scale = resized(valid[..., None], scale=representation.scale)[..., 0]
    known = known_share(at_scale, reach=_REACH[kind, representation.layer])
    return every(known, representation.stride)


def every(values: Float[Array, "h w *c"], stride: int) -> Float[Array, "hh ww *c"]:
    """Every `stride`-th position of a map in both directions, from the first."""
    return values if stride == 1 else values[::stride, ::stride]


def resized(image: Float[Array, "h w c"], *, scale: float) -> Float[Array, "hh ww c"]:
    """The image at `scale` of its size; at 1 it is returned as it is."""
    shape = resized_shape(image.shape[:2], scale=scale)
    return jax.image.resize(image, (*shape, image.shape[2]), "linear")


def resized_shape(shape: Size, *, scale: float) -> tuple[int, int]:
    """Height and width of an image at `scale` of its size, at least 1 each."""
    height, width = (max(1, round(scale * side)) for side in shape)
    return height, width


def standardize(
    features: Float[Array, "h w c"], weights: Float[Array, "h w"] | None = None
) -> Float[Array, "h w c"]:
    """Mean 0 and standard deviation 1 in each channel; a constant channel becomes 0."""
    mean, deviation = moments(features, weights)
    constant = is_constant(mean, deviation)
    return jnp.where(constant, 0.0, (features - mean) / jnp.where(constant, 1.0, deviation))


def is_constant(mean: Any, deviation: Any) -> Any:
    """Whether the deviation of a channel is rounding and not texture; numpy's or JAX's arrays."""
    return deviation <= _ROUNDING * (1 + abs(mean))


def principal_components(
    features: Float[Array, "h w c"], *, count: int, weights: Float[Array, "h w"] | None = None
) -> Float[Array, "h w count"]:
    """Projection on the directions of largest variance (`principal_directions`)."""
    channels = features.shape[-1]
    x = features.reshape(-1, channels)
    if weights is None:
        covariance = x.T @ x / x.shape[0]
    else:
        counted = for_statistics(weights).reshape(-1, 1)
        shares = counted / jnp.maximum(counted.sum(), jnp.finfo(jnp.float32).tiny)
        covariance = x.T @ (x * shares)
        covariance = (covariance + covariance.T) / 2
    return features @ principal_directions(covariance, count=count)


def principal_directions(covariance: Float[Array, "c c"], *, count: int) -> Float[Array, "c count"]:
    """Directions of largest variance, largest first; 0 beyond c of them.

    The sign of a direction, which nothing determines, makes its largest weight positive.
    """
    vectors = _eigenvectors(covariance)
    vectors = vectors[:, ::-1][:, :count]
    largest = jnp.take_along_axis(vectors, jnp.abs(vectors).argmax(0)[None], axis=0)
    vectors = vectors * jnp.sign(largest)
    return jnp.pad(vectors, ((0, 0), (0, count - vectors.shape[1])))


@jax.custom_batching.custom_vmap
def _eigenvectors(matrix: Float[Array, "c c"]) -> Float[Array, "c c"]:
    """The eigenvectors of a symmetric matrix, by ascending eigenvalues."""
    return jnp.linalg.eigh(matrix)[1]


@_eigenvectors.def_vmap
def _eigenvectors_of_batch(
    axis_size: int, in_batched: list[bool], matrices: Float[Array, "b c c"]
) -> tuple[Float[Array, "b c c"], bool]:
    """On a CPU one matrix after another.

    XLA's batched `eigh` waits in a thread of the pool whose other threads do the work: where as
    many of them run at once as there are cores, none of them ever ends (jaxlib 0.10.2).
    """
    found = lax.platform_dependent(
        matrices,
        cpu=functools.partial(lax.map, _eigenvectors),
        default=lambda matrices: jnp.linalg.eigh(matrices)[1],
    )
    return found, True


def _vgg19_maps(weights: VGG19Weights, image: Array, stride: int) -> FeatureMaps:
    mirrored = mirror(image, margin=VGG19_MARGIN)[None]
    fine = every(max_pool2x2(vgg19_features(weights, mirrored, layer="conv1_2"))[0], stride)
    # A third of the arithmetic is in this layer: what is not kept is not computed.
    coarse = vgg19_features(weights, mirrored, layer="conv2_2", stride=stride)[0]
    first = VGG19_MARGIN // 2 // stride
    height, width = (-(-(side // 2) // stride) for side in image.shape[:2])
    return FeatureMaps(*(x[first : first + height, first : first + width] for x in (fine, coarse)))


def _patches(image: Float[Array, "h w c"], stride: int) -> Float[Array, "hh ww 16*c"]:
    """Of 4 x 4 pixels, around the middle of each block of 2 x 2, or of every second block."""
    height, width = (side // 2 * 2 for side in image.shape[:2])
    mirrored = mirror(image, margin=_REACH["filters", "fine"])
    shifts = [(row, column) for row in range(_PATCH) for column in range(_PATCH)]
    step = 2 * stride
    return jnp.concatenate(
        [mirrored[r : r + height : step, c : c + width : step] for r, c in shifts], axis=-1
    )


def _filter_responses(image: Array) -> Float[Array, "hh ww n"]:
    """Positive and negative parts of responses to Gabor filters, even and odd, and the colours."""
    mirrored = mirror(image, margin=_FILTER_RADIUS)
    by_wavelength = []
    for wavelength, deviation in _WAVELENGTHS:
        kernels = jnp.asarray(_gabor_kernels(wavelength, deviation))[:, :, None]
        responses = [
            lax.conv_general_dilated(
                mirrored[None, ..., channel : channel + 1],
                kernels,
                (1, 1),
                "VALID",
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )
            for channel in range(image.shape[-1])
        ]
        all_of_them = jnp.concatenate(responses, axis=-1)
        parts = jax.nn.relu(jnp.concatenate([all_of_them, -all_of_them], axis=-1))
        by_wavelength.append(max_pool2x2(parts)[0])
    colours = max_pool2x2(image[None])[0]
    return jnp.concatenate([*by_wavelength, colours], axis=-1)


def _gabor_kernels(wavelength: float, deviation: float) -> np.ndarray:
    """Even and odd Gabor filters of all orientations, mean 0 and absolute sum 1; (k, k, count)."""
    y, x = np.mgrid[-_FILTER_RADIUS : _FILTER_RADIUS + 1, -_FILTER_RADIUS : _FILTER_RADIUS + 1]
    window = np.exp(-(x**2 + y**2) / (2 * deviation**2))
    kernels = []
    for angle in np.arange(_ORIENTATIONS) * np.pi / _ORIENTATIONS:
        along = 2 * np.pi / wavelength * (x * np.cos(angle) + y * np.sin(angle))
        for wave in (np.cos(along), np.sin(along)):
            kernel = window * (wave - (window * wave).sum() / window.sum())
            kernels.append(kernel / np.abs(kernel).sum())
    return np.stack(kernels, axis=-1).astype(np.float32)


def halve(image: Float[Array, "h w c"]) -> Float[Array, "h//2 w//2 c"]:
    """Mean of each 2 x 2 block; an odd last row or column is dropped."""
    height, width = (side // 2 for side in image.shape[:2])
    blocks = image[: 2 * height, : 2 * width].reshape(height, 2, width, 2, -1)
    return blocks.mean(axis=(1, 3))


def moments(
    features: Float[Array, "h w c"], weights: Float[Array, "h w"] | None = None
) -> tuple[Float[Array, " c"], Float[Array, " c"]]:
    """Mean and standard deviation of each channel."""
    if weights is not None:
        return weighted_moments(features, for_statistics(weights))
    return features.mean((0, 1)), features.std((0, 1))
