"""The skip encoder-decoder f_theta, the paper's regularizer R(theta) (section 3.2).

Architecture, initial distribution and batch-statistics normalization are those of Deep Image Prior
(Ulyanov, Vedaldi, Lempitsky 2018; `skip`), which the paper adopts. Per scale: a 1x1 skip branch;
a stride-2 and a stride-1 convolution; the next scale; upsampling; concatenation of both branches
(centre-cropped to the smaller); a 3x3 and a 1x1 convolution.

Parameters are a tree of float32 arrays, `{"scale0": {...}, "output": {"kernel", "bias"}}`. A scale
holds what its layers are called, `LAYER_conv: {"kernel", "bias"}` and `LAYER_norm: {"scale",
"shift"}`, and the next one: `down` (stride 2), `deep`, `scale1` (where there is one), `skip` (where
it has channels), `merge_norm`, `up` and `mix` (the 1x1 convolution, where it is on). Kernels are
HWIO, all else is a vector.
"""

import functools
import itertools
import math
from typing import cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from ssdnet_jax.core.config import NetworkConfig
from ssdnet_jax.core.convolution import Padding
from ssdnet_jax.core.merge import merged_convolution
from ssdnet_jax.core.mirrored import padded_conv2d
from ssdnet_jax.core.normalization import normalize
from ssdnet_jax.core.resize import upsample2x

LEAKY_SLOPE = 0.2
OTHER_ACTIVATIONS = {  # but for the leaky ReLU, which is one with its normalization
    "elu": jax.nn.elu,
    "swish": jax.nn.swish,
    "none": lambda x: x,
}


def init_skip_network(
    key: PRNGKeyArray, config: NetworkConfig, *, channels: int
) -> PyTree[Float[Array, "..."]]:
    """Draws parameters of a network from `channels` to `channels` image channels.

    Convolution kernels and biases follow torch's U(-1/sqrt(fan_in), 1/sqrt(fan_in)), to which the
    method is sensitive (Flax's default is another distribution); scales are 1 and shifts 0. That is
    the distribution of `SkipNetwork.init`, and the same tree; not the same draws.
    """
    structure = parameter_structure(config, channels=channels)
    # One draw for all tensors: a draw for each would take longer to compile than the network.
    uniform = jax.random.uniform(key, (parameter_count(structure),), jnp.float32, -1.0, 1.0)
    params = flatten_dict(unflatten_parameters(uniform, structure))
    for path, value in params.items():
        if path[-1] in ("scale", "shift"):
            params[path] = jnp.full_like(value, 1.0 if path[-1] == "scale" else 0.0)
        else:
            fan_in = math.prod(params[(*path[:-1], "kernel")].shape[:3])
            params[path] = value / math.sqrt(fan_in)
    return unflatten_dict(params)


@functools.cache  # tracing a network takes most of a second, and every fit asks
def parameter_structure(config: NetworkConfig, *, channels: int) -> PyTree[jax.ShapeDtypeStruct]:
    """Names and shapes of a network's parameters."""
    side = smallest_image_side(config)
    probe = jax.ShapeDtypeStruct((1, side, side, channels), jnp.float32)
    network = SkipNetwork(config, channels)
    return jax.eval_shape(network.init, jax.random.key(0), probe)["params"]


def parameter_count(structure: PyTree) -> int:
    """How many numbers a network has."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(structure))


def flatten_parameters(params: PyTree[Float[Array, "..."]]) -> Float[Array, " parameters"]:
    """All parameters as one vector, in the order of `jax.tree.leaves`."""
    return jnp.concatenate([leaf.reshape(-1) for leaf in jax.tree.leaves(params)])


def unflatten_parameters(
    vector: Float[Array, " parameters"], structure: PyTree[jax.ShapeDtypeStruct]
) -> PyTree[Float[Array, "..."]]:
    """The inverse of `flatten_parameters`."""
    leaves, definition = jax.tree.flatten(structure)
    ends = list(itertools.accumulate(math.prod(leaf.shape) for leaf in leaves))
    pieces = [
        jax.lax.slice_in_dim(vector, end - math.prod(leaf.shape), end).reshape(leaf.shape)
        for leaf, end in zip(leaves, ends, strict=True)
    ]
    return jax.tree.unflatten(definition, pieces)


def apply_skip_network(
    params: PyTree[Float[Array, "..."]], images: Float[Array, "b h w c"], config: NetworkConfig
) -> Float[Array, "b h w c"]:
    """Reconstructs `images`; statistics are taken over the whole batch, at any time.

    A batch is one lane: images that must not influence each other go through `jax.vmap`.
    """
    network = SkipNetwork(config, images.shape[-1])
    return cast(Array, network.apply({"params": params}, images))


def smallest_image_side(config: NetworkConfig) -> int:
    """Smallest height or width, in pixels, that the network can take.

    Reflection needs more pixels than it mirrors, also at the deepest scale, which is 2^scales
    times smaller than the image.
    """
    scales = len(config.channels_down)
    largest_kernel = max(config.kernel_down, config.kernel_up, config.kernel_skip)
    deepest = 1 + (largest_kernel - 1) // 2 if config.padding == "reflection" else 1
    return (deepest - 1) * 2**scales + 1


class SkipNetwork(nn.Module):
    """`skip` as a Flax module; `init_skip_network` and `apply_skip_network` are its pure face."""

    config: NetworkConfig
    channels: int

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w {self.channels}"]:
        x = Scale(self.config, 0, name="scale0")(x)
        x = Convolution(self.channels, 1, name="output")(x)
        return jax.nn.sigmoid(x) if self.config.sigmoid else x


class Scale(nn.Module):
    """One scale of the encoder-decoder and, inside it, all deeper ones."""

    config: NetworkConfig
    index: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"]
    ) -> Float[Array, "b hh ww {self.config.channels_up[self.index]}"]:
        config, i = self.config, self.index
        down, up, skip = config.channels_down[i], config.channels_up[i], config.channels_skip[i]

        def finish(x: Array, name: str) -> Array:
            norm = BatchNormalization(x.shape[-1], name=f"{name}_norm")
            if config.activation == "leaky_relu":
                return norm(x, slope=LEAKY_SLOPE)
            return OTHER_ACTIVATIONS[config.activation](norm(x))

        def block(x: Array, features: int, kernel: int, name: str, stride: int = 1) -> Array:
            conv = Convolution(features, kernel, stride, config.padding, name=f"{name}_conv")
            return finish(conv(x, constants=False), name)

        deeper = block(x, down, config.kernel_down, "down", stride=2)
        deeper = block(deeper, down, config.kernel_down, "deep")
        if i + 1 < len(config.channels_down):
            deeper = Scale(config, i + 1, name=f"scale{i + 1}")(deeper)
        branch = block(x, skip, config.kernel_skip, "skip") if skip else None

        norm = BatchNormalization(skip + deeper.shape[-1], name="merge_norm")
        conv = Convolution(up, config.kernel_up, padding=config.padding, name="up_conv")
        if _has_coarse_form(config, deeper.shape, x.shape):
            convolution = conv.parameters(norm.features)
            y = merged_convolution(
                deeper,
                branch,
                norm.parameters(),
                convolution,
                upsampling=config.upsampling,
                constants=False,
            )
        else:
            # Of an odd side the doubled half is a pixel longer.
            beside = x if branch is None else branch
            beside, deeper = centre_crop(beside, upsample2x(deeper, upsampling=config.upsampling))
            if branch is not None:
                deeper = jnp.concatenate((beside, deeper), axis=-1)
            y = conv(norm(deeper), constants=False)
        y = finish(y, "up")
        return block(y, up, 1, "mix") if config.conv1x1_up else y


class Convolution(nn.Module):
    """Convolution with bias, padded to keep the size (halve it at stride 2)."""

    features: int
    kernel_size: int
    stride: int = 1
    padding: Padding = "reflection"

    def __call__(
        self, x: Float[Array, "b h w c"], *, constants: bool = True
    ) -> Float[Array, "b hh ww {self.features}"]:
        """Without `constants` the bias is left out: a normalization behind it would undo it."""
        kernel, bias = self.parameters(x.shape[-1])
        y = padded_conv2d(x, kernel, self.stride, padding=self.padding)
        return y + bias if constants else y

    @nn.compact
    def parameters(
        self, channels: int
    ) -> tuple[Float[Array, "k k {channels} o"], Float[Array, " o"]]:
        """Kernel and bias, both of U(-1/sqrt(fan_in), 1/sqrt(fan_in)), fan_in = k k channels."""
        shape = (self.kernel_size, self.kernel_size, channels, self.features)
        uniform = functools.partial(_uniform, fan_in=math.prod(shape[:3]))
        kernel = self.param("kernel", uniform, shape)
        return kernel, self.param("bias", uniform, shape[3:])


class BatchNormalization(nn.Module):
    """Batch normalization by batch statistics only (Deep Image Prior never leaves training mode).

    Biased variance, epsilon 1e-5, learned scale and shift. For one image it is instance
    normalization.
    """

    features: int

    def __call__(self, x: Float[Array, "b h w c"], slope: float = 1.0) -> Float[Array, "b h w c"]:
        """Normalizes and applies a leaky ReLU; see `normalize`."""
        return normalize(x, *self.parameters(), slope)

    @nn.compact
    def parameters(self) -> tuple[Float[Array, " c"], Float[Array, " c"]]:
        """Scale and shift."""
        scale = self.param("scale", nn.initializers.ones, (self.features,), jnp.float32)
        return scale, self.param("shift", nn.initializers.zeros, (self.features,), jnp.float32)


def _uniform(key: PRNGKeyArray, shape: tuple[int, ...], *, fan_in: int) -> Float[Array, "..."]:
    return jax.random.uniform(key, shape, jnp.float32, -(fan_in**-0.5), fan_in**-0.5)


def _has_coarse_form(config: NetworkConfig, coarse: tuple[int, ...], fine: tuple[int, ...]) -> bool:
    """Whether `merged_convolution` covers a merge: even sides, 3x3 kernel, reflection."""
    doubled = all(2 * coarse[axis] == fine[axis] and coarse[axis] > 1 for axis in (1, 2))
    return doubled and config.kernel_up == 3 and config.padding == "reflection"


def centre_crop(a: Float[Array, "b h w c"], b: Float[Array, "b hh ww d"]) -> tuple[Array, Array]:
    """Crops both to the smaller height and width, keeping their centres."""
    height, width = (min(a.shape[axis], b.shape[axis]) for axis in (1, 2))

    def crop(x: Array) -> Array:
        top, left = (x.shape[1] - height) // 2, (x.shape[2] - width) // 2
        return x[:, top : top + height, left : left + width]

    return crop(a), crop(b)
