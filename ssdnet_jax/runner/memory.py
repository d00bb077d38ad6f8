"""How much memory this process may use: that of the machine, or less where it is limited."""

import contextlib
import os
import resource
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_SMALL = 4 * 2**30  # bytes, where nothing is known


def usable_memory(root: Path = Path("/")) -> int:
    """Bytes: the least of the machine's, a limit of the process's own, and its cgroups'.

    A container's limit is that of a cgroup (kernel documentation, admin-guide/cgroup-v2 and
    cgroup-v1/memory); a process in it sees the memory of the whole machine all the same.

    Args:
      root: where `proc` and `sys` are mounted.
    """
    limits = [*_of_machine(), *_of_process(), *_of_groups(root)]
    return min(limits, default=_SMALL)


def _of_machine() -> Iterator[int]:
    with contextlib.suppress(AttributeError, ValueError, OSError):
        yield os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _of_process() -> Iterator[int]:
    with contextlib.suppress(ValueError, OSError):
        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        if limit != resource.RLIM_INFINITY:
            yield limit


def _of_groups(root: Path) -> Iterator[int]:
    """Limits of the cgroups that the process is in, and of those that hold these."""
    mounted = root / "sys" / "fs" / "cgroup"
    with contextlib.suppress(OSError, ValueError):
        for line in (root / "proc" / "self" / "cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers == "":
                folder, name = mounted, "memory.max"
            elif "memory" in controllers.split(","):
                folder, name = mounted / "memory", "memory.limit_in_bytes"
            else:
                continue
            inside = PurePosixPath(path.lstrip("/"))
            # In a container the path may be the host's: its own group is then the mounted one.
            for group in (inside, *inside.parents):
                with contextlib.suppress(OSError, ValueError):
                    yield int((folder / group / name).read_text())  # "max" is no number
