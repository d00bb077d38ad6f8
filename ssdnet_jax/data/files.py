"""Writing files that appear whole or not at all."""

import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


def write_atomically(path: str | os.PathLike[str], write: Callable[[BinaryIO], object]) -> None:
    """Lets `write` fill a temporary file beside `path`, then puts it in place in one step.

    A reader sees the old file or the whole new one, never a part. Parent folders are created.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{uuid.uuid4().hex}.tmp"
    try:
        with temporary.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def link_or_copy(source: Path, target: Path) -> None:
    """Puts a file under another name too: a hard link, or a copy where there can be none."""
    if target.exists() and target.samefile(source):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.parent / f".{uuid.uuid4().hex}.tmp"
    try:
        temporary.hardlink_to(source)
        temporary.replace(target)
    except OSError:  # another file system, or one without links
        temporary.unlink(missing_ok=True)
        with source.open("rb") as file:
            write_atomically(target, lambda copy: shutil.copyfileobj(file, copy))
