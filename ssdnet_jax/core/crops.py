"""Fitting one network to random crops of a large image, one crop a step.

The paper trains on patches of the image; here they are so large that the network sees texture as it
does in a whole image. A step is that of `core.fit`. What is scored is not the outputs' running
average, which no two crops share, but the output of the parameters' running average: Adam loses a
fit within single steps, so no single step is trusted either way.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from ssdnet_jax.core.config import FitSettings
from ssdnet_jax.core.fit import FitState, StopReason, fit_step, init_fit
from ssdnet_jax.core.networks import network_structure
from ssdnet_jax.core.skip_network import unflatten_parameters


class CropFit(NamedTuple):
    """A fit to crops, between two steps.

    Attributes:
      state: of `core.fit`; its `average` is of no use.
      average: running average of the parameters over good steps (times its weight).
      weight: total weight in `average`, in [0, 1].
    """

    state: FitState
    average: Float[Array, " parameters"]
    weight: Float[Array, ""]


def init_crop_fit(key: PRNGKeyArray, crop: Float[Array, "h w c"], settings: FitSettings) -> CropFit:
    """A fit before its first step; of the crop only the shape matters."""
    state = init_fit(key, crop, settings)
    return CropFit(state, jnp.zeros_like(state.current.params), jnp.zeros((), jnp.float32))


def fit_crops(
    fit: CropFit,
    crops: Float[Array, "steps h w c"],
    known: Float[Array, "steps h w"],
    settings: FitSettings,
) -> CropFit:
    """One step a crop, fewer if the fit stops.

    Args:
      fit: from `init_crop_fit` or an earlier call.
      crops: of what is fitted.
      known: what each position counts in the loss; 0 where it is not known.
      settings: static; without a perceptual term.
    """

    def step(fit: CropFit, crop_and_known: tuple[Array, Array]) -> tuple[CropFit, None]:
        return _running_step(fit, *crop_and_known, settings), None

    return lax.scan(step, fit, (crops, known))[0]


def averaged_parameters(
    fit: CropFit, settings: FitSettings, *, channels: int
) -> PyTree[Float[Array, "..."]]:
    """Theta as `apply_network` takes it: the running average over good steps."""
    vector = fit.average / jnp.maximum(fit.weight, jnp.finfo(jnp.float32).tiny)
    return unflatten_parameters(vector, network_structure(settings.network, channels=channels))


def _running_step(fit: CropFit, crop: Array, known: Array, settings: FitSettings) -> CropFit:
    before = fit.state
    after = fit_step(before, crop, known, None, settings)
    memory = settings.fit.average_decay
    running = before.stop == StopReason.RUNNING
    good = running & (after.undone == before.undone) & jnp.isfinite(after.history[before.step])
    average = memory * fit.average + (1 - memory) * before.current.params
    weight = memory * fit.weight + (1 - memory)
    state = jax.tree.map(lambda new, old: jnp.where(running, new, old), after, before)
    return CropFit(
        state, jnp.where(good, average, fit.average), jnp.where(good, weight, fit.weight)
    )
