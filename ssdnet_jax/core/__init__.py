"""The method as pure functions of arrays; importing it fills the registries (`core.registry`)."""

from ssdnet_jax.core import marked_score, networks, score, target, terms, texture_score

__all__ = ["marked_score", "networks", "score", "target", "terms", "texture_score"]
