"""What annotations of `ssdnet_jax.core` call an array and a size.

`Array` is JAX's, what programs take and give. The whole test run checks the annotations (beartype).
"""

import jax.numpy as jnp
import numpy as np
from jax import Array

# Constants of a program may also come from NumPy: weights as they were read, tables.
AnyArray = Array | np.ndarray

# (height, width): what `image.shape[:2]` is to a type checker, which does not count its entries.
Size = tuple[int, ...]


def widened(values: Array) -> Array:
    """What is added up: float32 of values of a narrower type, otherwise as they are."""
    return values.astype(jnp.promote_types(values.dtype, jnp.float32))
