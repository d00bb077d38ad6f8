"""The baselines by name, for commands: what each takes beside the image."""

import dataclasses
import importlib
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from jaxtyping import Array, Float, PRNGKeyArray

from ssdnet_jax.core.vgg19 import VGG19Weights

if TYPE_CHECKING:
    from ssdnet_jax.baselines.clip_weights import CLIPWeights

NAMES = ("spectral_residual", "glcm", "pg_lsr", "rpca", "smooth_sparse", "dip", "fca", "winclip")
RANDOM = ("dip",)  # whose maps depend on the key; those of the others are the same for every seed


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

    @property
    def needs_clip(self) -> bool:
        """Whether it compares images with words."""
        return "clip" in self.takes

    def __call__(
        self,
        image: Any,
        *,
        key: PRNGKeyArray,
        vgg19: VGG19Weights | None,
        clip: "CLIPWeights | None" = None,
    ) -> Float[Array, "h w"]:
        """The raw map by the published setting."""
        given = {"key": key, "vgg19": vgg19, "clip": clip}
        return self.function(image, **{k: v for k, v in given.items() if k in self.takes})


def load_baseline(name: str) -> Baseline:
    """The baseline of a name in `NAMES`; its module is imported now."""
    function = getattr(importlib.import_module(f"ssdnet_jax.baselines.{name}"), name)
    return Baseline(name, function, frozenset(inspect.signature(function).parameters))
