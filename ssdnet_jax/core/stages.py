"""What is done to a group of images beside the fit, each stage one function of arrays.

The static argument of each is `settings`, so that `ssdnet_jax.programs` can keep its program.
"""

import functools

import jax
from jaxtyping import Array, Float

from ssdnet_jax.core import noise, target
from ssdnet_jax.core.matched_filter import Marks
from ssdnet_jax.core.plan import Plan
from ssdnet_jax.core.score import ScoreMaps, score
from ssdnet_jax.core.target import Target
from ssdnet_jax.core.vgg19 import VGG19Weights


def measure_noise(
    image: Float[Array, "h w c"], valid: Float[Array, "h w"] | None, *, settings: None = None
) -> Float[Array, ""]:
    """`core.noise.noise_deviation`, which has no settings."""
    return noise.noise_deviation(image, valid)


def encode_fitted(
    images: Float[Array, "b h w c"],
    vgg19: VGG19Weights | None,
    valid: Float[Array, "b h w"] | None,
    *,
    settings: Plan,
) -> Target:
    """`core.target.encode_fitted` by a plan."""
    return target.encode_fitted(images, vgg19, settings, valid)


def add_compared(
    encoded: Target,
    vgg19: VGG19Weights | None,
    details: Float[Array, "b hh ww c"] | None,
    *,
    settings: Plan,
) -> Target:
    """`core.target.add_compared` by a plan."""
    return target.add_compared(encoded, vgg19, settings, details)


def marks_of(smooth: Float[Array, "b h w c"], *, settings: None = None) -> Marks:
    """`core.target.marks_of_all`, without settings; for a program of one thread."""
    return target.marks_of_all(smooth)


def score_seeds(
    encoded: Target,
    reconstructions: Float[Array, "b seeds hh ww d"],
    vgg19: VGG19Weights | None,
    *,
    settings: Plan,
) -> ScoreMaps:
    """`core.score.score` of each seed; what no reconstruction changes is computed once."""
    of_seed = functools.partial(score, encoded, vgg19=vgg19, plan=settings)
    return jax.vmap(of_seed, in_axes=1, out_axes=1)(reconstructions)


def decode_seeds(
    encoded: Target, reconstructions: Float[Array, "b seeds hh ww d"], *, settings: Plan
) -> Float[Array, "b seeds hh ww c"]:
    """`core.target.decode` of each seed."""
    of_seed = functools.partial(target.decode, encoded, plan=settings)
    return jax.vmap(of_seed, in_axes=1, out_axes=1)(reconstructions)
