"""Command-line flags: parsing, named configurations, readable help and one-line errors."""

import ast
import dataclasses
import difflib
import inspect
import io
import runpy
import textwrap
import tokenize
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from ssdnet_jax.baselines import registry as baselines
from ssdnet_jax.config import (
    Config,
    field_names,
    from_config_dict,
    legal_words,
    to_config_dict,
)
from ssdnet_jax.errors import ConfigError
from ssdnet_jax.flag_values import whole_number

METHODS = ("ssdnet", *baselines.NAMES)
EXECUTORS = ("local", "ray")
DEFAULT_CONFIG = "auto"
CONFIG_FOLDERS = (
    Path(__file__).parent / "configs",  # installed
    Path(__file__).parent.parent / "configs",  # in the repository
)

_USAGE = """\
ssdnet: where is this picture not like itself?

Fits a small network to each picture alone, without training data, and marks what the network
cannot reproduce (SSDnet, arXiv 2509.18354).

  ssdnet --workdir=out                             an embedded example with a planted defect
  ssdnet --input=picture.png --workdir=out         one picture
  ssdnet --input=folder --workdir=out              all pictures below a folder
  ssdnet --input='parts/**/*.tif' --workdir=out    a glob (quoted)
  ssdnet --input=cloth --workdir=out --config=fabric --config.fit.max_steps=40

Flags:
  --input=PATH            picture, folder or glob; without it the embedded example is used
  --missing=PATH          mask of pixels that are not known (not 0 where missing), for all pictures;
                          or a folder of masks with the pictures' names
  --workdir=DIR           where results go (needed); finished pictures there are not fitted again
{config}
  --image_size=PIXELS     side of the square that is fitted (256); 0: the picture's own size
  --vgg19_weights=PATH    .npz, .safetensors or .pth of VGG19, for configurations that need it;
                          without it: $SSDNET_VGG19_WEIGHTS, the cache, or a download of 1 MB
{clip_weights}
  --method=NAME           {methods}
{execution}
  --save_params           keep the fitted networks too
  --help, --help_config   this text; the configuration's fields with their values

Results in DIR:
  maps/PATH.tiff          raw anomaly score, float32, in the picture's size
  heatmaps/PATH.png       picture, heat map, reconstruction and mask side by side
  masks/PATH.png          255 where the score is above Otsu's threshold
  uncertainty/PATH.tiff   spread of the score over seeds, with --config.fit.seeds=N
  fits/PATH.npz           reconstructions, from which `ssdnet-rescore` scores again
  params/PATH/            fitted networks, with --save_params
  results.csv, run.json   a line a picture; configuration, versions, device, seed, command
  verdicts.csv            which pictures are anomalous, worst first

Exit status: 0 all pictures done, 1 some failed, 2 nothing could be started (flags, configuration,
input or work folder), 130 interrupted, 143 terminated. The same command again goes on.
"""

# What several commands' help says of the same flags.
CONFIG_HELP = """\
  --config=NAME           {names},
                          or the path of a .py file; without it auto
  --config.FIELD=VALUE    any field of the configuration; --help_config lists them"""
CLIP_WEIGHTS_HELP = """\
  --clip_weights=PATH     .safetensors, .bin or .pt of OpenCLIP's ViT-B-16-plus-240, for winclip,
                          its vocabulary beside it; without it: $SSDNET_CLIP_WEIGHTS"""
EXECUTION_HELP = """\
  --lanes=N               pictures that a device fits at once; by default as many as its memory
                          holds, on a CPU one
  --devices=N             how many of this machine's devices share the pictures, on a CPU of its
                          cores; by default all, of a CPU as many as its memory holds
  --executor=NAME         local, or ray: over the devices of a Ray cluster
  --ray_address=ADDRESS   HOST:PORT of the cluster's head node, or auto; by default $RAY_ADDRESS,
                          the cluster this machine belongs to, or this machine alone"""
EXECUTION_FLAGS = {"lanes": None, "devices": None, "executor": EXECUTORS[0], "ray_address": None}


@dataclasses.dataclass(frozen=True)
class Execution:
    """How the images of any command are scored; changes results by rounding only.

    Attributes:
      lanes: images that a device fits at once; 0: chosen by its memory.
      devices: local devices to use; 0: all.
      executor: one of `EXECUTORS`.
      ray_address: of the cluster, for "ray".
    """

    lanes: int
    devices: int
    executor: str
    ray_address: str | None


@dataclasses.dataclass(frozen=True)
class Arguments(Execution):
    """What the command line says; None where a flag was not given.

    Attributes:
      config: `--config` with its overrides applied, checked.
      input: picture, folder or glob.
      missing: mask of missing pixels, or a folder of masks.
      workdir: where results go.
      vgg19_weights: file of VGG19.
      clip_weights: file of CLIP.
      method: one of `METHODS`.
      save_params: whether fitted networks are kept.
      help_config: whether only the configuration's fields are asked for.
    """

    config: Config
    input: str | None
    missing: str | None
    workdir: str | None
    vgg19_weights: str | None
    clip_weights: str | None
    method: str
    save_params: bool
    help_config: bool


def parse(arguments: Sequence[str]) -> Arguments:
    """Parses the command line; `--flag=value` and `--flag value` are the same.

    Args:
      arguments: `sys.argv`, the program's name first.

    Raises:
      ConfigError: an unknown flag or field (names the nearest valid one) or an illegal value.
    """
    own = {
        "input": None,
        "missing": None,
        "workdir": None,
        "vgg19_weights": None,
        "clip_weights": None,
        "method": METHODS[0],
        **EXECUTION_FLAGS,
        "save_params": False,
        "help_config": False,
    }
    config, given = parse_flags(arguments, own)
    if given["method"] not in METHODS:
        raise ConfigError(f"--method: found {given['method']!r}; expected {', '.join(METHODS)}")
    return Arguments(config=config, **{**given, **execution_values(given)})


def parse_flags(
    arguments: Sequence[str], own: Mapping[str, str | bool | None]
) -> tuple[Config, dict[str, Any]]:
    """Parses a command's own flags beside those that make the configuration.

    The latter are `--config`, `--config.FIELD` and `--image_size`, the same for every command.

    Args:
      arguments: `sys.argv`, the program's name first.
      own: the command's flags with their defaults, the one that names its input first. Those whose
        default is a truth value are switches, the others take text.

    Returns:
      The configuration, checked, and the values of the command's own flags.

    Raises:
      ConfigError: an unknown flag or field (names the nearest valid one) or an illegal value.
    """
    name, overrides, given = read_flags(arguments, own)
    return with_overrides(load_config(name), overrides), given


def read_flags(
    arguments: Sequence[str], own: Mapping[str, str | bool | None]
) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """`parse_flags` without a configuration: its name, the fields given, the command's own flags.

    Fields are by dotted name without "config.", and not checked yet.
    """
    values = flags.FlagValues()
    for name, default in own.items():
        define = flags.DEFINE_boolean if isinstance(default, bool) else flags.DEFINE_string
        define(name, default, "", flag_values=values)
    flags.DEFINE_string("image_size", None, "", flag_values=values)
    flags.DEFINE_string("config", DEFAULT_CONFIG, "", flag_values=values)
    # Text for now: which type a field has and what is legal is said in one place, `Config`.
    for field in field_names():
        flags.DEFINE_string(f"config.{field}", None, "", flag_values=values)
    try:
        _, *rest = values(arguments)
    except flags.UnrecognizedFlagError as error:
        raise _unknown_flag(error.flagname, list(values)) from error
    except flags.Error as error:
        raise ConfigError(" ".join(f"{error}; see --help".split())) from error
    if rest:
        raise ConfigError(
            f"found {rest[0]!r}; expected flags only, for example --{next(iter(own))}={rest[0]}"
        )

    given = {field: values[f"config.{field}"].value for field in field_names()}
    if values.image_size is not None:
        given["image_size"] = values.image_size
    overrides = {field: _literal(text) for field, text in given.items() if text is not None}
    return values.config, overrides, {name: values[name].value for name in own}


def with_overrides(config: Config, overrides: Mapping[str, Any]) -> Config:
    """The configuration with some fields, by dotted name, changed.

    Raises:
      ConfigError: a value or combination of values is not legal.
    """
    config_dict = to_config_dict(config)
    with config_dict.ignore_type():  # types are checked below, with messages that name the field
        config_dict.update_from_flattened_dict(overrides)
    return from_config_dict(config_dict)


def execution_values(given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `Execution` from the values of `EXECUTION_FLAGS` among others.

    Raises:
      ConfigError: an illegal value or combination.
    """
    executor = given["executor"]
    if executor not in EXECUTORS:
        raise ConfigError(f"--executor: found {executor!r}; expected {' or '.join(EXECUTORS)}")
    if executor == "ray" and given["devices"] is not None:
        raise ConfigError("--devices: found with --executor=ray, which uses all of the cluster's")
    if executor != "ray" and given["ray_address"] is not None:
        raise ConfigError("--ray_address: found alone; expected --executor=ray too")
    counts = {name: whole_number(f"--{name}", given[name]) for name in ("lanes", "devices")}
    return {**counts, "executor": executor, "ray_address": given["ray_address"]}


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
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"{path}: cannot be run ({type(error).__name__}: {reason}); expected a Python file "
            f"with a function {function}"
        ) from error
    if not callable(called):
        raise ConfigError(
            f"{path}: found no function {function}; expected one that returns {expected}"
        )
    return value


def methods_text() -> str:
    """The names of all methods, over as many lines of a help text as they take."""
    lines = textwrap.wrap(", ".join(METHODS), 60)
    return f"\n{' ' * 26}".join(lines)


def help_text() -> str:
    """What `--help` prints."""
    return _USAGE.format(**shared_help())


def shared_help() -> dict[str, str]:
    """What the help of several commands has in common, by its place in their texts."""
    return {
        "methods": methods_text(),
        "config": CONFIG_HELP.format(names=", ".join(config_names())),
        "clip_weights": CLIP_WEIGHTS_HELP,
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
    fields = [node for node in ast.parse(source).body[0].body if isinstance(node, ast.AnnAssign)]
    ends = [node.lineno for node in fields[1:]] + [len(source.splitlines()) + 1]
    found = {
        node.target.id: " ".join(comments[i] for i in range(node.lineno, end) if i in comments)
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
