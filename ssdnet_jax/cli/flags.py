"""Command-line flags: parsing, named configurations, readable help and one-line errors."""

import ast
import dataclasses
import difflib
import inspect
import io
import textwrap
import tokenize
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from absl import flags

from ssdnet_jax.cli.flag_values import check_results_folder, one_of, whole_number
from ssdnet_jax.config import Config, field_names, legal_words
from ssdnet_jax.config_files import (
    DEFAULT_CONFIG,
    config_names,
    config_path,
    load_config,
    with_overrides,
)
from ssdnet_jax.errors import ConfigError
from ssdnet_jax.methods.registry import (
    METHODS,
    has_configuration,
    make_method,
    run_folder,
    split_method,
)
from ssdnet_jax.runner.record import HEATMAPS
from ssdnet_jax.text import shortened

EXECUTORS = ("local", "ray")

# Flags that stand for a field of the configuration.
_SHORT = {
    "image_size": "image_size",
    "ground": "ground",
    "range": "range",
    "false_alarms": "decision.false_alarms",
    "min_area": "decision.min_area",
    "max_defects": "decision.max_defects",
}

# What is to be done where a flag is given several times that could mean several things.
_PATHS = "one: an image, a folder or a glob in quotes"
_LIST = "one, with commas between its values"
_EXPECTED_ONCE = {
    **dict.fromkeys(("input", "good"), _PATHS),
    **dict.fromkeys(("categories", "methods", "noise", "parts", "seeds"), _LIST),
}

# What several commands' help says of the same flags.
CONFIG_HELP = """\
  --config=NAME           {names},
                          or the path of a .py file; without it auto
  --config.FIELD=VALUE    any field of the configuration; --help_config lists them"""
CLIP_WEIGHTS_HELP = """\
  --clip_weights=PATH     .safetensors, .bin or .pt of OpenCLIP's ViT-B-16-plus-240, for winclip,
                          its vocabulary beside it; without it: $SSDNET_CLIP_WEIGHTS"""
DECISION_HELP = """\
  --false_alarms=RATE     share of good images that may be called anomalous (0.01)
  --min_area=PIXELS       smaller defects are left out (0)
  --max_defects=N         no more than the worst N of an image are listed (100); 0: all"""
EXECUTION_HELP = """\
  --lanes=N               images fitted at once by a device; by default what fits, on a CPU 1
  --devices=N             devices (of a CPU: cores) that share the images; by default all that fit
  --executor=NAME         local, or ray: over the devices of a Ray cluster
  --ray_address=ADDRESS   HOST:PORT of the cluster's head node, or auto; by default $RAY_ADDRESS,
                          this machine's cluster, or this machine alone
  --heatmaps=WHICH        of which images heat maps are written: all, anomalous or none"""
EXECUTION_FLAGS: dict[str, str | bool | None] = {
    "lanes": None,
    "devices": None,
    "executor": EXECUTORS[0],
    "ray_address": None,
    "heatmaps": HEATMAPS[0],
}


def read_flags(
    arguments: Sequence[str], own: Mapping[str, str | bool | tuple[str, ...] | None]
) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Parses a command's own flags beside those that make the configuration.

    The latter are `--config`, `--config.FIELD` and flags that stand for a field, such as
    `--image_size`, the same for every command.

    Args:
      arguments: `sys.argv`, the program's name first.
      own: the command's flags with their defaults, the one that names its input first. Those whose
        default is a truth value are switches, those with a tuple may be given several times, the
        others take text.

    Returns:
      The configuration's name; the fields given, by dotted name without "config." and not checked
      yet; the values of the command's own flags.

    Raises:
      ConfigError: an unknown flag or field (names the nearest valid one), two values for one flag,
        or a work folder that holds all that a user has.
    """
    values = flags.FlagValues()
    texts: dict[str, str | None] = {"config": DEFAULT_CONFIG}
    for name, default in own.items():
        if isinstance(default, bool):
            flags.DEFINE_flag(_Switch(name, default, ""), values)
        elif isinstance(default, tuple):
            flags.DEFINE_multi_string(name, list(default), "", flag_values=values)
        else:
            texts[name] = default
    for name, text in texts.items():
        flags.DEFINE_flag(_Text(flags.ArgumentParser(), None, name, text, ""), values)
    # Text for now: which type a field has and what is legal is said in one place, `Config`. Fields
    # are overrides, of which the last counts.
    for name in (*_SHORT, *(f"config.{field}" for field in field_names())):
        flags.DEFINE_string(name, None, "", flag_values=values)
    try:
        _, *rest = values(arguments)
    except ConfigError:
        raise
    except flags.UnrecognizedFlagError as error:
        raise _unknown_flag(error.flagname, list(values)) from error
    except flags.Error as error:
        raise ConfigError(f"{shortened(str(error), 200)}; see --help") from error
    except (OSError, ValueError, RecursionError) as error:  # of --flagfile
        raise ConfigError(
            f"--flagfile: cannot be read ({shortened(str(error), 140)}); expected text"
        ) from error
    if rest:
        first = next(iter(own))
        example = f"expected flags only, for example --{first}={rest[0]}"
        if values[first].present:  # the shell has made several words of one
            example = "expected flags only; a glob, and a name with blanks, need quotes"
        raise ConfigError(f"found {rest[0]!r}; {example}")

    if "workdir" in own and values["workdir"].value:
        check_results_folder("--workdir", values["workdir"].value)
    given = {field: values[f"config.{field}"].value for field in field_names()}
    for name, field in _SHORT.items():
        if values[name].value is not None:
            given[field] = values[name].value
    overrides = {field: _literal(text) for field, text in given.items() if text is not None}
    return values.config, overrides, {name: values[name].value for name in own}


class _Once:
    """A flag that has one value: another one is refused, where absl takes the last."""

    def parse(self: Any, argument: Any) -> None:
        before = self.value if self.present else None
        try:
            super().parse(argument)  # type: ignore[misc]
        except flags.IllegalFlagValueError as error:  # of switches: text is legal always
            raise ConfigError(
                f"--{self.name}: found {shortened(repr(argument), 80)}; expected true or false"
            ) from error
        if before is not None and self.value != before:
            expected = _EXPECTED_ONCE.get(self.name, "one of the two")
            raise ConfigError(
                f"--{self.name}: found twice, with {before!r} and {self.value!r}; "
                f"expected {expected}"
            )


class _Text(_Once, flags.Flag):
    pass


class _Switch(_Once, flags.BooleanFlag):
    pass


def execution_values(given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `Execution` from the values of `EXECUTION_FLAGS`; raises ConfigError."""
    executor = one_of("--executor", given["executor"], EXECUTORS)
    if executor == "ray" and given["devices"] is not None:
        raise ConfigError("--devices: found with --executor=ray, which uses all of the cluster's")
    if executor != "ray" and given["ray_address"] is not None:
        raise ConfigError("--ray_address: found alone; expected --executor=ray too")
    counts = {name: whole_number(f"--{name}", given[name]) for name in ("lanes", "devices")}
    heatmaps = one_of("--heatmaps", given["heatmaps"], HEATMAPS)
    address = given["ray_address"]
    return {**counts, "executor": executor, "ray_address": address, "heatmaps": heatmaps}


def check_method(flag: str, text: str, *, own_configuration: bool) -> None:
    """Raises ConfigError where the text of a flag is no method, as `methods.registry` has it.

    `own_configuration` says whether it may name a configuration, as "ssdnet:grid".
    """
    try:
        if has_configuration(text):
            if config := split_method(text)[1]:
                if not own_configuration:
                    raise ConfigError(f"found {text!r}; expected --config={config}")
                config_path(config)
            elif ":" in text:
                raise ConfigError(f"found {text!r}; expected the name of a configuration")
        make_method(text, Config())
    except ConfigError as error:
        raise ConfigError(f"{flag}: {error}") from error


def methods_and_configs(
    methods: Sequence[str], overrides: Mapping[str, Any]
) -> tuple[tuple[str, ...], dict[str, Config]]:
    """Checks the methods of `--methods`; gives the configurations of those that name their own.

    `overrides` change these too. Raises ConfigError where there is no such method, or two would
    write into one folder.
    """
    folders: dict[str, str] = {}
    for method in methods:
        check_method("--methods", method, own_configuration=True)
        if (other := folders.setdefault(run_folder(method), method)) != method:
            raise ConfigError(
                f"--methods: found {other} and {method}, whose results would go into one folder; "
                f"expected configurations with different names"
            )
    configs = {
        method: with_overrides(load_config(split_method(method)[1]), overrides)
        for method in methods
        if has_configuration(method) and split_method(method)[1]
    }
    return tuple(methods), configs


def shared_help() -> dict[str, str]:
    """What the help of several commands has in common, by its place in their texts."""

    def listed(words: Iterable[str]) -> str:
        return f"\n{' ' * 26}".join(textwrap.wrap(", ".join(words), 60))

    return {
        "methods": listed(METHODS),
        "config": CONFIG_HELP.format(names=listed(config_names())),
        "clip_weights": CLIP_WEIGHTS_HELP,
        "decision": DECISION_HELP,
        "execution": EXECUTION_HELP,
    }


def config_help(config: Config) -> str:
    """What `--help_config` prints: each field with its value, legal words and meaning."""
    lines: list[str] = []

    def describe(group: Any, prefix: str) -> None:
        comments = _field_comments(type(group))
        for field in dataclasses.fields(group):
            name, value = f"{prefix}.{field.name}", getattr(group, field.name)
            if dataclasses.is_dataclass(value):
                describe(value, name)
                continue
            shown = ",".join(map(str, value)) if isinstance(value, tuple) else value
            words = " or ".join(legal_words(field.type))
            meaning = "; ".join(filter(None, (words, comments.get(field.name))))
            lines.append(f"--{name}={shown}")
            lines.extend(textwrap.wrap(meaning, 94, initial_indent=_TAB, subsequent_indent=_TAB))

    describe(config, "config")
    return "\n".join(lines)


_TAB = " " * 6


def _field_comments(cls: type) -> dict[str, str]:
    """The comment behind each field of a dataclass; none where only bytecode is installed.

    Lines below a field that hold nothing but a comment go on with the field's own.
    """
    try:
        source = inspect.getsource(cls)
    except OSError:
        return {}
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = {t.start[0]: t.string.lstrip("# ") for t in tokens if t.type == tokenize.COMMENT}
    (node,) = ast.parse(source).body
    fields = [n for n in ast.iter_child_nodes(node) if isinstance(n, ast.AnnAssign)]
    ends = [node.lineno for node in fields[1:]] + [len(source.splitlines()) + 1]
    found = {
        ast.unparse(node.target): " ".join(
            comments[i] for i in range(node.lineno, end) if i in comments
        )
        for node, end in zip(fields, ends, strict=True)
    }
    return {name: comment for name, comment in found.items() if comment}


def _literal(text: str) -> Any:
    """A number, tuple or truth value if `text` reads as one, else the text itself."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


def _unknown_flag(name: str, known: list[str]) -> ConfigError:
    groups = {field.rpartition(".")[0] for field in known if field.startswith("config.")}
    if name in groups:
        return ConfigError(f"--{name}: found a group of fields; expected --{name}.FIELD=VALUE")
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    hint = f"; the nearest is --{near[0]}" if near else ""
    what = "field" if name.startswith("config.") else "flag"
    return ConfigError(f"--{name}: no such {what}{hint}; see --help")
