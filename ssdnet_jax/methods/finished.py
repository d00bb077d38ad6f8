"""Fits that are on disk already, scored again: SSDnet without fitting."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import PRNGKeyArray

from ssdnet_jax.core.fit import StopReason
from ssdnet_jax.core.target import target_shape
from ssdnet_jax.data.fits_file import StoredFits
from ssdnet_jax.data.images import resize_image
from ssdnet_jax.errors import InputError
from ssdnet_jax.methods.base import (
    Bucket,
    Done,
    Fitted,
    Job,
    JobName,
    Localization,
    Prepared,
    Report,
    alone,
    known_to_be,
)
from ssdnet_jax.methods.images import Layout, bounding_box
from ssdnet_jax.methods.ssdnet import SSDnet, check_fit


@dataclasses.dataclass(frozen=True)
class FinishedSSDnet(SSDnet):
    """SSDnet on `StoredFits` instead of images.

    Images in its results are those of the fit, enlarged: the files may have gone.
    """

    @property
    def needs_vgg19(self) -> bool:
        """Whether the score or what was fitted has VGG19 features."""
        return self.config.scoring_needs_vgg19

    def prepare(self, source: Any, key: PRNGKeyArray) -> Prepared:
        """Takes the image from `StoredFits`, which must be those of this configuration."""
        shape = tuple(source.size.tolist())
        layout = _layout_of(source)
        if layout is None:
            pixels = resize_image(source.image, shape)
        else:
            nothing = np.zeros((*shape, source.image.shape[-1]), np.float32)
            pixels = layout.place_picture(source.image, nothing)
        whole, fitted_whole = (np.zeros(s, bool) for s in (shape, source.image.shape[:2]))
        prepared = Prepared(
            key,
            pixels,
            whole,
            source.image,
            fitted_whole,
            fits=source,
            layout=layout,
            detail=source.detail if self.config.compares_detail else None,
        )
        prepared = self._planned(prepared)
        plan = known_to_be(prepared.plan)
        expected = (plan.seeds, *target_shape(plan, channels=source.image.shape[-1]))
        if source.reconstructions.shape != expected:
            raise InputError(
                f"{source.path or 'fits'}: found reconstructions of shape "
                f"{source.reconstructions.shape}; expected {expected}"
            )
        return prepared

    def bucket(self, prepared: Prepared) -> Bucket:
        """Images share a bucket by their plan; there is nothing to fit."""
        return super().bucket(prepared)._replace(stage="score", settings=None)

    def jobs(self, prepared: Prepared, name: str) -> list[Job]:
        """None: the fits are there."""
        return []

    def finish(
        self, group: Sequence[Done], size: int, report: Report = lambda progress: None
    ) -> Sequence[Callable[[], Localization]]:
        """Scores the stored fits."""
        found = [dataclasses.replace(done, fits=_fits_of(done)) for done in group]
        return super().finish(found, size, report)


def _layout_of(stored: StoredFits) -> Layout | None:
    if stored.ignored is None or stored.valid is None:
        return None
    return Layout(stored.ignored, known_to_be(bounding_box(~stored.ignored)), stored.valid)


def _fits_of(done: Done) -> tuple[Fitted, ...]:
    stored = known_to_be(done.prepared.fits)
    fits = tuple(
        Fitted(
            name=JobName(done.name, seed),
            reconstruction=alone(stored.reconstructions[seed]),
            losses=losses[~np.isnan(losses)],
            stop=StopReason(int(stored.stop[seed])),
            restorations=int(stored.restorations[seed]),
        )
        for seed, losses in enumerate(stored.losses)
    )
    for fit in fits:
        check_fit(fit)
    return fits
