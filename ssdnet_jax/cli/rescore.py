"""The `ssdnet-rescore` command: a finished run in, the same images scored otherwise out."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from ssdnet_jax.cli.commands import Command, Configured, exit_status
from ssdnet_jax.cli.flags import read_flags
from ssdnet_jax.config_files import DEFAULT_CONFIG, with_overrides
from ssdnet_jax.errors import ConfigError
from ssdnet_jax.methods.finished import FinishedSSDnet
from ssdnet_jax.runner import startup
from ssdnet_jax.runner.changes import without_changed
from ssdnet_jax.runner.lock import only_run_in
from ssdnet_jax.runner.rescore import FinishedRun, read_run, stored_sources
from ssdnet_jax.runner.run import Options, run, summary_line
from ssdnet_jax.runner.terminal import Terminal
from ssdnet_jax.runner.verdicts import write_verdicts
from ssdnet_jax.runner.workdir import open_workdir

_HELP = """\
ssdnet-rescore: score a finished run again, without fitting.

  ssdnet-rescore --run=out --workdir=again --config.score.patch_sizes=8,16
  ssdnet-rescore --run=out --workdir=again --config.score.alpha_rec=0 --config.score.alpha_perc=1

Flags:
  --run=DIR                    work folder of `ssdnet`
  --workdir=DIR                where the new results go, in the same layout
  --config.score.FIELD=VALUE   what is to be scored otherwise; --help_config lists the fields
  --vgg19_weights=PATH         as for `ssdnet`
  --help, --help_config        this text; the configuration's fields with their values

Exit status: 0 all images done, 1 some failed, 2 nothing could be started, 130 interrupted,
143 terminated. The same command again goes on.
"""


@dataclasses.dataclass(frozen=True)
class Arguments(Configured):
    """What the command line says; the configuration is that of the run, with what is changed."""

    finished: FinishedRun
    workdir: Path  # where the new results go
    vgg19_weights: str | None  # file of VGG19


def parse(arguments: Sequence[str]) -> Arguments:
    """Parses the command line and opens the run; raises ConfigError and InputError."""
    own = {"run": None, "workdir": None, "vgg19_weights": None, "help_config": False}
    name, overrides, given = read_flags(arguments, own)
    for flag in ("run",) if given["help_config"] else ("run", "workdir"):
        if not given[flag]:
            raise ConfigError(f"--{flag}: found none; expected a folder, see --help")
    if name != DEFAULT_CONFIG:
        raise ConfigError(f"--config: found {name!r}; expected none, the run has its own")
    for field in overrides:
        if not field.startswith("score."):
            raise ConfigError(
                f"--config.{field}: found a field that decides the fit; expected fields of score, "
                f"others need another run of ssdnet"
            )
    finished = read_run(Path(given["run"]))
    return Arguments(
        with_overrides(finished.config, overrides),
        given["help_config"],
        finished,
        Path(given["workdir"] or ""),
        given["vgg19_weights"],
    )


def _run(parsed: Arguments, terminal: Terminal, *, command: str) -> int:
    path, config, old = parsed.workdir, parsed.config, parsed.finished.workdir.path.resolve()
    if path.resolve() == old:
        raise ConfigError(f"--workdir: found the run's own folder {path}; expected another")
    startup.use_compilation_cache()
    note = {
        "command": command,
        "device": startup.device_name(),
        "seed": config.seed,
        "rescored": str(old),
    }
    root = parsed.finished.note["root"]
    method = startup.with_weights(
        FinishedSSDnet(config), vgg19_path=parsed.vgg19_weights, report=terminal.problem
    )
    sources = stored_sources(parsed.finished)
    with startup.stops_on_signals() as stop, only_run_in(path, terminal.problem):
        workdir = open_workdir(path, method, root=Path(root) if root else None, run=note)
        workdir = without_changed(workdir, sources, terminal, stop=stop)
        summary = run(method, sources, workdir, terminal, options=Options(stop=stop))
        verdicts = write_verdicts(workdir, config.image_size)
    terminal.summary(summary_line(summary, path, verdicts))
    return exit_status(summary)


COMMAND = Command("ssdnet-rescore", "finished images", lambda: _HELP, parse, _run)
main, console = COMMAND.main, COMMAND.console
