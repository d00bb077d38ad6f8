"""What every command shares: help, one-line errors, exit statuses."""

import os
import shlex
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn, Protocol, TypeVar

from ssdnet_jax.cli.flags import config_help
from ssdnet_jax.config import Config
from ssdnet_jax.errors import SSDnetError, Stopped
from ssdnet_jax.runner.run import Summary
from ssdnet_jax.runner.terminal import Terminal

_HELP = {"-h", "-help", "--help", "--helpfull", "--helpshort"}


def run_command(
    arguments: Sequence[str], help_text: Callable[[], str], body: Callable[[Terminal], int]
) -> int:
    """Prints the help if it is asked for, else runs `body`; returns the exit status.

    Errors that a user can mend are shown in one line, with status 2; status 143 says that the
    command was told to end.
    """
    if _HELP & set(arguments[1:]):
        print(help_text(), end="")
        return 0
    terminal = Terminal()
    try:
        return body(terminal)
    except SSDnetError as error:
        terminal.problem(str(error))
        return 2
    except Stopped:
        terminal.summary("stopped before the end; the same command again goes on")
        return 143


class Parsed(Protocol):
    """What a command line says; `config` is asked for by `--help_config`."""

    config: Config
    help_config: bool


P = TypeVar("P", bound=Parsed)


def run_parsed(
    arguments: Sequence[str],
    name: str,
    help_text: Callable[[], str],
    parse: Callable[[Sequence[str]], P],
    run: Callable[..., int],
) -> int:
    """`run_command` for a command that has a configuration; returns the exit status.

    Args:
      arguments: `sys.argv`, the program's name first.
      name: what the command is called.
      help_text: what `--help` prints.
      parse: reads the arguments.
      run: called with what they say, the terminal, and `command`, how to say it again.
    """

    def body(terminal: Terminal) -> int:
        parsed = parse(arguments)
        if parsed.help_config:
            print(config_help(parsed.config))
            return 0
        return run(parsed, terminal, command=shlex.join([name, *arguments[1:]]))

    return run_command(arguments, help_text, body)


def run_process(main: Callable[[Sequence[str]], int], name: str, kept: str) -> NoReturn:
    """Runs `main` on `sys.argv` and exits with its status; 130 when interrupted, 141 when unread.

    Args:
      main: the command.
      name: what it is called.
      kept: what an interrupted command does not lose.
    """
    try:
        status = main(sys.argv)
        sys.stdout.flush()  # here, where a reader that has gone can still be noticed
        sys.exit(status)
    except BrokenPipeError:
        # Whoever read our output has closed it, as `head` does: leave without another word.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except KeyboardInterrupt:
        print(f"\n{name}: interrupted; {kept} are kept", file=sys.stderr)
        sys.exit(130)


def exit_status(summary: Summary) -> int:
    """0 if all images of a run are done, 1 if some failed, 143 if it was told to end."""
    if summary.stopped:
        return 143
    return 1 if summary.failed else 0
