import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssdnet_jax.core import features, streamed
from ssdnet_jax.core.patch_statistics import median_sorted_tile, scale_channels, tile_distances
from ssdnet_jax.core.streamed import Source, Sums

RANDOM = np.random.default_rng(0)
MIXED = RANDOM.normal(size=(24, 32, 4)) @ RANDOM.normal(size=(4, 4))
VALUES = jnp.asarray(np.concatenate([MIXED, np.full((24, 32, 1), 3.0)], -1), jnp.float32)
WEIGHTS = jnp.asarray(RANDOM.random((24, 32)) < 0.7, jnp.float32)
HALVES = (np.s_[:10], np.s_[10:])


def basis_from_halves(weights, components):
    """The basis of `VALUES`, from sums over its two halves."""
    shift = np.asarray(VALUES[0, 0], np.float64)
    parts = [
        streamed.sums_of(VALUES[h], weights[h], jnp.asarray(shift, jnp.float32)) for h in HALVES
    ]
    totals = [sum(np.asarray(part[i], np.float64) for part in parts) for i in range(3)]
    return streamed.basis_of(Sums(*totals), shift, Source("fine", 1.0, components))


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_sums_over_tiles_give_the_components_of_the_whole(weights):
    given = jnp.ones((24, 32)) if weights is None else weights
    standardized = features.standardize(VALUES, weights)
    expected = features.principal_components(standardized, count=3, weights=weights)
    found = streamed.in_basis(VALUES, basis_from_halves(given, 3))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_without_components_values_are_standardized_alone():
    found = streamed.in_basis(VALUES, basis_from_halves(jnp.ones((24, 32)), 0))
    np.testing.assert_allclose(found, features.standardize(VALUES), rtol=1e-4, atol=1e-4)
    assert not np.asarray(found[..., -1]).any()  # a constant channel


@pytest.mark.parametrize("layer", ["fine", "coarse", "colours"])
def test_values_of_a_tile_are_those_of_the_image_away_from_its_border(layer):
    image = jnp.asarray(RANDOM.random((48, 40, 3)), jnp.float32)
    source = Source(layer, 1.0, 4)
    values = jax.jit(functools.partial(streamed.source_values, kind="filters"), static_argnums=3)
    whole, part = values(image, 0.0, None, source), values(image[16:], 0.0, None, source)
    assert whole.shape[:2] == (24, 20)
    np.testing.assert_allclose(part[4:], whole[12:], rtol=1e-4, atol=1e-5)


def test_distances_of_a_part_are_those_of_the_image_beyond_the_margin():
    size, margin = 5, streamed.score_margin(5)
    components = VALUES[..., :3]
    extremes = jnp.stack([components.min((0, 1)), components.max((0, 1))])
    reference = median_sorted_tile(scale_channels(components), tile_size=size)
    distances = jax.jit(functools.partial(streamed.known_distances, tile_size=size))
    whole = jax.jit(functools.partial(tile_distances, tile_size=size))(components)
    total, known = distances(components, jnp.ones((24, 32)), extremes, reference)
    inner = np.s_[margin:-margin, margin:-margin]
    np.testing.assert_allclose(known[inner], 1, rtol=1e-5)
    np.testing.assert_allclose(total[inner], whole[inner], rtol=1e-4)
    part, _ = distances(components[6:], jnp.ones((18, 32)), extremes, reference)
    np.testing.assert_allclose(part[inner], whole[6:][inner], rtol=1e-4)
