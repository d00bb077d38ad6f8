"""Writing files that appear whole or not at all; the user's cache folder."""

import os
import re
import shutil
import struct
import uuid
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from ssdnet_jax.errors import InputError

# Of TIFF 6.0: tags of where strips begin and how long they are, and the type of two bytes.
_OFFSETS, _BYTE_COUNTS, _SHORT = 273, 279, 3
_TAIL = 64  # bytes at a file's end that are looked at
_PROBE = 2**16  # bytes that are written to hear why others could not be
_TEMPORARY = re.compile(r"\.[0-9a-f]{32}\.tmp")


def write_atomically(path: str | os.PathLike[str], write: Callable[[BinaryIO], object]) -> None:
    """Lets `write` fill a temporary file beside `path`, then puts it in place in one step.

    A reader sees the old file or the whole new one, never a part. Parent folders are created.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{uuid.uuid4().hex}.tmp"
    try:
        with temporary.open("xb") as file:
            try:
                write(file)
            except OSError as error:
                if error.errno is None:  # of libraries, which do not say what the system said
                    os.pwrite(file.fileno(), bytes(_PROBE), os.fstat(file.fileno()).st_size)
                raise
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_bytes(path: str | os.PathLike[str], content: bytes | bytearray) -> None:
    """Writes a file of this content, as `write_atomically` does."""
    write_atomically(path, lambda file: file.write(content))


def real_path(path: str | os.PathLike[str]) -> Path:
    """The absolute path, links followed but those in a circle, of which `resolve` may raise."""
    return Path(os.path.realpath(path))


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


def remove_unfinished(folder: Path, *, recursive: bool) -> None:
    """Removes what `write_atomically` leaves in a folder when its process is killed.

    Only where no other process is writing.
    """
    for parent, folders, names in os.walk(folder):
        for name in filter(_TEMPORARY.fullmatch, names):
            Path(parent, name).unlink(missing_ok=True)
        if not recursive:
            folders.clear()


def is_whole(path: Path) -> bool:
    """Whether a file is there and, if it is a PNG, a TIFF, a zip archive or JSON, was not cut off.

    Looks at a few bytes, not at what is stored: a file that was written whole and damaged later
    may pass.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(8)
            file.seek(max(0, size - _TAIL))
            tail = file.read(_TAIL)
            if head == b"\x89PNG\r\n\x1a\n":
                return tail[-8:-4] == b"IEND"  # and the check sum of nothing
            if head.startswith(b"PK"):
                return tail[-22:-18] == b"PK\5\6"  # the directory's end, without a comment
            if head[:4] in (b"II*\0", b"MM\0*"):
                return _tiff_end(file, head) <= size
            if path.suffix == ".json":
                return tail.rstrip().endswith((b"}", b"]"))
    except (OSError, struct.error):
        return False
    return size > 0


def _tiff_end(file: BinaryIO, head: bytes) -> int:
    """How long a TIFF must at least be, by the places of the strips of its first image."""
    order = "<" if head.startswith(b"II") else ">"

    def read(place: int, kind: str) -> tuple[int, ...]:
        file.seek(place)
        return struct.unpack(f"{order}{kind}", file.read(struct.calcsize(f"{order}{kind}")))

    (start,) = struct.unpack(f"{order}I", head[4:8])
    (count,) = read(start, "H")
    strips: dict[int, tuple[int, ...]] = {}
    for entry in range(count):
        place = start + 2 + 12 * entry
        tag, kind, length = read(place, "HHI")
        if tag in (_OFFSETS, _BYTE_COUNTS):
            letter = "H" if kind == _SHORT else "I"
            inside = length * struct.calcsize(f"={letter}") <= 4
            where = place + 8 if inside else read(place + 8, "I")[0]
            strips[tag] = read(where, f"{length}{letter}")
    pairs = zip(strips.get(_OFFSETS, ()), strips.get(_BYTE_COUNTS, ()), strict=True)
    return max((offset + length for offset, length in pairs), default=start)


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


def exists(path: Path) -> bool:
    """Whether there is such a file or folder.

    Text of a flag or a table may be no path at all: nothing has a name that is too long, and what
    lies in a closed folder cannot be used either.
    """
    try:
        return path.exists()
    except OSError:
        return False


def is_file(path: Path) -> bool:
    """Whether there is such a regular file, likewise."""
    return exists(path) and path.is_file()


def check_no_pipe(path: Path, expected: str) -> None:
    """Raises InputError for a pipe or a device, of which reading would wait or never end."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise InputError(f"{path}: no regular file; {expected}")


def user_cache_folder() -> Path:
    """Where downloads are kept; the folder need not exist.

    `$SSDNET_CACHE`, else `$XDG_CACHE_HOME/ssdnet_jax`, else `~/.cache/ssdnet_jax`. A relative
    `XDG_CACHE_HOME` is ignored, as the XDG base directory specification asks.

    Raises:
      InputError: neither variable is set and the user has no home folder.
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
