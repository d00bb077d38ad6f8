"""The methods SSDnet is compared with, as methods of the run loop."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import PRNGKeyArray

from ssdnet_jax.baselines.registry import Baseline
from ssdnet_jax.config import Config
from ssdnet_jax.core.conformal import Calibration
from ssdnet_jax.core.vgg19 import VGG19Weights
from ssdnet_jax.errors import ConfigError, InputError
from ssdnet_jax.methods.base import (
    Bucket,
    Done,
    Fitted,
    Job,
    LoadFits,
    Localization,
    Prepared,
    Report,
    localization_of,
)
from ssdnet_jax.methods.images import fill_nearest, resized_image

TAKEN_FIELDS = ("image_size", "seed", "ground", "range")
"""What baselines take of the configuration, beside all of its part `decision`."""


@dataclasses.dataclass(frozen=True)
class BaselineMethod:
    """A baseline with some of its options; see `methods.base.Method`.

    Of the configuration `TAKEN_FIELDS` and `decision` matter. A missing pixel takes the value of
    the nearest known one: baselines have no inpainting stage. What takes no part is filled by
    mirroring what lies around it and is not judged; the baselines themselves know nothing of it.
    """

    baseline: Baseline
    options: Mapping[str, Any]
    config: Config
    vgg19: VGG19Weights | None = None
    clip: Any = None
    calibration: Calibration | None = None

    keeps_fits = False
    can_do_without_vgg19 = False

    @property
    def name(self) -> str:
        """What commands and tables call it, without its options."""
        return self.baseline.name

    @property
    def is_random(self) -> bool:
        """Whether another seed gives another map."""
        return self.baseline.is_random

    @property
    def needs_vgg19(self) -> bool:
        """Whether it sees VGG19 features."""
        return self.baseline.needs_vgg19

    @property
    def needs_clip(self) -> bool:
        """Whether it compares images with words."""
        return self.baseline.needs_clip

    @property
    def settings(self) -> dict[str, Any]:
        """What it takes of the configuration, and its options."""
        options = {"options": dict(self.options)} if self.options else {}
        of_config = {name: getattr(self.config, name) for name in TAKEN_FIELDS}
        return {**of_config, "decision": dataclasses.asdict(self.config.decision), **options}

    def with_weights(self, *, vgg19: VGG19Weights | None, clip: Any = None) -> "BaselineMethod":
        """With the weights that it needs."""
        return dataclasses.replace(self, vgg19=vgg19, clip=clip)

    def with_calibration(self, calibration: Calibration) -> "BaselineMethod":
        """Judged by what known good images scored."""
        return dataclasses.replace(self, calibration=calibration)

    def prepare(self, source: Any, key: PRNGKeyArray) -> Prepared:
        """Checks and resizes a `DecodedImage` and fills its missing pixels."""
        image = resized_image(
            source.pixels, self.config, missing=source.missing, ignored=source.ignored
        )
        pixels = fill_nearest(image.pixels, image.missing)
        fitted = fill_nearest(image.fitted, image.fitted_missing)
        filled = image._replace(pixels=pixels, fitted=fitted)
        return Prepared(key, **filled._asdict(), filled=True)

    def bucket(self, prepared: Prepared) -> Bucket:
        """Images share a bucket by their size."""
        return Bucket("score", prepared.fitted.shape)

    def load(self, prepared: Prepared, size: int, load_fits: LoadFits) -> None:
        """Nothing: a baseline is not known before it runs."""

    def encode(self, group: Sequence[Prepared], size: int) -> list[Prepared]:
        """Nothing is computed ahead."""
        return list(group)

    def jobs(self, prepared: Prepared, name: str) -> list[Job]:
        """None: nothing is fitted in lanes."""
        return []

    def fill(self, prepared: Prepared, inpainted: Fitted) -> Prepared:
        """Never needed: `prepare` has filled missing pixels."""
        return prepared

    def finish(
        self, group: Sequence[Done], size: int, report: Report = lambda progress: None
    ) -> list[Callable[[], Localization]]:
        """Runs the baseline on one image after another."""
        maps = [self._raw_map(done.prepared) for done in group]
        return [
            functools.partial(
                localization_of,
                raw,
                done.prepared,
                self.config.decision,
                self.calibration,
            )
            for done, raw in zip(group, maps, strict=True)
        ]

    def _raw_map(self, prepared: Prepared) -> np.ndarray:
        weights = {"vgg19": self.vgg19, "clip": self.clip}
        try:
            found = self.baseline(prepared.fitted, key=prepared.key, **weights, **self.options)
        except (TypeError, ValueError) as error:
            if not self.options:
                raise
            text = ", ".join(f"{name}={value!r}" for name, value in self.options.items())
            raise ConfigError(f"{self.name}: cannot be run with {text} ({error})") from error
        raw = np.asarray(found, np.float32)
        if not np.isfinite(raw).all():
            raise InputError(f"{self.name} gave a map that is not finite; expected numbers")
        return raw
