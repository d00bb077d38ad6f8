"""The whole configuration: one frozen dataclass, its ml_collections form, and its checks."""

import dataclasses
import difflib
import math
import typing
from collections.abc import Mapping
from typing import Any

import ml_collections

from ssdnet_jax.core.config import FitConfig, LossConfig, NetworkConfig, ScoreConfig
from ssdnet_jax.core.fit import FitSettings
from ssdnet_jax.core.skip_network import smallest_image_side
from ssdnet_jax.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class InpaintConfig:
    """Stage one for images with missing pixels (paper section 5.2)."""

    max_steps: int = 150  # steps, >= 1
    stop_threshold: float = 1e-4  # the fit ends when its loss first falls below this
    mask_ratio: float = (
        0.1  # known pixels hidden at each step, so that filling is learned, in [0, 1)
    )


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that decides a result, apart from the image."""

    image_size: int = 256  # pixels, side of the square that is fitted; 0: the image's own size
    seed: int = 0  # >= 0, source of all randomness
    network: NetworkConfig = NetworkConfig()
    loss: LossConfig = LossConfig()
    fit: FitConfig = FitConfig()
    score: ScoreConfig = ScoreConfig()
    inpaint: InpaintConfig = InpaintConfig()

    @property
    def fit_settings(self) -> FitSettings:
        """The part that is compiled into the fit."""
        return FitSettings(network=self.network, loss=self.loss, fit=self.fit)

    @property
    def inpaint_settings(self) -> FitSettings:
        """The fit of stage one: pixel reconstruction, whole image, some known pixels hidden."""
        fit = dataclasses.replace(
            self.fit, forward="image", permute_ratio=0.0, **dataclasses.asdict(self.inpaint)
        )
        loss = dataclasses.replace(self.loss, w_rec=1.0, w_perc=0.0)
        return FitSettings(network=self.network, loss=loss, fit=fit)

    @property
    def needs_vgg19(self) -> bool:
        """Whether the loss or the score has a perceptual term."""
        return self.loss.w_perc > 0 or self.score.alpha_perc > 0


def to_config_dict(config: Config) -> ml_collections.ConfigDict:
    """The form that `configs/*.py` edit and `--config.field=value` flags override."""
    return ml_collections.ConfigDict(dataclasses.asdict(config))


def from_config_dict(values: Mapping[str, Any]) -> Config:
    """Builds and checks a configuration from nested mappings.

    Raises:
      ConfigError: a field is unknown (names the nearest valid one), has the wrong type, or a value
        or combination of values is not legal.
    """
    if isinstance(values, ml_collections.ConfigDict):
        values = values.to_dict()
    config = _build(Config, values, prefix="")
    check(config)
    return config


def field_names(cls: type = Config, prefix: str = "") -> list[str]:
    """Dotted names of all fields, for example `fit.learning_rate`."""
    names = []
    for field in dataclasses.fields(cls):
        if dataclasses.is_dataclass(field.type):
            names += field_names(field.type, f"{prefix}{field.name}.")
        else:
            names.append(prefix + field.name)
    return names


def unknown_field(name: str) -> ConfigError:
    """The error for a configuration field that does not exist, with the nearest that does."""
    known = field_names()
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5) or difflib.get_close_matches(
        name.split(".")[-1], [k for k in known if "." in k or "." not in name], n=1, cutoff=0.0
    )
    return ConfigError(f"config.{name}: no such field; the nearest is config.{near[0]}")


def _build(cls: type, values: Mapping[str, Any], prefix: str) -> Any:
    fields = {field.name: field for field in dataclasses.fields(cls)}
    built = {}
    for name, value in values.items():
        if name not in fields:
            raise unknown_field(prefix + name)
        kind = fields[name].type
        if dataclasses.is_dataclass(kind):
            if not isinstance(value, Mapping):
                raise ConfigError(f"config.{prefix}{name}: found {value!r}; expected fields")
            built[name] = _build(kind, value, f"{prefix}{name}.")
        else:
            built[name] = _convert(f"config.{prefix}{name}", value, kind)
    return cls(**built)


def _convert(name: str, value: Any, kind: Any) -> Any:
    """Checks a value against its field's type; integers pass for floats, lists for tuples."""
    if typing.get_origin(kind) is typing.Literal:
        legal = typing.get_args(kind)
        if value not in legal:
            raise ConfigError(f"{name}: found {value!r}; expected one of {', '.join(legal)}")
        return value
    if typing.get_origin(kind) is tuple:
        if isinstance(value, int):
            value = (value,)
        if not isinstance(value, tuple | list) or not all(type(v) is int for v in value):
            raise ConfigError(f"{name}: found {value!r}; expected integers, for example (16, 32)")
        return tuple(value)
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise ConfigError(f"{name}: found {value!r}; expected {kind.__name__}")
    return value


def check(config: Config) -> None:
    """Checks ranges and combinations that do not depend on the image.

    Raises:
      ConfigError: names the field, what was found and what is legal.
    """
    for name, (low, high) in _RANGES.items():
        value = _lookup(config, name)
        for v in value if isinstance(value, tuple) else (value,):
            if not (math.isfinite(v) and low <= v < high):
                limits = f"at least {low:g}" + (f" and below {high:g}" if high < math.inf else "")
                raise ConfigError(f"config.{name}: found {v:g}; expected {limits}")
    network = config.network
    for name in ("channels_up", "channels_skip"):
        if len(getattr(network, name)) != len(network.channels_down):
            raise ConfigError(
                f"config.network.{name}: found {len(getattr(network, name))} scales; expected "
                f"{len(network.channels_down)} as in config.network.channels_down"
            )
    for name in ("kernel_down", "kernel_up", "kernel_skip"):
        if getattr(network, name) % 2 == 0:
            raise ConfigError(
                f"config.network.{name}: found {getattr(network, name)}; expected an odd number"
            )
    for part in ("loss", "score"):
        _check_patches(part, getattr(config, part))
    if not config.fit.learning_rate > 0:
        raise ConfigError(
            f"config.fit.learning_rate: found {config.fit.learning_rate}; expected above 0"
        )
    if config.loss.w_rec == config.loss.w_perc == 0:
        raise ConfigError("config.loss: w_rec and w_perc are both 0; expected one above 0")
    if config.fit.permute_ratio > 1:
        raise ConfigError(
            f"config.fit.permute_ratio: found {config.fit.permute_ratio}; expected at most 1"
        )
    if 0 < config.fit.blowup_factor <= 1:
        raise ConfigError(
            f"config.fit.blowup_factor: found {config.fit.blowup_factor}; expected 0 or above 1"
        )
    alphas = config.score.alpha_rec + config.score.alpha_perc
    if not math.isclose(alphas, 1.0, abs_tol=1e-6):
        raise ConfigError(
            f"config.score: alpha_rec + alpha_perc is {alphas:g}; expected 1 (paper, Eq. 3)"
        )


def _check_patches(part: str, config: LossConfig | ScoreConfig) -> None:
    sizes, strides = config.patch_sizes, config.patch_strides
    if not sizes or len(sizes) != len(strides):
        raise ConfigError(
            f"config.{part}.patch_strides: found {len(strides)} strides for {len(sizes)} "
            f"patch sizes; expected one for each"
        )
    for size, stride in zip(sizes, strides, strict=True):
        if stride > size:
            raise ConfigError(
                f"config.{part}.patch_strides: found {stride} for patches of {size} pixels; "
                f"expected at most {size}, or pixels between patches would never be seen"
            )


def check_against_image(config: Config, shape: tuple[int, int], *, missing: bool = False) -> None:
    """Checks what depends on the size, in pixels, at which an image is fitted.

    Raises:
      ConfigError: a patch is larger than the image, or the network has too many scales for it.
    """
    height, width = shape
    for part in ("loss", "score"):
        largest = max(getattr(config, part).patch_sizes)
        if largest > min(shape):
            raise ConfigError(
                f"config.{part}.patch_sizes: found a patch of {largest} pixels; expected at most "
                f"{min(shape)}, the image is fitted at {height} x {width}"
            )
    smallest = smallest_image_side(config.network)
    sides = {"image": min(shape), "patch": min(config.loss.patch_sizes)}
    for forward in {config.fit.forward} | ({"image"} if missing else set()):
        if sides[forward] < smallest:
            seen = "a patch" if forward == "patch" else "the image"
            raise ConfigError(
                f"config.network.channels_down: found {len(config.network.channels_down)} scales "
                f"with {config.network.padding} padding, which need {smallest} pixels; expected "
                f"fewer scales, {seen} has {sides[forward]}"
            )


def _lookup(config: Config, name: str) -> Any:
    value = config
    for part in name.split("."):
        value = getattr(value, part)
    return value


_UP = math.inf
_RANGES = {  # name: (lowest legal value, first value that is too high)
    "image_size": (0, _UP),
    "seed": (0, 2**32),
    "network.channels_down": (1, _UP),
    "network.channels_up": (1, _UP),
    "network.channels_skip": (0, _UP),
    "network.kernel_down": (1, _UP),
    "network.kernel_up": (1, _UP),
    "network.kernel_skip": (1, _UP),
    "loss.patch_sizes": (1, _UP),
    "loss.patch_strides": (1, _UP),
    "loss.w_rec": (0, _UP),
    "loss.w_perc": (0, _UP),
    "loss.perceptual_size": (2, _UP),
    "loss.patches_per_step": (1, _UP),
    "fit.learning_rate": (0, _UP),
    "fit.adam_b2": (0, 1),
    "fit.epochs": (1, _UP),
    "fit.max_steps": (0, _UP),
    "fit.stop_threshold": (-_UP, _UP),
    "fit.input_noise": (0, _UP),
    "fit.mask_ratio": (0, 1),
    "fit.mask_block": (1, _UP),
    "fit.permute_ratio": (0, _UP),
    "fit.blowup_factor": (0, _UP),
    "fit.average_decay": (0, 1),
    "fit.block_steps": (1, _UP),
    "score.patch_sizes": (1, _UP),
    "score.patch_strides": (1, _UP),
    "score.alpha_rec": (0, _UP),
    "score.alpha_perc": (0, _UP),
    "inpaint.max_steps": (1, _UP),
    "inpaint.stop_threshold": (-_UP, _UP),
    "inpaint.mask_ratio": (0, 1),
}
