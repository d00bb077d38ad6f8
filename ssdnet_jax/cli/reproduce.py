"""The `ssdnet-reproduce` command: a labelled dataset in, the paper's tables and figures out."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from ssdnet_jax.cli.commands import Command, ConfiguredMethods
from ssdnet_jax.cli.datasets import DATASET_FLAGS, DATASET_HELP, DatasetArguments, dataset_values
from ssdnet_jax.cli.flag_values import (
    listed,
    listed_levels,
    listed_seeds,
    listed_words,
    one_of,
    whole_number,
)
from ssdnet_jax.cli.flags import methods_and_configs, read_flags, shared_help
from ssdnet_jax.config import Config
from ssdnet_jax.config_files import load_config, with_overrides
from ssdnet_jax.data.files import real_path
from ssdnet_jax.data.layouts.sample import Sample
from ssdnet_jax.evaluation.evaluate import write_csv
from ssdnet_jax.experiments.conditions import PLAIN, MissingValues
from ssdnet_jax.experiments.reproduce import LEVELS, PARTS, Protocol, Results, reproduce
from ssdnet_jax.experiments.scoring import defective, show_problems, with_seed
from ssdnet_jax.methods.registry import METHODS, has_configuration, split_method
from ssdnet_jax.reports.report_plots import number
from ssdnet_jax.reports.reproduce_text import (
    Setting,
    curve_rows,
    table_rows,
    write_json,
    write_markdown,
)
from ssdnet_jax.runner.executors import executing
from ssdnet_jax.runner.terminal import Terminal
from ssdnet_jax.runner.workdir import named_errors, versions_in_words
from ssdnet_jax.text import counted

_USAGE = """\
ssdnet-reproduce: the comparison of the paper (Table 1, Figs. 3-10) on a labelled dataset.

Scores the defective images with every method (what is scored already stays), again with noise and
with missing pixels, and writes tables and figures.

  ssdnet-reproduce --dataset=mvtec --workdir=out --categories=grid --config=grid_literal
  ssdnet-reproduce --dataset=mvtec --workdir=out --parts=table --seeds=0,1,2
  ssdnet-reproduce --dataset=mvtec --workdir=out --methods=ssdnet:grid_literal,ssdnet:auto,fca
  ssdnet-reproduce --dataset=set.csv --workdir=out --methods=ssdnet,fca --note="hand-drawn masks"

Flags:
{dataset}; ssdnet-evaluate may have used it
  --methods=A,B           as for ssdnet-evaluate; without it all. --config.FIELD and --image_size
                          change every configuration of SSDnet
  --seeds=0,1,2           of what is random; without it the seed of the configuration
  --parts=A,B             some of {parts}; without it all
  --noise=A,B             standard deviations of the noise ({levels})
  --missing=A,B           shares of missing pixels ({levels})
  --missing_values=WORD   as for ssdnet-evaluate
  --every=N               noise and missing pixels on each N-th defective image of a category;
                          without it on the first image of each kind of defect, as in the paper
  --note=TEXT             what a reader should know of the data, such as whose masks these are
{config}
  --image_size=PIXELS     shorter side at which an image is scored (256); 0: its own size
  --vgg19_weights=PATH    .npz, .safetensors or .pth of VGG19, for methods that need it
{clip_weights}
{execution}
  --help, --help_config   this text; the configuration's fields with their values
  --version               the versions of this program and of what it computes with

Results in DIR (those of the parts asked for; the whole command again scores nothing twice):
  reproduce.md            tables, figures, what differs from the paper, how it was made
  table1.csv              AUPRC and AUROC by category and method, beside the paper's
  robustness.csv          the same by noise and by missing pixels
  reproduce.json          all of it, with the numbers of each image
  figures/                fig3_... to fig8_...; pictures_..., which show images of the dataset and
                          are not to be passed on
  runs/METHOD/seedN/, runs/METHOD/noise0.05/seedN/, runs/ssdnet-NAME/seedN/
                          what `ssdnet` writes

Exit status: 0 all images scored, 1 some failed, 2 nothing could be started, 130 interrupted,
143 terminated. The same command again goes on.
"""

_OWN = ("methods", "seeds", "parts", "noise", "missing", "missing_values", "every", "note")


@dataclasses.dataclass(frozen=True)
class Arguments(DatasetArguments, ConfiguredMethods):
    """What the command line says; None where a flag was not given."""

    config_names: tuple[str, ...]  # of the configurations that are compared, with their overrides
    protocol: Protocol  # what is compared
    note: str | None  # what to say of the data

    @property
    def all_methods(self) -> tuple[str, ...]:
        """All of `--methods`."""
        return self.protocol.methods


def _run(parsed: Arguments, terminal: Terminal, *, command: str) -> int:
    dataset, workdir = parsed.dataset, parsed.workdir
    samples = defective(parsed.samples(terminal.note))
    with executing(parsed) as executor:
        context = parsed.context(terminal, executor, command)
        results = reproduce(
            samples, parsed.protocol, parsed.config, workdir, context, configs=parsed.configs
        )
    facts = {"Command": command, "Dataset": str(dataset), "Device": executor.device}
    facts["Versions"] = versions_in_words()
    setting = Setting(
        name=real_path(dataset).stem,
        protocol=parsed.protocol,
        image_size=parsed.config.image_size,
        config_names=parsed.config_names,
        note=parsed.note,
        facts=facts,
    )
    with named_errors(workdir):
        _write(workdir, setting, results, samples)
    return _end(results, workdir, terminal)


def _write(workdir: Path, setting: Setting, results: Results, samples: Sequence[Sample]) -> None:
    """Writes everything but the work folders of the runs."""
    from ssdnet_jax.reports.reproduce_figures import write_figures

    table = table_rows(results.clean) if results.clean and "table" in setting.protocol.parts else []
    curves = curve_rows(results)
    figures = write_figures(workdir / "figures", setting, results, samples, curves)
    figures = {title: f"figures/{name}" for title, name in figures.items()}
    for name, rows in (("table1.csv", table), ("robustness.csv", curves)):
        if rows:
            write_csv(workdir / name, rows)
    write_json(workdir / "reproduce.json", setting, results, table, curves)
    write_markdown(workdir / "reproduce.md", setting, results, table, curves, figures)


def _end(results: Results, workdir: Path, terminal: Terminal) -> int:
    """Says what went wrong and where the results are."""
    failed = {(row.path, row.error) for row in results.failed_rows}
    show_problems(sorted(failed), workdir / "reproduce.md", terminal)
    # The last row of a method is that of all categories.
    rows = table_rows(results.clean) if results.clean else []
    for method, row in {row["method"]: row for row in rows}.items():
        metrics = [
            f"{name.upper()} {number(row[name], absent='none')}" for name in ("auroc", "auprc")
        ]
        images = counted(row["images"], "image")
        failed_images = f", {row['failed']} failed" if row["failed"] else ""
        terminal.summary(f"{method}: {images}{failed_images}, {', '.join(metrics)}")
    terminal.summary(f"results in {workdir / 'reproduce.md'}")
    return 1 if failed or results.failures else 0


def help_text() -> str:
    """What `--help` prints."""
    return _USAGE.format(
        dataset=DATASET_HELP,
        **shared_help(),
        parts=", ".join(PARTS),
        levels=", ".join(f"{level:g}" for level in LEVELS),
    )


def parse(arguments: Sequence[str]) -> Arguments:
    """Parses the command line; raises ConfigError."""
    own = {**DATASET_FLAGS, **dict.fromkeys(_OWN), "help_config": False}
    name, overrides, given = read_flags(arguments, own)
    config = with_overrides(load_config(name), overrides)
    seeds = listed_seeds("--seeds", given["seeds"]) or (config.seed,)
    for seed in seeds:
        with_seed(config, seed)
    listed_methods = listed_words("--methods", given["methods"]) or METHODS
    methods, configs = methods_and_configs(listed_methods, overrides)
    parts = f"some of {', '.join(PARTS)}"
    noise = listed_levels("--noise", given["noise"], top="1")
    missing = listed_levels("--missing", given["missing"], top="0.99")
    values = given["missing_values"] or PLAIN.missing_values
    protocol = Protocol(
        methods,
        seeds,
        listed("--parts", given["parts"], lambda w: PARTS[PARTS.index(w)], parts) or PARTS,
        LEVELS if noise is None else tuple(sorted(noise)),
        LEVELS if missing is None else tuple(sorted(missing)),
        whole_number("--every", given["every"]),
        one_of("--missing_values", values, get_args(MissingValues)),
    )
    text = "".join(f" {key}={value}" for key, value in overrides.items())
    names = [
        f"{split_method(m)[1] or name}{text}{_own_size(configs.get(m, config), config)}"
        for m in methods
        if has_configuration(m)
    ]
    return Arguments(
        config=config,
        configs=configs,
        config_names=tuple(names),
        protocol=protocol,
        note=given["note"],
        help_config=given["help_config"],
        **dataset_values(given),
    )


def _own_size(config: Config, others: Config) -> str:
    """At which size a configuration scores, in words, if that is not the size of the others."""
    size = config.image_size
    if size == others.image_size:
        return ""
    return f" at {size} px" if size else " at the image's own size"


COMMAND = Command("ssdnet-reproduce", "scored images", help_text, parse, _run)
main, console = COMMAND.main, COMMAND.console
