"""All methods by name, as commands take them: "ssdnet", "ssdnet:grid", "fca:border=corrected"."""

import ast
from pathlib import Path
from typing import Any

from ssdnet_jax.baselines import registry as baselines
from ssdnet_jax.config import Config
from ssdnet_jax.errors import ConfigError
from ssdnet_jax.methods.base import Method
from ssdnet_jax.methods.baseline import BaselineMethod
from ssdnet_jax.methods.ssdnet import SSDnet

DEFAULT_METHOD = "ssdnet"
METHODS = (DEFAULT_METHOD, *baselines.NAMES)


def split_method(text: str) -> tuple[str, str]:
    """A method's name and what follows its first colon, "" if nothing does.

    That is the name of a configuration for SSDnet, and options for baselines.
    """
    name, _, rest = text.partition(":")
    return name, rest


def has_configuration(text: str) -> bool:
    """Whether the method is one that a configuration changes."""
    return split_method(text)[0] == DEFAULT_METHOD


def run_folder(text: str) -> str:
    """What the folder of a method's runs is called, "ssdnet-grid" of "ssdnet:configs/grid.py"."""
    name, rest = split_method(text)
    rest = Path(rest).stem if has_configuration(text) else rest
    safe = "".join(c if c.isalnum() or c in "=+-._" else "_" for c in rest)
    return f"{name}-{safe}" if rest else name


def is_random(text: str) -> bool:
    """Whether a method gives another map with another seed."""
    return make_method(text, Config()).is_random


def make_method(text: str, config: Config) -> Method:
    """A method without its weights.

    Args:
      text: as commands take it. The configuration that SSDnet's names must have been loaded.
      config: SSDnet's; of it baselines take what `methods.baseline.BaselineMethod` says.

    Raises:
      ConfigError: there is no such method, or it does not have such options.
    """
    name, rest = split_method(text)
    if name not in METHODS:
        raise ConfigError(f"found the method {text!r}; expected one of {', '.join(METHODS)}")
    if name == DEFAULT_METHOD:
        return SSDnet(config)
    baseline = baselines.load_baseline(name)
    options = dict(_option(text, word) for word in rest.split(":") if word)
    for option in options:
        if option not in baseline.options:
            raise ConfigError(
                f"{text}: found the option {option!r} of {name}; expected one of "
                f"{', '.join(baseline.options)}"
            )
    return BaselineMethod(baseline, options, config)


def _option(text: str, word: str) -> tuple[str, Any]:
    name, equals, value = word.partition("=")
    if not equals:
        raise ConfigError(f"{text}: found {word!r}; expected OPTION=VALUE")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return name, value
