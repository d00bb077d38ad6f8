"""The `ssdnet-rescore` command: a finished run in, the same images scored otherwise out."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from ssdnet_jax.cli.commands import Command, Configured, exit_status
from ssdnet_jax.cli.flag_values import one_of
from ssdnet_jax.cli.flags import read_flags
from ssdnet_jax.config_files import DEFAULT_CONFIG, with_overrides
from ssdnet_jax.data.files import real_path
from ssdnet_jax.errors import ConfigError
from ssdnet_jax.methods.finished import FinishedSSDnet
from ssdnet_jax.runner import startup
from ssdnet_jax.runner.calibrate import calibrated, known_line
from ssdnet_jax.runner.changes import without_changed
from ssdnet_jax.runner.decisions import write_defects
from ssdnet_jax.runner.lock import only_run_in
from ssdnet_jax.runner.page import write_page
from ssdnet_jax.runner.record import HEATMAPS
from ssdnet_jax.runner.rescore import FinishedRun, read_run, stored_sources
from ssdnet_jax.runner.run import Options, run, summary_line
from ssdnet_jax.runner.terminal import Terminal
from ssdnet_jax.runner.verdicts import JUDGED_BY, write_verdicts
from ssdnet_jax.runner.workdir import open_workdir

_HELP = """\
ssdnet-rescore: score a finished run again, without fitting.

  ssdnet-rescore --run=out --workdir=again --false_alarms=0.05 --min_area=30
  ssdnet-rescore --run=out --workdir=again --config.score.tile_size=17
  ssdnet-rescore --run=grid --workdir=again --config.score.patch_sizes=8 (of the paper's setting)

Flags:
  --run=DIR                    work folder of `ssdnet`
  --workdir=DIR                where the new results go, in the same layout
  --config.score.FIELD=VALUE   what is to be scored otherwise; --help_config lists the fields
  --config.decision.FIELD=VALUE  what is to be decided otherwise of the scores; also --false_alarms,
                               --min_area, --max_defects as for `ssdnet`
  --calibration=FILE, --verdict=BY, --fail_on_anomaly  as for `ssdnet`
  --vgg19_weights=PATH         as for `ssdnet`
  --heatmaps=WHICH             of which images heat maps are written: all, anomalous or none
  --help, --help_config        this text; the configuration's fields with their values
  --version                    the versions of this program and of what it computes with

Exit status: 0 all images done, 1 some failed, 2 nothing could be started, 3 all done and some are
anomalous (only with --fail_on_anomaly), 130 interrupted, 143 terminated. The same command again
goes on.
"""


@dataclasses.dataclass(frozen=True)
class Arguments(Configured):
    """What the command line says; the configuration is that of the run, with what is changed."""

    finished: FinishedRun
    workdir: Path  # where the new results go
    vgg19_weights: str | None  # file of VGG19
    heatmaps: str  # of which images they are written
    calibration: str | None  # file of what known good images score
    verdict: str | None  # one of `JUDGED_BY`; None: chosen by how many images there are
    fail_on_anomaly: bool  # whether the exit status says that an image is anomalous


def parse(arguments: Sequence[str]) -> Arguments:
    """Parses the command line and opens the run; raises ConfigError and InputError."""
    own = {
        **dict.fromkeys(("run", "workdir", "vgg19_weights", "calibration", "verdict")),
        "heatmaps": HEATMAPS[0],
        "fail_on_anomaly": False,
        "help_config": False,
    }
    name, overrides, given = read_flags(arguments, own)
    for flag in ("run",) if given["help_config"] else ("run", "workdir"):
        if not given[flag]:
            raise ConfigError(f"--{flag}: found none; expected a folder, see --help")
    if name != DEFAULT_CONFIG:
        raise ConfigError(f"--config: found {name!r}; expected none, the run has its own")
    for field in overrides:
        if not field.startswith(("score.", "decision.")):
            raise ConfigError(
                f"--config.{field}: found a field that decides the fit; expected fields of score "
                f"or decision, others need another run of ssdnet"
            )
    if given["verdict"] is not None:
        one_of("--verdict", given["verdict"], JUDGED_BY)
    finished = read_run(Path(given["run"]))
    return Arguments(
        with_overrides(finished.config, overrides),
        given["help_config"],
        finished,
        Path(given["workdir"] or ""),
        given["vgg19_weights"],
        one_of("--heatmaps", given["heatmaps"], HEATMAPS),
        *(given[name] for name in ("calibration", "verdict", "fail_on_anomaly")),
    )


def _run(parsed: Arguments, terminal: Terminal, *, command: str) -> int:
    path, config, old = parsed.workdir, parsed.config, real_path(parsed.finished.workdir.path)
    if real_path(path) == old:
        raise ConfigError(f"--workdir: found the run's own folder {path}; expected another")
    startup.compute_in_float32()
    startup.use_compilation_cache()
    note = {
        "command": command,
        "device": startup.device_name(),
        "matmul_precision": startup.matmul_precision(),
        "seed": config.seed,
        "rescored": str(old),
    }
    root = parsed.finished.note["root"]
    method = startup.with_weights(
        FinishedSSDnet(config), vgg19_path=parsed.vgg19_weights, report=terminal.problem
    )
    if parsed.calibration:
        method = calibrated(method, Path(parsed.calibration))
    sources = stored_sources(parsed.finished)
    with startup.stops_on_signals() as stop, only_run_in(path, terminal.problem):
        workdir = open_workdir(path, method, root=Path(root) if root else None, run=note)
        workdir = without_changed(workdir, sources, terminal, stop=stop)
        options = Options(stop=stop, heatmaps=parsed.heatmaps)
        summary = run(method, sources, workdir, terminal, options=options)
        verdicts = write_verdicts(
            workdir, config.decision, by=parsed.verdict, calibrated=bool(parsed.calibration)
        )
        write_defects(workdir)
        write_page(workdir, verdicts.all, total=len(sources))
    if parsed.calibration and (known := known_line(workdir, Path(parsed.calibration))):
        terminal.problem(known)
    terminal.summary(summary_line(summary, path, verdicts))
    bad = parsed.fail_on_anomaly and bool(verdicts.anomalous)
    return exit_status(summary, anomalous=bad)


COMMAND = Command("ssdnet-rescore", "finished images", lambda: _HELP, parse, _run)
main, console = COMMAND.main, COMMAND.console
