"""Adam (Kingma and Ba, ICLR 2015) on one vector of parameters.

As `optax.adam` computes it, whose package would take a tenth of the imports of a start.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

_MEMORY, _MEMORY_OF_SQUARES = 0.9, 0.999  # of the running averages
_LEAST = 1e-8  # added to the root of the mean square


class AdamState(NamedTuple):
    """Running averages of the gradient and of its square, before their bias is corrected."""

    count: Int[Array, ""]
    mean: Float[Array, " parameters"]
    square: Float[Array, " parameters"]


def init_adam(params: Float[Array, " parameters"]) -> AdamState:
    """Before the first step."""
    return AdamState(jnp.zeros((), jnp.int32), jnp.zeros_like(params), jnp.zeros_like(params))


def adam_step(
    gradient: Float[Array, " parameters"], state: AdamState, *, learning_rate: float
) -> tuple[Float[Array, " parameters"], AdamState]:
    """What to add to the parameters, and the state after it."""
    count = state.count + 1
    mean = _MEMORY * state.mean + (1 - _MEMORY) * gradient
    square = _MEMORY_OF_SQUARES * state.square + (1 - _MEMORY_OF_SQUARES) * gradient**2
    unbiased, unbiased_square = (
        average / (1 - memory**count)
        for average, memory in ((mean, _MEMORY), (square, _MEMORY_OF_SQUARES))
    )
    step = -learning_rate * (unbiased / (jnp.sqrt(unbiased_square) + _LEAST))
    return step, AdamState(count, mean, square)
