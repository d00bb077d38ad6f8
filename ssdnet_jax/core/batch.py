"""One function of an image as a function of a batch."""

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax import lax
from jaxtyping import PyTree

# For programs with Fourier transforms: XLA shares out their rows among the threads of a CPU that
# have nothing to do, and rows round by their place in a share, so that each run of a program may
# have other bits.
IN_ONE_THREAD: dict[str, Any] = {"xla_cpu_multi_thread_eigen": False}


def over_batch(function: Callable[..., Any], *batched: PyTree) -> Any:
    """`jax.vmap(function)(*batched)`; images of the batch do not influence each other.

    On a CPU one image after another: there a product of a batch rounds by the place of its entries
    in memory, on some processors, and its images would depend on their places.

    A batch of one goes through without an axis of its own, with which products are slower.
    """
    if all(leaf.shape[0] == 1 for leaf in jax.tree.leaves(batched)):
        result = function(*jax.tree.map(lambda leaf: leaf[0], batched))
        return jax.tree.map(lambda leaf: leaf[None], result)
    return lax.platform_dependent(
        *batched,
        cpu=lambda *arrays: lax.map(lambda entry: function(*entry), arrays),
        default=functools.partial(_vmapped, function),
    )


def _vmapped(function: Callable[..., Any], *batched: PyTree) -> Any:
    return jax.vmap(function)(*batched)
