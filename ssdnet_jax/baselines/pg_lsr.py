"""Prior knowledge guided least squares regression (PG-LSR; Cao et al. 2017)."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from ssdnet_jax.baselines import pixels
from ssdnet_jax.core import patches as patch_grid
from ssdnet_jax.core.linear import product
from ssdnet_jax.errors import ConfigError, InputError

Coverage = Literal["sum", "mean"]

_SUPPORT = 49  # side of the MR8 filters, in pixels
_ORIENTATIONS = 6


class Regression(NamedTuple):
    """X = XZ + E."""

    coefficients: Float[Array, "n n"]  # Z
    sparse: Float[Array, "d n"]  # E
    iterations: Int[Array, ""]  # how many were made


@pixels.compiled
def pg_lsr(
    image: Float[Array, "h w c"],
    *,
    width: int | None = 160,
    patch_size: int = 16,
    stride: int = 8,
    trade_off: float = 0.75,
    filter_scale: float = 0.25,
    subsets: int = 7,
    subset_share: float = 0.07,
    sigma: float = 2.0,
    kernel_size: int = 11,
    coverage: Coverage = "sum",
    seed: int = 0,
) -> Float[Array, "h w"]:
    """Maps the patches whose texture is no combination of the other patches' textures.

    1. X, one column a patch: mean of its 8 MR8 responses (`mr8_responses`).
    2. Prior: the averages of random subsets of the columns; of these the one nearest to their mean
       is the normal texture x; p_j = ||X_j - x||^2, w_j = exp(-p_j) (`normal_texture`).
    3. min ||Z||_F^2 + lambda ||E W||_F^2 subject to X = XZ + E (`guided_regression`).
    4. The score of a patch is ||E_j||^2, summed over the patches of a pixel, then smoothed.

    Source: Cao, Zhang, Wen, Li and Liu, "Fabric defect inspection using prior knowledge guided
    least squares regression", 2017, with the constants of the authors' program
    (github.com/jjcao/Fabric-Defect-Inspection-GLSR). What differs: filters are convolved, not
    recursive (theirs approximate the same Gaussians); the Gaussian has an odd support (their
    10 x 10 shifts by half a pixel); the map is not min-max scaled; other random numbers.

    Args:
      image: grey or RGB in [0, 1]; RGB is converted to luminance.
      width: columns the method works at, in pixels, aspect ratio kept (bicubic, antialiased);
        None for the image's own size.
      patch_size: side of a patch, in pixels of the resized image.
      stride: between patches, in the same pixels, at most patch_size.
      trade_off: lambda > 0; larger leaves less in E.
      filter_scale: times the published sigmas of MR8. The authors' program takes a quarter of
        them, since it works on small images; 1 is Varma and Zisserman's bank.
      subsets: how many random subsets of the patches, at least 1.
      subset_share: patches in a subset over all patches, in (0, 1]; drawn with replacement.
      sigma: of the final Gaussian, in pixels of the resized image; 0 for none.
      kernel_size: side of that Gaussian's support, odd, in the same pixels; outside of the map
        counts as 0.
      coverage: "sum" over the patches of a pixel as in the original, which darkens a frame of one
        patch; "mean" divides by their number.
      seed: draws the subsets.

    Returns:
      Raw map of the image's size, at least 0.

    Raises:
      ConfigError: an option outside of its range.
      InputError: not (H, W, 1) or (H, W, 3), or smaller than a patch at `width`.
    """
    pixels.check_channels(image)
    pixels.check(width is None or width >= 1, "width", width, "at least 1, or None")
    pixels.check(1 <= stride <= patch_size, "stride", stride, f"1 to patch_size {patch_size}")
    pixels.check(trade_off > 0, "trade_off", trade_off, "above 0")
    pixels.check(0 < filter_scale <= 2, "filter_scale", filter_scale, "above 0, at most 2")
    if subsets < 1 or not 0 < subset_share <= 1:
        raise ConfigError(
            f"subsets {subsets} and subset_share {subset_share}; expected at least 1 and within "
            f"(0, 1]"
        )
    pixels.check(sigma >= 0, "sigma", sigma, "at least 0")
    pixels.check_odd("kernel_size", kernel_size)
    pixels.check_word("coverage", coverage, Coverage)
    grey = pixels.of_width(pixels.luminance(image), width)
    if patch_size > min(grey.shape):
        raise InputError(
            f"patch_size {patch_size} is larger than the image, {grey.shape} after resizing "
            f"{image.shape[:2]}"
        )

    features = _patch_means(mr8_responses(grey, scale=filter_scale), patch_size, stride)
    x = normal_texture(features, subsets=subsets, share=subset_share, key=jax.random.key(seed))
    weights = jnp.exp(-jnp.sum(lax.square(features - x[:, None]), axis=0))
    error = guided_regression(features, weights, trade_off=trade_off).sparse

    rows = len(patch_grid.patch_starts(grey.shape[0], size=patch_size, stride=stride))
    scores = jnp.sum(lax.square(error), axis=0).reshape(rows, -1)
    painted = patch_grid.paint(scores, grey.shape, size=patch_size, stride=stride)
    if coverage == "mean":
        painted = painted / patch_grid.coverage(grey.shape, size=patch_size, stride=stride)
    smoothed = pixels.smooth(painted, sigma=sigma, size=kernel_size)
    return jax.image.resize(smoothed, image.shape[:2], "linear")


def normal_texture(
    features: Float[Array, "d n"], *, subsets: int, share: float, key: Array
) -> Float[Array, " d"]:
    """The average of that random subset of columns that is nearest to the mean of all averages."""
    count = features.shape[1]
    size = max(int(share * count), 1)
    chosen = jax.random.randint(key, (subsets, size), 0, count)
    averages = features[:, chosen].mean(-1)
    distances = jnp.sum(lax.square(averages - averages.mean(1, keepdims=True)), axis=0)
    return averages[:, jnp.argmin(distances)]


def guided_regression(
    features: Float[Array, "d n"],
    weights: Float[Array, " n"],
    *,
    trade_off: float = 0.75,
    tolerance: float = 1e-3,
    max_iterations: int = 1000,
) -> Regression:
    """Minimizes ||Z||_F^2 + lambda ||E W||_F^2 subject to X = XZ + E, W = diag(weights).

    Inexact augmented Lagrangian with the authors' constants: mu from 1e-6 by 1.1 up to 1e6, until
    no entry of X - XZ - E exceeds the tolerance. Their Z = (2I + mu X'X)^-1 X'(mu X - mu E + Y)
    is solved as X'(2I + mu XX')^-1 (...), the same matrix by an inverse of d x d instead of n x n.

    Args:
      features: X, one column a patch.
      weights: w_j > 0; small where a patch may be anomalous.
      trade_off: lambda.
      tolerance: largest absolute entry of X - XZ - E, in units of X.
      max_iterations: at most so many.
    """
    x, gram = features, product(features, features.T)
    identity = jnp.eye(len(x), dtype=x.dtype)
    guide = 2 * trade_off * lax.square(weights)  # diagonal of 2 lambda W W'

    def projected(error: Array, multiplier: Array, penalty: Array) -> Float[Array, "d n"]:
        """U with Z = X'U."""
        right = multiplier + penalty * (x - error)
        return jnp.linalg.solve(2 * identity + penalty * gram, right)

    def goes_on(state: tuple[Array, ...]) -> Bool[Array, ""]:
        *_, violation, iteration = state
        return (iteration < max_iterations) & (violation >= tolerance)

    def step(state: tuple[Array, ...]) -> tuple[Array, ...]:
        _, error, multiplier, penalty, _, iteration = state
        u = projected(error, multiplier, penalty)
        difference = x - product(gram, u)  # X - XZ
        error = (penalty * difference + multiplier) / (guide + penalty)
        violation = difference - error
        multiplier = multiplier + penalty * violation
        penalty = jnp.minimum(1.1 * penalty, 1e6)
        return u, error, multiplier, penalty, jnp.max(jnp.abs(violation)), iteration + 1

    zeros = jnp.zeros_like(x)
    start: tuple[Array, ...] = (
        zeros,
        zeros,
        zeros,
        jnp.asarray(1e-6, x.dtype),
        jnp.asarray(jnp.inf, x.dtype),
        jnp.asarray(0),
    )
    u, error, *_, iterations = lax.while_loop(goes_on, step, start)
    return Regression(product(x.T, u), error, iterations)


def mr8_responses(grey: Float[Array, "h w"], *, scale: float = 1.0) -> Float[Array, "8 h w"]:
    """Largest responses over orientation of edges and bars at 3 scales; LoG; Gaussian.

    The image is brought to mean 0 and standard deviation 1 first and mirrored at its border.
    Edges count by absolute response (a turn by 180 degrees flips their sign), bars with sign.
    """
    centred = grey - grey.mean()
    normalized = centred / jnp.maximum(jnp.std(grey), 1e-5)  # a constant image stays near 0
    padded = jnp.pad(normalized, _SUPPORT // 2, mode="symmetric")
    bank = jnp.asarray(rfs_filters(scale)[:, None, ::-1, ::-1])  # flipped: convolution
    responses = lax.conv(
        padded[None, None], bank, (1, 1), "VALID", precision=lax.Precision.HIGHEST
    )[0]
    oriented = responses[:-2].reshape(2, 3, _ORIENTATIONS, *grey.shape)
    edges, bars = jnp.abs(oriented[0]).max(1), oriented[1].max(1)
    return jnp.concatenate([edges, bars, responses[-2:]])


def rfs_filters(scale: float = 1.0) -> Float[np.ndarray, "38 49 49"]:
    """The root filter set MR8 takes its maxima of, with mean 0 and absolute sum 1.

    First and second derivatives, across the long axis, of Gaussians with sigmas (3, 1), (6, 2) and
    (12, 4) pixels at 6 orientations; a Laplacian of Gaussian and a Gaussian with sigma 10
    (Varma and Zisserman, "A statistical approach to texture classification from single images",
    2005). Order: edges (3 scales x 6), bars (3 x 6), Laplacian of Gaussian, Gaussian.

    Args:
      scale: times all sigmas. Below 1 each pixel is an average over its area, since filters
        narrower than a pixel lose their shape at its centre.
    """
    samples = 1 if scale >= 1 else 8
    inside = (np.arange(samples) + 0.5) / samples - 0.5
    axis = (np.arange(_SUPPORT)[:, None] - _SUPPORT // 2 + inside).ravel()
    x, y = axis[None, :], -axis[:, None]

    def averaged(values: np.ndarray) -> np.ndarray:
        return values.reshape(_SUPPORT, samples, _SUPPORT, samples).mean((1, 3))

    def across(t: np.ndarray, sigma: float, order: int) -> np.ndarray:
        gaussian = np.exp(-0.5 * np.square(t / sigma))
        return gaussian * (-t if order == 1 else np.square(t / sigma) - 1)

    filters = []
    for order in (1, 2):
        for sigma in (1 * scale, 2 * scale, 4 * scale):
            for turn in np.pi * np.arange(_ORIENTATIONS) / _ORIENTATIONS:
                along = x * np.cos(turn) - y * np.sin(turn)
                over = x * np.sin(turn) + y * np.cos(turn)
                profile = np.exp(-0.5 * np.square(along / (3 * sigma)))
                filters.append(averaged(profile * across(over, sigma, order)))
    squared = (np.square(x) + np.square(y)) / np.square(10 * scale)
    filters.append(averaged((squared - 2) * np.exp(-squared / 2)))
    filters.append(averaged(np.exp(-squared / 2)))
    bank = np.stack(filters)
    bank -= bank.mean((1, 2), keepdims=True)
    bank /= np.abs(bank).sum((1, 2), keepdims=True)
    return bank.astype(np.float32)


def _patch_means(responses: Float[Array, "8 h w"], size: int, stride: int) -> Float[Array, "8 n"]:
    def means(response: Array) -> Array:
        return patch_grid.patch_sums(response, size=size, stride=stride).ravel() / size**2

    return jax.vmap(means)(responses)
