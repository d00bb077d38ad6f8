"""Many images fitted at once: lanes of one program, each with its own network and stopping.

A lane is one fit of `core.fit`, stacked with others along a leading axis. Lanes never mix: a
lane's numbers are the same whatever its neighbours hold and however long they go on.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Key, PRNGKeyArray, PyTree

from ssdnet_jax.core import losses
from ssdnet_jax.core.batch import over_batch
from ssdnet_jax.core.config import FitSettings
from ssdnet_jax.core.fit import (
    FitState,
    StopReason,
    fit_block,
    fit_step,
    init_fit,
    reconstruct,
    total_steps,
)
from ssdnet_jax.core.networks import network_structure
from ssdnet_jax.core.plan import Plan
from ssdnet_jax.core.skip_network import unflatten_parameters
from ssdnet_jax.core.target import Target, loss_weights
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
    """Mu, and theta at the last step, of one lane or of each of several (*b)."""

    reconstruction: Float[Array, "*b h w c"]
    params: Float[Array, "*b parameters"]


class Fit(NamedTuple):
    """Finished fits of a batch.

    Attributes:
      reconstruction: mu = f_theta(y), the normal component of what was fitted.
      losses: loss (Eq. 2) of each step that was taken; NaN for the others.
      steps: optimizer steps taken.
      stop: a `StopReason`.
      restorations: how often the guard undid a blow-up.
      params: theta at the last step, whose loss is the last; a tree of named arrays
        (`core.skip_network`).
    """

    reconstruction: Float[Array, "b h w c"]
    losses: Float[Array, "b steps"]
    steps: Int[Array, " b"]
    stop: Int[Array, " b"]
    restorations: Int[Array, " b"]
    params: PyTree[Float[Array, "b ..."]]


def fit(
    keys: Key[Array, " b"],
    target: Target,
    vgg19: VGG19Weights | None,
    plan: Plan,
    *,
    known: Float[Array, "b h w"] | None = None,
) -> Fit:
    """Fits a network to each image of a batch, from start to end, in one compiled loop.

    Args:
      keys: one an image; the source of its fit's randomness.
      target: from `core.target.encode`.
      vgg19: weights of phi; may be None unless the loss has a perceptual term.
      plan: static, as for `core.target.encode`.
      known: weight of each position in the loss, 0 where `target.values` are missing; by default
        `core.target.loss_weights`, or 1 everywhere where these are None.
    """
    values = target.values
    known = loss_weights(target) if known is None else known
    known = jnp.ones(values.shape[:3], jnp.float32) if known is None else known
    active = jnp.ones(values.shape[0], bool)
    lanes = init_lanes(keys, values, known, active, plan.fit)
    lanes = fit_lanes(lanes, vgg19, total_steps(values.shape[1:3], plan.fit), plan.fit)
    states, found = lanes.states, over_batch(_result, lanes.states)
    structure = network_structure(plan.fit.network, channels=values.shape[-1])
    params = jax.vmap(lambda vector: unflatten_parameters(vector, structure))(found.params)
    return Fit(
        found.reconstruction, states.history, states.step, states.stop, states.undone, params
    )


def init_lanes(
    keys: Key[Array, " lanes"],
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


def lane_results(lanes: Lanes, chosen: Int[Array, " lanes"], settings: FitSettings) -> LaneResult:
    """The results of the chosen lanes, in this order.

    `settings` have no effect: they are there because every program of lanes takes them.
    """
    return over_batch(_result, jax.tree.map(lambda leaf: leaf[chosen], lanes.states))


def _result(state: FitState) -> LaneResult:
    return LaneResult(reconstruct(state), state.current.params)
