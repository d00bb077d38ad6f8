"""The `ssdnet-sweep` command: variants of a configuration beside each other on a dataset."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from ssdnet_jax.cli.commands import Command
from ssdnet_jax.cli.datasets import DATASET_FLAGS, DATASET_HELP, DatasetArguments, dataset_values
from ssdnet_jax.cli.flag_values import listed_seeds, whole_number
from ssdnet_jax.cli.flags import EXECUTION_HELP, read_flags
from ssdnet_jax.config import Config
from ssdnet_jax.config_files import DEFAULT_CONFIG, with_overrides
from ssdnet_jax.data.files import real_path, write_bytes
from ssdnet_jax.errors import ConfigError
from ssdnet_jax.evaluation.evaluate import ALL
from ssdnet_jax.evaluation.summary import summarize
from ssdnet_jax.experiments.scoring import defective, show_problems
from ssdnet_jax.experiments.sweep import load_sweep, run_sweep, sweep_names
from ssdnet_jax.reports.report_plots import number
from ssdnet_jax.reports.sweep import table, write_figure
from ssdnet_jax.runner.executors import executing
from ssdnet_jax.runner.terminal import Terminal
from ssdnet_jax.runner.workdir import named_errors
from ssdnet_jax.text import counted

_HELP = """\
ssdnet-sweep: variants of a configuration x images x seeds, beside each other.

  ssdnet-sweep --config=NAME --dataset=mvtec --workdir=out
  ssdnet-sweep --config=configs/sweeps/mine.py --dataset=mvtec --workdir=out --categories=grid

Flags:
  --config=NAME           {names},
                          or the path of a .py file with a function get_sweep
{dataset}
  --every=N               only each N-th image with a defect; others are left out in any case
  --seeds=0,1,2           without it those of the sweep
  --config.FIELD=VALUE    changed in all variants
  --vgg19_weights=PATH    as for `ssdnet`
{execution}
  --help                  this text
  --version               the versions of this program and of what it computes with

Results in DIR:
  sweep.csv               a line a variant, seed and image: AUROC, AUPRC, F1-max, AUPRO
  sweep.md, sweep.png     mean and spread over seeds of each variant
  runs/VARIANT/seedN/     what `ssdnet` writes

docs/laboratory.md says how to write a sweep and how to add a loss.

Exit status: 0 all images scored, 1 some failed, 2 nothing could be started, 130 interrupted,
143 terminated. The same command again goes on.
"""


@dataclasses.dataclass(frozen=True)
class Arguments(DatasetArguments):
    """What the command line says."""

    name: str  # of the sweep, or its path
    configs: Mapping[str, Config]  # checked, by variant
    seeds: tuple[int, ...]  # each once
    every: int  # which of the defective images


def help_text() -> str:
    """What `--help` prints."""
    shared = {"dataset": DATASET_HELP, "execution": EXECUTION_HELP}
    return _HELP.format(names=", ".join(sweep_names()), **shared)


def parse(arguments: Sequence[str]) -> Arguments:
    """Parses the command line and loads the sweep; raises ConfigError."""
    name, overrides, given = read_flags(arguments, {**DATASET_FLAGS, "every": None, "seeds": None})
    of_dataset = dataset_values(given)
    if name == DEFAULT_CONFIG:
        raise ConfigError(f"--config: found none; expected {', '.join(sweep_names())}, or a file")
    sweep, configs = load_sweep(name)
    return Arguments(
        name=name,
        configs={variant: with_overrides(c, overrides) for variant, c in configs.items()},
        seeds=listed_seeds("--seeds", given["seeds"]) or sweep.seeds,
        every=whole_number("--every", given["every"]) or 1,
        **of_dataset,
    )


def _run(parsed: Arguments, terminal: Terminal, *, command: str) -> int:
    workdir, seeds = parsed.workdir, parsed.seeds
    samples = defective(parsed.samples(terminal.note))[:: parsed.every]
    with named_errors(workdir), executing(parsed) as executor:
        context = parsed.context(terminal, executor, command)
        found = run_sweep(samples, parsed.configs, seeds, workdir, context)
        entries = {variant: entry[ALL] for variant, entry in summarize(found).items()}
        label = (
            f"{Path(parsed.name).stem}: {real_path(parsed.dataset).name}, "
            f"{counted(len(samples), 'image')}, {counted(len(seeds), 'seed')}; "
            "dots: images, bars: spread over seeds"
        )
        text = f"{label}\n\n`{command}`\n\n{table(entries)}"
        write_bytes(workdir / "sweep.md", text.encode())
        write_figure(workdir / "sweep.png", found.rows, entries, label=label)
    show_problems([(row.path, row.error) for row in found.rows], workdir / "sweep.csv", terminal)
    for variant, entry in entries.items():
        auprc, auroc = number(entry["auprc_mean"]), number(entry["auroc_mean"])
        terminal.summary(f"{variant}: AUPRC {auprc}, AUROC {auroc}")
    terminal.summary(f"figure and table in {workdir / 'sweep.png'}, {workdir / 'sweep.md'}")
    return 1 if any(entry["failed"] for entry in entries.values()) else 0


COMMAND = Command("ssdnet-sweep", "scored images", help_text, parse, _run)
main, console = COMMAND.main, COMMAND.console
