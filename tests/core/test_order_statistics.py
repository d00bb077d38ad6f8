import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssdnet_jax.core.order_statistics import at_ranks, median, quantiles

RANDOM = np.random.default_rng(0)
VALUES = {
    "normal": RANDOM.normal(size=(3, 41)),
    "many equal": RANDOM.integers(-2, 3, (3, 41)),
    "of all sizes": RANDOM.choice([-1.0, 1.0], (3, 41))
    * 2.0 ** RANDOM.integers(-126, 127, (3, 41)),
    "with infinities": np.where(RANDOM.random((3, 41)) < 0.3, np.inf, RANDOM.normal(size=(3, 41))),
    "constant": np.zeros((3, 41)),
}


@pytest.mark.parametrize("name", VALUES)
def test_values_are_those_of_a_sorted_array(name):
    values = VALUES[name].astype(np.float32)
    ranks = np.array([0, 7, 20, 39, 40])
    found, following = jax.jit(at_ranks)(values, ranks)
    ordered = np.sort(values, axis=-1)
    np.testing.assert_array_equal(found, ordered[:, ranks])
    np.testing.assert_array_equal(following, ordered[:, np.minimum(ranks + 1, 40)])


@pytest.mark.parametrize("count", [1, 2, 40, 41])
def test_quantiles_are_those_of_jax_to_the_bit(count):
    values = jnp.asarray(VALUES["normal"][:, :count], jnp.float32)
    shares = jnp.array([0.0, 0.25, 0.5, 0.95, 1.0])
    found, expected = jax.jit(
        lambda v: (quantiles(v, shares), jnp.moveaxis(jnp.quantile(v, shares, axis=1), 0, 1))
    )(values)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(median(values), jnp.median(values, axis=1))


def test_an_accelerator_sorts_instead_of_going_bit_by_bit():
    def lowered(platform):
        exported = jax.export.export(jax.jit(at_ranks), platforms=[platform])
        return exported(jnp.zeros((4, 9)), jnp.array([2])).mlir_module()

    assert "stablehlo.while" in lowered("cpu") and "stablehlo.sort" not in lowered("cpu")
    assert "stablehlo.sort" in lowered("cuda") and "stablehlo.while" not in lowered("cuda")


def test_values_of_more_bits_are_rounded_and_not_taken_for_others():
    values = np.random.default_rng(3).normal(size=(2, 50))
    with jax.enable_x64(True):
        found, _ = at_ranks(jnp.asarray(values), jnp.array([0, 7, 49]))
    assert found.dtype == jnp.float32
    np.testing.assert_array_equal(found, np.sort(values.astype(np.float32), -1)[:, [0, 7, 49]])
