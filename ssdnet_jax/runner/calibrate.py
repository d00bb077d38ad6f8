"""Known good images as a scale of scores: making a calibration of a work folder, and using one."""

import json
import math
from pathlib import Path

from ssdnet_jax.core.calibration import in_units
from ssdnet_jax.core.conformal import Calibration, peaks_by_position
from ssdnet_jax.data.calibration_file import read_calibration, write_calibration
from ssdnet_jax.data.score_maps import read_map
from ssdnet_jax.errors import ConfigError, InputError
from ssdnet_jax.methods.base import Method, scale_settings
from ssdnet_jax.runner.decisions import decisions
from ssdnet_jax.runner.workdir import Workdir, differences, named_errors, versions


def calibrate(method: Method, workdir: Workdir) -> Calibration:
    """Writes calibration.json of a work folder that holds good images only.

    Raises:
      InputError: no image is finished, or the file cannot be written.
    """
    peaks = {
        name: peaks_by_position(in_units(read_map(workdir.map_path(name))))
        for name, decided in decisions(workdir)
        if decided["score"] is not None  # none of its pixels takes part
    }
    if not peaks:
        raise InputError(f"{workdir.path}: found no finished image; expected good ones")
    path = calibration_path(workdir)
    with named_errors(workdir.path):
        write_calibration(
            path,
            peaks,
            method=method.name,
            settings=scale_settings(method),
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


def needed(false_alarms: float) -> int:
    """How many good images can guarantee this false-alarm rate."""
    return math.ceil(1 / false_alarms * (1 - 1e-12)) - 1
