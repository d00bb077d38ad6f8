"""Scoring a dataset with our own methods: one ordinary work folder a method and seed."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from ssdnet_jax.config import Config, from_config_dict
from ssdnet_jax.data.images import image_file
from ssdnet_jax.data.layouts.sample import GOOD, Sample
from ssdnet_jax.errors import InputError, Stopped
from ssdnet_jax.evaluation.evaluate import MapSet
from ssdnet_jax.experiments.conditions import PLAIN, Condition
from ssdnet_jax.methods.base import Method
from ssdnet_jax.methods.registry import is_random, make_method, run_folder
from ssdnet_jax.runner import startup
from ssdnet_jax.runner.changes import without_changed
from ssdnet_jax.runner.executors import Executor
from ssdnet_jax.runner.lock import only_run_in
from ssdnet_jax.runner.sources import FileSource
from ssdnet_jax.runner.terminal import Terminal
from ssdnet_jax.runner.workdir import open_workdir, read_rows
from ssdnet_jax.text import counted

NOT_SCORED = "not scored: "  # such errors were shown while scoring
_SHOWN_PROBLEMS = 10


@dataclasses.dataclass(frozen=True)
class Context:
    """What all runs of one command share."""

    dataset: Path  # where the samples come from, noted in the runs' folders
    terminal: Terminal  # shows progress and problems
    executor: Executor  # what scores images
    vgg19_path: str | None = None  # file of VGG19, for configurations and methods that need it
    clip_path: str | None = None  # file of CLIP, likewise
    note: Mapping[str, str] = dataclasses.field(default_factory=dict)  # for each run.json

    def noting(self, **note: str) -> "Context":
        """The context with something more to note."""
        return dataclasses.replace(self, note={**note, **self.note})


def defective(samples: Sequence[Sample]) -> list[Sample]:
    """The samples that have a defect to be found; raises InputError if there is none."""
    found = [sample for sample in samples if sample.defect != GOOD]
    if not found:
        raise InputError("found only good images; expected defective ones, to be localized")
    return found


def show_problems(problems: Iterable[tuple[str, str]], details: Path, terminal: Terminal) -> None:
    """Shows why images have no metrics, but for what was shown while scoring.

    Problems are paths with their errors, empty for images without any; `details` is the file that
    holds those that are too many to show.
    """
    new = [pair for pair in problems if pair[1] and not pair[1].startswith(NOT_SCORED)]
    for path, error in new[:_SHOWN_PROBLEMS]:
        terminal.problem(error if path in error else f"{path}: {error}")
    if len(new) > _SHOWN_PROBLEMS:
        terminal.problem(f"{len(new) - _SHOWN_PROBLEMS} more without metrics; see {details}")


def with_seed(config: Config, seed: int) -> Config:
    """The configuration with another seed; raises ConfigError if that is not legal."""
    return from_config_dict({**dataclasses.asdict(config), "seed": seed})


def stop_if_asked(stop: Callable[[], bool]) -> None:
    """Raises Stopped if a command has been told to end."""
    if stop():
        raise Stopped


def evaluating(terminal: Terminal, stop: Callable[[], bool]) -> Callable[[str, int], None]:
    """What `evaluate` is to call: shows how far it is, raises Stopped if `stop` says so."""

    def show(name: str, done: int) -> None:
        stop_if_asked(stop)
        if not done:
            terminal.start_run(0)
        terminal.images([name])
        terminal.stage(f"evaluating, {done} maps done")

    return show


def score_method(
    samples: Sequence[Sample],
    name: str,
    config: Config,
    seeds: Sequence[int],
    workdir: Path,
    context: Context,
    *,
    condition: Condition = PLAIN,
) -> list[MapSet]:
    """`score_dataset` of one method with each seed, in runs/METHOD/CONDITION/seedN.

    The configuration is SSDnet's; of it baselines take what `methods.baseline.BaselineMethod` says.
    What draws no random numbers is scored with the first seed alone.
    """
    condition = condition.seen_by(name)
    folder = workdir / "runs" / run_folder(name) / condition.folder
    return [
        score_dataset(
            samples,
            make_method(name, with_seed(config, seed)),
            folder / f"seed{seed}",
            context,
            condition=condition,
            name=name,
        )
        for seed in (seeds if is_random(name) else seeds[:1])
    ]


def score_dataset(
    samples: Sequence[Sample],
    method: Method,
    folder: Path,
    context: Context,
    *,
    condition: Condition = PLAIN,
    name: str | None = None,
) -> MapSet:
    """Scores the samples of one dataset that have no map yet.

    The method comes without its weights; `name` is what tables and the terminal call it, where that
    is not `method.name`. The folder is a work folder, as `ssdnet` writes it.

    Returns:
      The maps. Those of images that failed raise what went wrong.

    Raises:
      ConfigError: the folder belongs to a run with another configuration.
      InputError: the folder cannot be written, or there are no weights.
      Stopped: the executor was told to end; what is scored is kept.
    """
    executor, terminal = context.executor, context.terminal
    stop_if_asked(executor.options.stop)
    name = name or method.name
    ready = startup.with_weights(
        method,
        vgg19_path=context.vgg19_path,
        clip_path=context.clip_path,
        report=terminal.problem,
    )
    seed = method.config.seed
    run_note = {**executor.note, "seed": seed, **context.note}
    if condition.words:
        run_note["condition"] = condition.words
    sources = {
        s.relative: FileSource(functools.partial(condition.read, s, ready), image_file(s.path))
        for s in samples
    }
    stop = executor.options.stop
    with only_run_in(folder, terminal.problem):
        workdir = open_workdir(folder, ready, root=context.dataset, run=run_note)
        workdir = without_changed(workdir, sources, terminal, stop=stop)
        if left := len(sources.keys() - workdir.finished.keys()):
            what = ", ".join(filter(None, (name, condition.words, f"seed {seed}")))
            terminal.note(f"{what}: {counted(left, 'image')} to score")
            executor.run(ready, sources, workdir, terminal, options=executor.options)
            stop_if_asked(stop)
    rows = {row.path: row for row in read_rows(folder / "results.csv")}

    def find(sample: Sample) -> Path:
        row = rows.get(sample.relative)
        if row and row.status != "ok":
            raise InputError(f"{NOT_SCORED}{row.error}")
        return workdir.map_path(sample.relative)

    return MapSet(
        name,
        seed,
        find,
        size=condition.evaluate_at,
        resized=condition.resizes_maps,
        decision=method.config.decision,
        analysed=method.config.image_size,
        seconds={path: row.seconds for path, row in rows.items() if row.seconds is not None},
    )
