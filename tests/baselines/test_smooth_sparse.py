import functools

import jax
import numpy as np
import pytest
from scipy.interpolate import BSpline
from skimage.filters import threshold_otsu

from ssdnet_jax.baselines.smooth_sparse import decompose, otsu, smooth_sparse, spline_basis
from ssdnet_jax.errors import ConfigError, InputError
from ssdnet_jax.evaluation.metrics import auroc


def smooth_image(shape, *, noise=0.005, seed=0):
    """A background of wide cubic splines."""
    generator = np.random.default_rng(seed)
    rows, columns = (
        BSpline.design_matrix(
            np.arange(n), np.r_[[0] * 3, np.linspace(0, n - 1, 3), [n - 1] * 3], 3
        ).toarray()
        for n in shape
    )
    background = rows @ generator.uniform(0.2, 0.8, (rows.shape[1], columns.shape[1])) @ columns.T
    return (background + noise * generator.standard_normal(shape)).astype(np.float32)


def with_blob(values, center=(30, 40), radius=5, height=0.3):
    row, column = np.indices(values.shape)
    mask = (row - center[0]) ** 2 + (column - center[1]) ** 2 <= radius**2
    return (values + height * mask).astype(np.float32), mask


def literal_smoother(length, spacing, degree, smoothness):
    """B (B'B + lambda D'D)^-1 B'."""
    basis = spline_basis(length, spacing, degree)
    difference = np.diff(np.eye(basis.shape[1]), n=2, axis=0)
    return basis @ np.linalg.solve(
        basis.T @ basis + smoothness * difference.T @ difference, basis.T
    )


def test_smooth_background_and_sparse_blob_are_separated():
    background = smooth_image((64, 80), noise=0.0)
    values, mask = with_blob(background)
    parts = jax.jit(functools.partial(decompose, sparsity=0.02))(values)
    blob, far = np.asarray(parts.anomaly), np.roll(mask, (25, 30), (0, 1))
    assert np.abs(parts.background - background).max() < 0.05
    assert np.corrcoef(blob.ravel(), mask.ravel())[0, 1] > 0.9
    assert np.median(blob[mask]) == pytest.approx(0.3, abs=0.1)
    assert np.abs(blob[far]).max() < 0.02
    # Otsu's gamma takes a part of the height; place and emptiness elsewhere stay.
    blob = np.asarray(jax.jit(decompose)(values).anomaly)
    assert np.median(blob[mask]) > 0.1
    assert np.abs(blob[far]).max() < 0.01


@pytest.mark.parametrize("spacing", [2.0, 3.0])
def test_the_optimality_conditions_hold(spacing):
    """2 B_a'(I - H) r = gamma sign(theta_a) where theta_a is not 0, at most gamma elsewhere."""
    values, _ = with_blob(smooth_image((40, 33)), center=(20, 15))
    gamma, smoothness = 0.1, 2.0
    parts = decompose(
        values,
        background_spacing=10,
        anomaly_spacing=spacing,
        smoothness=smoothness,
        sparsity=gamma,
        tolerance=1e-7,
        max_iterations=5000,
    )
    rows, columns = (spline_basis(n, spacing, 3) for n in values.shape)
    smooth = [literal_smoother(n, 10, 3, smoothness) for n in values.shape]
    anomaly = np.asarray(parts.anomaly, np.float64)
    rest = values - anomaly
    np.testing.assert_allclose(parts.background, smooth[0] @ rest @ smooth[1].T, atol=1e-4)
    correlations = 2 * rows.T @ (rest - smooth[0] @ rest @ smooth[1].T) @ columns
    theta = np.linalg.pinv(rows) @ anomaly @ np.linalg.pinv(columns).T
    assert np.abs(correlations).max() < 1.02 * gamma
    active = np.abs(theta) > 1e-2
    assert active.any() and not active.all()
    np.testing.assert_allclose(correlations[active], gamma * np.sign(theta[active]), rtol=0.02)


@pytest.mark.parametrize(("length", "spacing", "degree"), [(40, 8.0, 3), (33, 1.0, 1), (50, 90, 2)])
def test_the_basis_is_a_partition_of_one_that_has_all_polynomials_of_its_degree(
    length, spacing, degree
):
    basis = spline_basis(length, spacing, degree)
    np.testing.assert_allclose(basis.sum(1), 1)
    assert basis.shape[1] == max(round((length - 1) / spacing), 1) + degree
    powers = np.vander(np.linspace(0, 1, length), degree + 1)
    rest = powers - basis @ np.linalg.lstsq(basis, powers, rcond=None)[0]
    assert np.abs(rest).max() < 1e-9


def test_more_noise_is_smoothed_more():
    method = jax.jit(functools.partial(decompose, background_spacing=8))
    clean, noisy = (method(smooth_image((64, 64), noise=noise)).smoothness for noise in (1e-4, 0.1))
    assert noisy > 10 * clean


def test_otsu_is_that_of_scikit_image():
    generator = np.random.default_rng(0)
    values = np.r_[generator.normal(0.2, 0.05, 3000), generator.normal(0.7, 0.1, 500)]
    values = np.abs(values).astype(np.float32)
    bin_width = float(np.ptp(values)) / 256
    assert float(otsu(values)) == pytest.approx(threshold_otsu(values, nbins=256), abs=bin_width)
    assert float(otsu(np.zeros(5, np.float32))) == 0


@pytest.mark.parametrize("channels", [1, 3])
def test_a_planted_blob_is_found_on_a_smooth_background(channels):
    values, mask = with_blob(smooth_image((61, 75), noise=0.01))
    image = np.repeat(values[..., None], channels, axis=-1)
    anomaly = np.asarray(smooth_sparse(image))
    assert anomaly.shape == (61, 75)
    assert anomaly.min() >= 0
    assert auroc(mask, anomaly) > 0.95


def test_batched_equals_one_by_one_and_repeats():
    images = np.stack([with_blob(smooth_image((48, 57), seed=s))[0][..., None] for s in range(3)])
    single = [smooth_sparse(image) for image in images]
    np.testing.assert_allclose(jax.jit(jax.vmap(smooth_sparse))(images), single, atol=1e-4)
    np.testing.assert_array_equal(single[0], smooth_sparse(images[0]))


def test_a_constant_image_has_no_anomaly():
    np.testing.assert_allclose(smooth_sparse(np.full((40, 40, 1), 0.5, np.float32)), 0, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"degree": 0}, "degree is 0; expected 1 to 5"),
        ({"background_spacing": 1.0, "anomaly_spacing": 1.0}, "background_spacing is 1.0"),
        ({"anomaly_spacing": 40.0}, "anomaly_spacing is 40.0; expected at least 1 pixel and below"),
        ({"smoothness": -1.0}, "smoothness is -1.0"),
        ({"sparsity": -1.0}, "sparsity is -1.0"),
        ({"tolerance": 0.0}, "tolerance 0.0"),
    ],
)
def test_options_out_of_range_are_named(options, message):
    with pytest.raises(ConfigError, match=message):
        smooth_sparse(np.zeros((32, 32, 1), np.float32), **options)


def test_other_shapes_are_refused():
    with pytest.raises(InputError, match=r"\(40, 7\); expected at least 8 pixels"):
        smooth_sparse(np.zeros((40, 7, 1), np.float32))
    with pytest.raises(InputError, match="expected \\(H, W, 1\\)"):
        smooth_sparse(np.zeros((32, 32), np.float32))
