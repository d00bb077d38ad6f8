import functools

import jax
import numpy as np
import pytest

from ssdnet_jax.baselines.rpca import (
    robust_principal_components,
    rpca,
    shrink,
    shrink_singular_values,
)
from ssdnet_jax.data.synthetic import grid_texture, plant_defect
from ssdnet_jax.errors import ConfigError, InputError
from ssdnet_jax.evaluation.metrics import auroc


def planted(shape, *, rank, share, seed):
    """A low-rank matrix, and a sparse one with entries of its size."""
    generator = np.random.default_rng(seed)
    m, n = shape
    low_rank = generator.standard_normal((m, rank)) @ generator.standard_normal((rank, n))
    sparse = np.where(generator.random(shape) < share, generator.uniform(-5, 5, shape), 0)
    return low_rank.astype(np.float32), sparse.astype(np.float32)


@pytest.mark.parametrize("shape", [(80, 80), (60, 110), (110, 60)])
@pytest.mark.parametrize("seed", [0, 1])
def test_planted_low_rank_and_sparse_parts_are_recovered(shape, seed):
    low_rank, sparse = planted(shape, rank=3, share=0.05, seed=seed)
    parts = robust_principal_components(low_rank + sparse)
    for actual, expected in ((parts.low_rank, low_rank), (parts.sparse, sparse)):
        assert np.linalg.norm(actual - expected) < 1e-3 * np.linalg.norm(expected)
    np.testing.assert_array_equal(np.abs(parts.sparse) > 1e-2, np.abs(sparse) > 1e-2)
    assert np.linalg.matrix_rank(np.asarray(parts.low_rank), tol=1e-2) == 3
    assert parts.iterations < 60


def test_parts_add_up_within_the_tolerance():
    matrix = np.random.default_rng(0).random((30, 50), np.float32)
    parts = robust_principal_components(matrix, tolerance=1e-5)
    assert np.linalg.norm(matrix - parts.low_rank - parts.sparse) < 1e-5 * np.linalg.norm(matrix)


def test_a_larger_weight_leaves_less_in_the_sparse_part():
    matrix = sum(planted((40, 40), rank=2, share=0.1, seed=0))
    norms = [
        np.abs(robust_principal_components(matrix, sparsity_weight=w).sparse).sum()
        for w in (0.05, 0.2, 1.0)
    ]
    assert norms[0] > norms[1] > norms[2]


def test_shrinkage_is_the_proximal_operator():
    """Of the l1 norm by definition; of the nuclear norm on a matrix of known singular values."""
    grid = np.linspace(-3, 3, 6001)
    for value in (-2.0, -0.4, 0.0, 0.7, 1.5):
        best = grid[np.argmin(0.6 * np.abs(grid) + (grid - value) ** 2 / 2)]
        assert float(shrink(np.float32(value), 0.6)) == pytest.approx(best, abs=2e-3)
    generator = np.random.default_rng(0)
    left, _ = np.linalg.qr(generator.standard_normal((6, 3)))
    right, _ = np.linalg.qr(generator.standard_normal((5, 3)))
    matrix = (left * [3.0, 1.0, 0.2]) @ right.T
    expected = (left * [2.5, 0.5, 0.0]) @ right.T
    np.testing.assert_allclose(
        shrink_singular_values(matrix.astype(np.float32), 0.5), expected, atol=1e-5
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_a_planted_scratch_is_found_on_a_regular_texture(channels):
    texture = grid_texture((65, 83), period=8, noise=0.01, channels=channels)
    image, mask = plant_defect(texture, kind="scratch", center=(30, 40), size=40, contrast=0.5)
    method = functools.partial(rpca, patch_size=8, stride=4)
    anomaly = np.asarray(jax.jit(method)(image))
    assert anomaly.shape == (65, 83)
    assert auroc(mask, anomaly) > 0.9


def test_batched_equals_one_by_one_and_repeats():
    images = np.stack([grid_texture((32, 37), period=7, seed=s) for s in range(3)])
    method = functools.partial(rpca, patch_size=8)
    single = [method(image) for image in images]
    np.testing.assert_allclose(jax.jit(jax.vmap(method))(images), single, atol=1e-3)
    np.testing.assert_array_equal(single[0], method(images[0]))


def test_a_black_image_has_no_anomaly():
    np.testing.assert_array_equal(rpca(np.zeros((32, 32, 1), np.float32)), np.zeros((32, 32)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stride": 17}, "stride is 17; expected 1 to patch_size 16"),
        ({"sparsity_weight": 0.0}, "sparsity_weight 0.0"),
        ({"tolerance": 0.0}, "tolerance 0.0"),
        ({"max_iterations": 0}, "max_iterations 0"),
    ],
)
def test_options_out_of_range_are_named(options, message):
    with pytest.raises(ConfigError, match=message):
        rpca(np.zeros((32, 32, 1), np.float32), **options)


def test_images_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match=r"patch_size 16 is larger than the image \(40, 12\)"):
        rpca(np.zeros((40, 12, 1), np.float32))
    with pytest.raises(InputError, match="expected \\(H, W, 1\\)"):
        rpca(np.zeros((40, 40, 4), np.float32))
