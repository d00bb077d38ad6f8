"""2-D convolution shaped as matrix products, with its own gradients.

`lax.conv` has two cliffs here: on a CPU its kernel gradient inside a compiled loop is 10-30 times
slower than outside (jax-ml/jax#12868), and vmapped over per-lane kernels it becomes a grouped
convolution (jax-ml/jax#13800). Matrix products have neither: under `vmap` they stay batched
matrix products, forward and backward.
"""

import functools
from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

Padding = Literal["reflection", "zero"]


def pad2d(
    x: Float[Array, "b h w c"], *, margin: int, padding: Padding
) -> Float[Array, "b h+2*margin w+2*margin c"]:
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
    so that k, not k*k, copies of `x` are made. Larger strides gather all taps.

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
    return _row_products(x, kernel) if stride == 1 else _tap_product(x, kernel, stride)


def _forward(x: Array, kernel: Array, stride: int) -> tuple[Array, tuple[Array, Array]]:
    return conv2d(x, kernel, stride), (x, kernel)


def _backward(
    stride: int, saved: tuple[Array, Array], g: Float[Array, "b hh ww o"]
) -> tuple[Array, Array]:
    x, kernel = saved
    if stride == 1:
        return _image_gradient(g, kernel), _row_kernel_gradient(x, g, kernel.shape[0])
    return _strided_gradients(x, kernel, stride, g)


conv2d.defvjp(_forward, _backward)


def _matmul(columns: Float[Array, "*lead m"], matrix: Float[Array, "m n"]) -> Array:
    return (columns.reshape(-1, columns.shape[-1]) @ matrix).reshape(
        *columns.shape[:-1], matrix.shape[-1]
    )


def _row_taps(x: Float[Array, "b h w i"], k: int) -> Float[Array, "b h w-k+1 k*i"]:
    width = x.shape[2] - k + 1
    return lax.concatenate([lax.slice_in_dim(x, j, j + width, axis=2) for j in range(k)], 3)


def _row_products(x: Float[Array, "b h w i"], kernel: Float[Array, "k k i o"]) -> Array:
    k, _, i, o = kernel.shape
    height = x.shape[1] - k + 1
    rows = _matmul(_row_taps(x, k), jnp.moveaxis(kernel, 0, 2).reshape(k * i, k * o))
    batch, width = x.shape[0], rows.shape[2]
    shifted = [
        lax.slice(rows, (0, r, 0, r * o), (batch, r + height, width, (r + 1) * o)) for r in range(k)
    ]
    return functools.reduce(lax.add, shifted)


def _image_gradient(g: Float[Array, "b hh ww o"], kernel: Float[Array, "k k i o"]) -> Array:
    """The adjoint of a stride-1 correlation correlates with the flipped, transposed kernel."""
    flipped = jnp.swapaxes(kernel[::-1, ::-1], 2, 3)
    return _row_products(pad2d(g, margin=kernel.shape[0] - 1, padding="zero"), flipped)


def _row_kernel_gradient(x: Array, g: Array, k: int) -> Float[Array, "k k i o"]:
    """One product of the row taps with the cotangent at its k row offsets, side by side."""
    i, o = x.shape[3], g.shape[3]
    taps = _row_taps(x, k).reshape(-1, k * i)
    zero = jnp.zeros((), g.dtype)
    shifted = [
        lax.pad(g, zero, ((0, 0, 0), (r, k - 1 - r, 0), (0, 0, 0), (0, 0, 0))) for r in range(k)
    ]
    offsets = lax.concatenate(shifted, 3).reshape(-1, k * o)
    return jnp.moveaxis((taps.T @ offsets).reshape(k, i, k, o), 2, 0)


def _tap(x: Array, r: int, c: int, stride: int, height: int, width: int) -> Array:
    limit = (x.shape[0], r + (height - 1) * stride + 1, c + (width - 1) * stride + 1, x.shape[3])
    return lax.slice(x, (0, r, c, 0), limit, (1, stride, stride, 1))


def _taps(x: Float[Array, "b h w i"], k: int, stride: int) -> Float[Array, "b hh ww k*k*i"]:
    height, width = ((n - k) // stride + 1 for n in x.shape[1:3])
    return lax.concatenate(
        [_tap(x, r, c, stride, height, width) for r in range(k) for c in range(k)], 3
    )


def _tap_product(x: Array, kernel: Array, stride: int) -> Array:
    k, _, _, o = kernel.shape
    return _matmul(_taps(x, k, stride), kernel.reshape(-1, o))


def _strided_gradients(
    x: Float[Array, "b h w i"], kernel: Float[Array, "k k i o"], stride: int, g: Array
) -> tuple[Array, Array]:
    k, _, i, o = kernel.shape
    taps = _taps(x, k, stride)
    dkernel = (taps.reshape(-1, k * k * i).T @ g.reshape(-1, o)).reshape(kernel.shape)
    dtaps = _matmul(g, kernel.reshape(-1, o).T)
    # Each tap goes back to the pixels it came from: the adjoint of a strided slice is a
    # dilated, padded copy.
    height, width = g.shape[1:3]
    dx = jnp.zeros_like(x)
    for r in range(k):
        for c in range(k):
            n = r * k + c
            after = (
                x.shape[1] - r - (height - 1) * stride - 1,
                x.shape[2] - c - (width - 1) * stride - 1,
            )
            dx += lax.pad(
                lax.slice_in_dim(dtaps, n * i, (n + 1) * i, axis=3),
                jnp.zeros((), x.dtype),
                ((0, 0, 0), (r, after[0], stride - 1), (c, after[1], stride - 1), (0, 0, 0)),
            )
    return dx, dkernel
