"""WinCLIP without normal images (Jeong et al., CVPR 2023): windows of an image against words."""

import functools
import weakref

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from ssdnet_jax.baselines.clip_model import (
    Parameters,
    embed_patches,
    image_features,
    window_features,
)
from ssdnet_jax.baselines.clip_prompts import normalize, state_embeddings
from ssdnet_jax.baselines.clip_weights import CLIPSizes, CLIPWeights
from ssdnet_jax.baselines.pixels import check, check_channels
from ssdnet_jax.errors import ConfigError

# By model: its image tower on the device, and by class name the embeddings of the two states.
_towers: weakref.WeakKeyDictionary[CLIPWeights, Parameters] = weakref.WeakKeyDictionary()
_states: weakref.WeakKeyDictionary[CLIPWeights, dict[str, Array]] = weakref.WeakKeyDictionary()


def winclip(
    image: Float[Array, "h w c"],
    *,
    clip: CLIPWeights | None = None,
    class_name: str = "texture",
    windows: tuple[int, ...] = (2, 3),
    temperature: float = 0.07,
) -> Float[Array, "h w"]:
    """Maps how much nearer windows are to words for a damaged thing than for a flawless one.

    Nothing is fitted. Each window of patches, and the whole image, gives the probability of
    "anomalous" against "normal"; a patch takes the harmonic mean over the windows that contain it
    and then the harmonic mean over their sizes and the whole image. Source: Jeong et al., WinCLIP:
    Zero-/Few-Shot Anomaly Classification and Segmentation, CVPR 2023 (arXiv 2303.14814), its
    zero-shot form.

    Args:
      image: grey or RGB in [0, 1]; it is resized to the model's square (bicubic).
      clip: weights, from `clip_weights.load_clip_weights`.
      class_name: what the image shows, such as "texture", "object" or "carpet"; ASCII words.
      windows: sides of the windows in patches.
      temperature: of the softmax over the two cosines (tau), above 0.

    Returns:
      Raw map of the image's size, probabilities in (0, 1), bilinear between patches.

    Raises:
      ConfigError: an option outside of its range, or no weights.
      InputError: not (H, W, 1) or (H, W, 3).
    """
    check_channels(image)
    if clip is None:
        raise ConfigError(
            "clip is None; expected weights, from "
            "ssdnet_jax.baselines.clip_weights.load_clip_weights(PATH)"
        )
    check(temperature > 0, "temperature", temperature, "above 0")
    grid = clip.sizes.grid
    if not windows or not all(1 <= window <= grid for window in windows):
        raise ConfigError(f"windows are {windows}; expected sides from 1 to {grid} patches")
    tower, states = _prepared(clip, class_name)
    resized = _resize(image, clip.sizes.image_size)
    scores = _patch_scores(tower, states, resized, temperature, clip.sizes, tuple(windows))
    return jax.image.resize(scores, image.shape[:2], "linear", antialias=False)


def harmonic_mean(scores: Float[Array, "scales h w"]) -> Float[Array, "h w"]:
    """The harmonic mean over scales of positive scores."""
    return 1 / jnp.mean(1 / scores, axis=0)


def spread_windows(scores: Float[Array, "places places"], *, window: int) -> Float[Array, "g g"]:
    """For each patch the harmonic mean of the scores of the windows that contain it.

    Scores are positive, of all windows at stride 1, by their upper left patch; `window` is their
    side in patches, g = places + window - 1.
    """
    margin = window - 1

    def add_up(values: Array) -> Array:
        sides, steps = (window, window), (1, 1)
        return lax.reduce_window(values, 0.0, lax.add, sides, steps, [(margin, margin)] * 2)

    return add_up(jnp.ones_like(scores)) / add_up(1 / scores)


def _prepared(clip: CLIPWeights, class_name: str) -> tuple[Parameters, Array]:
    """What all images share; words are embedded once, which takes as long as some images."""
    states = _states.setdefault(clip, {})
    if class_name not in states:
        states[class_name] = state_embeddings(clip, class_name)
    if clip not in _towers:
        _towers[clip] = jax.device_put(dict(clip.image))
    return _towers[clip], states[class_name]


@functools.partial(jax.jit, static_argnums=1)
def _resize(image: Float[Array, "h w c"], side: int) -> Float[Array, "side side c"]:
    # Bicubic interpolation swings beyond [0, 1] at edges; the model saw pictures of bytes.
    return jnp.clip(jax.image.resize(image, (side, side, image.shape[2]), "cubic"), 0, 1)


@functools.partial(jax.jit, static_argnums=(4, 5))
def _patch_scores(
    parameters: Parameters,
    states: Float[Array, "2 embedding"],
    image: Float[Array, "side side c"],
    temperature: float,
    sizes: CLIPSizes,
    windows: tuple[int, ...],
) -> Float[Array, "g g"]:
    def anomalous(embeddings: Float[Array, "*b embedding"]) -> Float[Array, "*b"]:
        """The softmax over the cosines with both states, of the second."""
        cosines = normalize(embeddings) @ states.T
        return jax.nn.sigmoid((cosines[..., 1] - cosines[..., 0]) / temperature)

    tokens = embed_patches(parameters, image[None], sizes=sizes)
    whole, _ = image_features(parameters, tokens, sizes=sizes)
    scales = [jnp.broadcast_to(anomalous(whole[0]), (sizes.grid, sizes.grid))]
    for window in windows:
        embeddings = window_features(parameters, tokens, sizes=sizes, window=window)[0]
        scales.append(spread_windows(anomalous(embeddings), window=window))
    return harmonic_mean(jnp.stack(scales))
