"""What Eqs. 2 and 3 measure at one pixel or feature position, and Lambda; chosen by name.

Each function is one line of mathematics; `core.registry` says how to add another.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from ssdnet_jax.core.registry import (
    AGGREGATIONS,
    PERCEPTUAL_SIMILARITIES,
    RECONSTRUCTION_ERRORS,
)

_CHARBONNIER_SCALE = 1e-3  # image units; below it the error is quadratic
_DARK = 0.1  # image units; brightness below which a ratio says little
_TINY = 1e-6  # keeps the gradient of a norm finite at 0


@RECONSTRUCTION_ERRORS.register_own("squared")
def squared(y: Float[Array, "*b c"], f: Float[Array, "*b c"]) -> Float[Array, "*b"]:
    """Mean over channels of (y - f)^2, the paper's."""
    return lax.square(y - f).mean(-1)


@RECONSTRUCTION_ERRORS.register_own("absolute")
def absolute(y: Float[Array, "*b c"], f: Float[Array, "*b c"]) -> Float[Array, "*b"]:
    """Mean over channels of |y - f|."""
    return jnp.abs(y - f).mean(-1)


@RECONSTRUCTION_ERRORS.register_own("charbonnier")
def charbonnier(y: Float[Array, "*b c"], f: Float[Array, "*b c"]) -> Float[Array, "*b"]:
    """Mean over channels of sqrt((y - f)^2 + s^2) - s: absolute with a smooth minimum."""
    scale = _CHARBONNIER_SCALE
    return (jnp.sqrt(lax.square(y - f) + scale**2) - scale).mean(-1)


@RECONSTRUCTION_ERRORS.register_own("log_ratio")
def log_ratio(y: Float[Array, "*b c"], f: Float[Array, "*b c"]) -> Float[Array, "*b"]:
    """Mean over channels of |log((y + 0.1) / (f + 0.1))|: as large in shade as in bright light.

    Below 0 the logarithm goes on as an odd function.
    """
    y, f = (jnp.sign(x) * jnp.log1p(jnp.abs(x) / _DARK) for x in (y, f))
    return jnp.abs(y - f).mean(-1)


@PERCEPTUAL_SIMILARITIES.register_own("inner_product")
def inner_product(y: Float[Array, "*b f"], f: Float[Array, "*b f"]) -> Float[Array, "*b"]:
    """<phi(y), phi(f)> summed over channels, not normalized: the paper's (section 3.3)."""
    return jnp.sum(y * f, axis=-1)


@PERCEPTUAL_SIMILARITIES.register_own("cosine")
def cosine(y: Float[Array, "*b f"], f: Float[Array, "*b f"]) -> Float[Array, "*b"]:
    """The inner product over both norms, in [-1, 1]."""
    norms = (jnp.sqrt(lax.square(x).sum(-1) + _TINY) for x in (y, f))
    return inner_product(y, f) / jnp.prod(jnp.stack(list(norms)), axis=0)


@PERCEPTUAL_SIMILARITIES.register_own("euclidean")
def euclidean(y: Float[Array, "*b f"], f: Float[Array, "*b f"]) -> Float[Array, "*b"]:
    """Minus the mean over channels of (phi(y) - phi(f))^2, at most 0."""
    return -lax.square(y - f).mean(-1)


@AGGREGATIONS.register_own("mean")
def mean(terms: Float[Array, "r *b"]) -> Float[Array, "*b"]:
    """Mean over resolutions."""
    return jnp.mean(terms, axis=0)


@AGGREGATIONS.register_own("max")
def maximum(terms: Float[Array, "r *b"]) -> Float[Array, "*b"]:
    """Maximum over resolutions."""
    return jnp.max(terms, axis=0)


@AGGREGATIONS.register_own("min")
def minimum(terms: Float[Array, "r *b"]) -> Float[Array, "*b"]:
    """Minimum over resolutions."""
    return jnp.min(terms, axis=0)


@AGGREGATIONS.register_own("median")
def median(terms: Float[Array, "r *b"]) -> Float[Array, "*b"]:
    """Median over resolutions."""
    return jnp.median(terms, axis=0)
