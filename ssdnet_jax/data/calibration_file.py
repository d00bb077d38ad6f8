"""What is known of good images on disk: the file that `ssdnet-calibrate` writes."""

import base64
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ssdnet_jax.core.conformal import POSITIONS, Calibration
from ssdnet_jax.data.files import write_bytes
from ssdnet_jax.data.json_values import parse_json
from ssdnet_jax.errors import InputError

_FORMAT = 2
_SHAPE = (POSITIONS, POSITIONS)
_TYPE = np.dtype("<f4")


def write_calibration(
    path: Path,
    peaks: Mapping[str, np.ndarray],
    *,
    method: str,
    settings: Mapping[str, Any],
    contents: Mapping[str, str],
    note: Mapping[str, Any],
) -> None:
    """Writes a calibration, atomically.

    Args:
      path: JSON file.
      peaks: `core.conformal.peaks_by_position` of good images, by path; not all NaN.
      method: name of the method that scored them.
      settings: all that decides its scores.
      contents: of the same images, what tells one from another (`runner.workdir.Row.contents`).
      note: what else is worth knowing (versions); nobody reads it back.
    """
    content = {
        "format": _FORMAT,
        "method": method,
        "settings": settings,
        "scores": {name: float(np.expm1(np.nanmax(values))) for name, values in peaks.items()},
        "peaks": {name: _encoded(values) for name, values in peaks.items()},
        "contents": dict(contents),
        **note,
    }
    text = json.dumps(content, indent=1, allow_nan=False) + "\n"
    write_bytes(path, text.encode())


def read_calibration(path: str | os.PathLike[str]) -> Calibration:
    """Reads a calibration.

    Raises:
      InputError: there is no such file, or it is none that `ssdnet-calibrate` has written.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror or error}); expected the calibration.json "
            f"that ssdnet-calibrate has written"
        ) from error
    try:
        found = parse_json(content)
        if found["format"] != _FORMAT:
            raise ValueError(f"format {found['format']}")
        if not found["peaks"]:
            raise ValueError("no peaks")
        peaks = np.stack([_decoded(text) for text in found["peaks"].values()])
        if np.isinf(peaks).any() or np.isnan(peaks).all((1, 2)).any():
            raise ValueError("peaks that are not finite")
        method, settings = str(found["method"]), dict(found["settings"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        found_none = f"no field {error}" if isinstance(error, KeyError) else str(error)
        reason = " ".join(found_none.split())
        raise InputError(
            f"{path}: found no calibration ({reason}); expected the file that ssdnet-calibrate has "
            f"written"
        ) from error
    return Calibration(peaks, method, settings, hashlib.sha256(content).hexdigest())


def known_contents(path: str | os.PathLike[str]) -> frozenset[str]:
    """What `write_calibration` was told of the contents of the good images; raises InputError."""
    read_calibration(path)
    found = parse_json(Path(path).read_bytes()).get("contents")
    return frozenset(map(str, found.values())) - {""} if isinstance(found, dict) else frozenset()


def _encoded(values: np.ndarray) -> str:
    """Float32 numbers, row by row, little-endian, in base64."""
    return base64.b64encode(values.astype(_TYPE).tobytes()).decode()


def _decoded(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text, validate=True), _TYPE).reshape(_SHAPE)
