"""The baselines by name, for commands: what each takes beside the image."""

import dataclasses
import importlib
import inspect
from collections.abc import Callable
from typing import Any

from jaxtyping import Array, Float, PRNGKeyArray

from ssdnet_jax.baselines.pixels import GIVEN

NAMES = (
    "spectral_residual",
    "glcm",
    "pg_lsr",
    "rpca",
    "smooth_sparse",
    "dip",
    "fca",
    "qfca",
    "aota",
    "grnr",
    "winclip",
)


@dataclasses.dataclass(frozen=True)
class Baseline:
    """A method that needs no configuration."""

    name: str  # one of `NAMES`, also its module's and function's
    function: Callable[..., Float[Array, "h w"]]  # image (H, W, C) in [0, 1] -> raw map (H, W)
    takes: tuple[str, ...]  # names of its keyword arguments

    def __reduce__(self) -> tuple[Any, ...]:
        """Other processes load it by its name: compiled functions cannot be sent."""
        return load_baseline, (self.name,)

    @property
    def is_random(self) -> bool:
        """Whether its published form gives another map with another key."""
        return self.name == "dip"

    @property
    def needs_vgg19(self) -> bool:
        """Whether its published form sees VGG19 features."""
        return "vgg19" in self.takes

    @property
    def needs_clip(self) -> bool:
        """Whether it compares images with words."""
        return "clip" in self.takes

    @property
    def options(self) -> tuple[str, ...]:
        """What a user may set."""
        return tuple(name for name in self.takes if name not in GIVEN)

    def __call__(self, image: Any, *, key: PRNGKeyArray, **arguments: Any) -> Float[Array, "h w"]:
        """The raw map; of `key` and weights it gets what it takes."""
        given = {"key": key, **arguments}
        taken = {k: v for k, v in given.items() if k in self.takes or k not in GIVEN}
        return self.function(image, **taken)


def load_baseline(name: str) -> Baseline:
    """The baseline of a name in `NAMES`; its module is imported now."""
    function = getattr(importlib.import_module(f"ssdnet_jax.baselines.{name}"), name)
    _, *takes = inspect.signature(function).parameters
    return Baseline(name, function, tuple(takes))
