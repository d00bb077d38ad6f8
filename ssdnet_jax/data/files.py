"""Writing files that appear whole or not at all; the user's cache folder."""

import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from ssdnet_jax.errors import InputError


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


def safe_relative(*names: str) -> PurePosixPath:
    """A path below any folder, made of names from outside: of a table, an archive, a configuration.

    Args:
      names: parts of the path, which may hold slashes: "grid", "test", "a/b.png".

    Returns:
      The path without "." and doubled slashes.

    Raises:
      InputError: the path is empty or absolute, or holds ".." or a character NUL: below a folder
        it would name something else, or something outside.
    """
    for name in names:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\0" in name:
            shown = repr(name if len(name) <= 80 else f"{name[:79]}…")
            raise InputError(f"found {shown}; expected a relative path without '..'")
    path = PurePosixPath(*names)
    if not path.parts:
        raise InputError("found an empty path; expected one that names something")
    return path


def user_cache_folder() -> Path:
    """Where downloads are kept; the folder need not exist.

    `$SSDNET_CACHE`, else `$XDG_CACHE_HOME/ssdnet_jax`, else `~/.cache/ssdnet_jax`. A relative
    `XDG_CACHE_HOME` is ignored, as the XDG base directory specification asks.

    Raises:
        InputError: If neither variable is set and the user has no home folder.
    """
    try:
        if explicit := os.environ.get("SSDNET_CACHE"):
            return Path(explicit).expanduser()
        base = Path(os.environ.get("XDG_CACHE_HOME", ""))
        return (base if base.is_absolute() else Path.home() / ".cache") / "ssdnet_jax"
    except RuntimeError:
        raise InputError(
            "no cache folder: the home folder is unknown; set SSDNET_CACHE to a folder"
        ) from None


def write_to_cache(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """`write_atomically` into a cache folder, which is made private to the user (0700) if missing.

    Raises InputError if the folder or file cannot be written.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(path, write)
    except OSError as error:
        reason = error.strerror or error
        raise InputError(
            f"{path}: cannot be written ({reason}); "
            "expected a writable cache folder, set SSDNET_CACHE to choose another"
        ) from error
