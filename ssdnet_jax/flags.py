"""Command-line flags: parsing, named configurations, readable help and one-line errors."""

import difflib
import importlib.util
import textwrap
from collections.abc import Sequence
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from ssdnet_jax.config import Config, field_names, from_config_dict, unknown_field
from ssdnet_jax.errors import ConfigError

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
  --workdir=DIR           where results go (needed); finished pictures there are not fitted again
  --config=NAME           {names}, or the path of a .py file
  --config.FIELD=VALUE    any field of the configuration; --help_config lists them
  --image_size=PIXELS     side of the square that is fitted (256); 0: the picture's own size
  --vgg19_weights=PATH    .npz, .safetensors or .pth of VGG19, for configurations that need it;
                          without it: $SSDNET_VGG19_WEIGHTS, the cache, or a download of 1 MB
  --method=NAME           {methods}
  --help, --help_config   this text; the configuration's fields with their values

Results in DIR:
  maps/PATH.tiff          raw anomaly score, float32, in the picture's size
  heatmaps/PATH.png       picture, heat map, reconstruction and mask side by side
  masks/PATH.png          255 where the score is above Otsu's threshold
  results.csv, run.json   a line a picture; configuration, versions, device, seed, command

Exit status: 0 all pictures done, 1 some failed, 2 wrong flags or configuration.
"""


def define(values: flags.FlagValues, *, methods: Sequence[str]) -> None:
    """Defines the flags of `ssdnet` on `values`."""
    flags.DEFINE_string("input", None, "picture, folder or glob", flag_values=values)
    flags.DEFINE_string("workdir", None, "where results go", flag_values=values)
    flags.DEFINE_integer("image_size", None, "fitted side in pixels", flag_values=values)
    flags.DEFINE_string("vgg19_weights", None, "VGG19 file", flag_values=values)
    flags.DEFINE_enum("method", methods[0], list(methods), "method", flag_values=values)
    config_flags.DEFINE_config_file(
        "config", str(config_path("default")), "configuration", flag_values=values
    )


def parse(values: flags.FlagValues, arguments: Sequence[str]) -> tuple[Config, flags.FlagValues]:
    """Parses the command line.

    Args:
      values: with the flags of `define`.
      arguments: `sys.argv`.

    Raises:
      ConfigError: an unknown flag or field (names the nearest valid one) or an illegal value.
    """
    _refuse_unknown(values, arguments)
    try:
        rest = values([arguments[0], *(_named_config(a) for a in arguments[1:])])
    except flags.Error as error:
        raise ConfigError(" ".join(str(error).split())) from error
    except (AttributeError, KeyError, TypeError, ValueError, SyntaxError, OSError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"--config: {' '.join(str(error).split())}") from error
    if len(rest) > 1:
        raise ConfigError(f"found {rest[1]!r}; expected flags only, for example --input={rest[1]}")
    config_dict = values["config"].value
    if values["image_size"].value is not None:
        config_dict.image_size = values["image_size"].value
    return from_config_dict(config_dict), values


def config_names() -> list[str]:
    """Names of the configurations that ship with the package."""
    return sorted(path.stem for path in config_folder().glob("*.py") if path.stem[0] != "_")


def config_folder() -> Path:
    """The folder of the shipped configurations."""
    return next(folder for folder in CONFIG_FOLDERS if (folder / "default.py").exists())


def config_path(name: str) -> Path:
    """The file of a shipped configuration, or of one given by path.

    Raises:
      ConfigError: there is neither.
    """
    if Path(name).suffix == ".py" and Path(name).exists():
        return Path(name)
    # `configs/grid.py` works from any folder, not only from the repository.
    stem = Path(name).stem if Path(name).parent.name in ("", "configs") else name
    if stem not in config_names():
        near = difflib.get_close_matches(stem, config_names(), n=1, cutoff=0.4)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(
            f"--config={name}: no such configuration; expected {', '.join(config_names())} "
            f"or the path of a .py file{hint}"
        )
    return config_folder() / f"{stem}.py"


def load_config(name: str) -> Config:
    """Loads a configuration by name or path, as `--config=NAME` does.

    Raises:
      ConfigError: unknown name, or the file's values are not legal.
    """
    path = config_path(name)
    specification = importlib.util.spec_from_file_location(f"ssdnet_config_{path.stem}", path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return from_config_dict(module.get_config())


def help_text(methods: Sequence[str]) -> str:
    """What `--help` prints."""
    return _USAGE.format(names=", ".join(config_names()), methods=" or ".join(methods))


def config_help(config: Config) -> str:
    """What `--help_config` prints: each field with its value and the comment of its definition."""
    import inspect

    from ssdnet_jax import config as config_module
    from ssdnet_jax.core import config as core_config

    comments: dict[str, dict[str, str]] = {}
    for module in (core_config, config_module):
        owner = ""
        for line in inspect.getsource(module).splitlines():
            if line.startswith("class "):
                owner = line[6:].split(":")[0].split("(")[0]
            elif line.startswith("    ") and "  # " in line and ": " in line:
                name = line.strip().split(":")[0]
                comments.setdefault(owner, {})[name] = line.split("  # ", 1)[1]
    lines = []
    for name in field_names():
        owner, value = config, config
        for part in name.split("."):
            owner, value = value, getattr(value, part)
        shown = ",".join(map(str, value)) if isinstance(value, tuple) else value
        lines.append(f"--config.{name}={shown}")
        comment = comments.get(type(owner).__name__, {}).get(name.split(".")[-1], "")
        lines += textwrap.wrap(comment, 90, initial_indent="      ", subsequent_indent="      ")
    return "\n".join(lines)


def _named_config(argument: str) -> str:
    """Turns `--config=grid` into `--config=<path of grid.py>`."""
    flag, equals, value = argument.partition("=")
    if flag.lstrip("-") != "config" or not equals:
        return argument
    return f"--config={config_path(value)}"


def _refuse_unknown(values: flags.FlagValues, arguments: Sequence[str]) -> None:
    known = field_names()
    groups = {name.rsplit(".", 1)[0] for name in known if "." in name}
    for argument in arguments[1:]:
        if not argument.startswith("-"):
            continue
        name = argument.lstrip("-").partition("=")[0]
        if name.startswith("config."):
            field = name.removeprefix("config.")
            if field in groups:
                raise ConfigError(f"--{name}: a group of fields; expected --{name}.FIELD=VALUE")
            if field.split("[")[0] not in known:
                raise unknown_field(field)
            if "=" not in argument:
                raise ConfigError(f"--{name}: found no value; expected --{name}=VALUE")
        elif name not in values and name.removeprefix("no") not in values:
            near = difflib.get_close_matches(name, ["input", "workdir", *values], n=1, cutoff=0.4)
            hint = f"; the nearest is --{near[0]}" if near else ""
            raise ConfigError(f"--{name}: no such flag{hint}; see --help")
