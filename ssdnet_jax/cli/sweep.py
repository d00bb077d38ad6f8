"""The `ssdnet-sweep` command: variants of a configuration beside each other on a dataset."""

import functools
import shlex
from collections.abc import Sequence
from pathlib import Path

from ssdnet_jax.cli.commands import run_command, run_process
from ssdnet_jax.cli.flag_values import listed_seeds, listed_words, whole_number
from ssdnet_jax.cli.flags import EXECUTION_FLAGS, EXECUTION_HELP, execution_values, read_flags
from ssdnet_jax.config_files import DEFAULT_CONFIG, with_overrides
from ssdnet_jax.data.files import write_atomically
from ssdnet_jax.errors import ConfigError
from ssdnet_jax.experiments.reproduce import defective
from ssdnet_jax.experiments.scoring import Context, read_samples, show_problems
from ssdnet_jax.experiments.sweep import (
    figures_of,
    load_sweep,
    run_sweep,
    sweep_names,
    table,
    write_figure,
)
from ssdnet_jax.runner.executors import Execution, executing
from ssdnet_jax.runner.terminal import Terminal
from ssdnet_jax.runner.workdir import named_errors

_HELP = """\
ssdnet-sweep: variants of a configuration x images x seeds, beside each other.

  ssdnet-sweep --config=NAME --dataset=mvtec --workdir=out
  ssdnet-sweep --config=configs/sweeps/mine.py --dataset=mvtec --workdir=out --categories=grid

Flags:
  --config=NAME           {names},
                          or the path of a .py file with a function get_sweep
  --dataset=PATH          as for `ssdnet-evaluate`; images without a defect are left out
  --categories=A,B        only these; without it all
  --every=N               only every N-th image
  --seeds=0,1,2           without it those of the sweep
  --workdir=DIR           where results go (needed); the same command again goes on
  --config.FIELD=VALUE    changed in all variants
  --vgg19_weights=PATH    as for `ssdnet`
{execution}
  --help                  this text

Results in DIR:
  sweep.csv               a line a variant, seed and image: AUROC, AUPRC, F1-max, AUPRO
  sweep.md, sweep.png     mean and spread over seeds of each variant
  runs/VARIANT/seedN/     what `ssdnet` writes

docs/laboratory.md says how to write a sweep and how to add a loss.

Exit status: 0 all images scored, 1 some failed, 2 nothing could be started, 130 interrupted,
143 terminated. The same command again goes on.
"""


def main(arguments: Sequence[str]) -> int:
    """Runs the command on `sys.argv`; returns its exit status, which `--help` describes."""
    return run_command(arguments, _help, functools.partial(_run, arguments))


def console() -> None:
    """Entry point of the `ssdnet-sweep` command; exits with its status."""
    run_process(main, "ssdnet-sweep", "scored images")


def _help() -> str:
    return _HELP.format(names=", ".join(sweep_names()), execution=EXECUTION_HELP)


def _run(arguments: Sequence[str], terminal: Terminal) -> int:
    own = ("dataset", "workdir", "categories", "every", "seeds", "vgg19_weights")
    name, overrides, given = read_flags(arguments, {**dict.fromkeys(own), **EXECUTION_FLAGS})
    execution = Execution(**execution_values(given))
    for flag in ("dataset", "workdir"):
        if not given[flag]:
            raise ConfigError(f"--{flag}: found none; expected one, see --help")
    if name == DEFAULT_CONFIG:
        raise ConfigError(f"--config: found none; expected {', '.join(sweep_names())}, or a file")
    sweep, configs = load_sweep(name)
    configs = {variant: with_overrides(c, overrides) for variant, c in configs.items()}
    seeds = listed_seeds("--seeds", given["seeds"]) or sweep.seeds
    step = whole_number("--every", given["every"]) or 1
    dataset, workdir = Path(given["dataset"]), Path(given["workdir"])
    categories = listed_words("--categories", given["categories"])
    samples = read_samples(dataset, workdir, categories=categories, mask_suffix=None, masks=None)
    samples = defective(samples)[::step]
    command = shlex.join(["ssdnet-sweep", *arguments[1:]])
    with named_errors(workdir), executing(execution) as executor:
        context = Context(
            dataset, terminal, executor, given["vgg19_weights"], note={"command": command}
        )
        rows = run_sweep(samples, configs, seeds, workdir, context)
        figures = figures_of(rows)
        label = (
            f"{Path(name).stem}: {dataset.resolve().name}, {len(samples)} images, "
            f"{len(seeds)} seed{'s' * (len(seeds) != 1)}; dots: images, bars: spread over seeds"
        )
        text = f"{label}\n\n`{command}`\n\n{table(figures)}"
        write_atomically(workdir / "sweep.md", lambda file: file.write(text.encode()))
        write_figure(workdir / "sweep.png", rows, figures, label=label)
    show_problems([(row.path, row.error) for row in rows], workdir / "sweep.csv", terminal)
    for each in figures:
        auprc, auroc = each.mean["auprc"], each.mean["auroc"]
        terminal.summary(f"{each.variant}: AUPRC {auprc:.3f}, AUROC {auroc:.3f}")
    terminal.summary(f"figure and table in {workdir / 'sweep.png'}, {workdir / 'sweep.md'}")
    return 1 if any(each.failed for each in figures) else 0
