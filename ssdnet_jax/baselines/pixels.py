"""What several baselines have in common: how they are compiled, what they ask, how they smooth."""

import inspect
from collections.abc import Callable
from typing import Any, Literal, ParamSpec, TypeVar, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.signal import convolve2d
from jaxtyping import Array, Float

from ssdnet_jax.core.smoothing import mirror
from ssdnet_jax.core.vgg19 import VGG19Weights
from ssdnet_jax.errors import ConfigError, InputError

GIVEN = ("key", "vgg19", "clip")  # what a command gives by itself; all else are options
_ROWS = 256  # of a matrix of distances, that are computed at once
_LUMINANCE = (0.2989, 0.587, 0.114)  # ITU-R BT.601, MATLAB's rgb2gray

P = ParamSpec("P")
R = TypeVar("R")


def compiled(baseline: Callable[P, R]) -> Callable[P, R]:
    """`jax.jit` of a baseline, a program for each set of options: its keyword-only arguments."""
    parameters = inspect.signature(baseline).parameters.values()
    options = [p.name for p in parameters if p.kind == p.KEYWORD_ONLY and p.name not in GIVEN]
    return jax.jit(baseline, static_argnames=options)


def luminance(image: Float[Array, "h w c"]) -> Float[Array, "h w"]:
    """Grey pixels as they are, RGB by ITU-R BT.601."""
    return image[..., 0] if image.shape[-1] == 1 else image @ jnp.asarray(_LUMINANCE)


def of_width(grey: Float[Array, "h w"], width: int | None) -> Float[Array, "hh ww"]:
    """An image of so many columns, aspect ratio kept (bicubic, antialiased); None: as it is."""
    if width is None:
        return grey
    height = max(round(grey.shape[0] * width / grey.shape[1]), 1)
    return jax.image.resize(grey, (height, width), "cubic")


def smooth(
    values: Float[Array, "h w"], *, sigma: float, size: int, mode: str = "constant"
) -> Float[Array, "h w"]:
    """A Gaussian on a support of odd `size`; `mode` says what lies outside, as in `jnp.pad`."""
    if sigma == 0:
        return values
    kernel = np.exp(-0.5 * np.square((np.arange(size) - size // 2) / sigma))
    kernel = np.outer(kernel, kernel) / kernel.sum() ** 2
    padded = jnp.pad(values, size // 2, mode=mode)
    return convolve2d(padded, jnp.asarray(kernel, jnp.float32), mode="valid")


def check_channels(image: Array) -> None:
    """Raises InputError if an image is neither (H, W, 1) nor (H, W, 3)."""
    if jnp.ndim(image) != 3 or image.shape[-1] not in (1, 3):
        raise InputError(f"image has shape {jnp.shape(image)}; expected (H, W, 1) or (H, W, 3)")


def check_features(
    image: Array, features: str, vgg19: VGG19Weights | None, *, smallest: int
) -> None:
    """Raises an error if texture features of an image cannot be had.

    ConfigError: `features` is neither "vgg19" nor "filters", or there are no weights for "vgg19".
    InputError: the image is neither (H, W, 1) nor (H, W, 3), or a side is below `smallest`.
    """
    check_channels(image)
    check_word("features", features, Literal["vgg19", "filters"])
    if features == "vgg19" and vgg19 is None:
        raise ConfigError(
            'features is "vgg19" and vgg19 is None; expected weights, for example '
            'vgg19=ssdnet_jax.load_vgg19_weights(), or features "filters"'
        )
    if min(image.shape[:2]) < smallest:
        raise InputError(
            f"image has {image.shape[0]} x {image.shape[1]} pixels; "
            f"expected at least {smallest} a side"
        )


def check(legal: Any, name: str, value: object, expected: str) -> None:
    """Raises ConfigError if the value of an option is not legal."""
    if not legal:
        raise ConfigError(f"{name} is {value}; expected {expected}")


def check_word(name: str, value: str, words: Any) -> None:
    """Raises ConfigError if the value of an option is none of the words of a `Literal`."""
    legal = get_args(words)
    check(value in legal, name, repr(value), " or ".join(legal))


def check_odd(name: str, size: int, smallest: int = 1) -> None:
    """Raises ConfigError if a side is even or too small."""
    legal = size >= smallest and size % 2 == 1
    check(legal, name, size, f"an odd number, at least {smallest}")


def box_mean(features: Float[Array, "h w c"], *, size: int) -> Float[Array, "h w c"]:
    """Mean over a square of odd side `size` around each position; the map is mirrored."""
    padded = mirror(features, margin=size // 2)
    sums = lax.reduce_window(padded, 0.0, lax.add, (size, size, 1), (1, 1, 1), "VALID")
    return sums / size**2


def of_distances(
    features: Float[Array, "n c"], reduce: Callable[[Float[Array, " n"]], Float[Array, ""]]
) -> Float[Array, " n"]:
    """For each feature, `reduce` of its squared distances to all features, itself included.

    Args:
      features: of which distances are taken.
      reduce: squared distances, which rounding can make negative, -> number.
    """
    # Distances do not depend on the mean, but their rounding does.
    centred = features - features.mean(0)
    squares = (centred**2).sum(1)

    def of_one(feature: Float[Array, " c"]) -> Float[Array, ""]:
        return reduce((feature**2).sum() + squares - 2 * centred @ feature)

    return lax.map(of_one, centred, batch_size=_ROWS)
