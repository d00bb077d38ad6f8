"""The whole configuration: one frozen dataclass, its ml_collections form, and its checks."""

import dataclasses
import difflib
import math
import operator
import sys
import typing
from collections.abc import Callable, Mapping
from typing import Any, Literal

import ml_collections

from ssdnet_jax.core.config import (
    PAPER_NETWORK,
    DecisionConfig,
    FeatureConfig,
    FitConfig,
    FitSettings,
    LossConfig,
    NetworkConfig,
    ScoreConfig,
)
from ssdnet_jax.core.networks import smallest_side
from ssdnet_jax.core.plan import Plan, representations, smallest_scale
from ssdnet_jax.core.registry import TARGETS
from ssdnet_jax.core.target import TargetKind
from ssdnet_jax.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class InpaintConfig:
    """Stage one for images with missing pixels (paper section 5.2)."""

    max_steps: int = 150  # steps, >= 1
    stop_threshold: float = 1e-4  # the fit ends when its loss first falls below this
    mask_ratio: float = 0.1  # share of known pixels hidden at each step, in [0, 1)


@dataclasses.dataclass(frozen=True)
class TilingConfig:
    """Images too large to be processed at once: fitted in crops, scored in tiles."""

    above: int = 1 << 20  # pixels at which an image is analysed, more than which is large; 0: none
    crop: int = 512  # pixels, side of the crops that the network is fitted to, a multiple of 32
    side: int = 768  # pixels, side of what a tile contributes, a multiple of 32


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that decides a result, apart from the image."""

    image_size: int = 256  # pixels, shorter side at which an image is analysed; 0: its own size
    seed: int = 0  # >= 0, source of all randomness
    ground: Literal["auto", "keep"] = "auto"  # auto: flat ground around a part takes no part; keep:
    # it is judged like the rest
    range: str = "auto"  # what is stretched to [0, 1] before an image is analysed. auto: the range
    # that it uses, if that is below a fifth of full scale; full: nothing; or LOW,HIGH, in [0, 1]
    features: FeatureConfig = FeatureConfig()
    network: NetworkConfig = NetworkConfig()
    loss: LossConfig = LossConfig()
    fit: FitConfig = FitConfig()
    score: ScoreConfig = ScoreConfig()
    inpaint: InpaintConfig = InpaintConfig()
    tiling: TilingConfig = TilingConfig()
    decision: DecisionConfig = DecisionConfig()

    @property
    def target_kind(self) -> TargetKind:
        """What the network is fitted to."""
        return TARGETS[self.features.kind]

    @property
    def fit_settings(self) -> FitSettings:
        """The part that is compiled into the fit."""
        # How many fits there are does not change the program of one.
        fit = dataclasses.replace(self.fit, seeds=1)
        return FitSettings(network=self.network, loss=self.loss, fit=fit)

    @property
    def inpaint_settings(self) -> FitSettings:
        """The fit of stage one: the image's pixels, some of the known ones hidden.

        A setting for features says nothing of how pixels are fitted: those take the paper's.
        """
        base = self if self.target_kind.is_image else PAPER
        fit = dataclasses.replace(
            base.fit,
            permute_ratio=0.0,
            seeds=1,
            precision="float32",  # what is found stands in the image
            **dataclasses.asdict(self.inpaint),
        )
        loss = dataclasses.replace(self.loss, w_rec=1.0, w_perc=0.0, reconstruction="squared")
        return FitSettings(network=base.network, loss=loss, fit=fit)

    @property
    def needs_vgg19(self) -> bool:
        """Whether the loss, the score or what is fitted has VGG19 features."""
        return self.loss.w_perc > 0 or self.scoring_needs_vgg19

    @property
    def scoring_needs_vgg19(self) -> bool:
        """Whether scores need VGG19 features, of fits that are done."""
        return self.score.alpha_perc > 0 or self.target_kind.needs_vgg19

    @property
    def leaves_features_open(self) -> bool:
        """Whether it depends on VGG19's weights which features are fitted."""
        return self.target_kind.stands_for is not None

    def resolve_features(self, *, has_vgg19: bool) -> "Config":
        """The configuration with features "auto" replaced: VGG19's with weights, else filters."""
        if self.target_kind.stands_for is None:
            return self
        kind = self.target_kind.stands_for(has_vgg19)
        return dataclasses.replace(self, features=dataclasses.replace(self.features, kind=kind))

    @property
    def compares_detail(self) -> bool:
        """Whether the score wants an image at twice the size at which it is analysed."""
        is_image = self.target_kind.is_image
        return self.score.method == "tiles" and self.score.detail == "auto" and not is_image

    def plan(
        self,
        shape: tuple[int, int],
        *,
        noise: float = 0.0,
        masked: bool = False,
        detailed: bool = False,
    ) -> Plan:
        """What is done to an image of this shape; features must have been resolved.

        Args:
          shape: height and width, in pixels.
          noise: standard deviation of its noise, in image units (`core.noise.noise_deviation`). An
            image with more than `features.noise_limit` is analysed at reduced resolution, unless
            it is too small for that.
          masked: whether not all of its pixels take part.
          detailed: whether the image is known at twice this shape as well.

        Raises:
          ConfigError: a patch is larger than the image, or the network has too many scales for it.
        """
        if self.leaves_features_open:
            raise ConfigError(
                f"config.features.kind: found {self.features.kind}; expected features that have "
                f"been chosen, by Config.resolve_features"
            )
        check_against_image(self, shape)
        noisy = noise > self.features.noise_limit and fits_smaller(self, shape)
        fitted, compared = representations(
            self.features,
            coarse_scale=self.score.coarse_scale,
            noisy=noisy,
            detailed=detailed and self.compares_detail,
        )
        tiles_of_features = self.score.method == "tiles" and not self.target_kind.is_image
        return Plan(
            shape=shape,
            target=self.features.kind,
            fitted=fitted,
            compared=compared,
            fit=self.fit_settings,
            score=self.score,
            seeds=self.fit.seeds,
            masked=masked,
            # Where pixels that take no part begin, texture ends, which is a mark.
            marks=not masked and tiles_of_features and self.score.marks == "all",
            guided=tiles_of_features and self.score.guide == "image",
        )


AUTO = Config()
"""One setting for every texture (docs/auto.md): what `configs/auto.py` holds."""

PAPER = Config(
    features=FeatureConfig(kind="pixels"),
    network=PAPER_NETWORK,
    loss=LossConfig(patch_sizes=(16,), patch_strides=(8,)),
    fit=FitConfig(
        learning_rate=0.01,
        schedule="constant",
        warmup_steps=0,
        max_steps=0,
        stop_threshold=1e-4,
        input_noise=0.01,
        mask_ratio=0.0,
        mask_block=1,
        average_decay=0.9,
    ),
    score=ScoreConfig(method="patches"),
    decision=DecisionConfig(mask="otsu"),
)
"""The reading of the paper that reproduces its grid result: `configs/grid_literal.py`."""


def to_config_dict(config: Config) -> ml_collections.ConfigDict:
    """The form that `configs/*.py` edit and `--config.field=value` flags override."""
    return ml_collections.ConfigDict(dataclasses.asdict(config))


def from_config_dict(values: Mapping[str, Any]) -> Config:
    """Builds and checks a configuration from nested mappings; fields left out keep their defaults.

    Integers pass for floats, and an integer or a list of them for a tuple.

    Raises:
      ConfigError: a field is unknown (names the nearest valid one), has the wrong type, or a value
        or combination of values is not legal.
    """
    if isinstance(values, ml_collections.ConfigDict):
        values = values.to_dict()
    config = _build(Config, values, prefix="config")
    _check_values(config)
    _check_combinations(config)
    if config.image_size:
        check_against_image(config, (config.image_size, config.image_size))
    return config


def field_names(cls: type = Config, prefix: str = "") -> list[str]:
    """Dotted names of all fields, for example `fit.learning_rate`."""
    names = []
    for field in dataclasses.fields(cls):
        if isinstance(field.type, type) and dataclasses.is_dataclass(field.type):
            names += field_names(field.type, f"{prefix}{field.name}.")
        else:
            names.append(prefix + field.name)
    return names


def check_against_image(config: Config, shape: tuple[int, int]) -> None:
    """Checks what depends on the size (height, width), in pixels, at which an image is fitted.

    Raises:
      ConfigError: a patch is larger than the image, or the network has too many scales for it.
    """
    kind = config.target_kind
    score, coarse_scale = config.score, 1.0 if kind.is_image else config.score.coarse_scale
    if score.method == "tiles":
        of_score = {"score.tile_size": kind.smallest_side(2 * score.tile_size - 1, coarse_scale)}
    else:
        of_score = {"score.patch_sizes": kind.smallest_side(max(score.patch_sizes), 1.0)}
    needed = {
        "network.channels_down": kind.smallest_side(smallest_side(config.network), 1.0),
        "loss.patch_sizes": kind.smallest_side(max(config.loss.patch_sizes), 1.0),
        **of_score,
        "image_size": smallest_side(config.inpaint_settings.network),
    }
    for name, pixels in needed.items():
        if min(shape) < pixels:
            raise ConfigError(
                f"config.{name}: found {operator.attrgetter(name)(config)}, which needs an image "
                f"of at least {pixels} pixels a side; the image is fitted at "
                f"{shape[0]} x {shape[1]}"
            )


def fits(config: Config, shape: tuple[int, int]) -> bool:
    """Whether an image may be fitted at this size; see `check_against_image`."""
    try:
        check_against_image(config, shape)
    except ConfigError:
        return False
    return True


def fits_smaller(config: Config, shape: tuple[int, int]) -> bool:
    """Whether an image fitted at `shape` may also be analysed at reduced resolution."""
    scale = smallest_scale(coarse_scale=config.score.coarse_scale)
    return fits(config, (int(scale * shape[0]), int(scale * shape[1])))


def _build(cls: type, values: Any, prefix: str) -> Any:
    """An instance of a dataclass, and of those inside it, from nested mappings."""
    if not isinstance(values, Mapping):
        raise ConfigError(f"{prefix}: found {_shown(values)}; expected a group of fields")
    kinds: dict[str, Any] = {field.name: field.type for field in dataclasses.fields(cls)}
    built = {}
    for key, value in values.items():
        name = f"{prefix}.{key}"
        if key not in kinds:
            known = [f"config.{field}" for field in field_names()]
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
            raise ConfigError(f"{name}: no such field; the nearest is {near}")
        convert = _build if dataclasses.is_dataclass(kinds[key]) else _convert
        built[key] = convert(kinds[key], value, name)
    return cls(**built)


def legal_words(kind: Any) -> tuple[str, ...]:
    """What a field of words may hold: its literals, or the names registered for it."""
    if typing.get_origin(kind) is typing.Literal:
        return typing.get_args(kind)
    if typing.get_origin(kind) is typing.Annotated:
        return tuple(kind.__metadata__[0])
    return ()


def _convert(kind: Any, value: Any, name: str) -> Any:
    """The value as its field's type, which it must have but for the lenience of the caller."""
    if legal := legal_words(kind):
        if not isinstance(value, str) or value not in legal:
            raise ConfigError(f"{name}: found {_shown(value)}; expected one of {', '.join(legal)}")
        return value
    if typing.get_origin(kind) is tuple:
        entries = value if isinstance(value, tuple | list) else (value,)
        if not all(type(entry) is int for entry in entries):
            raise ConfigError(f"{name}: found {_shown(value)}; expected integers, as in 16,32")
        if len(entries) > _MOST_ENTRIES:
            raise ConfigError(
                f"{name}: found {len(entries)} integers; expected at most {_MOST_ENTRIES}"
            )
        return tuple(entries)
    if kind is str and type(value) in (tuple, list, int, float):  # numbers with commas between
        entries = value if isinstance(value, tuple | list) else (value,)
        return ",".join(entry if isinstance(entry, str) else _shown(entry) for entry in entries)
    if kind is float and type(value) is int and abs(value) <= sys.float_info.max:
        return float(value)
    if type(value) is not kind:
        raise ConfigError(f"{name}: found {_shown(value)}; expected {_KINDS[kind]}")
    return value


def _shown(value: Any) -> str:
    """A value as messages show it, whatever it is: objects of configuration files may be odd."""
    try:
        return f"{value!r:.80}"
    except Exception:  # an integer of thousands of digits, or an object that cannot be shown
        return f"a value of type {type(value).__name__} that cannot be shown"


def _check_values(config: Config) -> None:
    for name, (expected, is_legal) in _RANGES.items():
        value = operator.attrgetter(name)(config)
        for number in value if isinstance(value, tuple) else (value,):
            if not -math.inf < number < math.inf:
                raise ConfigError(f"config.{name}: found {number}; expected a finite number")
            if not is_legal(number):
                raise ConfigError(f"config.{name}: found {_shown(number)}; expected {expected}")
            if number > (most := _MOST.get(name, _LARGEST)):
                raise ConfigError(
                    f"config.{name}: found {_shown(number)}; expected at most {most:.10g}"
                )


def _check_combinations(config: Config) -> None:
    _check_range(config.range)
    network = config.network
    scales = len(network.channels_down)
    if not scales:
        raise ConfigError("config.network.channels_down: found no scale; expected one or more")
    for name in ("channels_up", "channels_skip"):
        found = len(getattr(network, name))
        if found != scales:
            raise ConfigError(
                f"config.network.{name}: found {found} scales; expected {scales} as in "
                f"config.network.channels_down"
            )
    for part in ("loss", "score"):
        _check_patches(part, getattr(config, part))
    for name in ("loss.w_perc", "score.alpha_perc"):
        value = operator.attrgetter(name)(config)
        if not config.target_kind.is_image and value > 0:
            raise ConfigError(
                f"config.{name}: found {value:g} with config.features.kind "
                f"{config.features.kind}; expected 0, features have no perceptual term"
            )
    if config.loss.w_rec == config.loss.w_perc == 0:
        raise ConfigError(
            "config.loss.w_rec: found 0 and config.loss.w_perc 0; expected one above 0"
        )
    alphas = config.score.alpha_rec + config.score.alpha_perc
    if not math.isclose(alphas, 1.0, abs_tol=1e-6):
        raise ConfigError(
            f"config.score.alpha_rec: found {alphas:g} as its sum with config.score.alpha_perc; "
            f"expected 1 (paper, Eq. 3)"
        )
    if config.score.method == "relative" and not config.target_kind.is_image:
        raise ConfigError(
            f"config.score.method: found relative with config.features.kind "
            f"{config.features.kind}; expected pixels, whose errors are relative to brightness"
        )
    if config.score.method == "relative" and config.score.alpha_perc > 0:
        raise ConfigError(
            f"config.score.alpha_perc: found {config.score.alpha_perc:g} with "
            f"config.score.method relative; expected 0, which has no perceptual term"
        )


def _check_range(text: str) -> None:
    if text in ("auto", "full"):
        return
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        low, high = 1.0, 0.0
    if not (0 <= low < high <= 1 and high - low >= _NARROWEST):
        raise ConfigError(
            f"config.range: found {text!r:.80}; expected auto, full, or LOW,HIGH with "
            f"0 <= LOW < HIGH <= 1, where 1 is full scale, at least {_NARROWEST:g} apart"
        )


def _check_patches(part: str, config: LossConfig | ScoreConfig) -> None:
    sizes, strides = config.patch_sizes, config.patch_strides
    if not sizes:
        raise ConfigError(f"config.{part}.patch_sizes: found no size; expected one or more")
    if len(sizes) != len(strides):
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


_NARROWEST = 1e-6  # of full scale: float32 has 16 values between two that are so far apart at 1
_MOST_ENTRIES = 16  # of a tuple: scales of the network, resolutions of patches
_LARGEST = 2.0**32  # of all numbers; larger ones have no use, and float32 makes them infinite
_MOST: dict[str, float] = {  # of some less, beyond which a device or its arithmetic gives up
    "image_size": 65_536,
    "features.components": 4096,
    "features.fine_components": 4096,
    "network.channels_down": 4096,
    "network.channels_up": 4096,
    "network.channels_skip": 4096,
    "network.kernel_down": 127,
    "network.kernel_up": 127,
    "network.kernel_skip": 127,
    "loss.patch_sizes": 65_536,
    "loss.patch_strides": 65_536,
    "loss.w_rec": 1e6,
    "loss.w_perc": 1e6,
    "loss.perceptual_size": 4096,
    "loss.patches_per_step": 1e6,
    "fit.learning_rate": 100.0,
    "fit.warmup_steps": 1e6,
    "fit.epochs": 1e6,
    "fit.max_steps": 1e6,
    "fit.input_noise": 1000.0,
    "fit.mask_block": 65_536,
    "fit.seeds": 1000,
    "fit.block_steps": 1e6,
    "score.patch_sizes": 65_536,
    "score.patch_strides": 65_536,
    "score.level_width": 1024.0,
    "score.tile_size": 1023,
    "score.agreement_scale": 1e6,
    "inpaint.max_steps": 1e6,
}

_KINDS = {int: "an integer", float: "a number", bool: "True or False", str: "text"}

_Range = tuple[str, Callable[[float], bool]]
_FINITE: _Range = ("a finite number", lambda v: True)
_FROM_0: _Range = ("at least 0", lambda v: v >= 0)
_FROM_1: _Range = ("at least 1", lambda v: v >= 1)
_FROM_2: _Range = ("at least 2", lambda v: v >= 2)
_TIMES_32: _Range = ("a multiple of 32, at least 32", lambda v: v >= 32 and v % 32 == 0)
_ODD: _Range = ("an odd number, at least 1", lambda v: v >= 1 and v % 2 == 1)
_BELOW_1: _Range = ("at least 0 and below 1", lambda v: 0 <= v < 1)
_BETWEEN_0_AND_1: _Range = ("above 0 and below 1", lambda v: 0 < v < 1)
_UP_TO_1: _Range = ("at least 0 and at most 1", lambda v: 0 <= v <= 1)

_RANGES: dict[str, _Range] = {  # legal values of each number, and of each entry of a tuple
    "image_size": _FROM_0,
    "seed": ("at least 0 and below 2^32", lambda v: 0 <= v < 2**32),
    "features.components": _FROM_1,
    "features.fine_components": _FROM_1,
    "features.noise_limit": _FROM_0,
    "network.channels_down": _FROM_1,
    "network.channels_up": _FROM_1,
    "network.channels_skip": _FROM_0,
    "network.kernel_down": _ODD,
    "network.kernel_up": _ODD,
    "network.kernel_skip": _ODD,
    "loss.patch_sizes": _FROM_1,
    "loss.patch_strides": _FROM_1,
    "loss.w_rec": _FROM_0,
    "loss.w_perc": _FROM_0,
    "loss.perceptual_size": _FROM_2,
    "loss.patches_per_step": _FROM_1,
    "fit.learning_rate": ("at least 1e-12", lambda v: v >= 1e-12),
    "fit.warmup_steps": _FROM_0,
    "fit.epochs": _FROM_1,
    "fit.max_steps": _FROM_0,
    "fit.stop_threshold": _FINITE,
    "fit.input_noise": _FROM_0,
    "fit.mask_ratio": _BELOW_1,
    "fit.mask_block": _FROM_1,
    "fit.permute_ratio": _UP_TO_1,
    "fit.blowup_factor": ("0 or above 1", lambda v: v == 0 or v > 1),
    "fit.average_decay": _BELOW_1,
    "fit.seeds": _FROM_1,
    "fit.block_steps": _FROM_1,
    "score.patch_sizes": _FROM_1,
    "score.patch_strides": _FROM_1,
    "score.level_width": _FROM_1,
    "score.tile_size": ("an odd number, at least 3", lambda v: v >= 3 and v % 2 == 1),
    "score.coarse_scale": ("at least 0.05 and at most 1", lambda v: 0.05 <= v <= 1),
    "score.agreement_scale": ("at least 1e-3", lambda v: v >= 1e-3),
    "score.alpha_rec": _FROM_0,
    "score.alpha_perc": _FROM_0,
    "decision.false_alarms": _BETWEEN_0_AND_1,
    "decision.mask_false_alarms": _BETWEEN_0_AND_1,
    "decision.peak_share": _BETWEEN_0_AND_1,
    "decision.other_false_alarms": _BETWEEN_0_AND_1,
    "decision.other_peaks": ("above 0 and at most 1", lambda v: 0 < v <= 1),
    "decision.min_area": _FROM_0,
    "decision.max_defects": _FROM_0,
    "decision.false_discoveries": _BETWEEN_0_AND_1,
    "inpaint.max_steps": _FROM_1,
    "inpaint.stop_threshold": _FINITE,
    "inpaint.mask_ratio": _BELOW_1,
    "tiling.above": _FROM_0,
    "tiling.crop": _TIMES_32,
    "tiling.side": _TIMES_32,
}
