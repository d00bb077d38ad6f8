"""The `ssdnet-evaluate` command: a labelled dataset in, metrics and a report out."""

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssdnet_jax.cli.commands import run_parsed, run_process
from ssdnet_jax.cli.flag_values import listed_seeds, listed_words
from ssdnet_jax.cli.flags import (
    EXECUTION_FLAGS,
    execution_values,
    methods_and_configs,
    read_flags,
    shared_help,
)
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
from ssdnet_jax.experiments.scoring import (
    Context,
    read_samples,
    score_dataset,
    show_problems,
    stop_if_asked,
    with_seed,
)
from ssdnet_jax.methods.registry import DEFAULT_METHOD, is_random, make_method, run_folder
from ssdnet_jax.runner import startup
from ssdnet_jax.runner.executors import Execution, Executor, executing
from ssdnet_jax.runner.terminal import Terminal, line_size, one_line
from ssdnet_jax.runner.workdir import is_workdir, named_errors, versions

if TYPE_CHECKING:
    from tqdm import tqdm

_USAGE = """\
ssdnet-evaluate: how well are the defects of a labelled dataset found?

Scores every test image (what is scored already stays), compares the maps with the masks at the
image's own size, and writes tables and a report to look at.

  ssdnet-evaluate --dataset=mvtec --workdir=out                    all categories, seed 0
  ssdnet-evaluate --dataset=mvtec --workdir=out --categories=grid,tile --seeds=0,1,2
  ssdnet-evaluate --dataset=set.csv --workdir=out --config=fabric
  ssdnet-evaluate --dataset=mvtec --workdir=out --maps=theirs --methods=PaDiM

Flags:
  --dataset=PATH          folder in MVTec AD's layout (CATEGORY/test/DEFECT/NAME.png with
                          CATEGORY/ground_truth/DEFECT/NAME_mask.png), or a CSV with the columns
                          image,mask and, if wanted, category,defect
  --categories=A,B        only these; without it all
  --mask_suffix=TEXT      what a mask's name has after its image's name; without it found out
  --masks=DIR             for a --dataset that is a plain folder: that of the masks, which are
                          named as their images; images without one are good
  --workdir=DIR           where results go (needed)
  --methods=A,B           some of {methods};
                          with --maps: what to call the maps in tables ("maps")
  --seeds=0,1,2           of what is random; without it the seed of the configuration
  --maps=DIR              evaluates these raw maps instead of scoring: float .tiff, .npy or .npz of
                          the image's size at DIR/IMAGE_PATH.tiff, with or without the image's own
                          suffix before it; CATEGORY/test/DEFECT/NAME.tiff; or a folder of ssdnet
{config}
  --image_size=PIXELS     side of the square that is fitted (256); 0: the picture's own size
  --vgg19_weights=PATH    .npz, .safetensors or .pth of VGG19, for configurations that need it
{clip_weights}
{execution}
  --help, --help_config   this text; the configuration's fields with their values

Results in DIR:
  report.html             tables, box plots, curves, best and worst cases; one file, no network
  metrics.csv             AUROC, AUPRC, F1-max, AUPRO of each image
  summary.json            means, medians, pooled metrics by category and defect; over seeds
  anomaly_maps/METHOD/    raw maps as MVTec AD's evaluation code reads them (of the first seed)
  runs/METHOD/seedN/      what `ssdnet` writes: maps, heat maps, masks, results.csv, run.json

Exit status: 0 all images evaluated, 1 some failed, 2 nothing could be started, 130 interrupted,
143 terminated. The same command again goes on.
"""


@dataclasses.dataclass(frozen=True)
class Arguments(Execution):
    """What the command line says; None where a flag was not given.

    Attributes:
      config: `--config` with its overrides applied, checked.
      configs: by method, the configurations of those that name one of their own.
      dataset: folder or CSV.
      categories: the ones wanted.
      mask_suffix: what a mask's name has after its image's name.
      masks: folder of masks.
      workdir: where results go.
      methods: as `methods.registry` has them, each once; with `maps` the one name of the maps.
      seeds: each once; (None,) with `maps`, which have none.
      maps: folder of existing maps.
      vgg19_weights: file of VGG19.
      clip_weights: file of CLIP.
      help_config: whether only the configuration's fields are asked for.
    """

    config: Config
    configs: Mapping[str, Config]
    dataset: Path | None
    categories: tuple[str, ...] | None
    mask_suffix: str | None
    masks: str | None
    workdir: Path | None
    methods: tuple[str, ...]
    seeds: tuple[int | None, ...]
    maps: Path | None
    vgg19_weights: str | None
    clip_weights: str | None
    help_config: bool


def main(arguments: Sequence[str]) -> int:
    """Runs the command on `sys.argv`; returns its exit status, which `--help` describes."""
    return run_parsed(arguments, "ssdnet-evaluate", help_text, parse, _run)


def console() -> None:
    """Entry point of the `ssdnet-evaluate` command; exits with its status."""
    run_process(main, "ssdnet-evaluate", "scored images")


def _run(parsed: Arguments, terminal: Terminal, *, command: str) -> int:
    for name in ("dataset", "workdir"):
        if getattr(parsed, name) is None:
            raise ConfigError(f"--{name}: found none; expected one, see --help")
    samples = read_samples(
        parsed.dataset,
        parsed.workdir,
        categories=parsed.categories,
        mask_suffix=parsed.mask_suffix,
        masks=parsed.masks,
    )
    notes = {"Command": command, "Dataset": str(parsed.dataset)}
    with contextlib.ExitStack() as stack:
        if parsed.maps is None:
            executor = stack.enter_context(executing(parsed))
            map_sets = _scored_maps(parsed, samples, terminal, command, executor)
            notes["Device"], stop = executor.device, executor.options.stop
        else:
            map_sets = [_existing_maps(parsed)]
            notes["Maps"] = str(parsed.maps)
            stop = stack.enter_context(startup.stops_on_sigterm())
        notes["Versions"] = ", ".join(f"{name} {number}" for name, number in versions().items())
        with named_errors(parsed.workdir):
            rows, summary = _evaluate(parsed, samples, map_sets, notes, terminal, stop)
    problems = [(row.path, row.error) for row in rows]
    show_problems(problems, parsed.workdir / "metrics.csv", terminal)
    for method, entries in summary.items():
        report = parsed.workdir / "report.html"
        terminal.summary(f"{method}: {_in_words(entries[ALL])}; report in {report}")
    return 1 if any(row.status != "ok" for row in rows) else 0


def _existing_maps(parsed: Arguments) -> MapSet:
    folder = parsed.maps
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; expected raw maps, for --maps")
    if is_workdir(folder):
        folder = folder / "maps"
    return MapSet(parsed.methods[0], None, lambda sample: find_map(folder, sample))


def _scored_maps(
    parsed: Arguments,
    samples: Sequence[Sample],
    terminal: Terminal,
    command: str,
    executor: Executor,
) -> list[MapSet]:
    context = Context(
        parsed.dataset,
        terminal,
        executor,
        parsed.vgg19_weights,
        parsed.clip_weights,
        {"command": command},
    )
    return [
        score_dataset(
            samples,
            make_method(method, with_seed(parsed.configs.get(method, parsed.config), seed)),
            parsed.workdir / "runs" / run_folder(method) / f"seed{seed}",
            context,
            name=method,
        )
        for method in parsed.methods
        # What draws no random numbers gives the same maps with every seed.
        for seed in (parsed.seeds if is_random(method) else parsed.seeds[:1])
    ]


def _evaluate(
    parsed: Arguments,
    samples: Sequence[Sample],
    map_sets: Sequence[MapSet],
    notes: dict[str, str],
    terminal: Terminal,
    stop: Callable[[], bool],
) -> tuple[Sequence[ImageMetrics], dict[str, Any]]:
    """Evaluates and writes everything but the work folders of the runs."""
    from ssdnet_jax.reports.report import write_report

    terminal.note(f"evaluating {len(samples) * len(map_sets)} maps")
    with _bar(len(samples) * len(map_sets)) as bar:

        def show(name: str, done: int) -> None:
            stop_if_asked(stop)
            bar.update(done - bar.n)
            bar.set_postfix_str(one_line(name)[-40:])

        evaluation = evaluate(samples, map_sets, report=show)
    summary = summarize(evaluation)
    write_metrics_csv(parsed.workdir / "metrics.csv", evaluation.rows)
    write_summary(parsed.workdir / "summary.json", summary)
    first = [m for m in map_sets if m.seed == parsed.seeds[0]]
    for map_set in first:
        put_maps(parsed.workdir / "anomaly_maps" / map_set.method, samples, map_set.find)
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


def _bar(total: int) -> "tqdm":
    """A progress bar, on terminals only."""
    from tqdm import tqdm

    size = line_size(sys.stderr)
    return tqdm(total=total, disable=None, leave=False, position=0, unit=" maps", **size)


def _in_words(entry: dict[str, Any]) -> str:
    def number(name: str) -> str:
        return "none" if entry[name] is None else f"{entry[name]:.3f}"

    failed = f", {entry['failed']} failed" if entry["failed"] else ""
    return (
        f"{entry['images']} image{'s' * (entry['images'] != 1)}{failed}, "
        f"AUROC {number('auroc_mean')}, AUPRC {number('auprc_mean')} "
        f"(pooled {number('auroc_pooled')} / {number('auprc_pooled')})"
    )


def parse(arguments: Sequence[str]) -> Arguments:
    """Parses the command line.

    Args:
      arguments: `sys.argv`, the program's name first.

    Raises:
      ConfigError: an unknown flag or field, or an illegal value.
    """
    texts = [field.name for field in dataclasses.fields(Arguments)]
    texts = [n for n in texts if n not in ("config", "configs", "help_config", *EXECUTION_FLAGS)]
    own = {**dict.fromkeys(texts), **EXECUTION_FLAGS, "help_config": False}
    name, overrides, given = read_flags(arguments, own)
    config, configs = with_overrides(load_config(name), overrides), {}
    methods = listed_words("--methods", given["methods"])
    seeds = listed_seeds("--seeds", given["seeds"])
    if given["maps"] is None:
        methods, configs = methods_and_configs(methods or (DEFAULT_METHOD,), overrides)
        numbers: tuple[int | None, ...] = seeds or (config.seed,)
    else:
        methods = methods or ("maps",)
        if len(methods) > 1 or methods[0][0] == "." or set(methods[0]) & set("/\\"):
            raise ConfigError(
                f"--methods: found {given['methods']!r} with --maps; expected one name for the "
                f"maps, without slashes"
            )
        if seeds:
            raise ConfigError("--seeds: found with --maps; expected one of the two")
        numbers = (None,)
    return Arguments(
        config=config,
        configs=configs,
        dataset=_path(given["dataset"]),
        categories=listed_words("--categories", given["categories"]),
        mask_suffix=given["mask_suffix"],
        masks=given["masks"],
        workdir=_path(given["workdir"]),
        methods=methods,
        seeds=numbers,
        maps=_path(given["maps"]),
        vgg19_weights=given["vgg19_weights"],
        clip_weights=given["clip_weights"],
        help_config=given["help_config"],
        **execution_values(given),
    )


def help_text() -> str:
    """What `--help` prints."""
    return _USAGE.format(**shared_help())


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None
