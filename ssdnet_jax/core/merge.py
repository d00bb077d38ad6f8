"""Upsample, concatenate, normalize, convolve, with the products at the coarse resolution.

A scale of the decoder computes conv3x3(pad(norm(concat(skip, upsample(deeper))))). Written like
that, its products run over the fine pixels and hold most of the network's arithmetic. But doubling
is linear and touches each channel by itself, so it may come after the products: nine of them on the
coarse pixels of `deeper`, one for each tap of the kernel, then doubled, shifted and added. That is
a quarter of the arithmetic. Normalization is affine, so it goes into the kernel and the bias;
reflection padding keeps constants, so the bias stays one number a channel.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from ssdnet_jax.core.arrays import widened
from ssdnet_jax.core.convolution import matmul
from ssdnet_jax.core.mirrored import padded_conv2d
from ssdnet_jax.core.normalization import EPSILON
from ssdnet_jax.core.resize import Upsampling

# Pixels 2i-1, 2i, 2i+1, 2i+2 of a doubled axis from pixels i-1, i, i+1 of the coarse one.
_DOUBLING = {
    "bilinear": np.array([[3, 1, 0], [1, 3, 0], [0, 3, 1], [0, 1, 3]]) / 4,
    "nearest": np.array([[1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 0, 1]]) / 1,
}

_Weight = float | np.ndarray  # the same for each pixel of an axis, or one for each
_Taps = list[tuple[int, int, _Weight]]  # map, coarse pixel and weight of what is added


def merged_convolution(
    deeper: Float[Array, "b h w c"],
    skip: Float[Array, "b 2*h 2*w s"] | None,
    affine: tuple[Float[Array, " both"], Float[Array, " both"]],
    convolution: tuple[Float[Array, "3 3 both o"], Float[Array, " o"]],
    *,
    upsampling: Upsampling,
    constants: bool = True,
) -> Float[Array, "b 2*h 2*w o"]:
    """conv3x3(reflect(normalize(concat(skip, upsample2x(deeper))))).

    Args:
      deeper: the coarser scale's result; height and width of at least 2.
      skip: the skip branch, None if there is none.
      affine: scale and shift of the normalization.
      convolution: kernel and bias.
      upsampling: how `deeper` is doubled.
      constants: whether what is added to whole channels matters. It does not where a normalization
        follows; then it has no gradient, which is zero but for rounding and costs a pass.
    """
    (scale, shift), (kernel, bias) = affine, convolution
    moments = [doubled_moments(deeper, upsampling)]
    if skip is not None:
        moments.insert(0, _moments(skip))
    mean, variance = (jnp.concatenate(parts) for parts in zip(*moments, strict=True))
    factor = scale * lax.rsqrt(variance + EPSILON)
    bias = bias + jnp.einsum("xyio,i->o", kernel, shift - mean * factor)
    bias = bias if constants else lax.stop_gradient(bias)
    kernel = kernel * factor[:, None]
    channels = deeper.shape[3]
    y = doubled_convolution(deeper, kernel[:, :, -channels:], upsampling)
    y = y + bias.astype(y.dtype)
    if skip is not None:
        y = y + padded_conv2d(skip, kernel[:, :, :-channels], padding="reflection")
    return y


def doubled_convolution(
    x: Float[Array, "b h w c"], kernel: Float[Array, "3 3 c o"], upsampling: Upsampling
) -> Float[Array, "b 2*h 2*w o"]:
    """conv3x3(reflect(upsample2x(x))): products first, doubling after them."""
    b, h, w, c = x.shape
    o = kernel.shape[3]
    x = _repeat_edges(_repeat_edges(x, 1), 2).reshape(-1, c)
    products = matmul(x, jnp.moveaxis(kernel, 2, 0).reshape(c, 9 * o))
    rows = double_and_add(products.reshape(b, h + 2, w + 2, 3, 3 * o), upsampling)
    columns = double_and_add(rows.reshape(b * 2 * h, w + 2, 1, 3, o), upsampling)
    return columns.reshape(b, 2 * h, 2 * w, o)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def double_and_add(
    z: Float[Array, "outer n inner 3 m"], upsampling: Upsampling
) -> Float[Array, "outer n-2 2 inner m"]:
    """Doubles the second axis of three maps and adds them, each one pixel further than the last.

    Output pixel p is map 0 at p - 1, map 1 at p and map 2 at p + 1, mirrored at both ends.

    Args:
      z: three maps on coarse pixels, with the first and the last pixel repeated outside.
      upsampling: how an axis is doubled.
    """
    n = z.shape[1] - 2

    def tap(r: int, a: int) -> Array:
        return lax.slice_in_dim(lax.slice_in_dim(z, a, a + n, axis=1), r, r + 1, axis=3)[:, :, :, 0]

    return jnp.stack([_weighted(tap, weights) for weights in _phases(upsampling, n)], axis=2)


def _double_and_add_forward(z: Array, upsampling: Upsampling) -> tuple[Array, None]:
    return double_and_add(z, upsampling), None


def _double_and_add_backward(upsampling: Upsampling, _: None, g: Array) -> tuple[Array]:
    """The adjoint, written as a stencil as well (autodiff would make a sum of padded pieces)."""
    n = g.shape[1]
    padded = lax.pad(g, jnp.zeros((), g.dtype), ((0, 0, 0), (2, 2, 0), *[(0, 0, 0)] * 3))

    def tap(phase: int, a: int) -> Array:
        return lax.slice_in_dim(padded, 2 - a, 4 - a + n, axis=1)[:, :, phase]

    taps: list[_Taps] = [[], [], []]
    for phase, weights in enumerate(_phases(upsampling, n)):
        for r, a, weight in weights:
            if not isinstance(weight, float):
                weight = np.pad(weight, (a, 2 - a))
            taps[r].append((phase, a, weight))
    return (jnp.stack([_weighted(tap, weights) for weights in taps], axis=3),)


double_and_add.defvjp(_double_and_add_forward, _double_and_add_backward)


@functools.cache
def _phases(upsampling: Upsampling, n: int) -> tuple[_Taps, _Taps]:
    """For even and for odd pixels."""
    phases: list[_Taps] = [
        [(r, a, float(window[r, a])) for r, a in np.argwhere(window).tolist()]
        for window in (_DOUBLING[upsampling][phase : phase + 3] for phase in (0, 1))
    ]
    even, odd = phases
    if upsampling == "bilinear":
        # The pixel outside mirrors pixel 1, which is 3/4 of the first coarse pixel and 1/4 of the
        # second; doubling would make it of the first and the repeated one outside.
        first, last = np.eye(n, dtype=np.float32)[[0, -1]]
        even[:2] = [(0, 0, 0.75 - 0.75 * first), (0, 1, 0.25 + 0.5 * first), (0, 2, 0.25 * first)]
        odd[-2:] = [(2, 0, 0.25 * last), (2, 1, 0.25 + 0.5 * last), (2, 2, 0.75 - 0.75 * last)]
    return even, odd


def _weighted(tap: Callable[[int, int], Array], weights: _Taps) -> Array:
    """The sum of `weight * tap(i, a)`, added in float32; weights run along the second axis."""
    terms = []
    for i, a, weight in weights:
        along = weight if isinstance(weight, float) else weight[:, None, None]
        x = tap(i, a)
        terms.append(jnp.multiply(along, widened(x)))
    return functools.reduce(lax.add, terms).astype(x.dtype)


def doubled_moments(
    x: Float[Array, "b h w c"], upsampling: Upsampling
) -> tuple[Float[Array, " c"], Float[Array, " c"]]:
    """Mean and biased variance of each channel of `upsample2x(x)`, without making it."""
    return _moments(x) if upsampling == "nearest" else _doubled_moments(x)


def _moments(x: Array) -> tuple[Array, Array]:
    x = widened(x)
    mean = jnp.mean(x, axis=(0, 1, 2))
    return mean, jnp.mean(lax.square(x - mean), axis=(0, 1, 2))


@jax.custom_vjp
def _doubled_moments(x: Array) -> tuple[Array, Array]:
    return _doubled_moments_forward(x)[0]


def _doubled_moments_forward(x: Array) -> tuple[tuple[Array, Array], tuple[Array]]:
    count, values = x.size // x.shape[3], widened(x)
    mean = jnp.sum(values, axis=(0, 1, 2)) / count
    # The squares of doubled pixels sum to the quadratic form of the Gram matrix of doubling. Each
    # coarse pixel weighs the same in the sum of doubled pixels, so the mean is that of x.
    weighted = _gram(_gram(values - mean, 1), 2)
    variance = jnp.sum((values - mean) * weighted, axis=(0, 1, 2)) / (4 * count)
    return (mean, variance), (weighted.astype(x.dtype),)


def _doubled_moments_backward(saved: tuple[Array], g: tuple[Array, Array]) -> tuple[Array]:
    (weighted,) = saved
    count = weighted.size // weighted.shape[3]
    dx = g[0] / count + widened(weighted) * (g[1] / (2 * count))
    return (dx.astype(weighted.dtype),)


_doubled_moments.defvjp(_doubled_moments_forward, _doubled_moments_backward)


def _gram(x: Array, axis: int) -> Array:
    """U^T U along an axis, U the matrix that doubles it (bilinear)."""
    n = x.shape[axis]
    padded = _repeat_edges(x, axis)
    left, right = (lax.slice_in_dim(padded, i, i + n, axis=axis) for i in (0, 2))
    return 1.25 * x + 0.375 * (left + right)


def _repeat_edges(x: Array, axis: int) -> Array:
    n = x.shape[axis]
    first, last = (lax.slice_in_dim(x, i, i + 1, axis=axis) for i in (0, n - 1))
    return lax.concatenate([first, x, last], axis)
