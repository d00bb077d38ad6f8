"""Opening a finished run, so that its fits can be scored again."""

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ssdnet_jax.config import Config, from_config_dict
from ssdnet_jax.data.fits_file import StoredFits, read_fits
from ssdnet_jax.errors import InputError
from ssdnet_jax.runner.workdir import Workdir, is_workdir, read_rows


@dataclasses.dataclass(frozen=True)
class FinishedRun:
    """What a run left behind."""

    workdir: Workdir  # its folder; `finished` holds its rows
    config: Config  # its configuration
    note: Mapping[str, Any]  # all of its run.json


def read_run(path: Path) -> FinishedRun:
    """Opens the work folder of a run of SSDnet, without changing it.

    Raises:
      InputError: it is no such folder, or nothing in it is finished.
    """
    if not is_workdir(path):
        raise InputError(f"{path}: found no run.json with results.csv; expected a work folder")
    try:
        note = json.loads((path / "run.json").read_text(encoding="utf-8"))
        config = from_config_dict(note["config"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"{path / 'run.json'}: not written by ssdnet; expected its file"
        ) from error
    rows = {row.path: row for row in read_rows(path / "results.csv") if row.status == "ok"}
    if not rows:
        raise InputError(f"{path}: found no finished image; expected at least one")
    return FinishedRun(Workdir(path, rows), config, note)


def stored_sources(run: FinishedRun) -> dict[str, Callable[[], StoredFits]]:
    """Readers of the fits of a run, by image, for `methods.finished`."""
    paths = {relative: run.workdir.fit_path(relative) for relative in run.workdir.finished}
    return {relative: functools.partial(read_fits, path) for relative, path in paths.items()}
