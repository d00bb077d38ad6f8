"""VGG19 features phi up to conv2_2, the paper's perceptual embedding (section 3.3).

"The eighth layer": torchvision's `features[:8]`, that is conv2_2 before its ReLU, 128 channels at
half the input's height and width. Weights are frozen and come as an argument (see
`ssdnet_jax.data.weights`).
"""

from collections.abc import Mapping
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from ssdnet_jax.core.arrays import AnyArray

Layer = Literal["conv1_2", "conv2_2", "relu2_2"]
VGG19Weights = Mapping[str, Mapping[str, Float[AnyArray, "..."]]]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)


def vgg19_features(
    weights: VGG19Weights,
    images: Float[Array, "b h w c"],
    *,
    layer: Layer = "conv2_2",
    stride: int = 1,
) -> Float[Array, "b hh ww features"]:
    """Embeds images in [0, 1] of one (repeated) or three channels.

    Args:
      weights: `conv1_1`, `conv1_2`, `conv2_1`, `conv2_2`, each with `kernel` (HWIO) and `bias`;
        their type is that of the arithmetic.
      images: NHWC in [0, 1]; the ImageNet normalization is done here.
      layer: "conv2_2" (before the ReLU) or "relu2_2" (after it), at half of the images' height and
        width; or "conv1_2" (before the ReLU), at all of it.
      stride: of the last convolution every `stride`-th position is computed, in both directions,
        from the first; above 1 its gradient is slow.

    Raises:
      ValueError: `images` has neither one nor three channels, or `layer` is unknown.
    """
    if images.shape[-1] not in (1, 3):
        raise ValueError(f"images have {images.shape[-1]} channels; expected 1 or 3")
    if layer not in get_args(Layer):
        raise ValueError(f"layer is {layer!r}; expected one of {', '.join(get_args(Layer))}")
    x = jnp.broadcast_to(images, (*images.shape[:3], 3))
    mean, deviation = (jnp.array(v, jnp.float32) for v in (IMAGENET_MEAN, IMAGENET_DEVIATION))
    x = (x - mean) / deviation
    x = x.astype(weights["conv1_1"]["kernel"].dtype)
    x = jax.nn.relu(_convolve(weights["conv1_1"], x))
    if layer == "conv1_2":
        return _convolve(weights["conv1_2"], x, stride)
    x = _convolve(weights["conv1_2"], x)
    x = max_pool2x2(jax.nn.relu(x))
    x = jax.nn.relu(_convolve(weights["conv2_1"], x))
    x = _convolve(weights["conv2_2"], x, stride)
    return jax.nn.relu(x) if layer == "relu2_2" else x


def needed(weights: VGG19Weights | None) -> VGG19Weights:
    """The weights, where a setting cannot do without.

    Raises:
      ValueError: there are none.
    """
    if weights is None:
        raise ValueError("there are no VGG19 weights; expected some, the setting needs them")
    return weights


def max_pool2x2(x: Float[Array, "b h w c"]) -> Float[Array, "b h//2 w//2 c"]:
    """Maximum of each 2x2 block; an odd last row or column is dropped."""
    b, h, w, c = x.shape
    x = x[:, : h // 2 * 2, : w // 2 * 2].reshape(b, h // 2, 2, w // 2, 2, c)
    return x.max(axis=(2, 4))


def _convolve(layer: Mapping[str, AnyArray], x: Array, stride: int = 1) -> Array:
    if stride == 1:
        return frozen_conv2d(x, layer["kernel"]) + layer["bias"]
    return _convolution(x, layer["kernel"], stride) + layer["bias"]


def _convolution(x: Array, kernel: AnyArray, stride: int = 1) -> Array:
    margin = kernel.shape[0] // 2
    return lax.conv_general_dilated(
        x,
        jnp.asarray(kernel),
        window_strides=(stride, stride),
        padding=((margin, margin), (margin, margin)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


@jax.custom_vjp
def frozen_conv2d(
    x: Float[Array, "b h w i"], kernel: Float[AnyArray, "k k i o"]
) -> Float[Array, "b h w o"]:
    """Zero-padded convolution of the same size whose kernel is a constant.

    Its image gradient is again a forward NHWC convolution, which is fast in compiled loops on a CPU
    (unlike `lax.conv`'s own gradients); since the kernel is shared, vmap only widens the batch.
    The kernel's gradient is zero by definition.
    """
    return _convolution(x, kernel)


def _forward(x: Array, kernel: AnyArray) -> tuple[Array, AnyArray]:
    return frozen_conv2d(x, kernel), kernel


def _backward(kernel: AnyArray, g: Array) -> tuple[Array, Array]:
    flipped = jnp.swapaxes(kernel[::-1, ::-1], 2, 3)
    return frozen_conv2d(g, flipped), jnp.zeros_like(kernel)


frozen_conv2d.defvjp(_forward, _backward)
