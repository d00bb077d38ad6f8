"""SSDnet (arXiv 2509.18354): a network is fitted to the image, what it leaves is scored.

The host side of the method; what runs on the device is in `core`, a group of images at a time.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PRNGKeyArray

from ssdnet_jax.config import Config, check_against_image, from_config_dict
from ssdnet_jax.core import stages
from ssdnet_jax.core.conformal import Calibration
from ssdnet_jax.core.fit import StopReason
from ssdnet_jax.core.target import image_to_mark, loss_weights, target_shape
from ssdnet_jax.core.vgg19 import VGG19Weights
from ssdnet_jax.data.fits_file import StoredFits
from ssdnet_jax.errors import ConfigError, InputError
from ssdnet_jax.methods.base import (
    Analysed,
    Bucket,
    Done,
    Fitted,
    FittedLocalization,
    Job,
    JobName,
    LoadFits,
    Localization,
    Member,
    Prepared,
    Report,
    TiledLocalization,
    alone,
    gather,
    known_to_be,
    localization_of,
    placed_picture,
)
from ssdnet_jax.methods.images import fill_nearest, resized_image, unstretched
from ssdnet_jax.methods.large.tiled_fit import (
    TiledFit,
    fit_in_tiles,
    is_large,
    refusal,
    sampled_noise,
)
from ssdnet_jax.programs import Program, program, result_of

_LAST = 10  # steps at the end of a fit whose losses are taken together


def _run_stage(function: Callable[..., Any], *arguments: Any, settings: Any = None) -> Any:
    """What a function of `core.stages` returns; its program is traced once a machine."""
    return program(function, *arguments, settings=settings)(*arguments)


def _marks(smooth: Any) -> Program:
    """The program of marks: their Fourier transforms are the same to the bit in one thread."""
    return program(stages.marks_of, smooth, settings=None, in_one_thread=True)


@dataclasses.dataclass(frozen=True)
class SSDnet:
    """The method of the paper and its default setting; see `methods.base.Method`."""

    config: Config
    vgg19: VGG19Weights | None = None
    calibration: Calibration | None = None

    name = "ssdnet"
    is_random = True
    keeps_fits = True
    needs_clip = False

    @property
    def needs_vgg19(self) -> bool:
        """Whether the loss, the score or what is fitted has VGG19 features."""
        return self.config.needs_vgg19

    @property
    def can_do_without_vgg19(self) -> bool:
        """Whether the features are chosen by what weights there are."""
        return self.config.leaves_features_open

    @property
    def settings(self) -> dict[str, Any]:
        """The whole configuration."""
        return dataclasses.asdict(self.config)

    def with_weights(self, *, vgg19: VGG19Weights | None, clip: Any = None) -> "SSDnet":
        """With VGG19's weights, or without them where they are not to be had."""
        config = self.config.resolve_features(has_vgg19=vgg19 is not None)
        return dataclasses.replace(self, config=config, vgg19=vgg19)

    def with_calibration(self, calibration: Calibration) -> "SSDnet":
        """Judged by what known good images scored."""
        return dataclasses.replace(self, calibration=calibration)

    def prepare(self, source: Any, key: PRNGKeyArray) -> Prepared:
        """Checks and resizes a `DecodedImage`; measures what its plan depends on."""
        resized = resized_image(
            source.pixels,
            self.config,
            missing=source.missing,
            ignored=source.ignored,
            detailed=self.config.compares_detail,
        )
        prepared = Prepared(key, **resized._asdict())
        check_against_image(self.config, prepared.fitted_missing.shape)
        if self._is_large(prepared) and prepared.incomplete:
            # Inpainting needs the whole image: its scattered pixels take their neighbours' values.
            fitted = fill_nearest(prepared.fitted, prepared.fitted_missing)
            pixels = fitted
            if prepared.pixels is not prepared.fitted:
                pixels = fill_nearest(prepared.pixels, prepared.missing)
            prepared = dataclasses.replace(prepared, pixels=pixels, fitted=fitted, filled=True)
        return prepared if prepared.incomplete else self._planned(prepared)

    def _planned(self, prepared: Prepared) -> Prepared:
        # Pixels are fitted and scored alike with and without noise: one plan, one bucket.
        measured = not self.config.target_kind.is_image
        valid = _valid(prepared)
        if not measured:
            noise = 0.0
        elif self._is_large(prepared):
            noise = sampled_noise(prepared.fitted, _valid_pixels(prepared))
        else:
            noise = float(_run_stage(stages.measure_noise, prepared.fitted, valid))
        masked = valid is not None
        plan = self.config.plan(
            prepared.fitted_missing.shape,
            noise=noise,
            masked=masked,
            detailed=prepared.detail is not None,
        )
        if self._is_large(prepared) and (reason := refusal(plan)):
            height, width = plan.shape
            raise ConfigError(
                f"the image is analysed at {height} x {width} pixels, more than "
                f"config.tiling.above ({self.config.tiling.above}), with {reason}; expected a "
                f"smaller --image_size, or config.tiling.above=0 to fit it whole"
            )
        return dataclasses.replace(prepared, plan=plan, noise=noise)

    def _is_large(self, prepared: Prepared) -> bool:
        return is_large(prepared.fitted_missing.shape, self.config.tiling)

    def bucket(self, prepared: Prepared) -> Bucket:
        """Images share a bucket by their plan; those with missing pixels by their shape."""
        if prepared.plan is None:
            return Bucket("inpaint", prepared.fitted.shape, self.config.inpaint_settings)
        if self._is_large(prepared):
            return Bucket("tiles", prepared.fitted.shape, plan=prepared.plan)
        shape = target_shape(prepared.plan, channels=prepared.fitted.shape[-1])
        return Bucket("fit", shape, prepared.plan.fit, prepared.plan)

    def load(self, prepared: Prepared, size: int, load_fits: LoadFits) -> None:
        """Loads the programs of the fits and of `finish`; none for an image in tiles."""
        plan = prepared.plan
        if plan is None:
            load_fits(prepared.fitted.shape)
            return
        if self._is_large(prepared):
            return

        def batch(array: np.ndarray | None) -> Any:
            if array is None:
                return None
            return jax.ShapeDtypeStruct((size, *array.shape), array.dtype)

        masks = batch(_valid(prepared) if plan.masked else None)
        details = batch(prepared.detail if plan.detailed else None)
        images = batch(prepared.fitted)
        # Whoever encodes the first images compiles that program meanwhile.
        target = result_of(stages.encode_fitted, images, self.vgg19, masks, settings=plan)
        shape = target.values.shape[1:]
        load_fits(shape)
        target = program(stages.add_compared, target, self.vgg19, details, settings=plan).result
        if (smooth := image_to_mark(target, plan)) is not None:
            target = target._replace(marks=_marks(smooth).result)
        fitted = jax.ShapeDtypeStruct((size, plan.seeds, *shape), target.values.dtype)
        program(stages.score_seeds, target, fitted, self.vgg19, settings=plan)
        program(stages.decode_seeds, target, fitted, settings=plan)

    def encode(self, group: Sequence[Prepared], size: int) -> list[Prepared]:
        """Computes what is fitted to images of one plan in one call; the rest is `finish`'s."""
        plan = known_to_be(group[0].plan)
        if self._is_large(group[0]):
            return list(group)  # tile by tile, when it is fitted
        images = gather([alone(prepared.fitted) for prepared in group], size)
        masks = None
        if plan.masked:
            masks = gather([alone(known_to_be(_valid(prepared))) for prepared in group], size)
        targets = _run_stage(stages.encode_fitted, images, self.vgg19, masks, settings=plan)
        # An error of the device is to be raised here, where it is known whose images it was.
        jax.block_until_ready(targets)
        return [
            dataclasses.replace(prepared, target=Member(targets, place))
            for place, prepared in enumerate(group)
        ]

    def jobs(self, prepared: Prepared, name: str) -> list[Job]:
        """One fit a seed; stage one for an image with missing pixels (paper section 5.2)."""
        inpaint_key, key = jax.random.split(prepared.key)
        if prepared.plan is None:
            known = ~prepared.fitted_missing
            if prepared.layout is not None:
                known &= prepared.layout.valid
            known = known.astype(np.float32)
            settings = self.config.inpaint_settings
            values = alone(prepared.fitted)
            return [Job(JobName(name, 0), "inpaint", inpaint_key, values, known, settings)]
        if self._is_large(prepared):
            return []  # fitted in `finish`, since fit and score both go tile by tile
        # The first fit is that of a single seed.
        seeds = range(prepared.plan.seeds)
        keys = [jax.random.fold_in(key, seed) if seed else key for seed in seeds]
        target = known_to_be(prepared.target)
        values = Member(target.batch.values, target.place)
        known = np.ones(values.batch.shape[1:3], np.float32)
        if prepared.plan.masked:
            weights = known_to_be(loss_weights(target.batch))
            known = np.asarray(weights[target.place])
        return [
            Job(JobName(name, seed), "fit", key, values, known, prepared.plan.fit)
            for seed, key in zip(seeds, keys, strict=True)
        ]

    def fill(self, prepared: Prepared, inpainted: Fitted) -> Prepared:
        """Puts the reconstruction of stage one where pixels are missing."""
        reconstruction = np.clip(np.asarray(inpainted.reconstruction.value), 0, 1)
        fitted = np.where(prepared.fitted_missing[..., None], reconstruction, prepared.fitted)
        found = unstretched(fitted, prepared.used_range)
        found = placed_picture(found, prepared.layout, prepared.pixels)
        pixels = np.where(prepared.missing[..., None], found, prepared.pixels)
        return self._planned(
            dataclasses.replace(prepared, pixels=pixels, fitted=fitted, filled=True)
        )

    def finish(
        self, group: Sequence[Done], size: int, report: Report = lambda progress: None
    ) -> Sequence[Callable[[], Localization]]:
        """Scores the fits of images of one plan; what is returned combines seeds by the median.

        `config.score.method` names the score: Eq. 3, or that of `core.texture_score`.
        """
        plan = known_to_be(group[0].prepared.plan)
        if self._is_large(group[0].prepared):
            return [self._in_tiles(done.prepared, report) for done in group]
        target = gather([known_to_be(done.prepared.target) for done in group], size)
        details = None
        if plan.detailed:
            details = gather([alone(known_to_be(done.prepared.detail)) for done in group], size)
        target = _run_stage(stages.add_compared, target, self.vgg19, details, settings=plan)
        if (smooth := image_to_mark(target, plan)) is not None:
            target = target._replace(marks=_marks(smooth)(smooth))
        by_seed = zip(*(done.fits for done in group), strict=True)
        seeds = [gather([fit.reconstruction for fit in fits], size) for fits in by_seed]
        reconstructions = jnp.stack(seeds, axis=1)
        maps = _run_stage(stages.score_seeds, target, reconstructions, self.vgg19, settings=plan)
        pictures = _run_stage(stages.decode_seeds, target, reconstructions, settings=plan)
        found = jax.device_get((maps.raw, maps.normalized, pictures, reconstructions))
        # Places beyond the group only filled the batch.
        of_each = [tuple(array[place] for array in found) for place in range(len(group))]
        return [
            functools.partial(self._localization, done, *arrays)
            for done, arrays in zip(group, of_each, strict=True)
        ]

    def _localization(
        self,
        done: Done,
        raw: Float[np.ndarray, "seeds h w"],
        normalized: Float[np.ndarray, "seeds h w"],
        pictures: Float[np.ndarray, "seeds hh ww c"],
        reconstructions: Float[np.ndarray, "seeds hh ww d"],
    ) -> FittedLocalization:
        prepared, fits = done.prepared, done.fits
        for name, array in (("score map", raw), ("reconstruction", reconstructions)):
            if not np.isfinite(array).all():
                raise InputError(f"the {name} of the fit is not finite; expected numbers")
        decisions = localization_of(
            np.median(raw, axis=0), prepared, self.config.decision, self.calibration
        )
        analysed = Analysed(
            np.median(normalized, axis=0),
            raw.std(axis=0),
            unstretched(np.median(pictures, axis=0), prepared.used_range),
            prepared.layout,
        )
        unfinished = any(fit.stop == StopReason.MAX_STEPS for fit in fits)
        return FittedLocalization(
            **vars(decisions),
            analysed=analysed,
            losses=fits[0].losses,
            steps=max(len(fit.losses) for fit in fits),
            stop_reason="max_steps" if unfinished else "threshold",
            restorations=sum(fit.restorations for fit in fits),
            fits=prepared.fits or _stored(prepared, fits, reconstructions),
        )

    def _in_tiles(self, prepared: Prepared, report: Report) -> Callable[[], TiledLocalization]:
        found = fit_in_tiles(
            prepared.fitted,
            _valid_pixels(prepared),
            jax.random.split(prepared.key)[1],
            self.vgg19,
            known_to_be(prepared.plan),
            self.config.tiling,
            noise=prepared.noise,
            report=report,
        )
        check_losses(found.losses, found.stop)
        return functools.partial(self._tiled_localization, prepared, found)

    def _tiled_localization(self, prepared: Prepared, found: TiledFit) -> TiledLocalization:
        decisions = localization_of(found.raw, prepared, self.config.decision, self.calibration)
        return TiledLocalization(
            **vars(decisions),
            losses=found.losses,
            steps=len(found.losses),
            stop_reason="max_steps" if found.stop == StopReason.MAX_STEPS else "threshold",
            restorations=found.restorations,
        )


def make_ssdnet(config: Config, vgg19: VGG19Weights | None) -> SSDnet:
    """SSDnet by a checked configuration.

    Raises:
      ConfigError: a field or a combination of fields cannot work.
    """
    checked = from_config_dict(dataclasses.asdict(config))
    return SSDnet(checked).with_weights(vgg19=vgg19)


def check_fit(fit: Fitted) -> None:
    """Raises InputError if a fit did not stay finite, or learned nothing in all its steps."""
    check_losses(fit.losses, fit.stop)


def check_losses(losses: np.ndarray, stop: StopReason) -> None:
    """Raises InputError if a fit with these losses did not stay finite, or learned nothing."""
    if stop == StopReason.UNSTABLE or not np.isfinite(losses[-1]):
        raise InputError(
            f"the fit did not stay finite (stopped after {len(losses)} steps); "
            f"expected a finite loss, try a smaller config.fit.learning_rate"
        )
    # Early losses jump about; a fit that is still above its start at the end has lost its way.
    last = float(np.nanmedian(losses[-_LAST:]))
    if stop == StopReason.MAX_STEPS and len(losses) >= 2 * _LAST and last >= losses[0]:
        raise InputError(
            f"the fit learned nothing: its loss was {losses[0]:.3g} at the start and {last:.3g} "
            f"after {len(losses)} steps; expected less, try a smaller config.fit.learning_rate"
        )


def _valid_pixels(prepared: Prepared) -> np.ndarray | None:
    """Bool (h, w), where a pixel of the fitted image takes part; None where all do."""
    layout = prepared.layout
    return layout.valid if layout is not None and layout.masked else None


def _valid(prepared: Prepared) -> np.ndarray | None:
    """`_valid_pixels` as float32, 1 and 0."""
    pixels = _valid_pixels(prepared)
    return None if pixels is None else pixels.astype(np.float32)


def _stored(prepared: Prepared, fits: Sequence[Fitted], reconstructions: np.ndarray) -> StoredFits:
    longest = max(len(fit.losses) for fit in fits)
    losses = [np.pad(f.losses, (0, longest - len(f.losses)), constant_values=np.nan) for f in fits]
    return StoredFits(
        image=prepared.fitted,
        reconstructions=reconstructions,
        losses=np.stack(losses),
        stop=np.array([int(fit.stop) for fit in fits]),
        restorations=np.array([fit.restorations for fit in fits]),
        size=np.array(prepared.missing.shape),
        ignored=None if prepared.layout is None else prepared.layout.ignored,
        valid=None if prepared.layout is None else prepared.layout.valid,
        detail=prepared.detail,
    )
