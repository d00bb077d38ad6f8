"""Small linear systems, one at each position of a map."""

import jax.numpy as jnp
from jaxtyping import Array, Float


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
