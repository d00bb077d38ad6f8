"""Fields that were given and change nothing, because another field leaves them without effect."""

from collections.abc import Iterable, Sequence

from ssdnet_jax.config import Config, field_names
from ssdnet_jax.methods.baseline import TAKEN_FIELDS
from ssdnet_jax.methods.registry import has_configuration

_OF_PATCHES = ("patch_sizes", "patch_strides", "alpha_rec", "alpha_perc", "aggregation", "coverage")
_OF_TILES = ("tile_size", "agreement_scale", "marks", "detail", "guide")
_OF_FEATURES = ("features.components", "features.fine_components", "features.noise_limit")
_OF_VGG19 = ("perceptual", "perceptual_layer", "perceptual_view", "perceptual_size")
_MOST_SHOWN = 3  # names in a line
_OF_MASKS = ("peak_share", "other_false_alarms", "other_peaks")


def idle_fields(config: Config) -> dict[str, str]:
    """Dotted names of the fields that change no result, and why, as "config.FIELD is VALUE"."""
    fit, loss, score = config.fit, config.loss, config.score
    found: dict[str, str] = {}

    def idle(reason: str, names: Iterable[str]) -> None:
        found.update(dict.fromkeys(names, f"config.{reason}"))

    if config.target_kind.is_image:
        of_tiles = ("agreement_scale", "coarse_scale", "marks", "detail", "guide")
        idle(
            f"features.kind is {config.features.kind}",
            [*_OF_FEATURES, *(f"score.{name}" for name in of_tiles)],
        )
    if config.features.kind == "filters":
        idle("features.kind is filters", ["features.fine_components"])
    # What a score of the user's own takes is not known here.
    others = {
        "tiles": (*_OF_PATCHES, "level_width"),
        "patches": (*_OF_TILES, "level_width"),
        "relative": _OF_TILES,
    }
    idle(
        f"score.method is {score.method}",
        [f"score.{name}" for name in others.get(score.method, ())],
    )
    if not loss.w_perc and not score.alpha_perc:
        names = (*_OF_VGG19, "perceptual_precision")
        idle("loss.w_perc is 0", [f"loss.{name}" for name in names])
    if fit.max_steps:
        idle(f"fit.max_steps is {fit.max_steps}", ["fit.epochs"])
        if not loss.w_perc:
            idle(f"fit.max_steps is {fit.max_steps}", ["loss.patches_per_step"])
    if not fit.mask_ratio:
        idle("fit.mask_ratio is 0", ["fit.mask_block"])
    if config.decision.mask == "otsu":
        idle("decision.mask is otsu", [f"decision.{name}" for name in _OF_MASKS])
    return found


def _of_baselines(reason: str) -> dict[str, str]:
    """The fields that no baseline takes."""
    return {
        name: reason
        for name in field_names()
        if name not in TAKEN_FIELDS and not name.startswith("decision.")
    }


def idle_flags(
    arguments: Sequence[str], configs: Sequence[Config], *, methods: Sequence[str] = ()
) -> list[str]:
    """What to say of `--config.FIELD` flags that change nothing in any of the configurations.

    One line for each reason.

    Args:
      arguments: of the command line, as they were given.
      configs: that the command runs, with its flags applied.
      methods: that the command runs, as `methods.registry` has them; without them SSDnet.
    """
    given = [text.lstrip("-").partition("=")[0] for text in arguments if text.startswith("-")]
    names = [name.removeprefix("config.") for name in given if name.startswith("config.")]
    of_all = [idle_fields(config) for config in configs]
    if methods and not any(map(has_configuration, methods)):
        why = f"only ssdnet takes such fields, not {', '.join(methods)}"
        of_all = [{**found, **_of_baselines(why)} for found in of_all]
    by_reason: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        if of_all and all(name in found for found in of_all):
            by_reason.setdefault(of_all[0][name], []).append(f"--config.{name}")
    return [_line(found, reason) for reason, found in by_reason.items()]


def _line(names: Sequence[str], reason: str) -> str:
    shown = ", ".join(names[:_MOST_SHOWN])
    if len(names) > _MOST_SHOWN:
        shown += f" and {len(names) - _MOST_SHOWN} more"
    return f"{shown}: {'change' if names[1:] else 'changes'} nothing here, since {reason}"
