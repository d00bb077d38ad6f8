"""Decisions on disk, decisions/PATH.json: what was decided of an image, read and checked."""

import dataclasses
import math
from pathlib import Path
from typing import Any, get_args

from ssdnet_jax.core.decision import Verdict
from ssdnet_jax.core.defects import Defect
from ssdnet_jax.data.json_values import parse_json
from ssdnet_jax.errors import InputError

Json = dict[str, Any]
DEFECT_FIELDS = tuple(field.name for field in dataclasses.fields(Defect))
_SIDES = ("width", "height")
_VERDICTS = get_args(Verdict)
_MEASURES = ("score", "p_value", "false_alarms", "threshold", "calibrated_threshold")  # or null


def read_decision(path: Path) -> Json:
    """What is known of an image: its size, its verdict and score, its defects.

    Args:
      path: of the JSON file.

    Returns:
      `width` and `height` in pixels; `verdict` (`core.decision.Verdict`); `score`, `p_value`,
      `false_alarms`, `threshold`, `calibrated_threshold`, each None where it is not finite;
      `defects`, each with `DEFECT_FIELDS`, `runs` (COCO's run lengths) and `polygon` (rings of
      points).

    Raises:
      InputError: the file cannot be read, or is none that a run has written.
    """
    try:
        found = parse_json(path.read_bytes())
        if not _is_decision(found):
            raise ValueError("no decision")
        return found
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"{path}: found {reason}; expected the file of a finished image. Without the file the "
            f"same command scores the image again"
        ) from error


def is_decision_file(path: Path) -> bool:
    """Whether `read_decision` can read it."""
    try:
        read_decision(path)
    except InputError:
        return False
    return True


def _is_decision(found: Any) -> bool:
    return (
        isinstance(found, dict)
        and found.keys() >= {*_SIDES, *_MEASURES, "verdict", "defects"}
        and all(_is_count(found[name]) for name in _SIDES)
        and found["verdict"] in _VERDICTS
        and all(found[name] is None or _is_number(found[name]) for name in _MEASURES)
        and isinstance(found["defects"], list)
        and all(map(_is_defect, found["defects"]))
    )


def _is_defect(found: Any) -> bool:
    return (
        isinstance(found, dict)
        and found.keys() >= {*DEFECT_FIELDS, "runs", "polygon"}
        and all(_is_number(found[name]) for name in DEFECT_FIELDS)
        and isinstance(found["runs"], str)
        and isinstance(found["polygon"], list)
        and all(map(_is_ring, found["polygon"]))
    )


def _is_ring(found: Any) -> bool:
    return isinstance(found, list) and all(
        isinstance(point, list) and len(point) == 2 and all(map(_is_number, point))
        for point in found
    )


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _is_number(value: Any) -> bool:
    return _is_count(value) or (type(value) is float and math.isfinite(value))
