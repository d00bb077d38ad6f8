"""JSON that comes from outside: parsed, and bounded in depth."""

import json
from typing import Any

_DEEPEST = 64  # lists and objects within one another; no file that is read here needs as many


def parse_json(text: str | bytes) -> Any:
    """The value that a JSON text has.

    What walks through a value, or shows it, may call itself for each level: a value that is nested
    without end would end the process there, if not in the parser.

    Raises:
      ValueError: no JSON, or nested too deeply.
    """
    try:
        found = json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    level = [found]
    for _ in range(_DEEPEST):
        level = [inner for outer in level for inner in _inside(outer) if _inside(inner)]
        if not level:
            return found
    raise ValueError("nested too deeply")


def _inside(value: Any) -> Any:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()
