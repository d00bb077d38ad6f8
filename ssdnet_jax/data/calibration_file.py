"""Scores of known good images on disk: the file that `ssdnet-calibrate` writes."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ssdnet_jax.core.conformal import Calibration
from ssdnet_jax.data.files import write_atomically
from ssdnet_jax.errors import InputError

_FORMAT = 1


def write_calibration(
    path: Path,
    scores: Mapping[str, float],
    *,
    method: str,
    settings: Mapping[str, Any],
    note: Mapping[str, Any],
) -> None:
    """Writes a calibration, atomically.

    Args:
      path: JSON file.
      scores: calibrated scores of good images, by path.
      method: name of the method that scored them.
      settings: all that decides its scores.
      note: what else is worth knowing (versions); nobody reads it back.
    """
    content = {
        "format": _FORMAT,
        "method": method,
        "settings": settings,
        "scores": dict(scores),
        **note,
    }
    text = json.dumps(content, indent=1, allow_nan=False) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))


def read_calibration(path: str | os.PathLike[str]) -> Calibration:
    """Reads a calibration.

    Raises:
      InputError: there is no such file, or it is none that `ssdnet-calibrate` has written.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror or error}); expected the file that "
            f"ssdnet-calibrate has written"
        ) from error
    try:
        found = json.loads(content)
        if found["format"] != _FORMAT:
            raise ValueError(f"format {found['format']}")
        scores = tuple(sorted(float(score) for score in found["scores"].values()))
        if not scores or not all(abs(score) < float("inf") for score in scores):
            raise ValueError("no finite scores")
        method, settings = str(found["method"]), dict(found["settings"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(
            f"{path}: found no calibration ({reason}); expected the file that ssdnet-calibrate has "
            f"written"
        ) from error
    return Calibration(scores, method, settings, hashlib.sha256(content).hexdigest())
