"""Known good images as a scale of scores: making a calibration of a work folder, and using one."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ssdnet_jax.core.calibration import in_units
from ssdnet_jax.core.conformal import Calibration, peaks_by_position
from ssdnet_jax.data.calibration_file import (
    known_contents,
    read_calibration,
    write_calibration,
)
from ssdnet_jax.data.score_maps import read_map
from ssdnet_jax.errors import ConfigError, InputError
from ssdnet_jax.methods.base import Method, scale_settings
from ssdnet_jax.runner.decisions import decisions
from ssdnet_jax.runner.workdir import Workdir, differences, named_errors, read_rows, versions
from ssdnet_jax.text import counted, one_line


def calibrate(
    method: Method, workdir: Workdir, *, report: Callable[[str], None] = lambda text: None
) -> Calibration:
    """Writes calibration.json of a work folder that holds good images only.

    Copies of an image count once: what is guaranteed holds for so many images, not files.

    Args:
      method: that scored them.
      workdir: of their run.
      report: told of copies, in a line.

    Raises:
      InputError: no image is finished, or the file cannot be written.
    """
    rows = {row.path: row for row in read_rows(workdir.path / "results.csv")}
    peaks: dict[str, np.ndarray] = {}
    contents: dict[str, str] = {}
    first: dict[str, str] = {}  # by contents, the first image of them
    copies = []
    for name, decided in decisions(workdir):
        if decided["score"] is None:  # none of its pixels takes part
            continue
        known = rows[name].contents or f"{name} alone"
        if first.setdefault(known, name) != name:
            copies.append(name)
            continue
        peaks[name] = peaks_by_position(in_units(read_map(workdir.map_path(name))))
        contents[name] = rows[name].contents
    if not peaks:
        raise InputError(f"{workdir.path}: found no finished image; expected good ones")
    if copies:
        same = one_line(first[rows[copies[0]].contents])
        report(
            f"{len(copies)} of {len(copies) + len(peaks)} good images are copies of others "
            f"({one_line(copies[0])} of {same}), and do not count"
        )
    path = calibration_path(workdir)
    with named_errors(workdir.path):
        write_calibration(
            path,
            peaks,
            method=method.name,
            settings=scale_settings(method),
            contents=contents,
            note={"versions": versions()},
        )
    return read_calibration(path)


def calibration_path(workdir: Workdir) -> Path:
    """Where `calibrate` writes."""
    return workdir.path / "calibration.json"


def calibrated(method: Method, path: Path) -> Method:
    """The method with a calibration from a file.

    Raises:
      InputError: the file cannot be read.
      ConfigError: it was made by another method or other settings, or of too few good images for
        the false-alarm rate.
    """
    calibration = read_calibration(path)
    there = {"method": calibration.method, "config": calibration.settings}
    here = {"method": method.name, "config": json.loads(json.dumps(scale_settings(method)))}
    if found := differences(there, here):
        raise ConfigError(
            f"{path}: the good images were scored by other settings ({'; '.join(found)}); expected "
            f"the same, or a calibration made with these"
        )
    stated = method.config.decision.false_alarms
    known = calibration.known
    if not math.isfinite(known.threshold(stated)):
        raise ConfigError(
            f"--false_alarms: found {stated:g}; expected at least {known.least:.2g}, all "
            f"that the {len(known.scores)} good images of {path} can guarantee, or a "
            f"calibration of {needed(stated)} or more"
        )
    return method.with_calibration(calibration)


def known_line(workdir: Workdir, path: Path) -> str | None:
    """A line on images of a run that are among the good ones of its calibration; None without any.

    Each of them is compared with itself as well, so that it is hardly ever anomalous.
    """
    known = known_contents(path)
    rows = [row for row in read_rows(workdir.path / "results.csv") if row.status == "ok"]
    found = [row for row in rows if row.contents in known]
    if not found:
        return None
    return (
        f"{len(found)} of {counted(len(rows), 'image')} ({one_line(found[0].path)}"
        f"{', ...' * (len(found) > 1)}) are known good ones of the calibration, which says nothing "
        f"of them: each was compared with itself"
    )


def needed(false_alarms: float) -> int:
    """How many good images can guarantee this false-alarm rate."""
    return math.ceil(1 / false_alarms * (1 - 1e-12)) - 1
