"""3x3 convolution of an image mirrored at its borders, without making the mirrored image.

What `conv2d` of a padded image computes, for the kernel and the padding of nearly all layers. The
tap c - 1 pixels away is a linear map S_c of an axis: a shift by c - 1 that mirrors at the ends. A
convolution is sum_r S_r (rows) of a product with taps S_c x (columns), and both its gradients are
products with S_r^T g. Only the first and last two pixels of an axis know of the mirror, so each
pass over memory is the one that shifting needs anyway; padding, and adding the border of its
cotangent back, would be four more.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from ssdnet_jax.core.convolution import Padding, column_products, conv2d, matmul, pad2d, row_matrix

_LEAST_SIDE = 4  # pixels: below, the two borders meet


def padded_conv2d(
    x: Float[Array, "b h w i"],
    kernel: Float[Array, "k k i o"],
    stride: int = 1,
    *,
    padding: Padding,
) -> Float[Array, "b hh ww o"]:
    """`conv2d` of `pad2d(x)`, padded by k // 2 pixels on each side."""
    h, w = x.shape[1:3]
    sides_fit = min(h, w) >= _LEAST_SIDE and h % stride == w % stride == 0
    if padding == "reflection" and kernel.shape[:2] == (3, 3) and stride in (1, 2) and sides_fit:
        return mirrored_conv2d(x, kernel, stride)
    return conv2d(pad2d(x, margin=kernel.shape[0] // 2, padding=padding), kernel, stride)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def mirrored_conv2d(
    x: Float[Array, "b h w i"], kernel: Float[Array, "3 3 i o"], stride: int = 1
) -> Float[Array, "b hh ww o"]:
    """`conv2d(pad2d(x, margin=1, padding="reflection"), kernel, stride)`.

    Args:
      x: images of at least 4 x 4 pixels; even sides at stride 2.
      kernel: HWIO.
      stride: 1 or 2.
    """
    return _forward(x, kernel, stride)[0]


def _forward(x: Array, kernel: Array, stride: int) -> tuple[Array, tuple[Array, Array]]:
    o = kernel.shape[3]
    if _takes_all_taps(kernel, stride):
        taps = _taps(_taps(x, 2, stride), 1, stride)
        return matmul(taps, kernel.reshape(-1, o)), (x, kernel)
    products = matmul(_taps(x, 2, 1), row_matrix(kernel))
    return _sum_of_maps(products, 1), (x, kernel)


def _backward(stride: int, saved: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    x, kernel = saved
    i, o = kernel.shape[2:]
    columns = _taps(x, 2, stride)
    if _takes_all_taps(kernel, stride):
        dkernel = column_products(_taps(columns, 1, stride), g).reshape(kernel.shape)
        dtaps = matmul(g, kernel.reshape(-1, o).T)
        return _from_taps(_from_taps(dtaps, 1, stride), 2, stride), dkernel
    maps = _to_maps(g, 1)
    dkernel = column_products(columns, maps).reshape(3, i, 3, o)
    dcolumns = matmul(maps, row_matrix(kernel).T)
    return _from_taps(dcolumns, 2, 1), jnp.moveaxis(dkernel, 2, 0)


mirrored_conv2d.defvjp(_forward, _backward)


def _takes_all_taps(kernel: Float[Array, "3 3 i o"], stride: int) -> bool:
    """Whether all taps are gathered, as in `conv2d`: for few channels, or with a stride."""
    return stride > 1 or 3 * kernel.shape[2] <= kernel.shape[3]


def _cut(x: Array, axis: int, start: int, stop: int) -> Array:
    return lax.slice_in_dim(x, start, x.shape[axis] + stop if stop <= 0 else stop, axis=axis)


def _thirds(x: Array) -> list[Array]:
    m = x.shape[-1] // 3
    return [lax.slice_in_dim(x, j * m, (j + 1) * m, axis=-1) for j in range(3)]


def _taps(x: Array, axis: int, stride: int) -> Array:
    """S_0 x, S_1 x, S_2 x side by side as channels, at every `stride`-th pixel."""
    n = x.shape[axis]
    if stride == 2:  # the last tap of an even axis is its last pixel
        # In pairs, since XLA on a CPU copies every second pixel of an axis slowly.
        pairs = x.reshape(*x.shape[:axis], n // 2, 2, *x.shape[axis + 1 :])
        even, odd = (lax.index_in_dim(pairs, i, axis + 1, keepdims=False) for i in (0, 1))
        before = lax.concatenate([_cut(odd, axis, 0, 1), odd], axis)  # pixel -1 mirrors pixel 1
        return lax.concatenate([_cut(before, axis, 0, -1), even, odd], x.ndim - 1)
    before, after = _cut(x, axis, 1, 2), _cut(x, axis, n - 2, n - 1)
    around = lax.concatenate([before, x, after], axis)  # pixel -1, 0, 1, ..., n
    return lax.concatenate([_cut(around, axis, c, c + n) for c in range(3)], x.ndim - 1)


def _from_taps(dtaps: Array, axis: int, stride: int) -> Array:
    """The adjoint of `_taps`."""
    a, b, c = _thirds(dtaps)
    n = dtaps.shape[axis]
    if stride == 2:
        # Even pixels were middle taps; odd ones the last of one pixel and the first of the next.
        first = _cut(c, axis, 0, 1) + _cut(a, axis, 0, 1) + _cut(a, axis, 1, 2)
        inner = _cut(c, axis, 1, -1) + _cut(a, axis, 2, 0)
        odd = lax.concatenate([first, inner, _cut(c, axis, n - 1, n)], axis)
        shape = (*b.shape[:axis], 2 * n, *b.shape[axis + 1 :])
        return jnp.stack([b, odd], axis + 1).reshape(shape)
    first = _cut(a, axis, 1, 2) + _cut(b, axis, 0, 1)
    second = _cut(a, axis, 0, 1) + _cut(a, axis, 2, 3) + _cut(b, axis, 1, 2) + _cut(c, axis, 0, 1)
    inner = _cut(a, axis, 3, -1) + _cut(b, axis, 2, -2) + _cut(c, axis, 1, -3)
    k = n - 2  # the last but one
    before_last = _cut(a, axis, n - 1, n) + _cut(b, axis, k, k + 1)
    before_last += _cut(c, axis, k - 1, k) + _cut(c, axis, n - 1, n)
    last = _cut(b, axis, n - 1, n) + _cut(c, axis, k, k + 1)
    return lax.concatenate([first, second, inner, before_last, last], axis)


def _sum_of_maps(maps: Array, axis: int) -> Array:
    """S_0 a + S_1 b + S_2 c of three maps that lie side by side as channels."""
    a, b, c = _thirds(maps)
    n = maps.shape[axis]
    first = _cut(a, axis, 1, 2) + _cut(b, axis, 0, 1) + _cut(c, axis, 1, 2)
    inner = _cut(a, axis, 0, -2) + _cut(b, axis, 1, -1) + _cut(c, axis, 2, 0)
    last = _cut(a, axis, n - 2, n - 1) + _cut(b, axis, n - 1, n) + _cut(c, axis, n - 2, n - 1)
    return lax.concatenate([first, inner, last], axis)


def _to_maps(g: Array, axis: int) -> Array:
    """The adjoint of `_sum_of_maps`: S_0^T g, S_1^T g, S_2^T g side by side."""
    n, o = g.shape[axis], g.shape[-1]

    def moved(before: int, after: int) -> Array:
        widths = [(0, 0, 0)] * g.ndim
        widths[axis] = (before, after, 0)
        return lax.pad(g, jnp.zeros((), g.dtype), widths)

    maps = lax.concatenate([moved(-1, 1), g, moved(1, -1)], g.ndim - 1)
    # What the mirror sent to the first and to the last pixel comes back to their neighbours.
    for pixel, start, border in ((1, 0, 0), (n - 2, 2 * o, n - 1)):
        there = [0] * g.ndim
        there[axis], there[-1] = pixel, start
        old = lax.dynamic_slice(maps, there, [*_cut(g, axis, 0, 1).shape])
        maps = lax.dynamic_update_slice(maps, old + _cut(g, axis, border, border + 1), there)
    return maps
