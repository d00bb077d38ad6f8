"""The paper's comparison on any labelled dataset: what is scored and measured for it.

Sections 4 and 5 of the paper: per-image AUROC and AUPRC over the defective images of a category
(Table 1, Figs. 3 and 4), the same against Gaussian noise and against missing pixels (Figs. 5 to 8)
and score maps side by side (Figs. 9 and 10). Every method, corruption and seed has an ordinary work
folder, so that a run that was cut off goes on.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from ssdnet_jax.config import Config
from ssdnet_jax.data.datasets import GOOD, Sample
from ssdnet_jax.data.images import DecodedImage, read_image, resize_map, write_tiff_map
from ssdnet_jax.data.score_maps import read_map
from ssdnet_jax.errors import InputError, NoWeightsError
from ssdnet_jax.evaluation.evaluate import Evaluation, MapSet, evaluate
from ssdnet_jax.experiments.scoring import Context, score_dataset, stop_if_asked, with_seed
from ssdnet_jax.methods.base import Method, resized_image
from ssdnet_jax.methods.registry import has_configuration, is_random, make_method, run_folder
from ssdnet_jax.runner.executors import Executor
from ssdnet_jax.runner.terminal import Terminal

PARTS = ("table", "noise", "missing", "pictures")
CORRUPTIONS = ("noise", "missing")
LEVELS = (0.0, 0.025, 0.05, 0.075, 0.1)  # the paper's range, section 4.2
MissingValues = Literal["nearest", "zero"]


@dataclasses.dataclass(frozen=True)
class Protocol:
    """What is compared.

    Attributes:
      methods: names of methods, the one that chooses the pictures first; "ssdnet:NAME" is SSDnet
        by a configuration of its own.
      seeds: of what is random, the fits; corruptions do not depend on them. Other methods are run
        with the first.
      parts: some of `PARTS`.
      noise: standard deviations, in units of the image.
      missing: shares of pixels, in [0, 1).
      every: of the images, each which one of a category is corrupted; 0: the first of each kind of
        defect, as in the paper's ablations.
      missing_values: what methods that cannot inpaint see of a missing pixel: the nearest known
        value, or 0.
    """

    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    parts: tuple[str, ...] = PARTS
    noise: tuple[float, ...] = LEVELS
    missing: tuple[float, ...] = LEVELS
    every: int = 0
    missing_values: MissingValues = "nearest"

    @property
    def corruptions(self) -> tuple["Corruption", ...]:
        """All corruptions of the parts wanted, level 0 included where it was asked for."""
        return tuple(
            Corruption(kind, level)
            for kind in CORRUPTIONS
            if kind in self.parts
            for level in getattr(self, kind)
        )


@dataclasses.dataclass(frozen=True)
class Corruption:
    """What is done to an image before it is scored; level 0 leaves it as it is.

    Attributes:
      kind: "noise", Gaussian noise of mean zero; or "missing", pixels without a value.
      level: its standard deviation in units of the image; or the share of pixels.
    """

    kind: str
    level: float

    @property
    def name(self) -> str:
        """As folders are called, such as "noise0.05"."""
        return f"{self.kind}{self.level:g}"


@dataclasses.dataclass(frozen=True)
class Results:
    """What was measured.

    Attributes:
      clean: all defective images as they are; None if no part needs that.
      curves: by corruption, those images that are corrupted.
      map_sets: the maps behind `clean`, one a method, of the first seed.
      failures: by method, why it could not be started.
      not_run: by method, what nobody has given it; these are not failures.
    """

    clean: Evaluation | None
    curves: Mapping[Corruption, Evaluation]
    map_sets: tuple[MapSet, ...]
    failures: Mapping[str, str]
    not_run: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def evaluations(self) -> tuple[Evaluation, ...]:
        """All of them."""
        return (*([self.clean] if self.clean else []), *self.curves.values())


def defective(samples: Sequence[Sample]) -> list[Sample]:
    """The samples that have a defect to be found.

    Raises:
      InputError: there is none.
    """
    found = [sample for sample in samples if sample.defect != GOOD]
    if not found:
        raise InputError("found only good images; expected defective ones, to be localized")
    return found


def corrupted_samples(samples: Sequence[Sample], every: int) -> list[Sample]:
    """The images for the curves over noise and missing pixels; see `Protocol.every`."""
    groups: dict[tuple[str, ...], list[Sample]] = {}
    for sample in samples:
        key = (sample.category,) if every else (sample.category, sample.defect)
        groups.setdefault(key, []).append(sample)
    return [s for group in groups.values() for s in (group[::every] if every else group[:1])]


def corrupt(image: DecodedImage, corruption: Corruption, relative: str) -> DecodedImage:
    """Adds noise, clipped to [0, 1], or takes pixels away.

    What is drawn depends on the image's path and the kind of corruption alone: all methods and
    seeds see the same image, noise of two levels differs by a factor, and what is missing at one
    level is missing at all higher ones.

    Args:
      image: at the size at which it is scored. Corrupted before it is shrunk, an image would lose
        most of the noise to averaging, and most of its pixels to a few missing ones.
      corruption: kind and level.
      relative: path of the image within the dataset.
    """
    pixels = image.pixels
    missing = np.zeros(pixels.shape[:2], bool) if image.missing is None else image.missing
    digest = hashlib.sha256(relative.encode("utf-8", "surrogateescape")).digest()
    generator = np.random.default_rng([CORRUPTIONS.index(corruption.kind), *digest[:8]])
    if corruption.kind == "noise":
        noise = generator.standard_normal(pixels.shape, np.float32)
        pixels = np.clip(pixels + np.float32(corruption.level) * noise, 0, 1)
    else:
        missing = missing | (generator.random(missing.shape) < corruption.level)
    pixels = np.where(missing[..., None], np.float32(0), pixels)
    return dataclasses.replace(image, pixels=pixels, missing=missing if missing.any() else None)


def reproduce(
    samples: Sequence[Sample],
    protocol: Protocol,
    config: Config,
    workdir: Path,
    context: Context,
    *,
    configs: Mapping[str, Config] | None = None,
) -> Results:
    """Scores what is not scored yet, and measures everything.

    A method that cannot be started, for want of its weights for example, is left out.

    Args:
      samples: defective images of one dataset.
      protocol: what is compared.
      config: SSDnet's; of it baselines take `image_size` and `seed`.
      workdir: runs go to runs/METHOD/seedN and runs/METHOD/CORRUPTION/seedN below it.
      context: of the command.
      configs: by method, the configurations of those that have one of their own.

    Raises:
      ConfigError: a run's folder holds results of another configuration.
      InputError: no method could be started.
      Stopped: the executor was told to end; what is scored is kept.
    """
    own = configs or {}
    whole = bool({"table", "pictures"} & set(protocol.parts))
    corruptions = protocol.corruptions
    few = corrupted_samples(samples, protocol.every)
    failures: dict[str, str] = {}
    not_run: dict[str, str] = {}

    def score(corruption: Corruption | None) -> list[MapSet]:
        """The maps of all methods that can be started, and all seeds."""
        map_sets = []
        for name in protocol.methods:
            if name in failures or name in not_run:
                continue
            as_zero = corruption is not None and _sees_zeros(name, corruption, protocol)
            folder = workdir / "runs" / run_folder(name)
            if corruption is not None:
                folder /= f"{corruption.name}{'-zero' * as_zero}"
            try:
                for seed in protocol.seeds if is_random(name) else protocol.seeds[:1]:
                    method = make_method(name, with_seed(own.get(name, config), seed))
                    run = folder / f"seed{seed}"
                    if corruption is None:
                        chosen = samples if whole else few
                        found = score_dataset(chosen, method, run, context, name=name)
                    else:
                        found = score_corrupted(
                            few, corruption, method, run, context, name=name, as_zero=as_zero
                        )
                    map_sets.append(found)
            except InputError as error:
                context.terminal.problem(f"{name}: {error}")
                if isinstance(error, NoWeightsError):
                    not_run[name] = "not run: no weights"
                else:
                    failures[name] = str(error)
                if len(failures) + len(not_run) == len(protocol.methods):
                    raise
        return map_sets

    needs_clean = whole or any(not corruption.level for corruption in corruptions)
    clean_maps = score(None) if needs_clean else []
    corrupted_maps = {c: score(c) for c in corruptions if c.level}
    report = _show(context.terminal, context.executor)
    clean = evaluate(samples, clean_maps, report=report) if whole else None
    if clean is None and needs_clean:
        untouched = evaluate(few, clean_maps, report=report)
    else:
        untouched = _part(clean, few)
    curves = {
        c: evaluate(few, corrupted_maps[c], report=report) if c.level else untouched
        for c in corruptions
    }
    return Results(clean, curves, _first_seed(clean_maps), failures, not_run)


def _sees_zeros(method: str, corruption: Corruption, protocol: Protocol) -> bool:
    """Whether a method gets zeros as if they were pixels; SSDnet inpaints them in any case."""
    zeros = corruption.kind == "missing" and protocol.missing_values == "zero"
    return zeros and not has_configuration(method)


def score_corrupted(
    samples: Sequence[Sample],
    corruption: Corruption,
    method: Method,
    folder: Path,
    context: Context,
    *,
    name: str,
    as_zero: bool = False,
) -> MapSet:
    """Scores corrupted images that have no map yet; else as `scoring.score_dataset`.

    Images are corrupted at the size at which they are scored, so maps have that size too; what the
    result finds are these maps in the size of the image, kept beside them. With `as_zero`
    the method is not told which pixels are missing: it sees 0 there.
    """
    what = f"{corruption.kind} {corruption.level:g}{' as 0' * as_zero}"

    def read(sample: Sample) -> DecodedImage:
        decoded = read_image(sample.path)
        image = resized_image(decoded.pixels, method.config, missing=decoded.missing)
        resized = dataclasses.replace(decoded, pixels=image.fitted, missing=image.fitted_missing)
        corrupted = corrupt(resized, corruption, sample.relative)
        return dataclasses.replace(corrupted, missing=None) if as_zero else corrupted

    scored = score_dataset(
        samples,
        method,
        folder,
        context.noting(corruption=what),
        read=read,
        name=name,
        label=what,
    )

    def find(sample: Sample) -> Path:
        return _in_image_size(scored.find(sample), folder / "maps_in_image_size", sample)

    return dataclasses.replace(scored, find=find)


def _in_image_size(path: Path, folder: Path, sample: Sample) -> Path:
    """A file of the map in the size of its image, written if it is older than the map."""
    target = folder / f"{sample.relative}.tiff"
    try:
        if target.stat().st_mtime_ns >= path.stat().st_mtime_ns:
            return target
    except FileNotFoundError:
        pass
    score_map = read_map(path)
    size = read_image(sample.path).pixels.shape[:2]
    if score_map.shape == size:
        return path
    write_tiff_map(target, resize_map(score_map, size))
    return target


def _part(evaluation: Evaluation | None, samples: Sequence[Sample]) -> Evaluation:
    """The rows of some samples; nothing of them is measured again."""
    wanted = {sample.relative for sample in samples}
    rows = evaluation.rows if evaluation else ()
    return Evaluation(tuple(row for row in rows if row.path in wanted), {})


def _first_seed(map_sets: Sequence[MapSet]) -> tuple[MapSet, ...]:
    first: dict[str, MapSet] = {}
    for map_set in map_sets:
        first.setdefault(map_set.method, map_set)
    return tuple(first.values())


def _show(terminal: Terminal, executor: Executor) -> Callable[[str, int], None]:
    def show(name: str, done: int) -> None:
        stop_if_asked(executor.options.stop)
        if not done:
            terminal.start_run(0)
        terminal.images([name])
        terminal.stage("evaluating")

    return show
