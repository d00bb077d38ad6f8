"""The `ssdnet` command: flags in, work folder out."""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from ssdnet_jax import flags as command_flags
from ssdnet_jax.config import Config
from ssdnet_jax.errors import ConfigError, SSDnetError
from ssdnet_jax.runner import example, processes
from ssdnet_jax.runner.run import Summary, file_sources, run
from ssdnet_jax.runner.terminal import Terminal, duration
from ssdnet_jax.runner.workdir import command_line, open_workdir

METHODS = ("ssdnet",)


def main(arguments: Sequence[str]) -> int:
    """Runs the command; returns its exit status."""
    if any(a.lstrip("-") in ("help", "h", "helpfull", "helpshort") for a in arguments[1:]):
        print(command_flags.help_text(METHODS), end="")
        return 0
    list_fields = any(a.lstrip("-") == "help_config" for a in arguments[1:])
    arguments = [a for a in arguments if a.lstrip("-") != "help_config"]
    terminal = Terminal()
    try:
        values = flags.FlagValues()
        command_flags.define(values, methods=METHODS)
        config, values = command_flags.parse(values, arguments)
        if list_fields:
            print(command_flags.config_help(config))
            return 0
        return _run(config, values, terminal)
    except SSDnetError as error:
        terminal.problem(str(error))
        return 2


def _run(config: Config, values: flags.FlagValues, terminal: Terminal) -> int:
    if not values["workdir"].value:
        raise ConfigError("--workdir: found none; expected a folder for the results, see --help")
    workdir_path = Path(values["workdir"].value)
    pattern = values["input"].value
    sources = file_sources(*processes.find_inputs(pattern, workdir_path)) if pattern else None
    if pattern is None:
        terminal.note("no --input: running on the embedded example")
        sources = example.sources()
    processes.use_compilation_cache()
    device = processes.device_name()
    workdir = open_workdir(
        workdir_path,
        config,
        method=values["method"].value,
        run={"device": device, "seed": config.seed, "command": command_line(), "input": pattern},
    )
    vgg19 = processes.vgg19_weights(config, values["vgg19_weights"].value, terminal.problem)
    terminal.note(f"{len(sources)} image{'s' * (len(sources) != 1)} on {device}")
    summary = run(sources, config, workdir, terminal, vgg19=vgg19)
    if pattern is None and not summary.failed:
        terminal.summary(example.verdict(workdir))
    terminal.summary(_summary_line(summary, workdir_path))
    return 1 if summary.failed else 0


def _summary_line(summary: Summary, workdir: Path) -> str:
    parts = [f"{summary.finished} finished"]
    if summary.finished_before:
        parts.append(f"{summary.finished_before} finished before")
    if summary.failed:
        parts.append(f"{summary.failed} failed")
    return f"{', '.join(parts)} in {duration(summary.seconds)}; results in {workdir}"
