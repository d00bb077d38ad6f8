"""Matrix products in full float32; small linear systems, one at each position of a map."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from ssdnet_jax.core.arrays import AnyArray


def product(a: AnyArray, b: AnyArray) -> Array:
    """A matrix product in full float32, also where the device would use TF32."""
    return jnp.matmul(a, b, precision=lax.Precision.HIGHEST)


def solved(
    matrices: Float[Array, "*batch n n"], right: Float[Array, "*batch n"]
) -> Float[Array, "*batch n"]:
    """Solves A x = y for many small positive definite A, by elimination without pivoting.

    Written out in n, each entry an array over the batch: libraries solve tens of thousands of small
    systems one after another, and `jnp.linalg.solve` of a batch can wait for good on a CPU, for
    threads of the pool that it occupies itself (jaxlib 0.10.2).
    """
    size = right.shape[-1]
    rows = [[matrices[..., i, j] for j in range(size)] for i in range(size)]
    values = [right[..., i] for i in range(size)]
    for k in range(size):
        for i in range(k + 1, size):
            factor = rows[i][k] / rows[k][k]
            rows[i] = [a - factor * b for a, b in zip(rows[i], rows[k], strict=True)]
            values[i] = values[i] - factor * values[k]
    found: list[Array] = []
    for k in reversed(range(size)):
        known = sum(rows[k][k + 1 + i] * x for i, x in enumerate(found))
        found.insert(0, (values[k] - known) / rows[k][k])
    return jnp.stack(found, axis=-1)
