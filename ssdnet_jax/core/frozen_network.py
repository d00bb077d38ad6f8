"""The skip encoder-decoder with normalization statistics that are given instead of measured.

The network normalizes by the statistics of what it is given (`core.skip_network`), so a tile of an
image would be reconstructed otherwise than the same pixels of the whole image. With statistics
that have been measured once, each pixel depends on its surroundings alone, and tiles can be
stitched: beyond `receptive_margin` of a tile's border they equal the whole.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PyTree

from ssdnet_jax.core.config import NetworkConfig
from ssdnet_jax.core.mirrored import padded_conv2d
from ssdnet_jax.core.normalization import EPSILON, LEAKY_SLOPE, OTHER_ACTIVATIONS
from ssdnet_jax.core.resize import centre_crop, upsample2x


class Moments(NamedTuple):
    """Mean and biased variance of each channel in front of one normalization."""

    mean: Float[Array, " c"]
    variance: Float[Array, " c"]


Statistics = dict[str, Moments]  # by the path of the normalization in the parameters' tree
_Normalize = Callable[[str, Array], Moments]


def measure_statistics(
    params: PyTree[Float[Array, "..."]], images: Float[Array, "b h w c"], config: NetworkConfig
) -> Statistics:
    """What the network normalizes by when it is given these images, over all of them together."""
    found: Statistics = {}

    def measure(name: str, x: Array) -> Moments:
        mean = x.mean((0, 1, 2))
        found[name] = Moments(mean, lax.square(x - mean).mean((0, 1, 2)))
        return found[name]

    _forward(params, images, config, measure)
    return found


def apply_with_statistics(
    params: PyTree[Float[Array, "..."]],
    statistics: Statistics,
    images: Float[Array, "b h w c"],
    config: NetworkConfig,
) -> Float[Array, "b h w c"]:
    """Reconstructs `images`, each pixel from its surroundings alone.

    With the statistics of the images themselves that is `apply_skip_network`.

    Args:
      params: of the network.
      statistics: from `measure_statistics`, of the same network.
      images: with heights and widths that need not be those of the measured ones.
      config: of the network.
    """
    return _forward(params, images, config, lambda name, x: statistics[name])


def receptive_margin(config: NetworkConfig) -> int:
    """Pixels beyond which nothing reaches an output pixel; a multiple of `alignment`.

    A scale whose pixels are s input pixels apart sees, in both directions, half of its kernels:
    of the stride-2 convolution s, of the next one 2 s, of the bilinear doubling 2 s, and of the
    convolution behind it s, for kernels of 3 pixels.
    """
    down, up, skip = config.kernel_down // 2, config.kernel_up // 2, config.kernel_skip // 2
    reach = sum(
        2**scale * max(3 * down + 2 + up, skip + up) for scale in range(len(config.channels_down))
    )
    step = alignment(config)
    return -(-reach // step) * step


def alignment(config: NetworkConfig) -> int:
    """Pixels of which a tile's place must be a multiple, so that strides fall on the same ones."""
    return int(2 ** len(config.channels_down))


def _forward(params: PyTree[Array], x: Array, config: NetworkConfig, moments: _Normalize) -> Array:
    output = params["output"]
    x = _scale(params["scale0"], x, config, 0, "scale0", moments)
    x = padded_conv2d(x, output["kernel"], padding=config.padding) + output["bias"]
    return jax.nn.sigmoid(x) if config.sigmoid else x


def _scale(
    params: PyTree[Array],
    x: Array,
    config: NetworkConfig,
    index: int,
    path: str,
    moments: _Normalize,
) -> Array:
    def normalized(x: Array, name: str) -> Array:
        mean, variance = moments(f"{path}/{name}_norm", x)
        affine = params[f"{name}_norm"]
        return (x - mean) * (lax.rsqrt(variance + EPSILON) * affine["scale"]) + affine["shift"]

    def finish(x: Array, name: str) -> Array:
        y = normalized(x, name)
        if config.activation == "leaky_relu":
            return jnp.maximum(y, LEAKY_SLOPE * y)
        return OTHER_ACTIVATIONS[config.activation](y)

    def convolved(x: Array, name: str, stride: int = 1) -> Array:
        # Without the bias, which the normalization behind it would undo.
        return padded_conv2d(x, params[f"{name}_conv"]["kernel"], stride, padding=config.padding)

    deeper = finish(convolved(x, "down", 2), "down")
    deeper = finish(convolved(deeper, "deep"), "deep")
    inner = f"scale{index + 1}"
    if inner in params:
        deeper = _scale(params[inner], deeper, config, index + 1, f"{path}/{inner}", moments)
    branch = finish(convolved(x, "skip"), "skip") if config.channels_skip[index] else None
    deeper = upsample2x(deeper, upsampling=config.upsampling)
    beside, deeper = centre_crop(x if branch is None else branch, deeper)
    merged = deeper if branch is None else jnp.concatenate((beside, deeper), axis=-1)
    y = finish(convolved(normalized(merged, "merge"), "up"), "up")
    return finish(convolved(y, "mix"), "mix") if config.conv1x1_up else y
