"""What a network is fitted to, and how to show what it makes of it: pixels or texture features.

`encode` makes the `Target` of each image of a batch once; the fit, the score and `decode` take it
from there. It has three parts, so that a fit need not wait for what only the score asks for:
`encode_fitted`, `add_compared`, `marks_of_all`. The kinds are entries of `core.registry.TARGETS`.
"""

import functools
import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ssdnet_jax.core import features
from ssdnet_jax.core.batch import over_batch
from ssdnet_jax.core.guided import guide_of
from ssdnet_jax.core.matched_filter import Marks, marks_of
from ssdnet_jax.core.noise import without_noise
from ssdnet_jax.core.plan import DETAIL_SCALE, Plan, Representation
from ssdnet_jax.core.registry import TARGETS
from ssdnet_jax.core.vgg19 import VGG19Weights


class Target(NamedTuple):
    """What is known of an image, or of each image of a batch (*b), after it was analysed.

    Attributes:
      values: what the network is fitted to.
      compared: the feature representations that the score compares beside the residual.
      mean: of the image's channels, in image units; 0 where `values` are an image.
      deviation: standard deviation of the channels, in image units; 1 where `values` are an image.
      weights: in [0, 1], how well each position of `compared` and, last, of `values` is known;
        empty where all of the image takes part.
      valid: 1 where a pixel of the image takes part, 0 where it does not; None where all do.
      marks: of the whitened image; None where they are not scored.
      guide: of the image, what the map follows (`core.guided`); None where it follows nothing.
      smooth: the image without its noise, whose features these are; None where `values` are an
        image.
    """

    values: Float[Array, "*b hh ww d"]
    compared: tuple[Float[Array, "*b hi wi n"], ...]
    mean: Float[Array, "*b c"]
    deviation: Float[Array, "*b c"]
    weights: tuple[Float[Array, "*b hj wj"], ...] = ()
    valid: Float[Array, "*b h w"] | None = None
    marks: Marks | None = None
    guide: Float[Array, "*b h w guides"] | None = None
    smooth: Float[Array, "*b h w c"] | None = None


class TargetKind(NamedTuple):
    """An entry of `core.registry.TARGETS`.

    Attributes:
      encode: (image (h, w, c) in [0, 1], vgg19, plan, valid=...) -> `Target` of one image, with
        all that the fit and `decode` need. `valid` is `Target.valid`, or left out.
      decode: (`Target`, reconstruction (hh, ww, d)) -> image (hh, ww, c) in [0, 1].
      shape: (plan, channels of the image) -> shape of `Target.values`.
      smallest_side: (positions, scale) -> pixels that the shorter side of an image must have, so
        that a representation at this scale has so many positions.
      needs_vgg19: whether `encode` takes VGG19's weights.
      is_image: whether what is fitted is the image itself, of which VGG19 can take features.
      compare: (`Target` from `encode`, vgg19, plan, detail=...) -> `Target` with all that the score
        compares beside the fit. `detail` is the image at twice the size, or left out.
      stands_for: (has_vgg19) -> name of the entry that is used, for an entry that leaves it open.
    """

    encode: Callable[..., Target]
    decode: Callable[[Target, Array], Array]
    shape: Callable[[Plan, int], tuple[int, int, int]]
    smallest_side: Callable[[int, float], int]
    needs_vgg19: bool = False
    is_image: bool = False
    compare: Callable[..., Target] = lambda target, vgg19, plan, **_: target
    stands_for: Callable[[bool], str] | None = None


def encode(
    images: Float[Array, "b h w c"],
    vgg19: VGG19Weights | None,
    plan: Plan,
    valid: Float[Array, "b h w"] | None = None,
    details: Float[Array, "b 2*h 2*w c"] | None = None,
) -> Target:
    """Analyses a batch of images, each on its own.

    Args:
      images: in [0, 1], of the plan's shape; no pixel is missing.
      vgg19: weights; may be None unless the plan's target needs them.
      plan: static, the same for all images.
      valid: 1 where a pixel takes part, 0 where it does not and holds a harmless filling, which
        should resemble the rest; needed for a plan that is `masked`, and for no other.
      details: the images at twice the size; needed for a plan that is `detailed`.
    """
    target = add_compared(encode_fitted(images, vgg19, valid, plan=plan), vgg19, details, plan=plan)
    smooth = image_to_mark(target, plan)
    return target if smooth is None else target._replace(marks=marks_of_all(smooth))


def encode_fitted(
    images: Float[Array, "b h w c"],
    vgg19: VGG19Weights | None,
    valid: Float[Array, "b h w"] | None = None,
    *,
    plan: Plan,
) -> Target:
    """What a fit and `decode` need of a batch of images; arguments as of `encode`."""
    if plan.masked != (valid is not None):
        given = "None" if valid is None else "an array"
        raise ValueError(
            f"plan.masked is {plan.masked} and valid {given}; expected both or neither"
        )
    optional = {} if valid is None else {"valid": valid}

    def of_one(image: Array, given: dict[str, Array]) -> Target:
        return TARGETS[plan.target].encode(image, vgg19, plan, **given)

    return over_batch(of_one, images, optional)


def add_compared(
    target: Target,
    vgg19: VGG19Weights | None,
    details: Float[Array, "b hh ww c"] | None = None,
    *,
    plan: Plan,
) -> Target:
    """The target from `encode_fitted` with the representations that the score compares, and guide.

    Arguments as of `encode`.
    """
    if plan.detailed and details is None:
        raise ValueError("found no details; expected the images at twice their size")
    optional = {"detail": details} if plan.detailed else {}

    def of_one(target: Target, given: dict[str, Array | None]) -> Target:
        return TARGETS[plan.target].compare(target, vgg19, plan, **given)

    return over_batch(of_one, target, optional)


def image_to_mark(target: Target, plan: Plan) -> Any:
    """`Target.smooth`, of which `marks_of_all` are to be scored; None where none are.

    That is, without marks in the plan, and for a kind of target that keeps no such image.
    """
    return target.smooth if plan.marks else None


def marks_of_all(smooth: Float[Array, "b h w c"]) -> Marks:
    """`core.matched_filter.marks_of` each `Target.smooth` of a batch, for a plan with marks."""
    return over_batch(marks_of, smooth)


def loss_weights(target: Target) -> Float[Array, "b hh ww"] | None:
    """What each fitted position counts in the loss, 1 in the mean; None where all count alike."""
    if not target.weights:
        return None
    known = target.weights[-1]
    return known / jnp.maximum(known.mean((1, 2), keepdims=True), 1e-6)


def target_shape(plan: Plan, *, channels: int) -> tuple[int, int, int]:
    """Height, width and channels of what is fitted to an image of so many channels."""
    return TARGETS[plan.target].shape(plan, channels)


def decode(
    target: Target, reconstructions: Float[Array, "b hh ww d"], plan: Plan
) -> Float[Array, "b hh ww c"]:
    """The images in [0, 1] that reconstructions of targets show, at the targets' resolution.

    Args:
      target: from `encode`.
      reconstructions: f_theta(target.values).
      plan: static, as for `encode`.
    """
    return over_batch(TARGETS[plan.target].decode, target, reconstructions)


def decode_seeds(
    target: Target, reconstructions: Float[Array, "b seeds hh ww d"], *, plan: Plan
) -> Float[Array, "b seeds hh ww c"]:
    """`decode` of each seed."""
    of_seed = functools.partial(decode, target, plan=plan)
    return jax.vmap(of_seed, in_axes=1, out_axes=1)(reconstructions)


def _encode_pixels(
    image: Array, vgg19: VGG19Weights | None, plan: Plan, valid: Array | None = None, **_: Array
) -> Target:
    channels = (image.shape[-1],)
    zeros, ones = jnp.zeros(channels, jnp.float32), jnp.ones(channels, jnp.float32)
    return Target(image, (), zeros, ones, () if valid is None else (valid,), valid)


def _encode_features(
    kind: features.Kind,
    image: Array,
    vgg19: VGG19Weights | None,
    plan: Plan,
    valid: Array | None = None,
) -> Target:
    """Principal components of features, and the image's colours, which `decode` shows.

    Every feature is brought to mean 0 and standard deviation 1 first, and so are the colours, which
    come last. Compared representations of the same scale come with those that are fitted.
    """
    smooth = without_noise(image, valid)
    halved, of_values = None, None
    weights: tuple[Array, ...] = ()
    if valid is not None:
        halved = features.halve(valid[..., None])[..., 0]
        weights = tuple(
            features.feature_weights(valid, representation, kind=kind)
            for representation in (*plan.compared, plan.fitted)
        )
        of_values = weights[-1]
    fitted = features.represent(smooth, vgg19, plan.fitted, kind=kind, weights=of_values)
    colours = features.halve(features.resized(smooth, scale=plan.fitted.scale))
    values = jnp.concatenate([fitted, features.standardize(colours, of_values)], axis=-1)
    compared = tuple(
        features.represent(smooth, vgg19, representation, kind=kind, weights=of_compared)
        for representation, of_compared in _with_weights(plan, weights)
        if representation.scale == plan.fitted.scale
    )
    moments = features.moments(features.halve(smooth), halved)
    return Target(values, compared, *moments, weights, valid, smooth=smooth)


def _compare_features(
    kind: features.Kind,
    target: Target,
    vgg19: VGG19Weights | None,
    plan: Plan,
    detail: Array | None = None,
) -> Target:
    """Representations of other scales, and the guide."""
    there = iter(target.compared)  # those that came with what is fitted
    smooth = target.smooth
    assert smooth is not None

    def of(representation: Representation, weights: Array | None) -> Array:
        if representation.scale == plan.fitted.scale:
            return next(there)
        if representation.scale <= 1:
            return features.represent(smooth, vgg19, representation, kind=kind, weights=weights)
        assert detail is not None
        halved = representation._replace(scale=representation.scale / DETAIL_SCALE)
        return features.represent(without_noise(detail), vgg19, halved, kind=kind, weights=weights)

    compared = tuple(of(*each) for each in _with_weights(plan, target.weights))
    guide = guide_of(smooth, target.valid) if plan.guided else None
    return target._replace(compared=compared, guide=guide)


def _with_weights(
    plan: Plan, weights: tuple[Array, ...]
) -> Iterable[tuple[Representation, Array | None]]:
    """Compared representations, each with its weights, or with None where all take part."""
    return zip(plan.compared, weights[:-1] or (None,) * len(plan.compared), strict=True)


def _decode_features(target: Target, reconstruction: Array) -> Array:
    colours = reconstruction[..., -target.mean.shape[-1] :]
    return jnp.clip(colours * target.deviation + target.mean, 0, 1)


def _shape_of_features(plan: Plan, channels: int) -> tuple[int, int, int]:
    height, width = features.resized_shape(plan.shape, scale=plan.fitted.scale)
    return height // 2, width // 2, plan.fitted.components + channels


def _side_for_features(positions: int, scale: float) -> int:
    """Features have half of an image's resolution."""
    return 2 * math.ceil(positions / scale)


def _features(kind: features.Kind, *, needs_vgg19: bool) -> TargetKind:
    encode_kind = functools.partial(_encode_features, kind)
    return TargetKind(
        encode_kind,
        _decode_features,
        _shape_of_features,
        _side_for_features,
        needs_vgg19,
        compare=functools.partial(_compare_features, kind),
    )


TARGETS.register_own("pixels")(
    TargetKind(
        _encode_pixels,
        lambda target, reconstruction: reconstruction,
        lambda plan, channels: (*plan.shape, channels),
        lambda positions, scale: positions,
        is_image=True,
    )
)
TARGETS.register_own("vgg19")(_features("vgg19", needs_vgg19=True))
TARGETS.register_own("filters")(_features("filters", needs_vgg19=False))
TARGETS.register_own("auto")(
    _features("filters", needs_vgg19=False)._replace(
        stands_for=lambda has_vgg19: "vgg19" if has_vgg19 else "filters"
    )
)
