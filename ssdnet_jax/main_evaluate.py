"""The `ssdnet-evaluate` command: a labelled dataset in, metrics and a report out."""

import contextlib
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ssdnet_jax.commands import run_parsed, run_process
from ssdnet_jax.data.datasets import Sample
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
from ssdnet_jax.evaluation.flags import Arguments, help_text, parse
from ssdnet_jax.evaluation.map_files import find_map, put_maps
from ssdnet_jax.evaluation.reproduce import is_random
from ssdnet_jax.evaluation.scoring import (
    Context,
    read_samples,
    score_dataset,
    show_problems,
    stop_if_asked,
    with_seed,
)
from ssdnet_jax.runner import processes
from ssdnet_jax.runner.methods import Executor, executing
from ssdnet_jax.runner.terminal import Terminal, line_size, one_line
from ssdnet_jax.runner.workdir import is_workdir, named_errors, versions

if TYPE_CHECKING:
    from tqdm import tqdm


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
            stop = stack.enter_context(processes.stops_on_sigterm())
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
    configs = [with_seed(parsed.config, seed) for seed in parsed.seeds]
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
            config,
            parsed.workdir / "runs" / method / f"seed{config.seed}",
            context,
            method=method,
        )
        for method in parsed.methods
        # What draws no random numbers gives the same maps with every seed.
        for config in (configs if is_random(method) else configs[:1])
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
    from ssdnet_jax.evaluation.report import write_report

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
