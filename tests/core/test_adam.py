import jax
import jax.numpy as jnp
import numpy as np
import optax

from ssdnet_jax.core.adam import adam_step, init_adam


def test_steps_are_those_of_optax():
    optimizer = optax.adam(0.02)
    params = jnp.zeros(5)
    state, expected_state = init_adam(params), optimizer.init(params)
    step = jax.jit(adam_step, static_argnames="learning_rate")
    for number in range(6):
        gradient = 10.0**number * jax.random.normal(jax.random.key(number), (5,))
        actual, state = step(gradient, state, learning_rate=0.02)
        expected, expected_state = optimizer.update(gradient, expected_state)
        np.testing.assert_allclose(actual, expected, rtol=1e-5)
