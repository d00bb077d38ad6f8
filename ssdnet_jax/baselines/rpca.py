"""Robust principal component analysis of an image's patches (Candes et al. 2011)."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from ssdnet_jax.baselines.pixels import check, check_channels, compiled
from ssdnet_jax.core.linear import product
from ssdnet_jax.core.patches import extract_patches, overlap_mean
from ssdnet_jax.errors import ConfigError, InputError


class Decomposition(NamedTuple):
    """D = L + S."""

    low_rank: Float[Array, "m n"]  # L
    sparse: Float[Array, "m n"]  # S
    iterations: Int[Array, ""]  # how many were made


@compiled
def rpca(
    image: Float[Array, "h w c"],
    *,
    patch_size: int = 16,
    stride: int = 8,
    sparsity_weight: float | None = None,
    tolerance: float = 1e-6,
    max_iterations: int = 100,
) -> Float[Array, "h w"]:
    """Maps the sparse part of an image whose patches are low-rank but for their anomalies.

    The columns of D are the vectorised patches; `robust_principal_components` splits D = L + S,
    and |S| goes back to the pixels it came from, averaged over overlapping patches and channels.
    Sources: Candes, Li, Ma and Wright, "Robust principal component analysis?", 2011; solved by
    the inexact augmented Lagrangian of Lin, Chen and Ma, 2010. Splitting one image into patches is
    what the SSDnet paper says of it (section 2); it gives no patch size or stride, these are ours.

    Args:
      image: grey or RGB in [0, 1]; the channels of a patch stand in one column.
      patch_size: side of a patch, in pixels.
      stride: between patches, in pixels, at most patch_size; 4 costs about four times as much.
      sparsity_weight: lambda; None for 1 / sqrt(max(m, n)) of the m x n matrix D.
      tolerance: see `robust_principal_components`.
      max_iterations: see `robust_principal_components`.

    Returns:
      Raw map of the image's size, in image units, at least 0.

    Raises:
      ConfigError: an option outside of its range.
      InputError: not (H, W, 1) or (H, W, 3), or smaller than a patch.
    """
    check_channels(image)
    check(1 <= stride <= patch_size, "stride", stride, f"1 to patch_size {patch_size}")
    if patch_size > min(image.shape[:2]):
        raise InputError(f"patch_size {patch_size} is larger than the image {image.shape[:2]}")
    patches = extract_patches(image, size=patch_size, stride=stride)
    columns = patches.reshape(len(patches), -1).T
    parts = robust_principal_components(
        columns, sparsity_weight=sparsity_weight, tolerance=tolerance, max_iterations=max_iterations
    )
    sparse = jnp.abs(parts.sparse).T.reshape(patches.shape)
    return overlap_mean(sparse, image.shape[:2], stride=stride).mean(-1)


def robust_principal_components(
    matrix: Float[Array, "m n"],
    *,
    sparsity_weight: float | None = None,
    tolerance: float = 1e-6,
    max_iterations: int = 100,
) -> Decomposition:
    """Minimizes ||L||_* + lambda ||S||_1 subject to D = L + S.

    Inexact augmented Lagrangian (Lin, Chen and Ma 2010, algorithm 5), with their constants:
    Y = D / max(||D||_2, ||D||_inf / lambda), mu = 1.25 / ||D||_2, growing by 1.5 up to 1e7 times
    that. What differs: they stop at 1e-7, which float32 does not reach (its rounding is about 3e-7
    of an image's patches), so the default is 1e-6.

    Args:
      matrix: D.
      sparsity_weight: lambda > 0; None for 1 / sqrt(max(m, n)).
      tolerance: of ||D - L - S||_F / ||D||_F.
      max_iterations: at most so many singular value decompositions.

    Raises:
      ConfigError: a weight or tolerance that is not positive, or no iteration.
    """
    weight = max(matrix.shape) ** -0.5 if sparsity_weight is None else sparsity_weight
    if not weight > 0 or not tolerance > 0 or max_iterations < 1:
        raise ConfigError(
            f"sparsity_weight {weight}, tolerance {tolerance}, max_iterations {max_iterations}; "
            "expected each to be positive"
        )
    tiny = jnp.finfo(matrix.dtype).tiny  # a matrix of zeros is its own answer
    spectral_norm = jnp.maximum(jnp.linalg.norm(matrix, ord=2), tiny)
    frobenius_norm = jnp.maximum(jnp.linalg.norm(matrix), tiny)
    first_penalty = 1.25 / spectral_norm

    def goes_on(state: tuple[Array, ...]) -> Bool[Array, ""]:
        *_, residual, iteration = state
        return (iteration < max_iterations) & (residual > tolerance)

    def step(state: tuple[Array, ...]) -> tuple[Array, ...]:
        _, sparse, multiplier, penalty, _, iteration = state
        low_rank = shrink_singular_values(matrix - sparse + multiplier / penalty, 1 / penalty)
        sparse = shrink(matrix - low_rank + multiplier / penalty, weight / penalty)
        violation = matrix - low_rank - sparse
        multiplier = multiplier + penalty * violation
        penalty = jnp.minimum(1.5 * penalty, 1e7 * first_penalty)
        residual = jnp.linalg.norm(violation) / frobenius_norm
        return low_rank, sparse, multiplier, penalty, residual, iteration + 1

    start: tuple[Array, ...] = (
        jnp.zeros_like(matrix),
        jnp.zeros_like(matrix),
        matrix / jnp.maximum(spectral_norm, jnp.max(jnp.abs(matrix)) / weight),
        first_penalty,
        jnp.asarray(jnp.inf, matrix.dtype),
        jnp.asarray(0),
    )
    low_rank, sparse, *_, iterations = lax.while_loop(goes_on, step, start)
    return Decomposition(low_rank, sparse, iterations)


def shrink(values: Float[Array, "*shape"], threshold: Array | float) -> Float[Array, "*shape"]:
    """Soft threshold: argmin_x threshold |x| + (x - v)^2 / 2."""
    return jnp.sign(values) * jnp.maximum(jnp.abs(values) - threshold, 0.0)


def shrink_singular_values(
    matrix: Float[Array, "m n"], threshold: Array | float
) -> Float[Array, "m n"]:
    """Soft threshold of the singular values: argmin_X threshold ||X||_* + ||X - M||_F^2 / 2."""
    left, values, right = jnp.linalg.svd(matrix, full_matrices=False)
    kept = shrink(values, threshold)
    return product(left * kept, right)
