import jax.numpy as jnp
import numpy as np

from ssdnet_jax.core.linear import solved


def test_many_systems_are_solved_as_by_numpy():
    factors = np.random.default_rng(3).normal(size=(5, 4, 8, 8))
    matrices = factors @ factors.swapaxes(-1, -2) + 0.1 * np.eye(8)
    right = np.random.default_rng(4).normal(size=(5, 4, 8))
    expected = np.linalg.solve(matrices, right[..., None])[..., 0]
    found = solved(*(jnp.asarray(x, jnp.float32) for x in (matrices, right)))
    np.testing.assert_allclose(found, expected, rtol=1e-2, atol=1e-3)
