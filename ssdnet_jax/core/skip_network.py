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

import itertools
import math
from typing import Any, cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from ssdnet_jax.core.config import NetworkConfig


def init_skip_network(
    key: PRNGKeyArray, config: NetworkConfig, *, channels: int
) -> PyTree[Float[Array, "..."]]:
    """Draws parameters of a network from `channels` to `channels` image channels.

    Convolution kernels and biases follow torch's U(-1/sqrt(fan_in), 1/sqrt(fan_in)), to which the
    method is sensitive (Flax's default is another distribution); scales are 1 and shifts 0. That is
    the distribution of `skip_module.SkipNetwork.init`, and the same tree; not the same draws.
    """
    structure = parameter_structure(config, channels=channels)
    # One draw for all tensors: a draw for each would take longer to compile than the network.
    uniform = jax.random.uniform(key, (parameter_count(structure),), jnp.float32, -1.0, 1.0)
    return _initial(unflatten_parameters(uniform, structure))


def _initial(params: dict[str, Any]) -> dict[str, Any]:
    """Parameters from a tree of draws of U(-1, 1)."""
    if "scale" in params:
        return {"scale": jnp.ones_like(params["scale"]), "shift": jnp.zeros_like(params["shift"])}
    if "kernel" in params:
        fan_in = math.prod(params["kernel"].shape[:3])
        return {name: value / math.sqrt(fan_in) for name, value in params.items()}
    return {name: _initial(part) for name, part in params.items()}


def parameter_structure(config: NetworkConfig, *, channels: int) -> PyTree[jax.ShapeDtypeStruct]:
    """Names and shapes of a network's parameters."""
    output = _convolution(1, config.channels_up[0], channels)
    return {"scale0": _scale(config, 0, channels), "output": output}


def _scale(config: NetworkConfig, index: int, channels: int) -> dict[str, Any]:
    """The parameters of a scale, which is given so many channels, and of all deeper scales."""
    down, up, skip = (
        of_scales[index]
        for of_scales in (config.channels_down, config.channels_up, config.channels_skip)
    )
    layers = {
        "down_conv": _convolution(config.kernel_down, channels, down),
        "down_norm": _normalization(down),
        "deep_conv": _convolution(config.kernel_down, down, down),
        "deep_norm": _normalization(down),
    }
    deeper = down
    if index + 1 < len(config.channels_down):
        layers[f"scale{index + 1}"] = _scale(config, index + 1, down)
        deeper = config.channels_up[index + 1]
    if skip:
        layers["skip_conv"] = _convolution(config.kernel_skip, channels, skip)
        layers["skip_norm"] = _normalization(skip)
    layers["merge_norm"] = _normalization(skip + deeper)
    layers["up_conv"] = _convolution(config.kernel_up, skip + deeper, up)
    layers["up_norm"] = _normalization(up)
    if config.conv1x1_up:
        layers["mix_conv"] = _convolution(1, up, up)
        layers["mix_norm"] = _normalization(up)
    return layers


def _convolution(size: int, channels: int, features: int) -> dict[str, jax.ShapeDtypeStruct]:
    return {"kernel": _array(size, size, channels, features), "bias": _array(features)}


def _normalization(features: int) -> dict[str, jax.ShapeDtypeStruct]:
    return {"scale": _array(features), "shift": _array(features)}


def _array(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


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
    """Reconstructs `images`, in float32; statistics are taken over the whole batch, at any time.

    Of bfloat16 images all layers give bfloat16, but for the last; parameters and statistics are
    float32 all the same.

    A batch is one lane: images that must not influence each other go through `jax.vmap`.
    """
    from ssdnet_jax.core.skip_module import SkipNetwork  # Flax, which takes long to import

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
