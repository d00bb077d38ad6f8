"""How much memory this process may use: the machine's, or less where a container limits it."""

import os
import resource
from pathlib import Path, PurePosixPath

_UNKNOWN = 4 * 2**30  # bytes of a small machine, where the system does not say
_CGROUPS = Path("/sys/fs/cgroup")
_OF_PROCESS = Path("/proc/self/cgroup")


def memory_limit(cgroups: Path = _CGROUPS, of_process: Path = _OF_PROCESS) -> int:
    """Bytes that this process may use.

    The least of the machine's memory, of a limit of the process's own (`ulimit -v`), and of the
    limits of the control groups that the process is in, of version 1 or 2, and of those above them
    (https://docs.kernel.org/admin-guide/cgroup-v2).

    Args:
      cgroups: where control groups are mounted.
      of_process: the file that says in which of them the process is.
    """
    try:
        machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        machine = _UNKNOWN
    limits = [_limit_in(path) for path in _limit_files(cgroups, of_process)]
    own, _ = resource.getrlimit(resource.RLIMIT_AS)
    limits.append(None if own == resource.RLIM_INFINITY else own)
    return min([machine, *(limit for limit in limits if limit is not None)])


def _limit_files(cgroups: Path, of_process: Path) -> list[Path]:
    try:
        lines = of_process.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    files: list[Path] = []
    for line in lines:
        if line.count(":") < 2:
            continue
        _, _, rest = line.partition(":")
        controllers, _, name = rest.partition(":")
        if not controllers:  # version 2
            folders, file = [cgroups, cgroups / "unified"], "memory.max"
        elif "memory" in controllers.split(","):
            folders, file = [cgroups / "memory"], "memory.limit_in_bytes"
        else:
            continue
        # Within a container a group's name may be that outside of it, and its folder the root.
        path = PurePosixPath(name.lstrip("/"))
        files += [folder / each / file for folder in folders for each in (path, *path.parents)]
    return files


def _limit_in(file: Path) -> int | None:
    try:
        return int(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # there is none, or it says "max"
        return None
