"""Resizing as fixed linear stencils: doubling for the network, bilinear for VGG19's input."""

import functools
from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

Upsampling = Literal["bilinear", "nearest"]


def upsample2x(
    x: Float[Array, "b h w c"], *, upsampling: Upsampling
) -> Float[Array, "b 2*h 2*w c"]:
    """Doubles height and width; "bilinear" is torch's with align_corners=False."""
    if upsampling == "nearest":
        return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
    if upsampling == "bilinear":
        return _double(_double(x, 2), 1)
    raise ValueError(f"upsampling is {upsampling!r}; expected 'bilinear' or 'nearest'")


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _double(x: Array, axis: int) -> Array:
    """Pixel i becomes 1/4 of its left neighbour + 3/4 of itself, then 3/4 + 1/4 of its right."""
    left, right = _from_left(x, x, axis), _from_right(x, x, axis)
    pair = jnp.stack([0.25 * left + 0.75 * x, 0.75 * x + 0.25 * right], axis + 1)
    return pair.reshape(*x.shape[:axis], 2 * x.shape[axis], *x.shape[axis + 1 :])


def _double_forward(x: Array, axis: int) -> tuple[Array, None]:
    return _double(x, axis), None


def _double_backward(axis: int, _: None, g: Array) -> tuple[Array]:
    """The adjoint, written as one stencil (autodiff would make a sum of padded pieces)."""
    pairs = g.reshape(*g.shape[:axis], g.shape[axis] // 2, 2, *g.shape[axis + 1 :])
    even, odd = (lax.index_in_dim(pairs, n, axis + 1, keepdims=False) for n in (0, 1))
    neighbours = _from_left(odd, even, axis) + _from_right(even, odd, axis)
    return (0.75 * (even + odd) + 0.25 * neighbours,)


def _from_left(x: Array, border: Array, axis: int) -> Array:
    """Each pixel's left neighbour in `x`; the first pixel takes `border`'s first."""
    n = x.shape[axis]
    first = lax.slice_in_dim(border, 0, 1, axis=axis)
    return lax.concatenate([first, lax.slice_in_dim(x, 0, n - 1, axis=axis)], axis)


def _from_right(x: Array, border: Array, axis: int) -> Array:
    """Each pixel's right neighbour in `x`; the last pixel takes `border`'s last."""
    n = x.shape[axis]
    last = lax.slice_in_dim(border, n - 1, n, axis=axis)
    return lax.concatenate([lax.slice_in_dim(x, 1, n, axis=axis), last], axis)


_double.defvjp(_double_forward, _double_backward)


def resize_bilinear(x: Float[Array, "b h w c"], *, size: int) -> Float[Array, "b {size} {size} c"]:
    """Bilinear resize to a square without antialiasing; torch's with align_corners=False."""
    return jax.image.resize(
        x, (x.shape[0], size, size, x.shape[3]), method="bilinear", antialias=False
    )


def centre_crop(a: Float[Array, "b h w c"], b: Float[Array, "b hh ww d"]) -> tuple[Array, Array]:
    """Crops both to the smaller height and width, keeping their centres."""
    height, width = (min(a.shape[axis], b.shape[axis]) for axis in (1, 2))

    def crop(x: Array) -> Array:
        top, left = (x.shape[1] - height) // 2, (x.shape[2] - width) // 2
        return x[:, top : top + height, left : left + width]

    return crop(a), crop(b)
