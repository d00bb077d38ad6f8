"""A folder that grows: new images are scored as they come, until the command is told to end.

A file that is still being written waits until it has stayed the same from one look to the next. One
that has failed is tried again when it has changed. Compiled programs stay in the process.
"""

import time
from collections.abc import Callable, Mapping, Sequence

from ssdnet_jax.errors import InputError
from ssdnet_jax.runner.sources import FileSource, Reader, statuses

Status = tuple[tuple[tuple[int, ...], ...], str]  # of the files, and a hash of what was read before

_POLL_SECONDS = 1.0  # between two looks at the folder
_SHARE = 0.1  # of the time that looking, and what is done between images, may take
_MOST_AT_ONCE = 16  # images scored before the folder and the tables are looked at again


def watch(
    find: Callable[[], Mapping[str, Reader]],
    score: Callable[[Mapping[str, Reader]], None],
    finish: Callable[[], object],
    *,
    stop: Callable[[], bool],
    poll: float = _POLL_SECONDS,
) -> None:
    """Scores what comes, the oldest first, until `stop` says so.

    Args:
      find: the images that are there now, by name; may raise InputError where there is none.
      score: scores some of them, or finds that their contents are known.
      finish: brings tables of all results up to date; called when there is nothing to score, and
        between images as often as it takes a tenth of the time.
      stop: True ends the watch.
      poll: seconds between two looks at the folder.
    """
    seen: dict[str, Status] = {}
    scored: dict[str, Status] = {}
    due, last, cost = False, time.monotonic(), 0.0
    while not stop():
        began = time.monotonic()
        found = _found(find)
        settled = _settled(found, seen, scored)
        looked = time.monotonic() - began
        if settled:
            now = settled[:_MOST_AT_ONCE]
            score({name: found[name] for name in now})
            scored |= {name: seen[name] for name in now}
            due = True
        if due and (len(settled) <= _MOST_AT_ONCE or time.monotonic() - last > cost / _SHARE):
            began = time.monotonic()
            finish()
            due, last = False, time.monotonic()
            cost = last - began
        if len(settled) <= _MOST_AT_ONCE:
            _wait(max(poll, looked / _SHARE), stop)


def _found(find: Callable[[], Mapping[str, Reader]]) -> Mapping[str, Reader]:
    try:
        return find()
    except (InputError, OSError):  # nothing is there now, or a folder went while it was read
        return {}


def _settled(
    found: Mapping[str, Reader], seen: dict[str, Status], scored: Mapping[str, Status]
) -> Sequence[str]:
    """Images that have not changed since the last look and are not scored, the oldest first."""
    ready: list[tuple[int, str]] = []
    before = dict(seen)
    seen.clear()
    for name, source in found.items():
        if not isinstance(source, FileSource):
            continue
        try:
            status = (statuses(source), source.read_before)
        except InputError:  # it went just now
            continue
        seen[name] = status
        if status == before.get(name) and status != scored.get(name):
            ready.append((max(entry[3] for entry in status[0]), name))
    return [name for _, name in sorted(ready)]


def _wait(seconds: float, stop: Callable[[], bool]) -> None:
    end = time.monotonic() + seconds
    while not stop() and (left := end - time.monotonic()) > 0:
        time.sleep(min(0.1, left))
