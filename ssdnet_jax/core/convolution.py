"""2-D convolution shaped as matrix products, with its own gradients.

`lax.conv` has two cliffs here: on a CPU its kernel gradient inside a compiled loop is 10-30 times
slower than outside (jax-ml/jax#12868), and vmapped over per-lane kernels it becomes a grouped
convolution (jax-ml/jax#13800). Matrix products have neither: under `vmap` they stay batched
matrix products, forward and backward.

Images may be bfloat16, with which a step moves half of the bytes. Kernels stay float32, and so do
their gradients, which are sums over all pixels; products are in the images' type.
"""

import functools
from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from ssdnet_jax.core.arrays import widened

Padding = Literal["reflection", "zero"]


def pad2d(
    x: Float[Array, "b h w c"], *, margin: int, padding: Padding
) -> Float[Array, "b h+2*{margin} w+2*{margin} c"]:
    """Pads height and width by `margin` pixels on each side.

    "reflection" mirrors without repeating the edge pixel (needs height and width > margin).
    """
    if margin == 0:
        return x
    if padding == "reflection":
        return _reflect(_reflect(x, margin, axis=1), margin, axis=2)
    if padding == "zero":
        widths = ((0, 0, 0), (margin, margin, 0), (margin, margin, 0), (0, 0, 0))
        return lax.pad(x, jnp.zeros((), x.dtype), widths)
    raise ValueError(f"padding is {padding!r}; expected 'reflection' or 'zero'")


def _reflect(x: Array, margin: int, *, axis: int) -> Array:
    n = x.shape[axis]
    before = lax.rev(lax.slice_in_dim(x, 1, 1 + margin, axis=axis), (axis,))
    after = lax.rev(lax.slice_in_dim(x, n - 1 - margin, n - 1, axis=axis), (axis,))
    return lax.concatenate([before, x, after], axis)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv2d(
    x: Float[Array, "b h w i"], kernel: Float[Array, "k k i o"], stride: int = 1
) -> Float[Array, "b hh ww o"]:
    """Cross-correlates `x` with `kernel`, no padding ("VALID"); equals `lax.conv`.

    Stride 1 gathers the taps of one row only and sums the k row products after the multiplication,
    so that k, not k*k, copies of `x` are made; and the same the other way round for the gradients,
    which share the k row offsets of their cotangent. Where there are so few channels that all
    k*k taps together are no more than the k row products, and at larger strides, all are gathered.

    Args:
      x: images, NHWC.
      kernel: square kernel, HWIO.
      stride: pixels between outputs, the same along height and width.

    Returns:
      Images of ceil((h - k + 1) / stride) by ceil((w - k + 1) / stride) pixels.
    """
    if kernel.shape[0] != kernel.shape[1] or kernel.shape[2] != x.shape[3]:
        raise ValueError(
            f"kernel has shape {kernel.shape}; expected (k, k, {x.shape[3]}, out) for {x.shape}"
        )
    if _takes_all_taps(kernel, stride):
        taps = _taps(x, kernel.shape[0], stride)
        return matmul(taps, kernel.reshape(-1, kernel.shape[3]))
    return _row_products(x, kernel)


def _forward(x: Array, kernel: Array, stride: int) -> tuple[Array, tuple[Array, Array]]:
    return conv2d(x, kernel, stride), (x, kernel)


def _backward(
    stride: int, saved: tuple[Array, Array], g: Float[Array, "b hh ww o"]
) -> tuple[Array, Array]:
    gradients = _tap_gradients if _takes_all_taps(saved[1], stride) else _row_gradients
    return gradients(*saved, g, stride)


conv2d.defvjp(_forward, _backward)


def _takes_all_taps(kernel: Float[Array, "k k i o"], stride: int) -> bool:
    k, _, i, o = kernel.shape
    return k == 1 or stride > 1 or k * i <= o


def matmul(columns: Float[Array, "*lead m"], matrix: Float[Array, "m n"]) -> Array:
    """The product of each pixel's channels with a matrix, in the pixels' type."""
    product = columns.reshape(-1, columns.shape[-1]) @ matrix.astype(columns.dtype)
    return product.reshape(*columns.shape[:-1], matrix.shape[-1])


def column_products(a: Float[Array, "*lead m"], b: Float[Array, "*lead n"]) -> Array:
    """Each channel of `a` times each of `b`, summed over pixels: (m, n), in float32."""
    a, b = a.reshape(-1, a.shape[-1]), b.reshape(-1, b.shape[-1])
    if b.shape[1] == 1:  # a sum over rows as they lie; the product would first transpose `a`
        return jnp.sum(widened(a) * widened(b), axis=0)[:, None]
    return jnp.matmul(a.T, b, preferred_element_type=jnp.promote_types(a.dtype, jnp.float32))


def _row_products(x: Array, kernel: Float[Array, "k k i o"]) -> Float[Array, "b hh ww o"]:
    k, o = kernel.shape[0], kernel.shape[3]
    height = x.shape[1] - k + 1
    rows = matmul(_gather(x, k, 1, axis=2), row_matrix(kernel))
    shifted = [
        lax.slice_in_dim(rows[..., r * o : (r + 1) * o], r, r + height, axis=1) for r in range(k)
    ]
    return functools.reduce(lax.add, shifted)


def row_matrix(kernel: Float[Array, "k k i o"]) -> Float[Array, "k*i k*o"]:
    """The kernel as a matrix from the taps of a row to the products of all rows, side by side."""
    k, _, i, o = kernel.shape
    return jnp.moveaxis(kernel, 0, 2).reshape(k * i, k * o)


def _row_gradients(x: Array, kernel: Array, g: Array, stride: int) -> tuple[Array, Array]:
    """Both from the cotangent at its k row offsets, side by side."""
    k, _, i, o = kernel.shape
    zero = jnp.zeros((), g.dtype)
    offsets = lax.concatenate(
        [lax.pad(g, zero, ((0, 0, 0), (r, k - 1 - r, 0), (0, 0, 0), (0, 0, 0))) for r in range(k)],
        3,
    )
    dkernel = column_products(_gather(x, k, 1, axis=2), offsets).reshape(k, i, k, o)
    dtaps = matmul(offsets, row_matrix(kernel).T)
    return _scatter(dtaps, k, 1, axis=2, size=x.shape[2]), jnp.moveaxis(dkernel, 2, 0)


def _taps(x: Float[Array, "b h w i"], k: int, stride: int) -> Float[Array, "b hh ww {k}*{k}*i"]:
    # One axis after the other: XLA's loop over k*k pieces at once is several times slower.
    return _gather(_gather(x, k, stride, axis=2), k, stride, axis=1)


def _tap_gradients(x: Array, kernel: Array, g: Array, stride: int) -> tuple[Array, Array]:
    k, o = kernel.shape[0], kernel.shape[3]
    dkernel = column_products(_taps(x, k, stride), g).reshape(kernel.shape)
    dtaps = matmul(g, kernel.reshape(-1, o).T)
    dcolumns = _scatter(dtaps, k, stride, axis=1, size=x.shape[1])
    return _scatter(dcolumns, k, stride, axis=2, size=x.shape[2]), dkernel


def _gather(x: Array, k: int, stride: int, *, axis: int) -> Array:
    """Every `stride`-th pixel of an axis with the k - 1 after it, side by side as channels."""
    if k == stride == 1:
        return x
    last = (x.shape[axis] - k) // stride * stride + 1
    return lax.concatenate(
        [lax.slice_in_dim(x, j, j + last, stride, axis) for j in range(k)], x.ndim - 1
    )


def _scatter(dtaps: Array, k: int, stride: int, *, axis: int, size: int) -> Array:
    """The adjoint of `_gather`: each tap goes back to the pixels it came from, dilated and padded.

    Args:
      dtaps: cotangent of the taps.
      k: taps.
      stride: pixels between them.
      axis: along which they were gathered.
      size: pixels of that axis before.
    """
    if k == stride == 1:
        return dtaps
    channels, span = dtaps.shape[-1] // k, (dtaps.shape[axis] - 1) * stride + 1
    pieces = []
    for j in range(k):
        widths = [(0, 0, 0)] * dtaps.ndim
        widths[axis] = (j, size - span - j, stride - 1)
        piece = lax.slice_in_dim(dtaps, j * channels, (j + 1) * channels, axis=-1)
        pieces.append(lax.pad(piece, jnp.zeros((), dtaps.dtype), widths))
    return functools.reduce(lax.add, pieces)
