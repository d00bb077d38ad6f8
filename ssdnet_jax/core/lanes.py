"""Many images fitted at once: lanes of one program, each with its own network and stopping.

A lane is one fit of `core.fit`, stacked with others along a leading axis. Lanes never mix: a
lane's numbers are the same whatever its neighbours hold and however long they go on.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from ssdnet_jax.core import losses
from ssdnet_jax.core.fit import (
    FitSettings,
    FitState,
    StopReason,
    fit_block,
    fit_step,
    init_fit,
    reconstruct,
)
from ssdnet_jax.core.vgg19 import VGG19Weights


class Lanes(NamedTuple):
    """Fits side by side.

    Attributes:
      states: one `FitState`, every leaf with a leading axis of lanes.
      images: in [0, 1].
      known: 1 where a pixel is known, 0 where it is missing.
    """

    states: FitState
    images: Float[Array, "lanes h w c"]
    known: Float[Array, "lanes h w"]


class LaneResult(NamedTuple):
    """What one lane has come to; see `FitState`."""

    reconstruction: Float[Array, "h w c"]
    history: Float[Array, " steps"]
    step: Int[Array, ""]
    stop: Int[Array, ""]
    undone: Int[Array, ""]
    params: Float[Array, " parameters"]


def init_lanes(
    keys: PRNGKeyArray,
    images: Float[Array, "lanes h w c"],
    known: Float[Array, "lanes h w"],
    active: Bool[Array, " lanes"],
    settings: FitSettings,
) -> Lanes:
    """Fits before their first step; a lane that is not active counts as stopped."""
    states = jax.vmap(lambda key, image: init_fit(key, image, settings))(keys, images)
    stop = jnp.where(active, states.stop, StopReason.MAX_STEPS)
    return Lanes(states._replace(stop=stop), images, known)


def fit_lanes(
    lanes: Lanes, vgg19: VGG19Weights | None, steps: Int[Array, ""] | int, settings: FitSettings
) -> Lanes:
    """`fit_block` for all lanes: up to `steps` steps of each; stopped lanes stay as they are.

    Args:
      lanes: from `init_lanes`, an earlier block, or `replace_lane`.
      vgg19: weights of phi, shared by the lanes; None if the loss has no perceptual term.
      steps: may be traced.
      settings: static, shared by the lanes.
    """
    if lanes.images.shape[0] == 1:  # without vmap the products have an axis less and are faster
        state, image, known = jax.tree.map(lambda leaf: leaf[0], lanes)
        state = fit_block(state, image, known, vgg19, steps, settings)
        return lanes._replace(states=jax.tree.map(lambda leaf: leaf[None], state))

    def constant(image: Array, known: Array) -> Array | None:
        return losses.constant_features(image, known, vgg19, settings.loss)

    features = jax.vmap(constant)(lanes.images, lanes.known)

    def step(state: FitState, image: Array, known: Array, features: Array | None) -> FitState:
        running = state.stop == StopReason.RUNNING
        after = fit_step(state, image, known, vgg19, settings, features)
        return jax.tree.map(lambda new, old: jnp.where(running, new, old), after, state)

    def unfinished(carry: tuple[Array, FitState]) -> Array:
        taken, states = carry
        return (taken < steps) & jnp.any(states.stop == StopReason.RUNNING)

    def body(carry: tuple[Array, FitState]) -> tuple[Array, FitState]:
        taken, states = carry
        return taken + 1, jax.vmap(step)(states, lanes.images, lanes.known, features)

    _, states = lax.while_loop(unfinished, body, (jnp.int32(0), lanes.states))
    return lanes._replace(states=states)


def replace_lane(
    lanes: Lanes,
    lane: Int[Array, ""] | int,
    key: PRNGKeyArray,
    image: Float[Array, "h w c"],
    known: Float[Array, "h w"],
    settings: FitSettings,
) -> Lanes:
    """Puts a new fit into one lane; the others stay as they are."""
    fresh = Lanes(init_fit(key, image, settings), image, known)
    return jax.tree.map(lambda leaves, leaf: leaves.at[lane].set(leaf), lanes, fresh)


def lane_result(lanes: Lanes, lane: Int[Array, ""] | int, settings: FitSettings) -> LaneResult:
    """What one lane has come to; see `core.fit.reconstruct`."""
    state, image, known = jax.tree.map(lambda leaf: leaf[lane], lanes)
    mu = reconstruct(state, image, known, settings)
    return LaneResult(mu, state.history, state.step, state.stop, state.undone, state.current.params)
