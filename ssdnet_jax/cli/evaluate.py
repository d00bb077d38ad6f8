"""The `ssdnet-evaluate` command: a labelled dataset in, metrics and a report out."""

import contextlib
import dataclasses
import resource
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from ssdnet_jax.cli.commands import Command, Configured
from ssdnet_jax.cli.datasets import DATASET_FLAGS, DATASET_HELP, DatasetArguments, dataset_values
from ssdnet_jax.cli.flag_values import level, listed_seeds, listed_words, one_of, whole_number
from ssdnet_jax.cli.flags import methods_and_configs, read_flags, shared_help
from ssdnet_jax.config import Config
from ssdnet_jax.config_files import load_config, with_overrides
from ssdnet_jax.data.datasets import Sample
from ssdnet_jax.data.score_maps import find_map, put_maps
from ssdnet_jax.errors import ConfigError, InputError
from ssdnet_jax.evaluation.evaluate import (
    ALL,
    ImageMetrics,
    MapSet,
    evaluate,
    summarize,
    write_metrics_csv,
    write_summary,
)
from ssdnet_jax.experiments.conditions import PLAIN, Condition, MissingValues
from ssdnet_jax.experiments.scoring import (
    Context,
    defective,
    evaluating,
    score_method,
    show_problems,
)
from ssdnet_jax.methods.registry import DEFAULT_METHOD, has_configuration, run_folder
from ssdnet_jax.reports.report_plots import number
from ssdnet_jax.runner import startup
from ssdnet_jax.runner.executors import executing
from ssdnet_jax.runner.terminal import Terminal
from ssdnet_jax.runner.workdir import is_workdir, named_errors, versions

_USAGE = """\
ssdnet-evaluate: how well are the defects of a labelled dataset found?

Scores every test image (what is scored already stays), compares the maps with the masks, and writes
tables and a report to look at.

  ssdnet-evaluate --dataset=mvtec --workdir=out                    all categories, seed 0
  ssdnet-evaluate --dataset=mvtec --workdir=out --categories=grid,tile --seeds=0,1,2
  ssdnet-evaluate --dataset=set.csv --workdir=out --methods=ssdnet:fabric,fca:border=corrected
  ssdnet-evaluate --dataset=mvtec --workdir=out --maps=theirs --methods=PaDiM
  ssdnet-evaluate --dataset=mvtec --workdir=out --every=1 --evaluate_at=256 --noise=0.05

Flags:
{dataset}
  --every=N               only each N-th image with a defect, none without; 1: all with a defect
  --methods=A,B           some of {methods};
                          ssdnet:NAME is SSDnet by the configuration NAME, fca:border=corrected a
                          baseline with an option; with --maps: what tables call the maps ("maps")
  --seeds=0,1,2           of what is random; without it the seed of the configuration
  --maps=DIR              evaluates raw maps instead of scoring, .tiff, .npy or .npz of the image's
                          size: DIR/IMAGE_PATH.tiff, with or without the image's own suffix before
                          it; DIR/CATEGORY/test/DEFECT/NAME.tiff; or a work folder of ssdnet
  --evaluate_at=PIXELS    resizes image and mask to this square, scores that image and compares
                          there; baselines see it at this size unless --image_size is given;
                          without it maps are compared at the image's own size
  --noise=SIGMA           Gaussian noise on the image that is scored, whose values are in [0, 1]
  --missing=SHARE         pixels without a value in the image that is scored
  --missing_values=WORD   what baselines see of them: nearest, the nearest known value (default), or
                          zero; SSDnet inpaints them
  --noise_of_original=SIGMA   noise on the image before it is resized, as a camera makes it
{config}
  --image_size=PIXELS     side of the square that is fitted (256); 0: the image's own size
  --vgg19_weights=PATH    .npz, .safetensors or .pth of VGG19, for configurations that need it
{clip_weights}
{execution}
  --help, --help_config   this text; the configuration's fields with their values

Results in DIR:
  report.html             tables, box plots, curves, best and worst cases; one file, no network
  metrics.csv             AUROC, AUPRC, F1-max, AUPRO and seconds of each image
  summary.json            means, medians, pooled metrics by category and defect, over seeds; peak
                          memory of this process
  anomaly_maps/METHOD/    raw maps as MVTec AD's evaluation code reads them, of the first seed; of
                          images that were neither resized nor corrupted
  runs/METHOD/seedN/, runs/METHOD/at256-noise0.05/seedN/
                          what `ssdnet` writes: maps, heat maps, masks, results.csv, run.json

Exit status: 0 all images evaluated, 1 some failed, 2 nothing could be started, 130 interrupted,
143 terminated. The same command again goes on.
"""
_OWN = (
    *("methods", "seeds", "maps", "every", "evaluate_at"),
    *("noise", "missing", "missing_values", "noise_of_original"),
)


@dataclasses.dataclass(frozen=True)
class Arguments(DatasetArguments, Configured):
    """What the command line says; None where a flag was not given."""

    configs: Mapping[str, Config]  # by method, the configurations of those that have their own
    methods: tuple[str, ...]  # as `methods.registry` has them, each once; with `maps` their name
    seeds: tuple[int, ...]  # each once
    maps: Path | None  # folder of existing maps, which have no seeds
    condition: Condition  # under which images are scored
    every: int  # which of the defective images, 0: all images


def _run(parsed: Arguments, terminal: Terminal, *, command: str) -> int:
    samples = parsed.samples()
    if parsed.every:
        samples = defective(samples)[:: parsed.every]
    notes = {"Command": command, "Dataset": str(parsed.dataset)}
    notes["Images"] = parsed.condition.words or "as they are, compared at their own size"
    memory: dict[str, float] = {}
    with contextlib.ExitStack() as stack:
        if parsed.maps is None:
            executor = stack.enter_context(executing(parsed))
            context = parsed.context(terminal, executor, command)
            map_sets = _scored_maps(parsed, samples, context, memory)
            notes["Device"], stop = executor.device, executor.options.stop
        else:
            map_sets = [_existing_maps(parsed, parsed.maps)]
            notes["Maps"] = str(parsed.maps)
            stop = stack.enter_context(startup.stops_on_signals())
        notes["Versions"] = ", ".join(f"{name} {number}" for name, number in versions().items())
        with named_errors(parsed.workdir):
            rows, summary = _evaluate(parsed, samples, map_sets, memory, notes, terminal, stop)
    details, report = (parsed.workdir / name for name in ("metrics.csv", "report.html"))
    show_problems([(row.path, row.error) for row in rows], details, terminal)
    for method, entries in summary.items():
        terminal.summary(f"{method}: {_in_words(entries[ALL])}; report in {report}")
    return 1 if any(row.status != "ok" for row in rows) else 0


def _existing_maps(parsed: Arguments, folder: Path) -> MapSet:
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; expected raw maps, for --maps")
    if is_workdir(folder):
        folder = folder / "maps"
    size = parsed.condition.evaluate_at
    return MapSet(parsed.methods[0], None, lambda sample: find_map(folder, sample), size=size)


def _scored_maps(
    parsed: Arguments, samples: Sequence[Sample], context: Context, memory: dict[str, float]
) -> list[MapSet]:
    """The maps; into `memory` goes what the process has taken at most after each method, in GiB."""
    map_sets = []
    for method in parsed.methods:
        config = parsed.configs.get(method, parsed.config)
        setting = (config, parsed.seeds, parsed.workdir, context)
        map_sets += score_method(samples, method, *setting, condition=parsed.condition)
        memory[method] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return map_sets


def _evaluate(
    parsed: Arguments,
    samples: Sequence[Sample],
    map_sets: Sequence[MapSet],
    memory: Mapping[str, float],
    notes: Mapping[str, str],
    terminal: Terminal,
    stop: Callable[[], bool],
) -> tuple[Sequence[ImageMetrics], dict[str, Any]]:
    """Evaluates and writes everything but the work folders of the runs."""
    from ssdnet_jax.reports.report import write_report

    evaluation = evaluate(samples, map_sets, report=evaluating(terminal, stop))
    summary = summarize(evaluation)
    for method, gib in memory.items():
        summary[method][ALL]["peak_memory_gib"] = round(gib, 2)
    write_metrics_csv(parsed.workdir / "metrics.csv", evaluation.rows)
    write_summary(parsed.workdir / "summary.json", summary)
    first = list({m.method: m for m in reversed(map_sets)}.values())[::-1]
    if parsed.condition == PLAIN:
        for map_set in first:
            name = map_set.method if parsed.maps else run_folder(map_set.method)
            put_maps(parsed.workdir / "anomaly_maps" / name, samples, map_set.find)
    write_report(
        parsed.workdir / "report.html",
        name=parsed.dataset.resolve().stem,
        samples=samples,
        map_sets=first,
        evaluation=evaluation,
        summary=summary,
        notes=notes,
    )
    return evaluation.rows, summary


def _in_words(entry: dict[str, Any]) -> str:
    names = ("auroc_mean", "auprc_mean", "auroc_pooled", "auprc_pooled")
    auroc, auprc, *pooled = (number(entry[name], absent="none") for name in names)
    failed = f", {entry['failed']} failed" if entry["failed"] else ""
    return (
        f"{entry['images']} image{'s' * (entry['images'] != 1)}{failed}, "
        f"AUROC {auroc}, AUPRC {auprc} (pooled {' / '.join(pooled)})"
    )


def parse(arguments: Sequence[str]) -> Arguments:
    """Parses the command line; raises ConfigError."""
    own = {**DATASET_FLAGS, **dict.fromkeys(_OWN), "help_config": False}
    name, overrides, given = read_flags(arguments, own)
    config = with_overrides(load_config(name), overrides)
    configs: dict[str, Config] = {}
    methods = listed_words("--methods", given["methods"])
    seeds = listed_seeds("--seeds", given["seeds"])
    condition = _condition(given)
    if given["maps"] is None:
        methods, configs = methods_and_configs(methods or (DEFAULT_METHOD,), overrides)
        if condition.evaluate_at and "image_size" not in overrides:
            own_size = dataclasses.replace(config, image_size=0)
            configs |= {m: own_size for m in methods if not has_configuration(m)}
    else:
        methods = methods or ("maps",)
        if len(methods) > 1 or methods[0][0] == "." or set(methods[0]) & set("/\\"):
            raise ConfigError(
                f"--methods: found {given['methods']!r} with --maps; expected one name for the "
                f"maps, without slashes"
            )
        for flag in ("seeds", "noise", "missing", "noise_of_original"):
            if given[flag]:
                raise ConfigError(f"--{flag}: found with --maps; expected one of the two")
    return Arguments(
        config=config,
        configs=configs,
        methods=methods,
        seeds=seeds or (config.seed,),
        maps=Path(given["maps"]) if given["maps"] else None,
        condition=condition,
        every=whole_number("--every", given["every"]),
        help_config=given["help_config"],
        **dataset_values(given),
    )


def _condition(given: Mapping[str, Any]) -> Condition:
    values = given["missing_values"] or PLAIN.missing_values
    return Condition(
        evaluate_at=whole_number("--evaluate_at", given["evaluate_at"]),
        noise=level("--noise", given["noise"], top="1"),
        missing=level("--missing", given["missing"], top="0.99"),
        missing_values=one_of("--missing_values", values, get_args(MissingValues)),
        noise_of_original=level("--noise_of_original", given["noise_of_original"], top="1"),
    )


def help_text() -> str:
    """What `--help` prints."""
    return _USAGE.format(dataset=DATASET_HELP, **shared_help())


COMMAND = Command("ssdnet-evaluate", "scored images", help_text, parse, _run)
main, console = COMMAND.main, COMMAND.console
