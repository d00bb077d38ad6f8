import functools

import jax
import numpy as np
import pytest
from scipy.ndimage import convolve

from ssdnet_jax.baselines.pg_lsr import (
    guided_regression,
    mr8_responses,
    normal_texture,
    pg_lsr,
    rfs_filters,
)
from ssdnet_jax.data.synthetic import grid_texture, plant_defect
from ssdnet_jax.errors import ConfigError, InputError
from ssdnet_jax.evaluation.metrics import auroc


def small_problem(seed=0, d=4, n=15):
    generator = np.random.default_rng(seed)
    features = generator.random((d, n)).astype(np.float32)
    return features, np.exp(-generator.random(n)).astype(np.float32)


def alternating_reference(x, weights, trade_off, tolerance=1e-3, max_iterations=1000):
    """The authors' loop as printed, with inverses of n x n, in float64."""
    x, n = x.astype(np.float64), x.shape[1]
    z, e, y = np.zeros((n, n)), np.zeros_like(x), np.zeros_like(x)
    guide, mu = np.diag(weights.astype(np.float64) ** 2), 1e-6
    iterations = 0
    while iterations < max_iterations:
        iterations += 1
        z = np.linalg.inv(2 * np.eye(n) + mu * x.T @ x) @ (x.T @ y - mu * x.T @ e + mu * x.T @ x)
        e = (mu * x + y - mu * x @ z) @ np.linalg.inv(2 * trade_off * guide + mu * np.eye(n))
        violation = x - x @ z - e
        if np.abs(violation).max() < tolerance:
            break
        y, mu = y + mu * violation, min(mu * 1.1, 1e6)
    return z, e, iterations


@pytest.mark.parametrize("trade_off", [0.75, 5.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_regression_is_the_authors_loop_without_inverses_of_the_number_of_patches(trade_off, seed):
    x, weights = small_problem(seed)
    z, e, iterations = alternating_reference(x, weights, trade_off)
    result = guided_regression(x, weights, trade_off=trade_off)
    assert abs(int(result.iterations) - iterations) <= 1
    np.testing.assert_allclose(result.coefficients, z, atol=2e-3)
    np.testing.assert_allclose(result.sparse, e, atol=2e-3)


def test_regression_keeps_its_constraint_and_nearly_reaches_the_smallest_objective():
    """The exact minimizer: z_j = X'(XX' + I / (lambda w_j^2))^-1 x_j for each column."""
    x, weights = small_problem()
    gram = x @ x.T

    def objective(z, e):
        return np.square(z).sum() + 0.75 * np.square(e * weights).sum()

    exact = np.stack(
        [
            x.T @ np.linalg.solve(gram + np.eye(len(x)) / (0.75 * w**2), column)
            for column, w in zip(x.T, weights, strict=True)
        ],
        axis=1,
    )
    result = guided_regression(x, weights)
    assert np.abs(x - x @ result.coefficients - result.sparse).max() < 1.1e-3
    smallest = objective(exact, x - x @ exact)
    assert objective(result.coefficients, x - x @ result.coefficients) < 1.02 * smallest
    tight = guided_regression(x, weights, tolerance=1e-6)
    np.testing.assert_allclose(tight.coefficients, exact, atol=0.05 * np.abs(exact).max())


def test_a_patch_with_a_small_weight_may_keep_more_error():
    x, _ = small_problem()
    even = guided_regression(x, np.ones(15, np.float32)).sparse
    guided = guided_regression(x, np.where(np.arange(15) == 3, 0.1, 1).astype(np.float32)).sparse
    assert np.square(guided[:, 3]).sum() > 1.5 * np.square(even[:, 3]).sum()


def test_filters_have_mean_zero_and_absolute_sum_one():
    for scale in (0.25, 1.0):
        bank = rfs_filters(scale)
        assert bank.shape == (38, 49, 49)
        np.testing.assert_allclose(bank.sum((1, 2)), 0, atol=1e-6)
        np.testing.assert_allclose(np.abs(bank).sum((1, 2)), 1, rtol=1e-5)


def test_filters_have_the_published_shapes():
    bank = rfs_filters()
    # Edges are odd and bars even across their axis; 90 degrees apart is a quarter turn.
    np.testing.assert_allclose(bank[0], -bank[0][::-1], atol=1e-6)
    np.testing.assert_allclose(bank[18], bank[18][::-1], atol=1e-6)
    np.testing.assert_allclose(np.abs(bank[3]), np.abs(np.rot90(bank[0])), atol=1e-6)
    row, column = np.indices((49, 49)) - 24
    edge = np.abs(bank[6])  # sigmas (6, 2)
    assert np.sum(edge * column**2) / edge.sum() == pytest.approx(36, rel=0.02)
    assert np.sum(edge * row**2) / edge.sum() == pytest.approx(2 * 4, rel=0.05)
    gaussian = bank[37] - bank[37].min()
    assert gaussian[24, 34] / gaussian[24, 24] == pytest.approx(np.exp(-0.5), abs=0.03)


def test_responses_are_maxima_of_convolutions_of_the_normalized_image():
    grey = np.random.default_rng(0).random((30, 41), np.float32)
    normalized = (grey - grey.mean()) / grey.std()
    single = np.stack([convolve(normalized, f, mode="reflect") for f in rfs_filters()])
    oriented = single[:36].reshape(2, 3, 6, 30, 41)
    expected = [*np.abs(oriented[0]).max(1), *oriented[1].max(1), *single[36:]]
    np.testing.assert_allclose(mr8_responses(grey), expected, atol=2e-5)


def test_responses_hardly_change_when_the_image_is_turned():
    grey = grid_texture((64, 64), noise=0.0)[..., 0]
    turned = np.rot90(mr8_responses(grey), axes=(1, 2))
    np.testing.assert_allclose(mr8_responses(np.rot90(grey)), turned, atol=1e-4)


def test_the_normal_texture_is_the_average_nearest_to_the_mean_of_averages():
    features = np.random.default_rng(0).random((8, 200), np.float32)
    key = jax.random.key(0)
    texture = normal_texture(features, subsets=7, share=0.07, key=key)
    drawn = np.asarray(jax.random.randint(key, (7, 14), 0, 200))
    averages = np.stack([features[:, columns].mean(1) for columns in drawn])
    nearest = np.linalg.norm(averages - averages.mean(0), axis=1).argmin()
    np.testing.assert_allclose(texture, averages[nearest], rtol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("width", [None, 100])
def test_a_planted_stain_is_found(channels, width):
    texture = grid_texture((111, 130), period=8, noise=0.03, channels=channels)
    image, mask = plant_defect(texture, kind="blob", center=(50, 60), size=30, contrast=0.4)
    anomaly = np.asarray(pg_lsr(image, width=width))
    assert anomaly.shape == (111, 130)
    assert auroc(mask, anomaly) > 0.9


def test_the_mean_over_patches_lights_up_the_frame_that_the_sum_darkens():
    image = grid_texture((96, 96), period=8, noise=0.3)
    options = {"width": None, "sigma": 0.0}
    total = np.asarray(pg_lsr(image, **options))
    mean = np.asarray(pg_lsr(image, coverage="mean", **options))
    np.testing.assert_allclose(total[:8, :8], mean[:8, :8], rtol=1e-4)
    np.testing.assert_allclose(total[8:-8, 8:-8], 4 * mean[8:-8, 8:-8], rtol=1e-4)


def test_batched_equals_one_by_one_and_repeats():
    images = np.stack([grid_texture((45, 52), noise=0.1, seed=s) for s in range(3)])
    method = functools.partial(pg_lsr, width=52)
    single = [method(image) for image in images]
    np.testing.assert_allclose(
        jax.jit(jax.vmap(method))(images), single, rtol=2e-3, atol=2e-3 * np.max(single)
    )
    np.testing.assert_array_equal(single[0], method(images[0]))


def test_the_seed_draws_other_subsets():
    features = np.random.default_rng(0).random((8, 50), np.float32)
    drawn = [
        normal_texture(features, subsets=7, share=0.1, key=jax.random.key(s)) for s in (0, 0, 1)
    ]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert (drawn[0] != drawn[2]).any()


def test_a_constant_image_has_no_anomaly():
    np.testing.assert_allclose(pg_lsr(np.full((40, 40, 1), 0.5, np.float32)), 0, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "width is 0"),
        ({"stride": 20}, "stride is 20; expected 1 to patch_size 16"),
        ({"trade_off": 0.0}, "trade_off is 0.0"),
        ({"filter_scale": 3.0}, "filter_scale is 3.0"),
        ({"subset_share": 0.0}, "subset_share 0.0"),
        ({"subsets": 0}, "subsets 0"),
        ({"sigma": -1.0}, "sigma is -1.0"),
        ({"kernel_size": 10}, "kernel_size is 10; expected an odd number"),
        ({"coverage": "paper"}, "coverage is 'paper'; expected sum or mean"),
    ],
)
def test_options_out_of_range_are_named(options, message):
    with pytest.raises(ConfigError, match=message):
        pg_lsr(np.zeros((32, 32, 1), np.float32), **options)


def test_images_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match=r"\(13, 160\) after resizing \(32, 400\)"):
        pg_lsr(np.zeros((32, 400, 1), np.float32))
    with pytest.raises(InputError, match="expected \\(H, W, 1\\)"):
        pg_lsr(np.zeros((32, 32), np.float32))
