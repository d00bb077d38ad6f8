"""Named configurations: finding, running and checking files such as `configs/grid.py`."""

import difflib
import runpy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ssdnet_jax.config import Config, from_config_dict, to_config_dict
from ssdnet_jax.errors import ConfigError
from ssdnet_jax.text import shortened

DEFAULT_CONFIG = "auto"
CONFIG_FOLDERS = (
    Path(__file__).parent / "configs",  # installed
    Path(__file__).parent.parent / "configs",  # in the repository
)


def config_names() -> list[str]:
    """Names of the configurations that ship with the package."""
    return sorted(path.stem for path in config_folder().glob("*.py") if path.stem[0] != "_")


def config_folder() -> Path:
    """The folder of the shipped configurations."""
    return next(folder for folder in CONFIG_FOLDERS if (folder / f"{DEFAULT_CONFIG}.py").exists())


def config_path(name: str) -> Path:
    """The file of a shipped configuration, or of one given by path.

    Raises:
      ConfigError: there is neither.
    """
    path = Path(name)
    if path.suffix == ".py" and path.is_file():
        return path
    # `configs/grid.py` works from any folder, not only from the repository.
    if path.parent in (Path(), Path("configs")) and path.suffix in ("", ".py"):
        shipped = config_folder() / f"{path.stem}.py"
        if path.stem in config_names():
            return shipped
    near = difflib.get_close_matches(path.stem, config_names(), n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise ConfigError(
        f"--config: found no configuration {name!r}; expected {', '.join(config_names())} "
        f"or the path of a .py file{hint}"
    )


def load_config(name: str) -> Config:
    """Loads a configuration by name or path, as `--config=NAME` does.

    Raises:
      ConfigError: unknown name, a file that cannot be run, or values that are not legal.
    """
    path = config_path(name)
    values = returned_by(path, "get_config", expected="a ConfigDict")
    try:
        return from_config_dict(values)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def returned_by(path: Path, function: str, *, expected: str) -> Any:
    """What a function of a Python file returns, called without arguments.

    Args:
      path: the file, which is run.
      function: its name.
      expected: what it should return, in words.

    Raises:
      ConfigError: the file cannot be run, or has no such function.
    """
    try:
        called = runpy.run_path(str(path)).get(function)
        value = called() if callable(called) else None
    except Exception as error:  # the file is a program, anything can go wrong in it
        reason = shortened(str(error), 140)
        raise ConfigError(
            f"{path}: cannot be run ({type(error).__name__}: {reason}); expected a Python file "
            f"with a function {function}"
        ) from error
    if not callable(called):
        raise ConfigError(
            f"{path}: found no function {function}; expected one that returns {expected}"
        )
    return value


def with_overrides(config: Config, overrides: Mapping[str, Any]) -> Config:
    """The configuration with some fields, by dotted name, changed.

    Raises:
      ConfigError: a value or combination of values is not legal.
    """
    values = to_config_dict(config).to_dict()
    for name, value in overrides.items():
        *groups, field = name.split(".")
        group = values
        for inner in groups:
            group = group.setdefault(inner, {})
        group[field] = value
    return from_config_dict(values)
