"""How images, masks and folders of a set are named and found."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ssdnet_jax.data.files import safe_relative
from ssdnet_jax.data.images import IMAGE_SUFFIXES, is_image_name
from ssdnet_jax.data.layouts.sample import Sample
from ssdnet_jax.errors import InputError

MASK_SUFFIXES = ("_mask", "", "_gt", "_GT", "_label", "_ground_truth")

_LONGEST_NAME = 255  # bytes, on the usual file systems


def by_name(paths: Iterable[Path]) -> dict[str, Path]:
    """Files by their path without its suffix; of several the first in `IMAGE_SUFFIXES` order."""
    ordered = sorted(paths, key=lambda path: IMAGE_SUFFIXES.index(path.suffix.lower()))
    return {path.with_suffix("").as_posix(): path for path in reversed(ordered)}


def most_common_suffix(stems: Iterable[str], named: Mapping[str, Path]) -> str | None:
    """The one of `MASK_SUFFIXES` by which the most images have a mask; None if there is no mask."""
    stems = list(stems)
    found = {suffix: sum(stem + suffix in named for stem in stems) for suffix in MASK_SUFFIXES}
    best = max(MASK_SUFFIXES, key=lambda suffix: found[suffix])
    return best if found[best] else None


def looked_for(stem: str) -> str:
    """What names of a mask were tried, for a message."""
    endings = ", ".join(suffix or "nothing" for suffix in MASK_SUFFIXES)
    return f"{stem} followed by one of: {endings}; then {' '.join(IMAGE_SUFFIXES)}"


def existing_folder(path: str | os.PathLike[str], expected: str) -> Path:
    """The absolute path of a folder that is there; raises InputError."""
    if not Path(path).is_dir():
        raise InputError(f"{path}: no such folder; {expected}")
    return absolute(Path(path))


def absolute(path: Path) -> Path:
    """Without "..", and links not followed: names stay those that the user knows."""
    return Path(os.path.normpath(path.absolute()))


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder that are not hidden, sorted; none where there is no such folder."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def subfolder(folder: Path, name: str) -> Path | None:
    """The folder of exactly this name, also where the file system takes upper for lower case."""
    return next((each for each in subfolders(folder) if each.name == name), None)


def images_in(folder: Path) -> list[Path]:
    """The images of a folder itself, sorted; none of a folder that is not there."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if is_image_name(p.name) and p.is_file())


def relative_name(written: Path, path: Path, folder: Path) -> str:
    """The name within a set of a file that a table in `folder` names.

    Its path from the folder; for one that lies elsewhere `_up/` for each `../` before a relative
    path, so that the whole may move, and `_root/` before an absolute path, so that the table may.
    """
    if path.is_relative_to(folder):
        return path.relative_to(folder).as_posix()
    if written.is_absolute():
        return Path("_root", *path.parts[1:]).as_posix()
    parts = Path(os.path.relpath(path, folder)).parts
    return Path(*("_up" if part == ".." else part for part in parts)).as_posix()


def checked_name(name: str, where: str, what: str) -> str:
    """The name of a category or defect from a table: results go to folders of this name.

    Raises:
      InputError: the name would lead out of a folder, or no folder can have it.
    """
    try:
        safe_relative(name)
    except InputError as error:
        raise InputError(f"{where}: {what}: {error}") from None
    longest = max(len(part.encode("utf-8", "surrogatepass")) for part in name.split("/"))
    if longest > _LONGEST_NAME:
        raise InputError(
            f"{where}: {what}: found a name of {longest} bytes; expected at most {_LONGEST_NAME}, "
            f"since folders of results get it"
        )
    return name


def chosen(root: Path, categories: Sequence[str] | None, found: Iterable[str]) -> set[str]:
    """The categories wanted, all for None; raises InputError for one that is not there."""
    found = set(found)
    unknown = sorted(set(categories or ()) - found)
    if unknown:
        raise InputError(
            f"{root}: found no category {', '.join(unknown)}; expected some of "
            f"{', '.join(sorted(found))}"
        )
    return found if categories is None else set(categories)


def in_order(samples: Iterable[Sample]) -> list[Sample]:
    """Sorted by their names within the set."""
    return sorted(samples, key=lambda sample: sample.relative)
