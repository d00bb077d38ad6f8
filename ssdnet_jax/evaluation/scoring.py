"""Scoring a dataset with our own methods: one ordinary work folder a method and seed."""

import csv
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from ssdnet_jax.config import Config, from_config_dict
from ssdnet_jax.data.datasets import Sample
from ssdnet_jax.data.images import read_image
from ssdnet_jax.errors import InputError
from ssdnet_jax.evaluation.evaluate import MapSet
from ssdnet_jax.runner import processes
from ssdnet_jax.runner.methods import run_method
from ssdnet_jax.runner.terminal import Terminal
from ssdnet_jax.runner.workdir import Workdir, open_workdir

NOT_SCORED = "not scored: "  # such errors were shown while scoring


def with_seed(config: Config, seed: int) -> Config:
    """The configuration with another seed.

    Raises:
      ConfigError: a seed that is not legal.
    """
    return from_config_dict({**dataclasses.asdict(config), "seed": seed})


def score_dataset(
    samples: Sequence[Sample],
    config: Config,
    folder: Path,
    terminal: Terminal,
    *,
    method: str,
    dataset: Path,
    vgg19_path: str | None = None,
    note: Mapping[str, str] | None = None,
) -> MapSet:
    """Scores the samples that have no map yet.

    Args:
      samples: of one dataset.
      config: its seed included.
      folder: work folder, as `ssdnet` writes it.
      terminal: shows progress and problems.
      method: name of the method, noted in the folder.
      dataset: where the samples come from, noted in the folder.
      vgg19_path: file of VGG19, for configurations that need it.
      note: what else to note in run.json.

    Returns:
      The maps. Those of images that failed raise what went wrong.

    Raises:
      ConfigError: the folder belongs to a run with another configuration.
      InputError: the folder cannot be written, or there are no weights.
    """
    run_note = {"device": processes.device_name(), "seed": config.seed, **(note or {})}
    workdir = open_workdir(folder, config, method=method, root=dataset, run=run_note)
    sources = {s.relative: lambda path=s.path: read_image(path) for s in samples}
    if not sources.keys() <= workdir.finished.keys():
        left = len(sources.keys() - workdir.finished.keys())
        terminal.note(f"{method}, seed {config.seed}: {left} image{'s' * (left != 1)} to score")
        run_method(method, sources, config, workdir, terminal, vgg19_path=vgg19_path)
    errors = _errors(workdir)

    def find(sample: Sample) -> Path:
        if sample.relative in errors:
            raise InputError(f"{NOT_SCORED}{errors[sample.relative]}")
        return workdir.map_path(sample.relative)

    return MapSet(method, config.seed, find)


def _errors(workdir: Workdir) -> dict[str, str]:
    """By path, why images have no result."""
    path = workdir.path / "results.csv"
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = {row["path"]: row for row in csv.DictReader(file)}
    return {name: row["error"] for name, row in rows.items() if row["status"] != "ok"}
