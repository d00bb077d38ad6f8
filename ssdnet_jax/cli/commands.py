"""What every command shares: help, one-line errors, exit statuses."""

import atexit
import contextlib
import dataclasses
import io
import os
import shlex
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from ssdnet_jax.cli.flags import config_help
from ssdnet_jax.cli.idle_fields import idle_flags
from ssdnet_jax.config import Config
from ssdnet_jax.errors import OutputError, SSDnetError, Stopped
from ssdnet_jax.importing import imported
from ssdnet_jax.methods.registry import DEFAULT_METHOD
from ssdnet_jax.runner.run import Summary
from ssdnet_jax.runner.terminal import Terminal
from ssdnet_jax.runner.threads import hanging
from ssdnet_jax.runner.workdir import versions

_HELP = {"-h", "-help", "--help", "--helpfull", "--helpshort"}


@dataclasses.dataclass(frozen=True)
class Configured:
    """What the command lines of commands that have a configuration say."""

    config: Config  # `--config` with its overrides applied, checked
    help_config: bool  # whether only the configuration's fields are asked for

    @property
    def all_configs(self) -> tuple[Config, ...]:
        """Every configuration that the command runs."""
        return (self.config,)

    @property
    def all_methods(self) -> tuple[str, ...]:
        """Every method that the command runs, as `methods.registry` has them."""
        return (DEFAULT_METHOD,)


@dataclasses.dataclass(frozen=True)
class ConfiguredMethods(Configured):
    """The same of commands whose methods may name configurations of their own."""

    configs: Mapping[str, Config]  # by method, of those that name one

    @property
    def all_configs(self) -> tuple[Config, ...]:
        """The one of the command line, and those that methods name."""
        return (self.config, *self.configs.values())


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
        terminal = Terminal()
        try:
            if _HELP & set(arguments[1:]):
                terminal.page(self.help_text())
                return 0
            if "--version" in arguments[1:]:
                terminal.page("".join(f"{name} {text}\n" for name, text in versions().items()))
                return 0
            parsed = self.parse(arguments)
            if isinstance(parsed, Configured) and parsed.help_config:
                terminal.page(f"{config_help(parsed.config)}\n")
                return 0
            if isinstance(parsed, Configured):
                for line in idle_flags(
                    arguments[1:], parsed.all_configs, methods=parsed.all_methods
                ):
                    terminal.problem(line)
            return self.run(parsed, terminal, command=shlex.join([self.name, *arguments[1:]]))
        except OutputError as error:
            terminal.problem(str(error))
            return 1
        except SSDnetError as error:
            terminal.problem(str(error))
            return 2
        except OSError as error:  # of a path that a flag names, such as one that is too long
            if isinstance(error, BrokenPipeError) or not error.filename:
                raise
            terminal.problem(f"{error.filename}: {error.strerror}; expected another path")
            return 2
        except Stopped:
            terminal.summary("stopped before the end; the same command again goes on")
            return 143

    def console(self) -> NoReturn:
        """The installed program: exits with the status of `main`, 130 interrupted, 141 unread."""
        _open_streams()
        imported()
        try:
            status = self.main(sys.argv)
        except BrokenPipeError:
            status = 141  # whoever reads our output has closed it, as `head` does: without a word
        except KeyboardInterrupt:
            with contextlib.suppress(OSError):
                print(f"\n{self.name}: interrupted; {self.kept} are kept", file=sys.stderr)
            status = 130
        leave(status)


def _open_streams() -> None:
    """Makes the three standard streams safe to write to, whatever this process was given.

    One that is closed would give its number to the next file that is opened, into which libraries
    then write what is for the terminal. Characters that a stream's encoding lacks are spelled out.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def leave(status: int) -> NoReturn:
    """Ends the process; threads that hang, and output that cannot be written, do not keep it.

    What was registered to be done at the end is done, but the interpreter is not taken apart: with
    JAX in it that takes half a second.
    """
    _flush_streams()
    if hanging():
        os._exit(status)
    if any(not thread.daemon for thread in threading.enumerate()[1:]):
        sys.exit(status)  # which waits for them
    atexit._run_exitfuncs()
    _flush_streams()
    os._exit(status)


def _flush_streams() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            # Not again at the end of the interpreter, which would complain.
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


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
