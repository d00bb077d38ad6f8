"""The skip encoder-decoder as Flax modules, which `core.skip_network` applies as a pure function.

In a file of its own: importing Flax takes a third of a second, and only tracing a network needs it.
A run whose programs are on disk does not (`ssdnet_jax.programs`).
"""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ssdnet_jax.core.arrays import widened
from ssdnet_jax.core.config import NetworkConfig
from ssdnet_jax.core.convolution import Padding
from ssdnet_jax.core.merge import merged_convolution
from ssdnet_jax.core.mirrored import padded_conv2d
from ssdnet_jax.core.normalization import LEAKY_SLOPE, OTHER_ACTIVATIONS, normalize
from ssdnet_jax.core.resize import centre_crop, upsample2x


class SkipNetwork(nn.Module):
    """The network (Ulyanov et al. 2018, `skip`); see `core.skip_network`."""

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
            # An odd side is halved upwards: doubled again it is one pixel longer.
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
        """Without `constants` the bias is left out: a normalization behind it would undo it.

        With it the result is float32, whatever type `x` has.
        """
        kernel, bias = self.parameters(x.shape[-1])
        y = padded_conv2d(x, kernel, self.stride, padding=self.padding)
        return widened(y) + bias if constants else y

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
