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
    height, width, n, bins = 13, 14, 3, 4
    values = np.random.default_rng(0).integers(0, bins, (height, width, 2))
    expected = np.zeros((height + 2, width + 2, 2))
    padded = np.pad(values, ((1, 1), (1, 1), (0, 0)), mode="reflect")
    for channel in range(2):
        tiles = [
            np.sort(values[i : i + n, j : j + n, channel].ravel())
            for i in range(0, height - n + 1, n)
            for j in range(0, width - n + 1, n)
        ]
        reference = np.sort(tiles, axis=0)[(len(tiles) - 1) // 2]
        sent = np.zeros((height, width, n, n))
        for i in range(height):
            for j in range(width):
                tile = padded[i : i + n, j : j + n, channel]
                errors = np.abs(np.sort(tile.ravel()) - reference)
                for value in range(bins):
                    if (tile == value).any():
                        share = errors[np.sort(tile.ravel()) == value].mean()
                        sent[i, j][tile == value] = share
        # A pixel's tiles beyond the border are the mirrored ones, which hold its own value's error.
        error_of = np.zeros((height, width, bins))
        for i in range(height):
            for j in range(width):
                tile = padded[i : i + n, j : j + n, channel]
                for value in range(bins):
                    if (tile == value).any():
                        error_of[i, j, value] = sent[i, j][tile == value][0]
        mirrored = np.pad(error_of, ((1, 1), (1, 1), (0, 0)), mode="reflect")
        for i in range(height):
            for j in range(width):
                around = mirrored[i : i + n, j : j + n, values[i, j, channel]]
                expected[i, j, channel] = around.sum() / n**2
    found = quantized_correspondence(jnp.asarray(values), bins=bins, tile_size=n)
    np.testing.assert_allclose(found, expected[:height, :width].mean(-1), rtol=1e-5)


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
