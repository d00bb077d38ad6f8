"""One run at a time in a work folder: a lock that ends with the process that holds it.

The lock is `flock(2)` on the file `.lock` in the folder, which the system releases however a
process ends, also by kill -9. On NFS Linux turns it into a lock of the server, which holds between
machines unless the share is mounted with `local_lock=flock` (man 5 nfs). Where a file system has no
locks the run goes on without one, and says so.
"""

import contextlib
import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ssdnet_jax.data.json_values import parse_json
from ssdnet_jax.errors import InputError
from ssdnet_jax.text import shortened

LOCK_FILE = ".lock"
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


@contextlib.contextmanager
def only_run_in(folder: Path, report: Callable[[str], None]) -> Iterator[None]:
    """Holds a work folder, which is made if it is not there, for as long as the context lasts.

    Args:
      folder: the work folder.
      report: told if the file system has no locks.

    Raises:
      InputError: another run holds it (says which), or the folder cannot be written.
    """
    path = folder / LOCK_FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = _held(path, report)
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be used as a work folder ({error.strerror or error}); "
            f"expected a folder that can be created and written"
        ) from error
    try:
        yield
    finally:
        # Removed while it is held: whoever waits for it then finds that it has gone.
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(descriptor)


def _held(path: Path, report: Callable[[str], None]) -> int:
    """The descriptor of the lock file, locked."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not _is_file(descriptor, path):  # its owner removed it just now
                os.close(descriptor)
                continue
            _write_owner(descriptor)
        except BlockingIOError as error:
            holder = _owner(path)
            os.close(descriptor)
            raise InputError(
                f"{path.parent}: another run is at work in it ({holder}); expected it to end, or "
                f"another --workdir"
            ) from error
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                os.close(descriptor)
                raise
            report(f"{path.parent}: no lock on this file system; do not start a second run in it")
        return descriptor


def _is_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _write_owner(descriptor: int) -> None:
    since = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    owner = {"host": socket.gethostname(), "process": os.getpid(), "since": since}
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(owner).encode(), 0)


def _owner(path: Path) -> str:
    """Who holds the lock, in words."""
    try:
        owner = parse_json(path.read_bytes()[:4096])
        words = f"host {owner['host']}, process {owner['process']}, since {owner['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "which one is not known"
    return shortened(words, 200)
