"""Patches R_{p,r} (paper Eq. 2): where they lie, extracting them, and sums over them.

Patches of `size` pixels start every `stride` pixels from the top left; one more, flush with the
bottom or right border, is added where the last would leave a rest. A patch indicator is separable,
so sums over patches are two small matrix products and no patch needs to be cut out
(`patch_sums`, `paint`); `extract_patches` and `overlap_add` are the literal forms.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from ssdnet_jax.core.arrays import Size
from ssdnet_jax.core.linear import product


def patch_starts(length: int, *, size: int, stride: int) -> tuple[int, ...]:
    """First pixels of the patches along one axis of `length` pixels.

    Raises:
      ValueError: the patch is longer than the axis, or size or stride is below 1.
    """
    if size < 1 or stride < 1:
        raise ValueError(f"patch size {size} and stride {stride}; expected both to be at least 1")
    if size > length:
        raise ValueError(f"patch size {size} is larger than the image side {length}")
    starts = list(range(0, length - size + 1, stride))
    if starts[-1] != length - size:
        starts.append(length - size)
    return tuple(starts)


def patch_count(shape: Size, *, size: int, stride: int) -> int:
    """N_r: how many patches an image of `shape` (height, width) has."""
    return int(np.prod([len(patch_starts(n, size=size, stride=stride)) for n in shape]))


def patch_corners(shape: Size, *, size: int, stride: int) -> Int[np.ndarray, "n 2"]:
    """Top-left pixels (row, column) of all patches, row by row."""
    starts = [patch_starts(n, size=size, stride=stride) for n in shape]
    return np.stack(np.meshgrid(*starts, indexing="ij"), axis=-1).reshape(-1, 2)


def patches_at(
    image: Float[Array, "h w c"], corners: Int[Array, "n 2"], *, size: int
) -> Float[Array, "n {size} {size} c"]:
    """Cuts out the patches whose top-left pixels are `corners` (may be traced)."""

    def one(corner: Int[Array, " 2"]) -> Float[Array, "size size c"]:
        return lax.dynamic_slice(image, (corner[0], corner[1], 0), (size, size, image.shape[-1]))

    return jax.vmap(one)(corners)


def extract_patches(
    image: Float[Array, "h w c"], *, size: int, stride: int
) -> Float[Array, "n {size} {size} c"]:
    """Cuts out all patches, row by row: the literal R_{p,r} y."""
    corners = patch_corners(image.shape[:2], size=size, stride=stride)
    return patches_at(image, jnp.asarray(corners), size=size)


def overlap_add(
    patches: Float[Array, "n size size c"], shape: Size, *, stride: int
) -> Float[Array, "{shape[0]} {shape[1]} c"]:
    """Adds patches back where they came from: the exact adjoint of `extract_patches`."""
    _, size, _, channels = patches.shape
    corners = patch_corners(shape, size=size, stride=stride)
    rows = corners[:, 0, None, None] + np.arange(size)[:, None]
    columns = corners[:, 1, None, None] + np.arange(size)[None, :]
    return jnp.zeros((*shape, channels), patches.dtype).at[rows, columns].add(patches)


def overlap_mean(
    patches: Float[Array, "n size size c"], shape: Size, *, stride: int
) -> Float[Array, "{shape[0]} {shape[1]} c"]:
    """Averages overlapping patches: the inverse of `extract_patches` (stride <= size)."""
    covered = coverage(shape, size=patches.shape[1], stride=stride)
    return overlap_add(patches, shape, stride=stride) / covered[..., None]


def coverage(shape: Size, *, size: int, stride: int) -> Float[Array, "{shape[0]} {shape[1]}"]:
    """How many patches contain each pixel."""
    rows, columns = _indicators(shape, size, stride)
    return jnp.asarray(np.outer(rows.sum(0), columns.sum(0)))


def patch_sums(
    values: Float[Array, "h w"], *, size: int, stride: int
) -> Float[Array, "rows columns"]:
    """Sum over each patch, on the grid of patches: sum_ij (R_p)_ij v_ij."""
    rows, columns = _indicators(values.shape, size, stride)
    return product(product(rows, values), columns.T)


def paint(
    patch_values: Float[Array, "rows columns"], shape: Size, *, size: int, stride: int
) -> Float[Array, "{shape[0]} {shape[1]}"]:
    """Adds each patch's value to all of its pixels: sum_p R_p v_p, the adjoint of `patch_sums`."""
    rows, columns = _indicators(shape, size, stride)
    return product(product(rows.T, patch_values), columns)


def _indicators(shape: Size, size: int, stride: int) -> tuple[np.ndarray, np.ndarray]:
    """0/1 matrices (patches, pixels) of each axis; their outer product is R_{p,r}."""

    def axis(length: int) -> np.ndarray:
        starts = np.array(patch_starts(length, size=size, stride=stride))[:, None]
        pixels = np.arange(length)[None, :]
        return ((pixels >= starts) & (pixels < starts + size)).astype(np.float32)

    return axis(shape[0]), axis(shape[1])
