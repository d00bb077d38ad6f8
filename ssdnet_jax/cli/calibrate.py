"""The `ssdnet-calibrate` command: known good images in, the scale of their scores out."""

import contextlib
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from ssdnet_jax.cli.commands import Command, Configured, exit_status
from ssdnet_jax.cli.flags import (
    EXECUTION_FLAGS,
    check_method,
    execution_values,
    read_flags,
    shared_help,
)
from ssdnet_jax.config_files import load_config, with_overrides
from ssdnet_jax.errors import ConfigError
from ssdnet_jax.methods.registry import DEFAULT_METHOD, make_method
from ssdnet_jax.runner import startup
from ssdnet_jax.runner.calibrate import calibrate, calibration_path, needed
from ssdnet_jax.runner.changes import below, without_changed
from ssdnet_jax.runner.executors import Execution, executing
from ssdnet_jax.runner.lock import only_run_in
from ssdnet_jax.runner.sources import file_sources
from ssdnet_jax.runner.terminal import Terminal
from ssdnet_jax.runner.workdir import open_workdir
from ssdnet_jax.text import counted

_USAGE = """\
ssdnet-calibrate: how high do known good images score?

Scores good images as `ssdnet` does and writes their scores to DIR/calibration.json. With it

  ssdnet --calibration=DIR/calibration.json --input=folder --workdir=out

calls no more than the stated share of good images anomalous, whatever their scores are, as long
as they are of the same kind (conformal p-values). Nothing is trained: only the scale is measured. A
false-alarm rate of 0.01 needs 99 good images, 0.05 needs 19. None of them may be among those that
are then judged. Where they show the same part or scene in the same place, and some positions are
high in all of them, these have higher thresholds; of other images thresholds hardly differ.

  ssdnet-calibrate --good=known_good --workdir=calibration

Flags:
  --good=PATH             folder or glob of good images, or one
  --workdir=DIR           where their results and calibration.json go
{config}
  --image_size=PIXELS     shorter side at which an image is analysed (256); 0: its own size
  --vgg19_weights=PATH    as for `ssdnet`
{clip_weights}
  --method=NAME           {methods};
                          a baseline may have options, as in fca:border=corrected
{execution}
  --help, --help_config   this text; the configuration's fields with their values
  --version               the versions of this program and of what it computes with

Exit status: 0 all images done, 1 some failed (the others are the calibration), 2 nothing could be
started, 130 interrupted, 143 terminated. The same command again goes on.
"""


@dataclasses.dataclass(frozen=True)
class Arguments(Execution, Configured):
    """What the command line says; None where a flag was not given."""

    good: str | None  # image, folder or glob
    workdir: str | None  # where results go
    vgg19_weights: str | None  # file of VGG19
    clip_weights: str | None  # file of CLIP
    method: str  # one of `METHODS`, with options as `methods.registry` has them

    @property
    def all_methods(self) -> tuple[str, ...]:
        """The one that the command runs."""
        return (self.method,)


def _run(parsed: Arguments, terminal: Terminal, *, command: str) -> int:
    for name, value in (("good", parsed.good), ("workdir", parsed.workdir)):
        if not value:
            raise ConfigError(f"--{name}: found none; expected a folder, see --help")
    path = Path(parsed.workdir or "")
    root, relatives = startup.find_inputs(parsed.good or "", path, report=terminal.problem)
    sources = file_sources(root, relatives)
    with contextlib.ExitStack() as stack:
        executor = stack.enter_context(executing(parsed))
        method = startup.with_weights(
            make_method(parsed.method, parsed.config),
            vgg19_path=parsed.vgg19_weights,
            clip_path=parsed.clip_weights,
            report=terminal.problem,
        )
        note = {"command": command, **executor.note, "seed": parsed.config.seed}
        stack.enter_context(only_run_in(path, terminal.problem))
        workdir = open_workdir(path, method, root=root, run=note)
        workdir = without_changed(
            workdir, sources, terminal, locate=below(root), stop=executor.options.stop
        )
        summary = executor.run(method, sources, workdir, terminal, options=executor.options)
    if summary.stopped:
        terminal.summary("stopped before the end; the same command again goes on")
        return exit_status(summary)
    calibration = calibrate(method, workdir, report=terminal.problem)
    known, stated = calibration.known, parsed.config.decision.false_alarms
    count, (low, high) = len(known.scores), calibration.levels
    text = counted(count, "good image")
    if summary.failed:
        text += f", {summary.failed} failed"
    text += f"; false-alarm rates from {known.least:.2g} are guaranteed"
    if known.least > stated:
        text += f" ({stated:g} needs {needed(stated)} good images)"
    text += f"; thresholds by position are {low:.2g} to {high:.2g} times their mean"
    terminal.summary(f"{text}; {calibration_path(workdir)}")
    return exit_status(summary)


def parse(arguments: Sequence[str]) -> Arguments:
    """Parses the command line, `--flag=value` or `--flag value`; raises ConfigError."""
    own = {
        **dict.fromkeys(("good", "workdir", "vgg19_weights", "clip_weights")),
        "method": DEFAULT_METHOD,
        **EXECUTION_FLAGS,
        "help_config": False,
    }
    name, overrides, given = read_flags(arguments, own)
    config = with_overrides(load_config(name), overrides)
    check_method("--method", given["method"], own_configuration=False)
    return Arguments(config=config, **{**given, **execution_values(given)})


def help_text() -> str:
    """What `--help` prints."""
    return _USAGE.format(**shared_help())


COMMAND = Command("ssdnet-calibrate", "finished images", help_text, parse, _run)
main, console = COMMAND.main, COMMAND.console
