"""The baselines by name, for commands: what each takes beside the image."""

import dataclasses
import importlib
import inspect
from collections.abc import Callable
from typing import Any

from jaxtyping import Array, Float, PRNGKeyArray

from ssdnet_jax.core.vgg19 import VGG19Weights

NAMES = ("spectral_residual", "glcm", "pg_lsr", "rpca", "smooth_sparse", "dip", "fca")


@dataclasses.dataclass(frozen=True)
class Baseline:
    """A method that needs no configuration.

    Attributes:
      name: one of `NAMES`, also its module's and function's.
      function: image (H, W, C) in [0, 1] -> raw map (H, W).
      takes: names of its keyword options.
    """

    name: str
    function: Callable[..., Float[Array, "h w"]]
    takes: frozenset[str]

    @property
    def needs_vgg19(self) -> bool:
        """Whether its published form sees VGG19 features."""
        return "vgg19" in self.takes

    def __call__(
        self, image: Any, *, key: PRNGKeyArray, vgg19: VGG19Weights | None
    ) -> Float[Array, "h w"]:
        """The raw map by the published setting."""
        given = {"key": key, "vgg19": vgg19}
        return self.function(image, **{k: v for k, v in given.items() if k in self.takes})


def load_baseline(name: str) -> Baseline:
    """The baseline of a name in `NAMES`; its module is imported now."""
    function = getattr(importlib.import_module(f"ssdnet_jax.baselines.{name}"), name)
    return Baseline(name, function, frozenset(inspect.signature(function).parameters))
