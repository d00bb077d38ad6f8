import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssdnet_jax.core.calibration import in_quartiles
from ssdnet_jax.core.trust import agreement, peak, places, with_marks
from ssdnet_jax.evaluation.metrics import auprc

agree = jax.jit(agreement)
mixed = jax.jit(with_marks)
in_places = jax.jit(places)
SHAPE = (64, 64)
EVERYWHERE = jnp.ones(SHAPE, bool)
EVEN = jnp.float32(0.3)


def logarithms(seed=0, *, above=(), height=0.0):
    """A map of noise with a place that stands out, in the form that maps come in."""
    values = np.random.default_rng(seed).exponential(1.0, SHAPE).astype(np.float32)
    values[above] += height
    return jnp.log1p(jnp.maximum(in_quartiles(jnp.asarray(values)), 0) / 4)


BLOCK = np.s_[10:20, 30:40]
LINE = (np.arange(5, 60), np.arange(5, 60))


def marked(where):
    mask = np.zeros(SHAPE, bool)
    mask[where] = True
    return mask


def test_maps_that_agree_are_their_mean_and_a_blind_one_counts_less():
    seeing, also = (logarithms(seed, above=BLOCK, height=50.0) for seed in (0, 1))
    blind = logarithms(2)
    np.testing.assert_allclose(agree(jnp.stack([seeing, seeing])), seeing, rtol=1e-5)
    found = agree(jnp.stack([seeing, also, blind]))
    expected = (seeing + also + 0.4 * blind) / 2.4
    assert np.abs(np.asarray(found - expected)).max() < 0.1
    plain = (seeing + also + blind) / 3
    assert float(found[BLOCK].mean()) > 1.2 * float(plain[BLOCK].mean())


def test_what_takes_no_part_decides_nothing():
    one, other = logarithms(0, above=BLOCK, height=50.0), logarithms(1)
    valid = jnp.ones(SHAPE).at[40:].set(0)
    spoilt = other.at[40:].set(9.0)
    line = logarithms(2, above=LINE, height=50.0)
    for found, expected in (
        (agree(jnp.stack([one, spoilt]), valid), agree(jnp.stack([one, other]), valid)),
        (mixed(one, spoilt[None], EVEN, valid), mixed(one, other[None], EVEN, valid)),
        (mixed(spoilt, line[None], EVEN, valid), mixed(other, line[None], EVEN, valid)),
    ):
        np.testing.assert_allclose(found[:40], expected[:40], rtol=1e-5, atol=1e-6)


def test_peaks_and_places_tell_a_defect_from_noise():
    defect, nothing = logarithms(0, above=BLOCK, height=50.0), logarithms(0)
    assert float(peak(defect, EVERYWHERE)) > 2 * float(peak(nothing, EVERYWHERE))
    assert float(in_places(defect, EVERYWHERE)) < 12
    assert float(in_places(nothing, EVERYWHERE)) > 25
    everywhere = jnp.ones(SHAPE)
    assert float(in_places(everywhere, EVERYWHERE)) == pytest.approx(256, rel=1e-4)


def test_marks_of_noise_leave_tiles_as_they_are():
    tiles = logarithms(0, above=BLOCK, height=50.0)
    noise = jnp.asarray(np.abs(np.random.default_rng(3).normal(0, 0.2, SHAPE)), jnp.float32)
    found = mixed(tiles, jnp.stack([noise, noise]), EVEN)
    np.testing.assert_allclose(found, tiles, atol=0.02)


def test_marks_count_where_tiles_are_scattered_or_the_light_is_uneven():
    line = logarithms(1, above=LINE, height=30.0)
    unsure = logarithms(2)
    mask = marked(LINE)
    assert auprc(mask, np.asarray(unsure)) < 0.1
    assert auprc(mask, np.asarray(mixed(unsure, line[None], EVEN))) > 0.9
    stain = logarithms(0, above=BLOCK, height=60.0)
    in_light, in_shade = (
        np.asarray(mixed(stain, line[None], jnp.float32(share))) for share in (0.3, 0.9)
    )
    assert auprc(marked(BLOCK), in_light) > 0.9
    assert auprc(mask, in_shade) > auprc(mask, in_light)


def test_where_marks_decide_the_background_is_still_that_of_tiles():
    line, tiles = logarithms(1, above=LINE, height=30.0), logarithms(2)
    found = mixed(tiles, line[None], jnp.float32(0.9))
    shares = [0.25, 0.5, 0.75]
    np.testing.assert_allclose(
        np.quantile(found, shares), np.quantile(tiles, shares), rtol=0.1, atol=0.02
    )
    above = float(line[LINE].max()) - np.quantile(line, 0.95)
    assert float(found.max()) == pytest.approx(np.quantile(tiles, 0.95) + above, rel=0.1)
