"""The paper's comparison on any labelled dataset: what is scored and measured for it.

Sections 4 and 5 of the paper: per-image AUROC and AUPRC over the defective images of a category
(Table 1, Figs. 3 and 4), the same against Gaussian noise and against missing pixels (Figs. 5 to 8)
and score maps side by side (Figs. 9 and 10). Every method, corruption and seed has an ordinary work
folder, so that a run that was cut off goes on.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ssdnet_jax.config import Config
from ssdnet_jax.data.layouts.sample import Sample
from ssdnet_jax.errors import InputError, NoWeightsError
from ssdnet_jax.evaluation.evaluate import Evaluation, ImageMetrics, MapSet, evaluate
from ssdnet_jax.experiments.conditions import CORRUPTIONS, PLAIN, Condition, MissingValues
from ssdnet_jax.experiments.scoring import Context, evaluating, score_method

PARTS = ("table", "noise", "missing", "pictures")
LEVELS = (0.0, 0.025, 0.05, 0.075, 0.1)  # the paper's range, section 4.2

Corruption = tuple[str, float]  # one of `CORRUPTIONS`, and its level; at level 0 it is none


@dataclasses.dataclass(frozen=True)
class Protocol:
    """What is compared."""

    methods: tuple[str, ...]  # names of methods, the one that chooses the pictures first;
    # "ssdnet:NAME" is SSDnet by a configuration of its own
    seeds: tuple[int, ...]  # of what is random, the fits; corruptions do not depend on them. Other
    # methods are run with the first
    parts: tuple[str, ...] = PARTS  # some of `PARTS`
    noise: tuple[float, ...] = LEVELS  # standard deviations, in units of the image
    missing: tuple[float, ...] = LEVELS  # shares of pixels, in [0, 1)
    every: int = 0  # of the images, each which one of a category is corrupted; 0: the first of each
    # kind of defect, as in the paper's ablations
    missing_values: MissingValues = "nearest"  # what methods that cannot inpaint see of a missing
    # pixel: the nearest known value, or 0

    @property
    def corruptions(self) -> tuple[Corruption, ...]:
        """All corruptions of the parts wanted, level 0 included where it was asked for."""
        return tuple(
            (kind, level)
            for kind in CORRUPTIONS
            if kind in self.parts
            for level in getattr(self, kind)
        )

    def condition(self, kind: str, level: float) -> Condition:
        """Under which images of a corruption are scored."""
        values: dict[str, Any] = {kind: level, "missing_values": self.missing_values}
        return Condition(**values)


@dataclasses.dataclass(frozen=True)
class Results:
    """What was measured."""

    clean: Evaluation | None  # all defective images as they are; None if no part needs that
    curves: Mapping[Corruption, Evaluation]  # by corruption, those images that are corrupted
    map_sets: tuple[MapSet, ...]  # the maps behind `clean`, one a method, of the first seed
    failures: Mapping[str, str]  # by method, why it could not be started
    not_run: Mapping[str, str] = dataclasses.field(default_factory=dict)  # by method, what nobody
    # has given it; these are not failures

    @property
    def evaluations(self) -> tuple[Evaluation, ...]:
        """`clean`, if there is one, and those of all curves."""
        return (*([self.clean] if self.clean else []), *self.curves.values())

    @property
    def failed_rows(self) -> list[ImageMetrics]:
        """Rows of images and methods without metrics."""
        return [row for found in self.evaluations for row in found.rows if row.status != "ok"]


def corrupted_samples(samples: Sequence[Sample], every: int) -> list[Sample]:
    """The images for the curves over noise and missing pixels; see `Protocol.every`."""
    groups: dict[tuple[str, ...], list[Sample]] = {}
    for sample in samples:
        key = (sample.category,) if every else (sample.category, sample.defect)
        groups.setdefault(key, []).append(sample)
    return [s for group in groups.values() for s in (group[::every] if every else group[:1])]


def reproduce(
    samples: Sequence[Sample],
    protocol: Protocol,
    config: Config,
    workdir: Path,
    context: Context,
    *,
    configs: Mapping[str, Config] | None = None,
) -> Results:
    """Scores the defective images of one dataset that are not scored yet, and measures everything.

    A method that cannot be started, for want of its weights for example, is left out. `config` is
    that of all methods but those in `configs`, which are by method the configurations of their own;
    baselines take some of its fields (`methods.baseline.BaselineMethod`). Runs go to
    runs/METHOD/seedN and runs/METHOD/CORRUPTION/seedN of the work folder.

    Raises:
      ConfigError: a run's folder holds results of another configuration.
      InputError: no method could be started.
      Stopped: the executor was told to end; what is scored is kept.
    """
    own = configs or {}
    whole = bool({"table", "pictures"} & set(protocol.parts))
    few = corrupted_samples(samples, protocol.every)
    failures: dict[str, str] = {}
    not_run: dict[str, str] = {}

    def score(condition: Condition) -> list[MapSet]:
        """The maps of all methods that can be started, and all seeds."""
        chosen = samples if whole and condition == PLAIN else few
        map_sets: list[MapSet] = []
        for name in protocol.methods:
            if name in failures or name in not_run:
                continue
            setting = (own.get(name, config), protocol.seeds)
            try:
                map_sets += score_method(
                    chosen, name, *setting, workdir, context, condition=condition
                )
            except InputError as error:
                context.terminal.problem(f"{name}: {error}")
                if isinstance(error, NoWeightsError):
                    not_run[name] = "not run: no weights"
                else:
                    failures[name] = str(error)
                if len(failures) + len(not_run) == len(protocol.methods):
                    raise
        return map_sets

    def measure(condition: Condition) -> Evaluation:
        return evaluate(few, score(condition), report=report)

    report = evaluating(context.terminal, context.executor.options.stop)
    needs_clean = whole or any(not level for _, level in protocol.corruptions)
    clean_maps = score(PLAIN) if needs_clean else []
    clean = evaluate(samples if whole else few, clean_maps, report=report)
    untouched = _part(clean, few)
    curves = {
        (kind, level): measure(protocol.condition(kind, level)) if level else untouched
        for kind, level in protocol.corruptions
    }
    first = tuple(m for m in clean_maps if m.seed == protocol.seeds[0])
    return Results(clean if whole else None, curves, first, failures, not_run)


def _part(evaluation: Evaluation, samples: Sequence[Sample]) -> Evaluation:
    """The rows of some samples; nothing of them is measured again."""
    wanted = {sample.relative for sample in samples}
    return Evaluation(tuple(row for row in evaluation.rows if row.path in wanted), {})
