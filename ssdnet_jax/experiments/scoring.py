"""Scoring a dataset with our own methods: one ordinary work folder a method and seed."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from ssdnet_jax.config import Config, from_config_dict
from ssdnet_jax.data.datasets import Sample, read_dataset
from ssdnet_jax.data.images import DecodedImage, read_image
from ssdnet_jax.errors import InputError, Stopped
from ssdnet_jax.evaluation.evaluate import MapSet
from ssdnet_jax.methods.base import Method
from ssdnet_jax.runner import startup
from ssdnet_jax.runner.executors import Executor
from ssdnet_jax.runner.terminal import Terminal
from ssdnet_jax.runner.workdir import open_workdir, read_rows

NOT_SCORED = "not scored: "  # such errors were shown while scoring
_SHOWN_PROBLEMS = 10


@dataclasses.dataclass(frozen=True)
class Context:
    """What all runs of one command share.

    Attributes:
      dataset: where the samples come from, noted in the runs' folders.
      terminal: shows progress and problems.
      executor: what scores images.
      vgg19_path: file of VGG19, for configurations and methods that need it.
      clip_path: file of CLIP, likewise.
      note: what else to note in each run.json.
    """

    dataset: Path
    terminal: Terminal
    executor: Executor
    vgg19_path: str | None = None
    clip_path: str | None = None
    note: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def noting(self, **note: str) -> "Context":
        """The same with something more to note."""
        return dataclasses.replace(self, note={**note, **self.note})


def read_samples(
    dataset: Path,
    workdir: Path,
    *,
    categories: Sequence[str] | None,
    mask_suffix: str | None,
    masks: str | None,
) -> list[Sample]:
    """`data.datasets.read_dataset`, without the pictures that a run has written into the set."""
    samples = read_dataset(dataset, categories=categories, mask_suffix=mask_suffix, masks=masks)
    results = workdir.resolve()
    return [s for s in samples if not s.path.resolve().is_relative_to(results)]


def show_problems(problems: Iterable[tuple[str, str]], details: Path, terminal: Terminal) -> None:
    """Shows why images have no metrics, but for what was shown while scoring.

    Args:
      problems: paths with their errors, empty for images without any.
      details: the file that holds those that are too many to show.
      terminal: where to show them.
    """
    new = [pair for pair in problems if pair[1] and not pair[1].startswith(NOT_SCORED)]
    for path, error in new[:_SHOWN_PROBLEMS]:
        terminal.problem(error if path in error else f"{path}: {error}")
    if len(new) > _SHOWN_PROBLEMS:
        terminal.problem(f"{len(new) - _SHOWN_PROBLEMS} more without metrics; see {details}")


def with_seed(config: Config, seed: int) -> Config:
    """The configuration with another seed.

    Raises:
      ConfigError: a seed that is not legal.
    """
    return from_config_dict({**dataclasses.asdict(config), "seed": seed})


def stop_if_asked(stop: Callable[[], bool]) -> None:
    """Raises Stopped if a command has been told to end."""
    if stop():
        raise Stopped


def score_dataset(
    samples: Sequence[Sample],
    method: Method,
    folder: Path,
    context: Context,
    *,
    read: Callable[[Sample], DecodedImage] = lambda sample: read_image(sample.path),
    name: str | None = None,
    label: str | None = None,
) -> MapSet:
    """Scores the samples that have no map yet.

    Args:
      samples: of one dataset.
      method: without its weights.
      folder: work folder, as `ssdnet` writes it.
      context: of the command.
      read: gives the image of a sample.
      name: of the method in tables and at the terminal, where it is not `method.name`.
      label: what is done to the images when they are read, for the person at the terminal.

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
    run_note = {"device": executor.device, "seed": seed, **context.note}
    workdir = open_workdir(folder, ready, root=context.dataset, run=run_note)
    sources = {s.relative: lambda sample=s: read(sample) for s in samples}
    if left := len(sources.keys() - workdir.finished.keys()):
        what = ", ".join(filter(None, (name, label, f"seed {seed}")))
        terminal.note(f"{what}: {left} image{'s' * (left != 1)} to score")
        executor.run(ready, sources, workdir, terminal, options=executor.options)
        stop_if_asked(executor.options.stop)
    errors = {r.path: r.error for r in read_rows(folder / "results.csv") if r.status != "ok"}

    def find(sample: Sample) -> Path:
        if sample.relative in errors:
            raise InputError(f"{NOT_SCORED}{errors[sample.relative]}")
        return workdir.map_path(sample.relative)

    return MapSet(name, seed, find)
