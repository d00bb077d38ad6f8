"""Smooth-sparse decomposition (SSD; Yan, Paynabar and Shi 2017)."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from ssdnet_jax.baselines.pixels import check, check_channels, compiled
from ssdnet_jax.core.linear import product
from ssdnet_jax.errors import ConfigError, InputError

_SMOOTHNESS_GRID = tuple(float(10.0**e) for e in np.arange(-4, 6.01, 0.5))  # for lambda
_OTSU_BINS = 256
_SMALLEST_SIDE = 8  # pixels; fewer than splines make the basis rank-deficient


class SmoothSparse(NamedTuple):
    """y = background + anomaly + noise of one channel."""

    background: Float[Array, "h w"]  # B theta
    anomaly: Float[Array, "h w"]  # B_a theta_a
    smoothness: Float[Array, ""]  # lambda
    sparsity: Float[Array, ""]  # gamma
    iterations: Int[Array, ""]  # how many were made


class _Smoother(NamedTuple):
    """B (B'B + lambda D'D)^-1 B' = Q diag(1 / (1 + lambda s)) Q' of one axis."""

    vectors: Float[np.ndarray, "n k"]  # Q, orthonormal
    penalties: Float[np.ndarray, " k"]  # s


@compiled
def smooth_sparse(
    image: Float[Array, "h w c"],
    *,
    background_spacing: float = 32.0,
    anomaly_spacing: float = 4.0,
    degree: int = 3,
    smoothness: float | None = None,
    sparsity: float | None = None,
    tolerance: float = 1e-4,
    max_iterations: int = 200,
) -> Float[Array, "h w"]:
    """Maps the sparse part of an image whose background is smooth.

    `decompose` splits each channel y = B theta + B_a theta_a + e; the map is |B_a theta_a|,
    averaged over channels. It needs a smooth background: a texture finer than the knots is all
    anomaly. Source: Yan, Paynabar and Shi, "Anomaly detection in images with smooth background via
    smooth-sparse decomposition", Technometrics 59, 2017. This is our reading of it: the distance
    of knots is ours, and gamma is chosen once, by Otsu's threshold on the coefficients of the
    first step, so that a fixed objective is minimized.

    Args:
      image: grey or RGB in [0, 1].
      background_spacing: distance of the knots of B, in pixels; about the finest background detail.
      anomaly_spacing: distance of the knots of B_a, in pixels; about the smallest anomaly.
      degree: of both splines, 1 to 5.
      smoothness: lambda, weight of squared second differences of theta; None to choose it by
        generalized cross-validation.
      sparsity: gamma, weight of |theta_a|; None for Otsu's threshold.
      tolerance: relative change of theta_a at which it stops.
      max_iterations: at most so many proximal steps.

    Returns:
      Raw map of the image's size, in image units, at least 0; often exactly 0.

    Raises:
      ConfigError: an option outside of its range.
      InputError: not (H, W, 1) or (H, W, 3), or a side below 8 pixels.
    """
    check_channels(image)
    if min(image.shape[:2]) < _SMALLEST_SIDE:
        raise InputError(f"image is {image.shape[:2]}; expected at least {_SMALLEST_SIDE} pixels")

    split = functools.partial(
        decompose,
        background_spacing=background_spacing,
        anomaly_spacing=anomaly_spacing,
        degree=degree,
        smoothness=smoothness,
        sparsity=sparsity,
        tolerance=tolerance,
        max_iterations=max_iterations,
    )
    return jnp.abs(jax.vmap(split, in_axes=-1)(image).anomaly).mean(0)


def decompose(
    values: Float[Array, "h w"],
    *,
    background_spacing: float = 32.0,
    anomaly_spacing: float = 4.0,
    degree: int = 3,
    smoothness: float | None = None,
    sparsity: float | None = None,
    tolerance: float = 1e-4,
    max_iterations: int = 200,
) -> SmoothSparse:
    """Minimizes ||y - B theta - B_a theta_a||^2 + theta' R theta + gamma |theta_a|_1.

    B and B_a are tensor products of B-splines. With the separable penalty of the paper, theta is
    eliminated: B theta = H (y - B_a theta_a), H = H_rows x H_columns, each
    H_i = B_i (B_i'B_i + lambda D'D)^-1 B_i'. What is left, r'(I - H)r + gamma |theta_a|_1 with
    r = y - B_a theta_a, is solved by accelerated proximal gradient steps (Beck and Teboulle 2009).

    `values` are y, one channel; `smooth_sparse` says what the options are.
    """
    check(1 <= degree <= 5, "degree", degree, "1 to 5")
    check(background_spacing >= 2, "background_spacing", background_spacing, "at least 2 pixels")
    legal = f"at least 1 pixel and below background_spacing {background_spacing}"
    check(1 <= anomaly_spacing < background_spacing, "anomaly_spacing", anomaly_spacing, legal)
    for name, value in (("smoothness", smoothness), ("sparsity", sparsity)):
        check(value is None or value >= 0, name, value, "at least 0, or None")
    if not tolerance > 0 or max_iterations < 1:
        raise ConfigError(
            f"tolerance {tolerance} and max_iterations {max_iterations}; expected both positive"
        )
    height, width = values.shape
    smoothers = [_smoother(n, background_spacing, degree) for n in (height, width)]
    bases = [spline_basis(n, anomaly_spacing, degree) for n in (height, width)]
    rows, columns = (jnp.asarray(b, jnp.float32) for b in bases)
    # Of the gradient 2 B_a'(I - H)(...): norm of I - H is at most 1, of a Kronecker product exact.
    lipschitz = 2 * np.prod([np.linalg.norm(b, 2) ** 2 for b in bases])

    chosen = _cross_validated(values, smoothers) if smoothness is None else jnp.float32(smoothness)

    def residual(theta: Float[Array, "k l"]) -> Float[Array, "h w"]:
        """(I - H)(y - B_a theta_a)."""
        rest = values - product(rows, product(theta, columns.T))
        return rest - _smooth(rest, smoothers, chosen)

    def gradient_step(theta: Float[Array, "k l"]) -> Float[Array, "k l"]:
        return theta + 2 / lipschitz * product(rows.T, product(residual(theta), columns))

    start = jnp.zeros((rows.shape[1], columns.shape[1]), values.dtype)
    gamma = lipschitz * otsu(jnp.abs(gradient_step(start))) if sparsity is None else sparsity

    def goes_on(state: tuple[Array, ...]) -> Bool[Array, ""]:
        *_, change, iteration = state
        return (iteration < max_iterations) & (change > tolerance)

    def step(state: tuple[Array, ...]) -> tuple[Array, ...]:
        theta, extrapolated, momentum, _, iteration = state
        moved = gradient_step(extrapolated)
        new = jnp.sign(moved) * jnp.maximum(jnp.abs(moved) - gamma / lipschitz, 0.0)
        new_momentum = (1 + jnp.sqrt(1 + 4 * lax.square(momentum))) / 2
        ahead = new + (momentum - 1) / new_momentum * (new - theta)
        change = jnp.linalg.norm(new - theta) / jnp.maximum(jnp.linalg.norm(new), 1e-12)
        return new, ahead, new_momentum, change, iteration + 1

    first: tuple[Array, ...] = (start, start, jnp.float32(1), jnp.float32(jnp.inf), jnp.asarray(0))
    theta, *_, iterations = lax.while_loop(goes_on, step, first)
    anomaly = product(rows, product(theta, columns.T))
    background = _smooth(values - anomaly, smoothers, chosen)
    return SmoothSparse(background, anomaly, chosen, jnp.asarray(gamma, jnp.float32), iterations)


def spline_basis(length: int, spacing: float, degree: int) -> Float[np.ndarray, "length k"]:
    """B-splines at the pixels 0 to length - 1, on equal knots about `spacing` pixels apart."""
    from scipy.interpolate import BSpline

    intervals = max(round((length - 1) / spacing), 1)
    inner = np.linspace(0, length - 1, intervals + 1)
    knots = np.concatenate([np.full(degree, 0.0), inner, np.full(degree, length - 1.0)])
    return BSpline.design_matrix(np.arange(length, dtype=np.float64), knots, degree).toarray()


def otsu(values: Float[Array, "*shape"]) -> Float[Array, ""]:
    """Otsu's threshold of non-negative values: `skimage.filters.threshold_otsu`, traceable."""
    low, high = jnp.min(values), jnp.max(values)
    scale = jnp.where(high > low, high - low, 1.0)
    bins = jnp.clip((values - low) / scale * _OTSU_BINS, 0, _OTSU_BINS - 1).astype(jnp.int32)
    counts = jnp.zeros(_OTSU_BINS).at[bins.ravel()].add(1.0)
    centres = low + scale * (jnp.arange(_OTSU_BINS) + 0.5) / _OTSU_BINS
    below, above = jnp.cumsum(counts), jnp.cumsum(counts[::-1])[::-1]
    mean_below = jnp.cumsum(counts * centres) / jnp.maximum(below, 1)
    mean_above = jnp.cumsum((counts * centres)[::-1])[::-1] / jnp.maximum(above, 1)
    between = below[:-1] * above[1:] * lax.square(mean_below[:-1] - mean_above[1:])
    return jnp.where(high > low, centres[jnp.argmax(between)], high)


def _smoother(length: int, spacing: float, degree: int) -> _Smoother:
    basis = spline_basis(length, spacing, degree)
    differences = np.diff(np.eye(basis.shape[1]), n=2, axis=0)
    orthonormal, triangle = np.linalg.qr(basis)
    penalty_root = np.linalg.solve(triangle.T, differences.T)
    turn, roots, _ = np.linalg.svd(penalty_root, full_matrices=True)
    penalties = np.zeros(len(turn))
    penalties[: len(roots)] = np.square(roots)
    return _Smoother(orthonormal @ turn, penalties)


def _smooth(
    values: Float[Array, "h w"], smoothers: list[_Smoother], smoothness: Float[Array, ""]
) -> Float[Array, "h w"]:
    """H y."""
    rows, columns = (jnp.asarray(s.vectors, jnp.float32) for s in smoothers)
    kept = [1 / (1 + smoothness * jnp.asarray(s.penalties, jnp.float32)) for s in smoothers]
    coefficients = product(rows.T, product(values, columns)) * kept[0][:, None] * kept[1]
    return product(rows, product(coefficients, columns.T))


def _cross_validated(values: Float[Array, "h w"], smoothers: list[_Smoother]) -> Float[Array, ""]:
    """The lambda with the least ||y - Hy||^2 / n / (1 - tr(H) / n)^2, of powers of sqrt(10)."""

    def criterion(smoothness: Float[Array, ""]) -> Float[Array, ""]:
        freedom: Array | float = 1.0
        for smoother in smoothers:
            penalties = jnp.asarray(smoother.penalties, jnp.float32)
            freedom = freedom * jnp.sum(1 / (1 + smoothness * penalties))
        error = jnp.mean(lax.square(values - _smooth(values, smoothers, smoothness)))
        return error / lax.square(1 - freedom / values.size)

    grid = jnp.asarray(_SMOOTHNESS_GRID, jnp.float32)
    return grid[jnp.argmin(lax.map(criterion, grid))]
