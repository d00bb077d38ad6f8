import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssdnet_jax.core.guided import REACH, filtered, follow, guide_of
from ssdnet_jax.evaluation.metrics import auprc

followed = jax.jit(follow)
guided = jax.jit(guide_of)


def window_means(values, weights, radius):
    """Means over windows, one after another."""
    found = np.zeros(values.shape)
    for y, x in np.ndindex(values.shape):
        window = np.s_[max(0, y - radius) : y + radius + 1, max(0, x - radius) : x + radius + 1]
        total = weights[window].sum()
        found[y, x] = (values[window] * weights[window]).sum() / total if total else 0.0
    return found


def literal(values, guide, weights):
    """The smoothed map, and what the guided filter adds to its own smoothing (He et al. 2010)."""
    coefficients = np.zeros(guide.shape)
    for y, x in np.ndindex(values.shape):
        window = np.s_[max(0, y - 4) : y + 5, max(0, x - 4) : x + 5]
        w = weights[window].ravel()
        if w.sum():
            g = guide[window].reshape(len(w), -1)
            g = g - w @ g / w.sum()
            cross, covariance = g.T @ (w * values[window].ravel()), g.T @ (w[:, None] * g)
            ridge = 0.1 * np.eye(g.shape[1])
            coefficients[y, x] = np.linalg.solve(covariance / w.sum() + ridge, cross / w.sum())
    explained = np.zeros(values.shape)
    for i in range(guide.shape[-1]):
        a = coefficients[..., i]
        shift = window_means(a * window_means(guide[..., i], weights, 4), weights, 4)
        explained += window_means(a, weights, 4) * guide[..., i] - shift
    smooth = window_means(window_means(values, weights, 2), weights, 2)
    found, known = smooth + explained, weights > 0
    base = np.quantile(values[known], 0.95)
    share = min(1, (values[known].max() - base) / (found[known].max() - base))
    return np.where(found > base, base + share * (found - base), found)


@pytest.mark.parametrize("guides", [1, 3])
def test_a_map_follows_as_by_regression_in_each_window(guides):
    rng = np.random.default_rng(0)
    guide = rng.normal(size=(20, 17, guides))
    values = rng.random((20, 17)) + guide[..., 0]
    valid = np.ones((20, 17))
    valid[:6, 9:] = 0
    for mask in (np.ones((20, 17)), valid):
        given = None if mask.all() else jnp.asarray(mask, jnp.float32)
        found = followed(*(jnp.asarray(x, jnp.float32) for x in (values, guide)), given)
        expected = literal(values, guide, mask)
        np.testing.assert_allclose(
            np.asarray(found)[mask > 0], expected[mask > 0], rtol=1e-4, atol=1e-4
        )


def test_a_map_that_ends_beside_a_defect_is_brought_to_it():
    rng = np.random.default_rng(1)
    mask = np.zeros((64, 64), bool)
    mask[20:32, 30:33] = True
    image = 0.5 + 0.02 * rng.normal(size=(64, 64, 1)) + 0.2 * mask[..., None]
    rows, columns = np.mgrid[:64, :64]
    tile = np.exp(-((rows - 25) ** 2 / 60 + (columns - 33) ** 2 / 40))  # moved, and too wide
    guide = guided(jnp.asarray(image, jnp.float32))
    assert guide.shape == (64, 64, 2)
    found = np.asarray(followed(jnp.asarray(tile, jnp.float32), guide))
    assert auprc(mask, found) > auprc(mask, tile) + 0.2
    assert found.max() == pytest.approx(tile.max(), rel=1e-4)


def test_what_the_image_does_not_explain_stays():
    level = jnp.full((30, 40), 3.0)
    image = jax.random.uniform(jax.random.key(0), (30, 40, 3))
    guide = guided(image)
    assert guide.shape == (30, 40, 4)
    np.testing.assert_allclose(guide.std((0, 1)), 1, atol=1e-3)
    np.testing.assert_allclose(followed(level, guide), level, atol=1e-4)
    constant = guided(jnp.full((30, 40, 3), 0.3))
    np.testing.assert_allclose(constant, 0, atol=1e-6)
    values = jax.random.uniform(jax.random.key(1), (30, 40))
    smooth = np.asarray(followed(values, constant))
    assert abs(smooth.mean() - values.mean()) < 0.02 and smooth.std() < 0.3 * values.std()


def test_what_takes_no_part_has_no_influence():
    valid = jnp.ones((40, 40)).at[:, 25:].set(0)
    image = jax.random.uniform(jax.random.key(0), (40, 40, 3))
    values = jax.random.uniform(jax.random.key(1), (40, 40))
    first = followed(values, guided(image, valid), valid)
    other = followed(values.at[:, 25:].set(99.0), guided(image, valid), valid)
    np.testing.assert_allclose(first[:, :25], other[:, :25], atol=1e-5)


def test_in_a_batch_each_map_follows_its_own_image():
    images = jax.random.uniform(jax.random.key(0), (2, 24, 20, 3))
    values = jax.random.uniform(jax.random.key(1), (2, 24, 20))
    guides = jax.jit(jax.vmap(guide_of))(images)
    together = jax.jit(jax.vmap(follow))(values, guides)
    for one, image, found in zip(values, images, together, strict=True):
        np.testing.assert_allclose(found, followed(one, guided(image)), atol=2e-4)


def test_a_part_is_filtered_as_the_whole_beyond_its_reach():
    rng = np.random.default_rng(0)
    values, guide = (
        jnp.asarray(rng.random(shape), jnp.float32) for shape in ((40, 18), (40, 18, 2))
    )
    weights = jnp.asarray(rng.random((40, 18)) < 0.9, jnp.float32)
    of = jax.jit(filtered)
    whole, part = of(values, guide, weights), of(values[10:], guide[10:], weights[10:])
    np.testing.assert_allclose(part[REACH:], whole[10 + REACH :], rtol=1e-4, atol=1e-5)
    assert np.abs(np.asarray(part[0] - whole[10])).max() > 1e-3
