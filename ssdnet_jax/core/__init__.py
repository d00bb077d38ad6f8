"""The method as pure functions of arrays; importing it fills the registries (`core.registry`)."""

from ssdnet_jax.core import networks, score, target, terms, texture_score

__all__ = ["networks", "score", "target", "terms", "texture_score"]
