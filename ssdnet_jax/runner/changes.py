"""Which finished images of a work folder are still those that were scored.

A result belongs to the contents of a file: one whose file holds another image today, or has
another mask, is scored again; one whose file has gone is left out of verdicts.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping
from pathlib import Path

from ssdnet_jax.data.images import image_file
from ssdnet_jax.errors import InputError
from ssdnet_jax.runner.sources import FileSource, Origin, Reader, is_unchanged
from ssdnet_jax.runner.terminal import Terminal
from ssdnet_jax.runner.threads import read_ahead
from ssdnet_jax.runner.workdir import Row, Workdir, named_errors, write_rows

_AHEAD = 16  # files hashed before their turn
_SHOWN = 5  # images named one by one
_WORDS = {
    "changed": "its file or its mask has changed since it was scored",
    "unknown": "the contents that it was scored with are not recorded",
    "gone": "its file has gone, and it is left out of verdicts.csv (--keep_gone keeps it)",
}


def without_changed(
    workdir: Workdir,
    sources: Mapping[str, Reader],
    terminal: Terminal,
    *,
    locate: Callable[[str], FileSource] | None = None,
    keep_gone: bool = False,
    stop: Callable[[], bool] = lambda: False,
) -> Workdir:
    """The work folder with only those images finished whose files hold what was scored.

    Rewrites results.csv: without the images that have changed; with status "gone" for those whose
    file is not there, which are finished again when the same file comes back.

    Args:
      workdir: as it was opened.
      sources: the images of the run.
      terminal: told which images have changed or gone.
      locate: the files of an image that is not among the sources, whose row stays as it is without
        it.
      keep_gone: whether images that have gone stay finished.
      stop: True ends the comparison; what is not compared yet stays finished.
    """
    terminal.stage("comparing files with results")
    kept = dict(workdir.finished)
    states: dict[str, list[str]] = {"changed": [], "unknown": [], "gone": []}

    def state_of(name: str, row: Row) -> str:
        if stop():
            return "same"
        if name in sources or locate is None:
            return _state(row.origin, sources.get(name))
        origin = row.origin  # of its mask nothing is known here
        return _state(origin and dataclasses.replace(origin, mask_sha256=""), locate(name))

    looked_at = {n: row for n, row in kept.items() if locate is not None or n in sources}
    tasks = [functools.partial(state_of, *item) for item in looked_at.items()]
    with read_ahead(tasks, _AHEAD, stop=stop) as found:
        for (name, row), state in zip(looked_at.items(), found, strict=False):
            if state == "gone" and not keep_gone:
                kept[name] = dataclasses.replace(row, status="gone")
            elif state in ("same", "gone"):
                kept[name] = dataclasses.replace(row, status="ok")
                continue
            else:
                del kept[name]
            states[state].append(name)
    for state, told in _WORDS.items():
        inside = [name for name in states[state] if name in sources]
        outside = [name for name in states[state] if name not in sources]
        _say(terminal, inside, f"{told}{'' if state == 'gone' else '; it is scored again'}")
        _say(terminal, outside, f"{told}{'' if state == 'gone' else '; its result is dropped'}")
    if kept != workdir.finished:
        with named_errors(workdir.path):
            write_rows(workdir.path, kept.values())
    finished = {name: row for name, row in kept.items() if row.status == "ok"}
    return dataclasses.replace(workdir, finished=finished)


def _state(recorded: Origin | None, source: Reader | None) -> str:
    """One of "same" and the keys of `_WORDS`; what is no file is always the same."""
    if not isinstance(source, FileSource):
        return "same"
    if source.known is None and not source.image.exists():
        return "gone"
    if recorded is None:
        return "unknown"
    try:
        return "same" if is_unchanged(recorded, source) else "changed"
    except (InputError, OSError):  # scoring it again will say what is the matter
        return "changed"


def _say(terminal: Terminal, names: list[str], what: str) -> None:
    for name in itertools.islice(names, _SHOWN):
        terminal.problem(f"{name}: {what}")
    if len(names) > _SHOWN:
        terminal.problem(f"{len(names) - _SHOWN} more images: the same ({what})")


def below(root: Path) -> Callable[[str], FileSource]:
    """Where images lie that are named by their paths below a folder; for `locate`."""
    # Their masks are not known here.
    return lambda name: FileSource(_never_read, image_file(root / name))


def _never_read() -> None:
    raise AssertionError("an image of another input is only compared")
