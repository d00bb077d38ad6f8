"""Fitting f_theta to one image (paper sections 3.5 and 4.2): Adam, early stopping, a guard.

`init_fit`, then `fit_block` until `state.stop` is not RUNNING, of one image; `core.lanes` does the
same for a batch. A fit that has stopped is left untouched.
"""

import enum
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from ssdnet_jax.core import corruption, losses
from ssdnet_jax.core.arrays import Size
from ssdnet_jax.core.config import FitConfig, FitSettings
from ssdnet_jax.core.networks import apply_network, init_network, network_structure
from ssdnet_jax.core.skip_network import flatten_parameters, unflatten_parameters
from ssdnet_jax.core.vgg19 import VGG19Weights

_MEDIAN_WINDOW = 10  # steps: the loss level against which a blow-up is judged
_MOST_UNDONE = 50  # restorations after which a fit is given up


class StopReason(enum.IntEnum):
    """Why a fit ended."""

    RUNNING = 0
    THRESHOLD = 1  # the loss fell below stop_threshold
    MAX_STEPS = 2  # all steps were taken
    UNSTABLE = 3  # not finite from the start, or undone too often


class Adam(NamedTuple):
    """Adam's running averages of gradients: `optax.ScaleByAdamState`, named here.

    Optax takes long to import, and a program that comes from disk does without it.
    """

    steps: Int[Array, ""]
    mu: Float[Array, " parameters"]
    nu: Float[Array, " parameters"]


class Weights(NamedTuple):
    """Parameters and Adam's averages at one step: what a restoration brings back.

    The parameters are one vector: a single Adam update, rather than one for each of a hundred
    tensors, compiles and runs faster.
    """

    params: Float[Array, " parameters"]
    optimizer: Adam


class FitState(NamedTuple):
    """One lane's fit between two steps.

    Attributes:
      current: parameters and Adam's moments.
      good: those of the last step whose loss was not above the recent median.
      average: running average of the outputs of steps that were not undone, times `weight`.
      weight: total weight in `average`, in [0, 1].
      history: loss of each step that was taken; NaN for the others.
      step: steps taken.
      undone: how often the guard went back to `good`.
      rate: share of the learning rate in use, in (0, 1].
      stop: a `StopReason`.
      key: source of noise, masks, permutations and patch order.
    """

    current: Weights
    good: Weights
    average: Float[Array, "h w c"]
    weight: Float[Array, ""]
    history: Float[Array, " steps"]
    step: Int[Array, ""]
    undone: Int[Array, ""]
    rate: Float[Array, ""]
    stop: Int[Array, ""]
    key: PRNGKeyArray


def total_steps(shape: Size, settings: FitSettings) -> int:
    """Most steps a fit takes: `max_steps`, or `epochs` passes over all patches."""
    if settings.fit.max_steps:
        return settings.fit.max_steps
    return settings.fit.epochs * losses.steps_per_epoch(shape, settings.loss)


def init_fit(key: PRNGKeyArray, image: Float[Array, "h w c"], settings: FitSettings) -> FitState:
    """A fit of `image` before its first step."""
    parameter_key, step_key = jax.random.split(key)
    params = flatten_parameters(
        init_network(parameter_key, settings.network, channels=image.shape[-1])
    )
    zeros = jnp.zeros_like(params)
    weights = Weights(params, Adam(jnp.zeros((), jnp.int32), zeros, zeros))
    return FitState(
        current=weights,
        good=weights,
        average=jnp.zeros_like(image),
        weight=jnp.zeros((), jnp.float32),
        history=jnp.full((total_steps(image.shape[:2], settings),), jnp.nan, jnp.float32),
        step=jnp.zeros((), jnp.int32),
        undone=jnp.zeros((), jnp.int32),
        rate=jnp.ones((), jnp.float32),
        stop=jnp.asarray(StopReason.RUNNING, jnp.int32),
        key=step_key,
    )


def fit_block(
    state: FitState,
    image: Float[Array, "h w c"],
    known: Float[Array, "h w"],
    vgg19: VGG19Weights | None,
    steps: Int[Array, ""] | int,
    settings: FitSettings,
) -> FitState:
    """Takes up to `steps` steps, fewer if the fit stops; none when it had stopped before.

    Args:
      state: from `init_fit` or an earlier block.
      image: y in [0, 1]; values of missing pixels do not matter.
      known: 1 where y is known, 0 where a pixel is missing.
      vgg19: weights of phi; None if the loss has no perceptual term.
      steps: may be traced, so that blocks of any length share one compiled program.
      settings: static.
    """
    last = state.step + steps
    features = losses.constant_features(image, known, vgg19, settings.loss)

    def unfinished(state: FitState) -> Array:
        return (state.stop == StopReason.RUNNING) & (state.step < last)

    def step(state: FitState) -> FitState:
        return fit_step(state, image, known, vgg19, settings, features)

    return lax.while_loop(unfinished, step, state)


def fit_step(
    state: FitState,
    image: Float[Array, "h w c"],
    known: Float[Array, "h w"],
    vgg19: VGG19Weights | None,
    settings: FitSettings,
    features: Float[Array, "hh ww f"] | None = None,
) -> FitState:
    """One step: loss and gradient at the current parameters, guard, stopping rule, Adam.

    `features` are `losses.constant_features` of the image; None: they are computed here.
    """
    config = settings.fit
    (loss, output), gradient = jax.value_and_grad(_objective, has_aux=True)(
        network_parameters(state, settings),
        state.key,
        state.step,
        image,
        known,
        vgg19,
        features,
        settings,
    )
    gradient = flatten_parameters(gradient)
    finite = jnp.isfinite(loss) & jnp.all(jnp.isfinite(gradient))
    level = _recent_median(state)
    blown_up = ~finite | _is_blow_up(loss, level, config.blowup_factor)

    updates, optimizer = _adam_updates(gradient, state.current.optimizer, config)
    rate = state.rate * learning_rate_share(state.step, state.history.shape[0], config)
    advanced = Weights(state.current.params + rate * updates, optimizer)

    stop = jnp.where(loss < config.stop_threshold, StopReason.THRESHOLD, StopReason.RUNNING)
    stop = jnp.where(blown_up, StopReason.RUNNING, stop)
    undone = state.undone + blown_up
    stop = jnp.where(
        (~finite & (state.step == 0)) | (undone > _MOST_UNDONE), StopReason.UNSTABLE, stop
    )
    at_end = (stop == StopReason.RUNNING) & (state.step + 1 == state.history.shape[0])
    stop = jnp.where(at_end, StopReason.MAX_STEPS, stop)

    # The last good state is the newest whose own loss is no worse than usual.
    usual = ~blown_up & ~(loss > level)
    good = _choose(usual, state.current, state.good)
    stays = _choose(blown_up, good, state.current)
    memory = config.average_decay
    average = memory * state.average + (1 - memory) * output
    return FitState(
        current=_choose(blown_up | (stop != StopReason.RUNNING), stays, advanced),
        good=good,
        average=jnp.where(blown_up, state.average, average),
        weight=jnp.where(blown_up, state.weight, memory * state.weight + (1 - memory)),
        history=state.history.at[state.step].set(loss),
        step=state.step + 1,
        undone=undone,
        # Going back alone would meet the same blow-up again: go on carefully, then recover.
        rate=jnp.where(blown_up, 0.5 * state.rate, jnp.minimum(1.0, 1.25 * state.rate)),
        stop=stop.astype(jnp.int32),
        key=state.key,
    )


def learning_rate_share(
    step: Int[Array, ""], steps: int, config: FitConfig
) -> Float[Array, ""] | float:
    """The share of `config.learning_rate` that the schedule gives to a step, in (0, 1].

    Args:
      step: from 0.
      steps: of the whole fit, if nothing ends it early.
      config: schedule and warm-up.
    """
    share: Array | float = 1.0
    warmup = min(config.warmup_steps, steps)
    if config.schedule == "cosine":
        after = jnp.maximum(step - warmup, 0) / max(steps - warmup, 1)
        share = 0.5 * (1 + jnp.cos(jnp.pi * after))
    return share * jnp.minimum(1.0, (step + 1) / warmup) if warmup else share


def network_parameters(state: FitState, settings: FitSettings) -> PyTree[Float[Array, "..."]]:
    """Theta as `apply_network` takes it."""
    structure = network_structure(settings.network, channels=state.average.shape[-1])
    return unflatten_parameters(state.current.params, structure)


def reconstruct(state: FitState) -> Float[Array, "h w c"]:
    """Mu = f_theta(y), the normal component: the running average of the fit's good outputs.

    Adam now and then loses a fit within one step, so no single step is trusted.
    """
    return state.average / jnp.maximum(state.weight, jnp.finfo(jnp.float32).tiny)


def _objective(
    params: PyTree[Array],
    key: PRNGKeyArray,
    step: Array,
    image: Array,
    known: Array,
    vgg19: VGG19Weights | None,
    features: Array | None,
    settings: FitSettings,
) -> tuple[Array, Array]:
    """Eq. 2 of one step; also returns the reconstruction."""
    order_key, permute_key, corrupt_key = _step_keys(key, step)
    corrupted = _corrupt(corrupt_key, image, known, settings.fit)
    seen = corrupted[None].astype(settings.fit.precision)
    output = apply_network(params, seen, settings.network)[0].astype(jnp.float32)
    compared = output
    if settings.fit.permute_ratio:
        size = settings.loss.patch_sizes[0]
        compared = corruption.permute_tiles(
            permute_key, output, size=size, ratio=settings.fit.permute_ratio
        )
    loss = losses.image_loss(
        order_key, step, image, compared, known, vgg19, settings.loss, features
    )
    return loss, lax.stop_gradient(output)


def _step_keys(key: PRNGKeyArray, step: Array) -> tuple[PRNGKeyArray, PRNGKeyArray, PRNGKeyArray]:
    """The order of patches is drawn an epoch at a time, so its key is the same at every step."""
    order_key, step_key = jax.random.split(key)
    permute_key, corrupt_key = jax.random.split(jax.random.fold_in(step_key, step))
    return order_key, permute_key, corrupt_key


def _corrupt(key: PRNGKeyArray, image: Array, known: Array, config: FitConfig) -> Array:
    noise_key, mask_key = jax.random.split(key)
    if config.input_noise:
        image = corruption.add_noise(noise_key, image, deviation=config.input_noise)
    if config.mask_ratio:
        hidden = corruption.block_mask(
            mask_key, image.shape[:2], ratio=config.mask_ratio, block=config.mask_block
        )
        image = corruption.hide(image, hidden)
    return corruption.hide(image, known == 0)


def _adam_updates(
    gradient: Float[Array, " parameters"], averages: Adam, config: FitConfig
) -> tuple[Float[Array, " parameters"], Adam]:
    """What Adam adds to the parameters, and its averages after it."""
    import optax

    state = (optax.ScaleByAdamState(*averages), optax.EmptyState())
    updates, (after, _) = optax.adam(config.learning_rate).update(gradient, state)
    return updates, Adam(*after)


def _recent_median(state: FitState) -> Float[Array, ""]:
    """Median loss of the last steps; NaN until there are enough of them."""
    start = jnp.maximum(state.step - _MEDIAN_WINDOW, 0)
    window = min(_MEDIAN_WINDOW, state.history.shape[0])
    recent = lax.dynamic_slice(state.history, (start,), (window,))
    return jnp.where(state.step >= window, jnp.nanmedian(recent), jnp.nan)


def _is_blow_up(loss: Array, level: Array, factor: float) -> Array:
    """Whether `loss` exceeds its usual level by factor - 1 times; losses may be negative."""
    if not factor:
        return jnp.zeros((), bool)
    return loss - level > (factor - 1) * jnp.abs(level)  # False while the level is NaN


def _choose(condition: Array, yes: Weights, no: Weights) -> Weights:
    """`yes` if `condition` else `no`; a branch, so that alone nothing is copied twice."""
    return lax.cond(condition, lambda: yes, lambda: no)
