"""Deep Image Prior (Ulyanov, Vedaldi and Lempitsky, CVPR 2018) and what it leaves unexplained."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from ssdnet_jax.baselines.pixels import check, check_channels
from ssdnet_jax.core.config import PAPER_NETWORK, NetworkConfig
from ssdnet_jax.core.skip_module import SkipNetwork
from ssdnet_jax.core.skip_network import (
    flatten_parameters,
    init_skip_network,
    smallest_image_side,
    unflatten_parameters,
)
from ssdnet_jax.errors import InputError

_INPUT_CHANNELS = 32
_INPUT_RANGE = 0.1  # the fixed input z is uniform in [0, 0.1]


class _State(NamedTuple):
    params: Float[Array, " parameters"]
    optimizer: optax.OptState
    average: Float[Array, "h w c"]
    weight: Float[Array, ""]
    step: Int[Array, ""]
    loss: Float[Array, ""]


def dip(
    image: Float[Array, "h w c"],
    *,
    key: PRNGKeyArray | None = None,
    steps: int = 300,
    stop_threshold: float = 0.0,
    learning_rate: float = 0.01,
    input_noise: float = 1 / 30,
    average_decay: float = 0.99,
    network: NetworkConfig | None = None,
) -> Float[Array, "h w"]:
    """Maps what a network that draws the image from noise has not learned when it is stopped.

    min_theta ||f_theta(z) - y||^2 with a fixed z of 32 channels, by Adam. What is smooth or repeats
    is learned before what is not, so an early stop leaves the latter in the squared residual.
    Unlike SSDnet's, this network never sees the image as its input. Source: Ulyanov, Vedaldi and
    Lempitsky, Deep Image Prior, CVPR 2018; input, noise and average are those of the authors'
    denoising program.

    Args:
      image: y, grey or RGB in [0, 1].
      key: draws z, the parameters and the noise; by default `jax.random.key(0)`.
      steps: most Adam steps, at least 1.
      stop_threshold: the fit also ends when the mean squared error falls below this; 0: never.
      learning_rate: of Adam, above 0.
      input_noise: standard deviation of what is added to z anew at each step, at least 0; z itself
        is uniform in [0, 0.1].
      average_decay: memory, in [0, 1), of the running average of outputs that is compared with
        the image; 0: the last output.
      network: by default `PAPER_NETWORK`, narrower than the authors' 128 channels a scale.

    Returns:
      Mean over channels of the squared residual, of the image's size.

    Raises:
      ConfigError: an option outside of its range.
      InputError: not (H, W, 1) or (H, W, 3), or too small for the network.
    """
    network = network or PAPER_NETWORK
    check_channels(image)
    smallest = smallest_image_side(network)
    if min(image.shape[:2]) < smallest:
        raise InputError(
            f"image has {image.shape[0]} x {image.shape[1]} pixels; expected at least {smallest} "
            f"a side for {len(network.channels_down)} scales"
        )
    check(steps >= 1, "steps", steps, "at least 1")
    check(stop_threshold >= 0, "stop_threshold", stop_threshold, "at least 0")
    check(learning_rate > 0, "learning_rate", learning_rate, "above 0")
    check(input_noise >= 0, "input_noise", input_noise, "at least 0")
    check(0 <= average_decay < 1, "average_decay", average_decay, "in [0, 1)")
    key = jax.random.key(0) if key is None else key
    reconstruction = _reconstruct(
        key, image, steps, stop_threshold, learning_rate, input_noise, average_decay, network
    )
    return lax.square(image - reconstruction).mean(-1)


@functools.partial(jax.jit, static_argnames="network")
def _reconstruct(
    key: PRNGKeyArray,
    image: Float[Array, "h w c"],
    steps: int,
    stop_threshold: float,
    learning_rate: float,
    input_noise: float,
    average_decay: float,
    network: NetworkConfig,
) -> Float[Array, "h w c"]:
    """Running average of f_theta(z) while theta is fitted to `image`."""
    height, width, channels = image.shape
    parameter_key, z_key, noise_key = jax.random.split(key, 3)
    params = init_generator(parameter_key, network, channels=channels)
    structure = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), params)
    z = _INPUT_RANGE * jax.random.uniform(z_key, (1, height, width, _INPUT_CHANNELS))
    optimizer = optax.adam(learning_rate)

    def objective(vector: Array, noisy: Array) -> tuple[Array, Array]:
        params = unflatten_parameters(vector, structure)
        output = SkipNetwork(network, channels).apply({"params": params}, noisy)[0]
        return jnp.mean(lax.square(output - image)), output

    def unfinished(state: _State) -> Array:
        return (state.step < steps) & ~(state.loss < stop_threshold)

    def step(state: _State) -> _State:
        noise = jax.random.normal(jax.random.fold_in(noise_key, state.step), z.shape)
        (loss, output), gradient = jax.value_and_grad(objective, has_aux=True)(
            state.params, z + input_noise * noise
        )
        updates, moments = optimizer.update(gradient, state.optimizer)
        return _State(
            params=optax.apply_updates(state.params, updates),
            optimizer=moments,
            average=average_decay * state.average + (1 - average_decay) * output,
            weight=average_decay * state.weight + (1 - average_decay),
            step=state.step + 1,
            loss=loss,
        )

    vector = flatten_parameters(params)
    state = lax.while_loop(
        unfinished,
        step,
        _State(
            params=vector,
            optimizer=optimizer.init(vector),
            average=jnp.zeros_like(image),
            weight=jnp.zeros(()),
            step=jnp.zeros((), jnp.int32),
            loss=jnp.asarray(jnp.inf),
        ),
    )
    return state.average / state.weight


def init_generator(
    key: PRNGKeyArray, network: NetworkConfig, *, channels: int
) -> PyTree[Float[Array, "..."]]:
    """Parameters of a network from 32 channels of noise to `channels` image channels.

    Those of a network from 32 to 32 channels, less the outputs that an image does not have: the
    distribution of a kernel does not depend on the number of its outputs.
    """
    params = init_skip_network(key, network, channels=_INPUT_CHANNELS)
    return params | {"output": {name: v[..., :channels] for name, v in params["output"].items()}}
