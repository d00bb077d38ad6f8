"""The `ssdnet` command: flags in, work folder out."""

from collections.abc import Sequence
from pathlib import Path

from ssdnet_jax.commands import exit_status, run_parsed
from ssdnet_jax.data.datasets import missing_masks
from ssdnet_jax.errors import ConfigError
from ssdnet_jax.flags import Arguments, help_text, parse
from ssdnet_jax.runner import example, processes
from ssdnet_jax.runner.methods import executing
from ssdnet_jax.runner.run import file_sources, summary_line
from ssdnet_jax.runner.terminal import Terminal
from ssdnet_jax.runner.verdicts import write_verdicts
from ssdnet_jax.runner.workdir import open_workdir


def main(arguments: Sequence[str]) -> int:
    """Runs the command on `sys.argv`; returns its exit status, which `--help` describes."""
    return run_parsed(arguments, "ssdnet", help_text, parse, _run)


def _run(parsed: Arguments, terminal: Terminal, *, command: str) -> int:
    if not parsed.workdir:
        raise ConfigError("--workdir: found none; expected a folder for the results, see --help")
    config, path = parsed.config, Path(parsed.workdir)
    missing = Path(parsed.missing) if parsed.missing else None
    if parsed.input is None:
        if missing:
            raise ConfigError("--missing: found without --input; expected both")
        terminal.note("no --input: running on the embedded example")
        root, sources = None, example.sources()
    else:
        root, relatives = processes.find_inputs(parsed.input, path, missing)
        masks = missing_masks(missing, relatives) if missing else {}
        sources = file_sources(root, relatives, masks)
    with executing(parsed, save_params=parsed.save_params) as executor:
        if parsed.method == "ssdnet":
            config = processes.settled(config, parsed.vgg19_weights, terminal.problem)
        note = {"command": command, "device": executor.device, "seed": config.seed}
        workdir = open_workdir(
            path, config, method=parsed.method, root=root, missing=missing, run=note
        )
        terminal.note(f"{len(sources)} image{'s' * (len(sources) != 1)} on {executor.device}")
        summary = executor.run_method(
            parsed.method,
            sources,
            config,
            workdir,
            terminal,
            vgg19_path=parsed.vgg19_weights,
            clip_path=parsed.clip_weights,
            options=executor.options,
        )
    if root is None and summary.finished + summary.finished_before:
        terminal.summary(example.verdict(workdir))
    verdicts = write_verdicts(workdir, config.image_size)
    terminal.summary(summary_line(summary, path, verdicts))
    return exit_status(summary)
