"""The `ssdnet-evaluate` command: a labelled dataset in, metrics and a report out."""

import contextlib
import dataclasses
import resource
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from ssdnet_jax.cli.commands import Command, ConfiguredMethods
from ssdnet_jax.cli.datasets import DATASET_FLAGS, DATASET_HELP, DatasetArguments, dataset_values
from ssdnet_jax.cli.flag_values import level, listed_seeds, listed_words, one_of, whole_number
from ssdnet_jax.cli.flags import methods_and_configs, read_flags, shared_help
from ssdnet_jax.config import Config
from ssdnet_jax.config_files import load_config, with_overrides
from ssdnet_jax.data.datasets import AUTO, find_sets
from ssdnet_jax.data.files import exists, real_path
from ssdnet_jax.data.labels import summarized
from ssdnet_jax.data.layouts.sample import Sample
from ssdnet_jax.data.score_maps import find_own_map, put_maps
from ssdnet_jax.errors import ConfigError, InputError
from ssdnet_jax.evaluation.bootstrap import bin_pixels, with_intervals
from ssdnet_jax.evaluation.detection import with_detection
from ssdnet_jax.evaluation.evaluate import ALL, ImageMetrics, MapSet, evaluate, write_metrics_csv
from ssdnet_jax.evaluation.summary import Summary, summarize, write_summary
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
from ssdnet_jax.reports.sets import set_names, sets_table, write_sets_report
from ssdnet_jax.runner import startup
from ssdnet_jax.runner.executors import Executor, executing
from ssdnet_jax.runner.terminal import Terminal
from ssdnet_jax.runner.workdir import is_workdir, named_errors, versions_in_words
from ssdnet_jax.text import counted

_USAGE = """\
ssdnet-evaluate: how well are the defects of a labelled dataset found?

Scores every test image (what is scored already stays), compares the maps with the masks, and writes
tables and a report to look at.

  ssdnet-evaluate --dataset=mvtec --workdir=out                    all categories, seed 0
  ssdnet-evaluate --dataset=mvtec --workdir=out --categories=grid,tile --seeds=0,1,2
  ssdnet-evaluate --dataset=set.csv --workdir=out --methods=ssdnet:fabric,fca:border=corrected
  ssdnet-evaluate --dataset=mvtec --workdir=out --maps=theirs --methods=PaDiM
  ssdnet-evaluate --dataset=mvtec --workdir=out --only_defective --evaluate_at=256 --noise=0.05
  ssdnet-evaluate --dataset=mvtec,visa,kolektor --workdir=out --every=2 --offset=0   half of three

Flags:
{dataset}
  --dataset=A,B,C         several sets, or a folder of sets: each is evaluated into DIR/SET, and a
                          table compares them
  --every=N --offset=K    each N-th image from the K-th on (from 0), of the defective and of the
                          good ones apart: --every=2 --offset=0 is one half, --offset=1 the other
  --only_defective        good images are left out
  --methods=A,B           some of {methods};
                          ssdnet:NAME is SSDnet by the configuration NAME, fca:border=corrected a
                          baseline with an option; with --maps: what tables call the maps ("maps")
  --seeds=0,1,2           of what is random; without it the seed of the configuration
  --maps=DIR              evaluates raw maps instead of scoring, .tiff, .npy, .npz or grey .png of
                          the image's size, NaN where a pixel takes no part: DIR/IMAGE_PATH.tiff,
                          with or without the image's own suffix before it;
                          DIR/CATEGORY/test/DEFECT/NAME.tiff; or a work folder of ssdnet; of several
                          sets DIR/SET/, where there is one
  --resize_maps           maps of another size are resized to the image, not refused
  --evaluate_at=PIXELS    resizes image and mask to this square, scores that image and compares
                          there; baselines see it at this size unless --image_size is given;
                          without it maps are compared at the image's own size
  --noise=SIGMA           Gaussian noise on the image that is scored, whose values are in [0, 1]
  --missing=SHARE         pixels without a value in the image that is scored
  --missing_values=WORD   what baselines see of them: nearest, the nearest known value (default), or
                          zero; SSDnet inpaints them
  --noise_of_original=SIGMA   noise on the image before it is resized, as a camera makes it
  --uneven_light=LEVEL    light that falls to 1 - LEVEL at one end, with a highlight at the other
{config}
  --image_size=PIXELS     shorter side at which an image is analysed (256); 0: its own size
  --vgg19_weights=PATH    .npz, .safetensors or .pth of VGG19, for configurations that need it
{clip_weights}
  --false_alarms=RATE     share of good images that may be called anomalous (0.01): at this rate
                          detections are counted
{execution}
  --help, --help_config   this text; the configuration's fields with their values
  --version               the versions of this program and of what it computes with

Results in DIR:
  report.html             tables, box plots, curves, best and worst cases; one file, no network
  metrics.csv             AUROC, AUPRC, F1-max, AUPRO and seconds of each image
  summary.json            means, medians, pooled metrics by category and defect, over seeds, with
                          intervals of 95 % by bootstrap over images; detections; peak memory
  anomaly_maps/METHOD/    raw maps as MVTec AD's evaluation code reads them, of the first seed; of
                          images that were neither resized nor corrupted
  runs/METHOD/seedN/, runs/METHOD/at256-noise0.05/seedN/
                          what `ssdnet` writes: maps, heat maps, masks, results.csv, run.json

Exit status: 0 all images evaluated, 1 some failed, 2 nothing could be started, 130 interrupted,
143 terminated. The same command again goes on.
"""
_OWN = (
    *("methods", "seeds", "maps", "every", "offset", "evaluate_at"),
    *("noise", "missing", "missing_values", "noise_of_original", "uneven_light"),
)


@dataclasses.dataclass(frozen=True)
class Arguments(DatasetArguments, ConfiguredMethods):
    """What the command line says; None where a flag was not given."""

    sets: tuple[Path, ...]  # sets, or folders of them; `dataset` is the one that is evaluated
    methods: tuple[str, ...]  # as `methods.registry` has them, each once; with `maps` their name
    seeds: tuple[int, ...]  # each once
    maps: Path | None  # folder of existing maps, which have no seeds
    condition: Condition  # under which images are scored
    every: int  # each which image of the defective and of the good ones, 0: all
    offset: int  # from which one on, below `every`
    only_defective: bool  # whether good images are left out
    resize_maps: bool  # whether existing maps are brought to the size of their image

    @property
    def all_methods(self) -> tuple[str, ...]:
        """All of `--methods`; none where maps are given."""
        return () if self.maps else self.methods


@dataclasses.dataclass(frozen=True)
class _Setting:
    """What all sets of a command share."""

    command: str
    terminal: Terminal
    executor: Executor | None  # None where maps are given
    stop: Callable[[], bool]


def _run(parsed: Arguments, terminal: Terminal, *, command: str) -> int:
    sets = _sets(parsed)
    # All are read before anything is scored: a wrong one is told of at once.
    layouts: dict[str, str] = {}
    samples: dict[str, list[Sample]] = {}
    for name, each in sets.items():
        found: list[str] = []
        samples[name] = _chosen(each, each.samples(found.append))
        layouts[name] = "; ".join(found)
        for text in found:
            terminal.note(text)
    summaries, failed = {}, False
    with contextlib.ExitStack() as stack:
        if parsed.maps is None:
            executor = stack.enter_context(executing(parsed))
            setting = _Setting(command, terminal, executor, executor.options.stop)
        else:
            stop = stack.enter_context(startup.stops_on_signals())
            setting = _Setting(command, terminal, None, stop)
        for name, each in sets.items():
            rows, summaries[name] = _evaluate_set(each, samples[name], layouts[name], setting)
            failed |= any(row.status != "ok" for row in rows)
        if len(sets) > 1:
            with named_errors(parsed.workdir):
                _write_overview(parsed, summaries, setting)
    return 1 if failed else 0


def _sets(parsed: Arguments) -> dict[str, Arguments]:
    """The arguments of each set by its name; its results go to a folder of this name."""
    named = parsed.layout != AUTO or parsed.masks is not None  # then it is not a folder of sets
    paths = [p for given in parsed.sets for p in ([given] if named else find_sets(given))]
    paths = list(dict.fromkeys(paths))
    if len(paths) == 1:
        return {"": dataclasses.replace(parsed, dataset=paths[0])}
    try:
        names = set_names(paths)
    except ValueError as error:
        raise InputError(f"{error}; expected sets of different names") from None
    return {
        name: dataclasses.replace(
            parsed,
            dataset=path,
            workdir=parsed.workdir / name,
            maps=_maps_of(parsed.maps, name) if parsed.maps else None,
        )
        for name, path in zip(names, paths, strict=True)
    }


def _maps_of(folder: Path, name: str) -> Path:
    """The maps of a set: a folder of its name among those given, or what is given."""
    return folder / name if (folder / name).is_dir() else folder


def _chosen(parsed: Arguments, samples: Sequence[Sample]) -> list[Sample]:
    """The samples that `--every` and `--offset` choose, defective and good ones apart; in order."""
    bad = defective(samples) if parsed.only_defective else [s for s in samples if not s.good]
    good = [] if parsed.only_defective else [s for s in samples if s.good]
    step = parsed.every or 1
    chosen = [*bad[parsed.offset :: step], *good[parsed.offset :: step]]
    if not chosen:
        raise InputError(
            f"{parsed.dataset}: found no image from number {parsed.offset} on; expected a smaller "
            f"--offset"
        )
    return sorted(chosen, key=lambda sample: sample.relative)


def _evaluate_set(
    parsed: Arguments, samples: Sequence[Sample], layout: str, setting: _Setting
) -> tuple[Sequence[ImageMetrics], dict[str, Any]]:
    """Scores and evaluates one set, and writes what is to be said of it."""
    terminal, executor = setting.terminal, setting.executor
    notes = {"Command": setting.command, "Dataset": str(parsed.dataset)}
    if layout:
        notes["Layout"] = layout
    notes["Images"] = parsed.condition.words or "as they are, compared at their own size"
    if parsed.every > 1:
        notes["Part"] = f"every {parsed.every}th image, from number {parsed.offset} on"
    memory: dict[str, float] = {}
    if executor is not None:
        context = parsed.context(terminal, executor, setting.command)
        map_sets = _scored_maps(parsed, samples, context, memory)
        notes["Device"] = executor.device
    else:
        assert parsed.maps is not None
        map_sets = [_existing_maps(parsed, parsed.maps, samples)]
        notes["Maps"] = f"{parsed.maps}{', resized to the image' * parsed.resize_maps}"
    notes["Versions"] = versions_in_words()
    with named_errors(parsed.workdir):
        rows, summary = _evaluate(parsed, samples, map_sets, memory, notes, setting)
    details, report = (parsed.workdir / name for name in ("metrics.csv", "report.html"))
    show_problems([(row.path, row.error) for row in rows], details, terminal)
    for line in summarized((row.path, each) for row in rows for each in row.notes):
        terminal.problem(line)
    for method, entries in summary.items():
        terminal.summary(f"{method}: {_in_words(entries[ALL])}; report in {report}")
    return rows, summary


def _write_overview(parsed: Arguments, summaries: Mapping[str, Summary], setting: _Setting) -> None:
    """Writes and shows what the sets have in common."""
    write_summary(parsed.workdir / "summary.json", summaries)
    write_sets_report(
        parsed.workdir / "report.html",
        summaries,
        folders={name: name for name in summaries},
        notes={
            "Command": setting.command,
            "Images": parsed.condition.words or "as they are, compared at their own size",
            "Stated rate of false alarms": f"{parsed.config.decision.false_alarms:g}",
            "Versions": versions_in_words(),
        },
    )
    setting.terminal.summary("")
    for line in sets_table(summaries):
        setting.terminal.summary(line)
    setting.terminal.summary(f"report in {parsed.workdir / 'report.html'}")


def _existing_maps(parsed: Arguments, folder: Path, samples: Sequence[Sample]) -> MapSet:
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; expected raw maps, for --maps")
    if is_workdir(folder):
        folder = folder / "maps"
    return MapSet(
        parsed.methods[0],
        None,
        find_own_map(folder, samples),
        size=parsed.condition.evaluate_at,
        resized=parsed.resize_maps,
        decision=parsed.config.decision,
        analysed=parsed.config.image_size,
    )


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
    setting: _Setting,
) -> tuple[Sequence[ImageMetrics], dict[str, Any]]:
    """Evaluates and writes everything but the work folders of the runs."""
    from ssdnet_jax.reports.report import write_report

    show = evaluating(setting.terminal, setting.stop)
    evaluation = evaluate(samples, map_sets, report=show)
    binned = bin_pixels(samples, map_sets, evaluation, report=show)
    stated = parsed.config.decision.false_alarms
    summary = with_intervals(summarize(evaluation), evaluation, binned)
    summary = with_detection(summary, evaluation.rows, stated)
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
        name=real_path(parsed.dataset).stem,
        samples=samples,
        map_sets=first,
        evaluation=evaluation,
        summary=summary,
        notes=notes,
        stated=stated,
    )
    return evaluation.rows, summary


def _in_words(entry: dict[str, Any]) -> str:
    names = ("auroc_mean", "auprc_mean", "auroc_pooled", "auprc_pooled")
    auroc, auprc, *pooled = (number(entry[name], absent="none") for name in names)
    failed = f", {entry['failed']} failed" if entry["failed"] else ""
    return (
        f"{counted(entry['images'], 'image')}{failed}, "
        f"AUROC {auroc}, AUPRC {auprc} (pooled {' / '.join(pooled)})"
    )


def parse(arguments: Sequence[str]) -> Arguments:
    """Parses the command line; raises ConfigError."""
    switches = dict.fromkeys(("only_defective", "resize_maps", "help_config"), False)
    own = {**DATASET_FLAGS, **dict.fromkeys(_OWN), **switches, "dataset": ()}
    name, overrides, given = read_flags(arguments, own)
    sets = _listed_sets(given["dataset"])
    given["dataset"] = str(sets[0]) if sets else None
    every, offset = _part(given)
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
        for flag in ("seeds", "noise", "missing", "noise_of_original", "uneven_light"):
            if given[flag]:
                raise ConfigError(f"--{flag}: found with --maps; expected one of the two")
    if given["resize_maps"] and not given["maps"]:
        raise ConfigError("--resize_maps: found alone; expected --maps too")
    return Arguments(
        sets=sets,
        config=config,
        configs=configs,
        methods=methods,
        seeds=seeds or (config.seed,),
        maps=Path(given["maps"]) if given["maps"] else None,
        condition=condition,
        every=every,
        offset=offset,
        only_defective=given["only_defective"],
        resize_maps=given["resize_maps"],
        help_config=given["help_config"],
        **dataset_values(given),
    )


def _listed_sets(texts: Sequence[str]) -> tuple[Path, ...]:
    """The paths of --dataset, which may be given several times, or with commas between."""
    paths: list[Path] = []
    for text in texts:
        words = (text,) if exists(Path(text)) else listed_words("--dataset", text) or ()
        paths += map(Path, words)
    return tuple(dict.fromkeys(paths))


def _part(given: Mapping[str, Any]) -> tuple[int, int]:
    """The values of --every and --offset."""
    every, text = whole_number("--every", given["every"]), given["offset"] or "0"
    numbers = tuple(map(str, range(every or 1)))
    if text not in numbers:
        raise ConfigError(
            f"--offset: found {text!r}; expected a whole number from 0, below that of --every"
        )
    return every, int(text)


def _condition(given: Mapping[str, Any]) -> Condition:
    values = given["missing_values"] or PLAIN.missing_values
    return Condition(
        evaluate_at=whole_number("--evaluate_at", given["evaluate_at"]),
        noise=level("--noise", given["noise"], top="1"),
        missing=level("--missing", given["missing"], top="0.99"),
        missing_values=one_of("--missing_values", values, get_args(MissingValues)),
        noise_of_original=level("--noise_of_original", given["noise_of_original"], top="1"),
        uneven_light=level("--uneven_light", given["uneven_light"], top="1"),
    )


def help_text() -> str:
    """What `--help` prints."""
    return _USAGE.format(dataset=DATASET_HELP, **shared_help())


COMMAND = Command("ssdnet-evaluate", "scored images", help_text, parse, _run)
main, console = COMMAND.main, COMMAND.console
