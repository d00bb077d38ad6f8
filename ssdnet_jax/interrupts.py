"""Ctrl-C while a command of this package is still being imported, which takes a second.

Importing this module has an effect where the process is one of these commands: Ctrl-C ends it
without a traceback until `interruptible` is called. Whoever imports the package otherwise, or has
given Ctrl-C a meaning, keeps their own way.
"""

import re
import signal
import sys
import threading
from pathlib import Path


def interruptible() -> None:
    """Ctrl-C raises KeyboardInterrupt again."""
    if _in_main_thread() and signal.getsignal(signal.SIGINT) == signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _is_command() -> bool:
    program = Path(sys.argv[0]).name if sys.argv else ""
    as_module = sys.orig_argv[1:3] == ["-m", "ssdnet_jax"]
    return as_module or bool(re.fullmatch(r"ssdnet(-\w+)?", program))


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


if (
    _is_command()
    and _in_main_thread()
    and signal.getsignal(signal.SIGINT) is signal.default_int_handler
):
    signal.signal(signal.SIGINT, signal.SIG_DFL)
