"""WinCLIP's compositional prompt ensemble: each state of a thing in each template.

Source: Jeong et al., WinCLIP, CVPR 2023 (arXiv 2303.14814), section 4.1 and appendix.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from ssdnet_jax.baselines.clip_model import text_features
from ssdnet_jax.baselines.clip_tokens import tokenize
from ssdnet_jax.baselines.clip_weights import CLIPWeights
from ssdnet_jax.errors import ConfigError

NORMAL_STATES = (
    "{}",
    "flawless {}",
    "perfect {}",
    "unblemished {}",
    "{} without flaw",
    "{} without defect",
    "{} without damage",
)
ANOMALOUS_STATES = ("damaged {}", "{} with flaw", "{} with defect", "{} with damage")
TEMPLATES = tuple(
    text.format(article, "{}")
    for text in (
        "a cropped photo of {} {}.",
        "a close-up photo of {} {}.",
        "a bright photo of {} {}.",
        "a dark photo of {} {}.",
        "a jpeg corrupted photo of {} {}.",
        "a blurry photo of {} {}.",
        "a photo of {} {}.",
        "a photo of {} small {}.",
        "a photo of {} large {}.",
        "a photo of {} {} for visual inspection.",
        "a photo of {} {} for anomaly detection.",
    )
    for article in ("a", "the")
)


def prompts(class_name: str) -> tuple[list[str], list[str]]:
    """The prompts of a normal and of an anomalous thing of that name, such as "texture"."""
    normal, anomalous = (
        [template.format(state.format(class_name)) for state in states for template in TEMPLATES]
        for states in (NORMAL_STATES, ANOMALOUS_STATES)
    )
    return normal, anomalous


def state_embeddings(clip: CLIPWeights, class_name: str) -> Float[Array, "2 embedding"]:
    """Embeddings of "normal" and "anomalous", each the mean over its prompts, of norm 1.

    A name that is empty, too long, or not ASCII is a ConfigError.
    """
    if not class_name.strip() or set(class_name) & set("{}"):
        raise ConfigError(f"class_name is {class_name!r:.60}; expected words, as texture")
    normal, anomalous = prompts(class_name)
    tokens = tokenize(clip.vocabulary, [*normal, *anomalous], context=clip.sizes.context)
    tokens = tokens[:, : tokens.argmax(1).max() + 1]  # the end of a text is its largest token
    features = normalize(text_features(clip.text, tokens, sizes=clip.sizes))
    count = len(normal)
    return normalize(jnp.stack([features[:count].mean(0), features[count:].mean(0)]))


def normalize(embeddings: Float[Array, "*b embedding"]) -> Float[Array, "*b embedding"]:
    """Embeddings of norm 1, so that their inner products are cosines."""
    return embeddings / jnp.linalg.norm(embeddings, axis=-1, keepdims=True)
