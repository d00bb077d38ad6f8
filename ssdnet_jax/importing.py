"""What is different while a command of this package is still being imported, for most of a second.

Importing this module has two effects where the process is one of these commands, until `imported`
is called: Ctrl-C ends it without a traceback, and garbage is not collected. For others who import
the package nothing changes, and another handler of Ctrl-C stays.
"""

import gc
import re
import signal
import sys
import threading
from pathlib import Path


def imported() -> None:
    """Ctrl-C raises KeyboardInterrupt again; garbage is collected, among what is made from now on.

    The hundred thousand objects of JAX stay for good, and to go through them takes a tenth of a
    second each time.
    """
    gc.freeze()
    gc.enable()
    if _in_main_thread() and signal.getsignal(signal.SIGINT) == signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _is_command() -> bool:
    program = Path(sys.argv[0]).name if sys.argv else ""
    as_module = sys.orig_argv[1:3] == ["-m", "ssdnet_jax"]
    return as_module or bool(re.fullmatch(r"ssdnet(-\w+)?", program))


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


if _is_command() and _in_main_thread():
    gc.disable()
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
