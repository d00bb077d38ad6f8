"""The `ssdnet-reproduce` command: a labelled dataset in, the paper's tables and figures out."""

from collections.abc import Sequence
from pathlib import Path

from ssdnet_jax.commands import run_parsed, run_process
from ssdnet_jax.data.datasets import Sample
from ssdnet_jax.errors import ConfigError
from ssdnet_jax.evaluation.reproduce import Results, defective, reproduce
from ssdnet_jax.evaluation.reproduce_flags import Arguments, help_text, parse
from ssdnet_jax.evaluation.reproduce_text import (
    Setting,
    curve_rows,
    table_rows,
    write_csv,
    write_json,
    write_markdown,
)
from ssdnet_jax.evaluation.scoring import Context, read_samples, show_problems
from ssdnet_jax.runner.methods import executing
from ssdnet_jax.runner.terminal import Terminal
from ssdnet_jax.runner.workdir import named_errors, versions


def main(arguments: Sequence[str]) -> int:
    """Runs the command on `sys.argv`; returns its exit status, which `--help` describes."""
    return run_parsed(arguments, "ssdnet-reproduce", help_text, parse, _run)


def console() -> None:
    """Entry point of the `ssdnet-reproduce` command; exits with its status."""
    run_process(main, "ssdnet-reproduce", "scored images")


def _run(parsed: Arguments, terminal: Terminal, *, command: str) -> int:
    for name in ("dataset", "workdir"):
        if not getattr(parsed, name):
            raise ConfigError(f"--{name}: found none; expected one, see --help")
    dataset, workdir = Path(parsed.dataset), Path(parsed.workdir)
    samples = read_samples(
        dataset,
        workdir,
        categories=parsed.categories,
        mask_suffix=parsed.mask_suffix,
        masks=parsed.masks,
    )
    samples = defective(samples)
    with executing(parsed) as executor:
        context = Context(
            dataset,
            terminal,
            executor,
            parsed.vgg19_weights,
            parsed.clip_weights,
            {"command": command},
        )
        results = reproduce(
            samples, parsed.protocol, parsed.config, workdir, context, configs=parsed.configs
        )
    facts = {"Command": command, "Dataset": str(dataset), "Device": executor.device}
    facts["Versions"] = ", ".join(f"{name} {number}" for name, number in versions().items())
    setting = Setting(
        name=dataset.resolve().stem,
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
    from ssdnet_jax.evaluation.reproduce_figures import write_figures

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
    failed = {
        (row.path, row.error)
        for evaluation in results.evaluations
        for row in evaluation.rows
        if row.status != "ok"
    }
    show_problems(sorted(failed), workdir / "reproduce.md", terminal)
    # The last row of a method is that of all categories.
    rows = table_rows(results.clean) if results.clean else []
    for method, row in {row["method"]: row for row in rows}.items():
        metrics = [f"{name.upper()} {_number(row[name])}" for name in ("auroc", "auprc")]
        images = f"{row['images']} image{'s' * (row['images'] != 1)}"
        failed_images = f", {row['failed']} failed" if row["failed"] else ""
        terminal.summary(f"{method}: {images}{failed_images}, {', '.join(metrics)}")
    terminal.summary(f"results in {workdir / 'reproduce.md'}")
    return 1 if failed or results.failures else 0


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"
