import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssdnet_jax.baselines.qfca import qfca, quantized_correspondence
from ssdnet_jax.data.synthetic import grid_texture, plant_defect
from ssdnet_jax.data.weights import random_vgg19_weights
from ssdnet_jax.errors import ConfigError, InputError
from ssdnet_jax.evaluation.metrics import auroc

TINY = random_vgg19_weights(0, channels=(3, 4, 5, 6))


@pytest.mark.parametrize("features", ["vgg19", "filters"])
def test_a_planted_defect_stands_out(features):
    texture = grid_texture((48, 44), period=8)
    image, mask = plant_defect(texture, kind="blob", center=(30, 20), size=9, contrast=0.5)
    score_map = np.asarray(qfca(image, features=features, vgg19=TINY, tile_size=5))
    assert score_map.shape == mask.shape
    assert (score_map >= 0).all()
    assert auroc(mask, score_map) > 0.9


def test_errors_are_those_of_sorted_tiles_with_ties_in_every_order():
    """Feature Correspondence Analysis by its definition; equal values share their errors."""
    height, width, n, bins = 10, 12, 3, 4
    values = np.random.default_rng(0).integers(0, bins, (height, width, 2))
    sums, tiles_of = np.zeros((2, height, width)), np.zeros((height, width))
    for total, channel in zip(sums, np.moveaxis(values, -1, 0), strict=True):
        apart = [
            np.sort(channel[i : i + n, j : j + n].ravel())
            for i in range(0, height - n + 1, n)
            for j in range(0, width - n + 1, n)
        ]
        reference = np.sort(apart, axis=0)[(len(apart) - 1) // 2]
        for i in range(height - n + 1):
            for j in range(width - n + 1):
                tile = channel[i : i + n, j : j + n]
                ordered = np.sort(tile.ravel())
                errors = np.abs(ordered - reference)
                shares = [errors[ordered == value].mean() for value in tile.ravel()]
                total[i : i + n, j : j + n] += np.reshape(shares, (n, n))
                tiles_of[i : i + n, j : j + n] += 0.5  # counted for both channels
    total = sums.mean(0) / n**2
    known = tiles_of / n**2
    expected = total + (1 - known) * np.median(total / known)
    found = quantized_correspondence(jnp.asarray(values), bins=bins, tile_size=n)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_images_go_through_vmap_and_jit_as_one_by_one():
    images = jnp.stack([grid_texture((32, 36), period=p) for p in (6, 7)])
    one = lambda image: qfca(image, features="filters", tile_size=3)  # noqa: E731
    both = jax.jit(jax.vmap(one))(images)
    for image, result in zip(images, both, strict=True):
        np.testing.assert_allclose(result, one(image), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({}, ConfigError, "load_vgg19_weights"),
        ({"features": "laws"}, ConfigError, "expected vgg19 or filters"),
        ({"features": "filters", "bins": 1}, ConfigError, "bins is 1"),
        ({"features": "filters", "tile_size": 4}, ConfigError, "tile_size is 4"),
        ({"features": "filters", "blur": -1.0}, ConfigError, "blur is -1.0"),
        ({"features": "filters", "tile_size": 9}, InputError, "at least 36 a side"),
    ],
)
def test_wrong_options_are_refused(options, error, words):
    with pytest.raises(error, match=words):
        qfca(jnp.zeros((32, 40, 1)), **options)
