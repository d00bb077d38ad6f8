"""What every command shares: help, one-line errors, exit statuses."""

import dataclasses
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from ssdnet_jax.cli.flags import config_help
from ssdnet_jax.config import Config
from ssdnet_jax.errors import SSDnetError, Stopped
from ssdnet_jax.runner.run import Summary
from ssdnet_jax.runner.terminal import Terminal

_HELP = {"-h", "-help", "--help", "--helpfull", "--helpshort"}


@dataclasses.dataclass(frozen=True)
class Configured:
    """What the command lines of commands that have a configuration say."""

    config: Config  # `--config` with its overrides applied, checked
    help_config: bool  # whether only the configuration's fields are asked for


@dataclasses.dataclass(frozen=True)
class Command:
    """A command, as Python calls it and as a process."""

    name: str
    kept: str  # what an interrupted command does not lose
    help_text: Callable[[], str]  # what `--help` prints
    parse: Callable[[Sequence[str]], Any]  # reads `sys.argv`, the program's name first
    run: Callable[
        ..., int
    ]  # of what `parse` gave, the terminal, and `command`, how to say it again

    def main(self, arguments: Sequence[str]) -> int:
        """Runs the command on `sys.argv`, or prints its help; returns its exit status.

        Errors that a user can mend are shown in one line, with status 2; status 143 says that the
        command was told to end.
        """
        if _HELP & set(arguments[1:]):
            print(self.help_text(), end="")
            return 0
        terminal = Terminal()
        try:
            parsed = self.parse(arguments)
            if isinstance(parsed, Configured) and parsed.help_config:
                print(config_help(parsed.config))
                return 0
            return self.run(parsed, terminal, command=shlex.join([self.name, *arguments[1:]]))
        except SSDnetError as error:
            terminal.problem(str(error))
            return 2
        except Stopped:
            terminal.summary("stopped before the end; the same command again goes on")
            return 143

    def console(self) -> NoReturn:
        """The installed program: exits with the status of `main`, 130 interrupted, 141 unread."""
        try:
            status = self.main(sys.argv)
            sys.stdout.flush()  # here, where a reader that has gone can still be noticed
            sys.exit(status)
        except BrokenPipeError:
            # Whoever read our output has closed it, as `head` does: leave without another word.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(141)
        except KeyboardInterrupt:
            print(f"\n{self.name}: interrupted; {self.kept} are kept", file=sys.stderr)
            sys.exit(130)


ANOMALOUS = 3  # exit status with --fail_on_anomaly


def exit_status(summary: Summary, *, anomalous: bool = False) -> int:
    """0 if all images of a run are done, 1 if some failed, 143 if it was told to end.

    Args:
      summary: of the run.
      anomalous: whether an image is anomalous and this is to show: then 3 instead of 0.
    """
    if summary.stopped:
        return 143
    if summary.failed:
        return 1
    return ANOMALOUS if anomalous else 0
