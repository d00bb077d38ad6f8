"""Variants of a configuration x images x seeds: which losses, networks and scores find more?"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ssdnet_jax.config import Config
from ssdnet_jax.config_files import config_folder, load_config, returned_by, with_overrides
from ssdnet_jax.data.layouts.sample import Sample
from ssdnet_jax.errors import ConfigError
from ssdnet_jax.evaluation.evaluate import Evaluation, evaluate, write_metrics_csv
from ssdnet_jax.experiments.scoring import Context, score_dataset, with_seed
from ssdnet_jax.methods.registry import DEFAULT_METHOD, make_method
from ssdnet_jax.programs import forget_programs

_A_SWEEP = "a Sweep with variants and seeds"


@dataclasses.dataclass(frozen=True)
class Sweep:
    """What `get_sweep()` of a file in configs/sweeps returns."""

    base: str  # name or path of the configuration that variants change
    variants: Mapping[str, Mapping[str, Any]]  # by name the fields that a variant changes,
    # {"fit.mask_ratio": 0.0}; the first is what the others are compared with
    seeds: tuple[int, ...] = (0, 1, 2)  # each variant is fitted with each of these


def product(fields: Mapping[str, Sequence[Any]]) -> dict[str, dict[str, Any]]:
    """Variants that are all combinations of values, named after what they set.

    >>> list(product({"fit.mask_ratio": [0.0, 0.5], "loss.patch_sizes": [(8,)]}))
    ['mask_ratio=0.0, patch_sizes=8', 'mask_ratio=0.5, patch_sizes=8']
    """

    def text(value: Any) -> str:
        return "+".join(map(str, value)) if isinstance(value, tuple | list) else str(value)

    variants = {}
    for values in itertools.product(*fields.values()):
        chosen = dict(zip(fields, values, strict=True))
        name = ", ".join(f"{field.rsplit('.', 1)[-1]}={text(v)}" for field, v in chosen.items())
        variants[name] = chosen
    return variants


def sweep_names() -> list[str]:
    """Names of the sweeps that ship with the package."""
    return sorted(path.stem for path in (config_folder() / "sweeps").glob("*.py"))


def load_sweep(name: str) -> tuple[Sweep, dict[str, Config]]:
    """A sweep by name or path, and the checked configuration of each variant.

    Raises:
      ConfigError: there is no such sweep, its file cannot be run, or a variant is not legal.
    """
    path = Path(name)
    if path.suffix != ".py" or not path.is_file():
        path = config_folder() / "sweeps" / f"{path.stem}.py"
    if path.stem not in sweep_names() and not path.is_file():
        raise ConfigError(
            f"--config: found no sweep {name!r}; expected {', '.join(sweep_names())} or the path "
            f"of a .py file with a function get_sweep"
        )
    sweep = returned_by(path, "get_sweep", expected=_A_SWEEP)
    if not isinstance(sweep, Sweep) or not sweep.variants or not sweep.seeds:
        raise ConfigError(
            f"{path}: found a get_sweep that returns {sweep!r:.80}; expected {_A_SWEEP}"
        )
    configs, base = {}, load_config(sweep.base)
    folders: dict[str, str] = {}
    for variant, fields in sweep.variants.items():
        try:
            configs[variant] = with_overrides(base, dict(fields))
        except (ConfigError, KeyError, TypeError) as error:
            raise ConfigError(f"{path}: variant {variant!r}: {error}") from error
        other = folders.setdefault(folder_name(variant), variant)
        if other != variant:
            raise ConfigError(f"{path}: variants {variant!r} and {other!r} share a folder's name")
    return sweep, configs


def folder_name(variant: str) -> str:
    """The variant's name with what a file system may not take replaced."""
    return "".join(c if c.isalnum() or c in "=+-." else "_" for c in variant).strip(".") or "_"


def run_sweep(
    samples: Sequence[Sample],
    configs: Mapping[str, Config],
    seeds: Sequence[int],
    workdir: Path,
    context: Context,
) -> Evaluation:
    """Scores what is not scored yet and measures all of it, seed by seed.

    After each seed of a variant sweep.csv is written anew, so that a look at it is never far off.
    Below the work folder runs/VARIANT/seedN are ordinary work folders.

    Returns:
      Metrics of single images; their method is the variant.

    Raises:
      ConfigError: a folder belongs to a run with another configuration.
      InputError: no weights, or a folder that cannot be written.
      Stopped: the executor was told to end.
    """
    found = Evaluation((), {})
    for seed, (variant, config) in itertools.product(seeds, configs.items()):
        map_set = score_dataset(
            samples,
            make_method(DEFAULT_METHOD, with_seed(config, seed)),
            workdir / "runs" / folder_name(variant) / f"seed{seed}",
            context.noting(variant=variant),
            name=variant,
        )
        found = Evaluation(found.rows + evaluate(samples, [map_set]).rows, {})
        write_metrics_csv(workdir / "sweep.csv", found.rows, method="variant")
        forget_programs()
    return found
