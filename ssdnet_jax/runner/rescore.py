"""Opening a finished run, so that its fits can be scored again."""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ssdnet_jax.config import Config, from_config_dict
from ssdnet_jax.data.fits_file import read_fits
from ssdnet_jax.errors import ConfigError, InputError
from ssdnet_jax.methods.finished import FinishedSSDnet
from ssdnet_jax.runner.sources import FileSource
from ssdnet_jax.runner.workdir import Workdir, is_workdir, named_errors, read_note, read_rows


@dataclasses.dataclass(frozen=True)
class FinishedRun:
    """What a run left behind."""

    workdir: Workdir  # its folder; `finished` holds its rows
    config: Config  # its configuration
    note: Mapping[str, Any]  # all of its run.json


def read_run(path: Path) -> FinishedRun:
    """Opens the work folder of a run of SSDnet, without changing it.

    Raises:
      InputError: it is no such folder, a run of another method, nothing in it is finished, or its
        configuration is not legal (of another version of this package).
    """
    if not is_workdir(path):
        raise InputError(f"{path}: found no run.json with results.csv; expected a work folder")
    with named_errors(path):
        note = read_note(path)
    if note["method"] != FinishedSSDnet.name:
        raise InputError(
            f"{path}: found a run of {note['method']!r:.80}, which keeps no fits; expected one of "
            f"{FinishedSSDnet.name}"
        )
    try:
        config = from_config_dict(note["config"])
    except ConfigError as error:
        raise InputError(f"{path / 'run.json'}: {error}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"{path / 'run.json'}: not written by ssdnet; expected its file"
        ) from error
    rows = {row.path: row for row in read_rows(path / "results.csv") if row.status == "ok"}
    if not rows:
        raise InputError(f"{path}: found no finished image; expected at least one")
    return FinishedRun(Workdir(path, rows), config, note)


def stored_sources(run: FinishedRun) -> dict[str, FileSource]:
    """Readers of the fits of a run, by image, for `methods.finished`.

    They are known by the contents of the images that were fitted.
    """
    paths = {relative: run.workdir.fit_path(relative) for relative in run.workdir.finished}
    return {
        relative: FileSource(
            functools.partial(read_fits, path), path, known=run.workdir.finished[relative].origin
        )
        for relative, path in paths.items()
    }
