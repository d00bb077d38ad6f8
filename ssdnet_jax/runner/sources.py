"""Images of a run, and to which contents a result belongs: size, time and SHA-256 of their files.

A name says little: the file of a finished image may hold another image today. What is decoded is
what was hashed: a file that changes between the two is read again.
"""

import dataclasses
import datetime
import functools
import hashlib
import os
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ssdnet_jax.data.images import DecodedImage, image_file, read_image
from ssdnet_jax.data.regions import Region, with_region
from ssdnet_jax.errors import InputError

Reader = Callable[[], Any]  # gives what a method prepares: a `DecodedImage`, or stored fits

_TRIES = 3  # to read a file that changes
# A file that was changed so shortly before may be changed again without another time stamp.
_COARSEST_CLOCK = 2 * 10**9  # nanoseconds, FAT's
_BLOCK = 2**20  # bytes


@dataclasses.dataclass(frozen=True)
class Origin:
    """The contents of the files that an image was read from."""

    size: int  # of the image's file, in bytes
    modified: str  # its time of last modification, UTC to the nanosecond
    sha256: str  # of the file, hexadecimal
    mask_sha256: str = ""  # of the file of its mask; several with blanks between; "" for none
    read: str = ""  # when the file was hashed, UTC to the nanosecond


@dataclasses.dataclass(frozen=True)
class FileSource:
    """A `Reader` of files, which is known by their contents."""

    reader: Reader  # decodes the files
    image: Path  # file of the image
    masks: tuple[Path, ...] = ()  # files that say which of its pixels do not count
    read_before: str = ""  # SHA-256 of another such file, which was read before the run
    known: Origin | None = None  # of what is read, where the image itself is not read

    def __call__(self) -> Any:
        """What the files hold now."""
        return self.reader()

    def origin(self) -> Origin:
        """Hashes the files; raises InputError if one cannot be read."""
        if self.known is not None:
            return self.known
        now = time.time_ns()
        status, digest = _hashed(self.image)
        modified = _utc(status.st_mtime_ns)
        return Origin(status.st_size, modified, digest, self.mask_sha256(), _utc(now))

    def mask_sha256(self) -> str:
        """Hashes the files of masks; raises InputError if one cannot be read."""
        found = [file_sha256(mask) for mask in self.masks]
        return " ".join(found + [self.read_before] * bool(self.read_before))


def file_sources(
    root: Path,
    relatives: Sequence[Path],
    masks: Mapping[Path, Path] | None = None,
    regions: Mapping[Path, Region] | None = None,
    region_files: Mapping[Path, Path] | None = None,
    *,
    polygons_sha256: str = "",
) -> dict[str, Reader]:
    """Readers of files below `root`, by posix path relative to it.

    Args:
      root: the folder.
      relatives: paths below it.
      masks: of missing pixels, for some of them (`data.datasets.missing_masks`).
      regions: that are not judged, for some of them (`data.regions.ignored_regions`).
      region_files: that regions are read from with their image (`data.regions.region_masks`).
      polygons_sha256: of the file that regions were read from before, if they are polygons.
    """
    masks, regions, region_files = masks or {}, regions or {}, region_files or {}
    sources: dict[str, Reader] = {}
    for path in relatives:
        mask, region = masks.get(path), regions.get(path)
        files = tuple(file for file in (mask, region_files.get(path)) if file is not None)
        sources[path.as_posix()] = FileSource(
            functools.partial(_read, root / path, mask, region),
            image_file(root / path),
            files,
            polygons_sha256 if region is not None else "",
        )
    return sources


def _read(path: Path, mask: Path | None, region: Region | None) -> DecodedImage:
    return with_region(read_image(path, missing_mask=mask), region)


def file_sha256(path: Path) -> str:
    """SHA-256 of what is in a file, hexadecimal; raises InputError if it cannot be read."""
    return _hashed(path)[1]


def read_with_origin(reader: Reader) -> tuple[Any, Origin | None]:
    """What a reader gives, and the contents that it was decoded from; None if it is no file.

    Raises:
      InputError: a file cannot be read, or changes for as long as it is looked at.
    """
    if not isinstance(reader, FileSource):
        return reader(), None
    if reader.known is not None:
        return reader(), reader.known
    for _ in range(_TRIES):
        before = statuses(reader)
        origin = reader.origin()
        try:
            value = reader()
        except Exception:
            if statuses(reader) == before:
                raise
            continue  # it is not what was hashed that cannot be read
        if statuses(reader) == before and (_settled(before) or _same(origin, reader.origin())):
            return value, origin
    raise InputError(f"{reader.image}: changes while it is read; expected a file that is complete")


def is_unchanged(recorded: Origin, source: FileSource) -> bool:
    """Whether files still hold what was recorded of them.

    An image is not hashed again if its size and time of modification are the recorded ones, the
    time has a fraction of a second, which no other file has by chance, and neither the file nor
    its entry in the folder was changed (ctime, which programs cannot set) for two seconds before it
    was hashed, nor since. Masks are always hashed.

    Raises:
      InputError: a file cannot be read.
    """
    if source.known is not None:
        return _same(recorded, source.known)
    if source.mask_sha256() != recorded.mask_sha256:
        return False
    found = _status(source.image)
    changed = max(found.st_mtime_ns, found.st_ctime_ns, source.image.lstat().st_ctime_ns)
    if (
        (found.st_size, _utc(found.st_mtime_ns)) == (recorded.size, recorded.modified)
        and found.st_mtime_ns % 10**9
        and _utc(changed + _COARSEST_CLOCK) < recorded.read
    ):
        return True
    return found.st_size == recorded.size and _hashed(source.image)[1] == recorded.sha256


def _same(one: Origin, other: Origin) -> bool:
    return (one.sha256, one.mask_sha256) == (other.sha256, other.mask_sha256)


def statuses(source: FileSource) -> tuple[tuple[int, ...], ...]:
    """What changes when a file is written to or another takes its place, of each file.

    Device, inode, size in bytes, times of modification and of change in nanoseconds. Raises
    InputError if a file is not there.
    """
    found = map(_status, (source.image, *source.masks))
    return tuple((s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for s in found)


def _settled(found: tuple[tuple[int, ...], ...]) -> bool:
    """Whether no file was changed so lately that its time stamp may be that of two contents."""
    return max(max(status[3:]) for status in found) + _COARSEST_CLOCK < time.time_ns()


def _status(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except OSError as error:
        raise InputError(_unreadable(path, error)) from error


def _hashed(path: Path) -> tuple[os.stat_result, str]:
    """The status of a regular file and the SHA-256 of what is in it."""
    try:
        # A pipe that nobody writes to would be waited for without end.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as f:
            status = os.fstat(f.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise InputError(f"{path}: found no ordinary file; expected an image")
            digest = hashlib.sha256()
            while block := f.read(_BLOCK):
                digest.update(block)
        return status, digest.hexdigest()
    except OSError as error:
        raise InputError(_unreadable(path, error)) from error


def _unreadable(path: Path, error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        what = "a link that leads nowhere" if path.is_symlink() else "no such file"
        return f"{path}: {what}; expected an image file"
    if isinstance(error, PermissionError):
        return f"{path}: no permission to read; expected a readable file"
    if isinstance(error, IsADirectoryError):
        return f"{path}: found a folder; expected an image file"
    return f"{path}: cannot be read ({error.strerror or error}); expected an image file"


def _utc(nanoseconds: int) -> str:
    """A time stamp as text whose order is that of time; years beyond 9999 are not told apart."""
    seconds, rest = divmod(nanoseconds, 10**9)
    seconds = min(max(seconds, -62135596800), 253402300799)
    day = datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=seconds)
    return f"{day.isoformat()}.{rest:09d}Z"
