import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from ssdnet_jax.core import patch_statistics as statistics
from ssdnet_jax.core.patch_statistics import tile_distances

compiled = jax.jit(
    tile_distances, static_argnames=("tile_size", "spread", "blur", "blur_size", "border")
)


def feature_map(height=11, width=13, channels=3, levels=None):
    values = np.random.default_rng(0).random((height, width, channels), np.float32)
    return values if levels is None else np.floor(values * levels) / levels


def literal_reference(features, n):
    """Each tile sorted, then the middle tile of each rank."""
    height, width, _ = features.shape
    tiles = [
        np.sort(features[i : i + n, j : j + n].reshape(n * n, -1), axis=0)
        for i in range(0, height - n + 1, n)
        for j in range(0, width - n + 1, n)
    ]
    return np.sort(np.stack(tiles), axis=0)[(len(tiles) - 1) // 2]


def literal_kernel(size, deviation):
    x = np.arange(size) - size // 2
    kernel = np.exp(-0.5 * (x / deviation) ** 2)
    return np.outer(kernel, kernel) / kernel.sum() ** 2


def literal_correspondence(features, n, spread, blur, blur_size, border):
    """FCA as the paper describes it: one tile after another, one channel after another."""
    features = (features - features.min((0, 1))) / (np.ptp(features, (0, 1)) + 1e-8)
    reference = literal_reference(features, n)
    height, width, channels = features.shape
    m = n // 2
    mirrored = np.pad(features, ((m, m), (m, m), (0, 0)), mode="reflect")
    total, known = np.zeros(mirrored.shape[:2]), np.zeros(mirrored.shape[:2])
    weights, smoothing = literal_kernel(n, spread), literal_kernel(blur_size, blur)
    margin = m if border == "corrected" else 0
    for i in range(margin, height - margin):
        for j in range(margin, width - margin):
            errors = np.zeros((n * n, channels))
            for c in range(channels):
                values = mirrored[i : i + n, j : j + n, c].reshape(-1)
                order = np.argsort(values, kind="stable")
                errors[order, c] = np.abs(values[order] - reference[:, c])
            tile = np.pad(errors.mean(1).reshape(n, n), blur_size // 2, mode="reflect")
            smooth = np.zeros((n, n))
            for a in range(n):
                for b in range(n):
                    smooth[a, b] = (tile[a : a + blur_size, b : b + blur_size] * smoothing).sum()
            total[i : i + n, j : j + n] += weights * smooth
            known[i : i + n, j : j + n] += weights
    total, known = (x[m : m + height, m : m + width] for x in (total, known))
    if border == "published":
        return total
    return total + (1 - known) * np.median(total[known > 1 - 1e-9])


@pytest.mark.parametrize("border", ["published", "corrected"])
@pytest.mark.parametrize(
    ("n", "blur_size", "levels"), [(3, 5, None), (5, 3, None), (5, 3, 4)], ids=str
)
def test_correspondence_equals_a_literal_loop_also_with_ties(border, n, blur_size, levels):
    features = feature_map(levels=levels)
    options = {"spread": 1.5, "blur": 0.8, "blur_size": blur_size, "border": border}
    expected = literal_correspondence(features, n, **options)
    actual = compiled(features, tile_size=n, **options)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-6)


def test_what_is_not_known_and_above_all_others_is_compared_with_the_largest_of_its_own_channel():
    features, weights = feature_map(channels=2), np.ones((11, 13), np.float32)
    features[5, 6], weights[5, 6] = 7.0, 0.3
    weights[4:7, 7:9] = 0  # so that some tiles have few members
    reference = np.stack([np.arange(9.0), 100 + np.arange(9.0)], -1).astype(np.float32)
    errors = statistics.correspondence_errors(
        jnp.asarray(features), jnp.asarray(reference), tile_size=3, weights=jnp.asarray(weights)
    )
    expected = (abs(7.0 - 8.0) + abs(7.0 - 108.0)) / 2
    np.testing.assert_allclose(errors[5 + 1, 6 + 1], np.full((3, 3), expected), rtol=1e-6)


def test_tiles_too_large_for_eight_bit_counts_keep_their_ranks():
    n = 13  # 169 members
    features = feature_map(15, 14, 1)
    reference = np.linspace(0, 1, n * n, dtype=np.float32)[:, None]
    errors = jax.jit(statistics.correspondence_errors, static_argnames="tile_size")(
        features, reference, tile_size=n
    )
    values = np.pad(features[..., 0], n // 2, mode="reflect")[1 : 1 + n, 1 : 1 + n].reshape(-1)
    order = np.argsort(values, kind="stable")
    expected = np.empty(n * n)
    expected[order] = np.abs(values[order] - reference[:, 0])
    rows, columns = np.divmod(np.arange(n * n), n)
    np.testing.assert_allclose(errors[1 + rows, 1 + columns, rows, columns], expected, atol=1e-6)


def test_median_sorted_tile_takes_the_lower_middle_and_leaves_out_the_rest():
    features = np.full((5, 5, 1), 100.0, np.float32)
    for tile, value in enumerate([4, 1, 3, 2]):
        row, column = divmod(tile, 2)
        features[2 * row : 2 * row + 2, 2 * column : 2 * column + 2] = value
    np.testing.assert_array_equal(
        jax.jit(statistics.median_sorted_tile, static_argnames="tile_size")(features, tile_size=2),
        np.full((4, 1), 2.0),
    )


def test_scaling_leaves_a_constant_channel_at_zero():
    features = np.stack([np.full((3, 4), 7.0), np.arange(12.0).reshape(3, 4)], -1)
    scaled = np.asarray(jax.jit(statistics.scale_channels)(features.astype(np.float32)))
    np.testing.assert_array_equal(scaled[..., 0], 0)
    np.testing.assert_allclose(scaled[..., 1], np.arange(12).reshape(3, 4) / 11, atol=1e-6)


def test_corrected_border_keeps_a_constant_error_constant():
    errors = np.ones((12, 14, 3, 3), np.float32)
    scatter = jax.jit(
        statistics.scatter_errors, static_argnames=("spread", "blur", "blur_size", "border")
    )
    options = {"spread": 1.0, "blur": 1.0, "blur_size": 3}
    corrected = scatter(errors, **options, border="corrected")
    np.testing.assert_allclose(corrected, np.ones((10, 12)), rtol=1e-5)
    published = np.asarray(scatter(errors, **options, border="published"))
    np.testing.assert_allclose(published[1:-1, 1:-1], 1, rtol=1e-5)
    assert published[0, 0] < 0.6


def test_corrected_border_has_no_frame_on_noise():
    noise = np.random.default_rng(1).random((40, 40, 8), np.float32)
    frame = np.ones((40, 40), bool)
    frame[2:-2, 2:-2] = False
    for border, low, high in (("published", 0.2, 0.9), ("corrected", 0.95, 1.05)):
        result = np.asarray(compiled(noise, tile_size=5, blur=0.0, border=border))
        assert low < result[frame].mean() / result[8:-8, 8:-8].mean() < high


def test_a_map_of_less_than_two_tiles_is_refused():
    with pytest.raises(ValueError, match="at least 9 a side"):
        compiled(feature_map(8, 20), tile_size=5)


def test_vmap_over_maps_equals_a_loop():
    maps = np.stack([feature_map(), feature_map()[::-1] ** 2])
    both = jax.jit(jax.vmap(lambda x: tile_distances(x, tile_size=3)))(maps)
    for features, result in zip(maps, both, strict=True):
        np.testing.assert_allclose(result, compiled(features, tile_size=3), rtol=1e-5)


@pytest.mark.parametrize("some_known", [False, True])
def test_other_devices_take_rows_side_by_side_and_find_the_same(monkeypatch, some_known):
    features = jnp.asarray(feature_map(12, 14, channels=11, levels=9))  # two blocks on a CPU
    known = np.ones((12, 14), np.float32)
    known[3:7, 4:9] = 0
    distances = functools.partial(
        tile_distances, tile_size=3, weights=jnp.asarray(known) if some_known else None
    )
    expected = jax.jit(distances)(features)

    def elsewhere(*arguments, cpu, default):
        return default(*arguments)

    monkeypatch.setattr(statistics.lax, "platform_dependent", elsewhere)
    for most in (statistics.WORKING_BYTES, 5 * 36 * 16 * 11):  # all rows; five of 14 at once
        monkeypatch.setattr(statistics, "WORKING_BYTES", most)
        found = jax.jit(lambda x: distances(x))(features)
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_gpu_has_no_loop_over_rows_until_memory_asks_for_one():
    distances = jax.jit(jax.vmap(functools.partial(tile_distances, tile_size=9)))

    def loops(side, platform):
        images = jax.ShapeDtypeStruct((2, side, side, 27), jnp.float32)
        text = export.export(distances, platforms=[platform])(images).mlir_module()
        return text.count("stablehlo.while")

    assert loops(128, "cuda") == 0
    assert loops(512, "cuda") == 1
    assert loops(128, "cpu") > 1
