"""Variants of a configuration x images x seeds: which losses, networks and scores find more?"""

import csv
import dataclasses
import io
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ssdnet_jax.config import Config
from ssdnet_jax.config_files import config_folder, load_config, returned_by, with_overrides
from ssdnet_jax.data.datasets import Sample
from ssdnet_jax.data.files import write_atomically
from ssdnet_jax.errors import ConfigError
from ssdnet_jax.evaluation.evaluate import COLUMNS, ImageMetrics, evaluate
from ssdnet_jax.experiments.scoring import Context, score_dataset, with_seed
from ssdnet_jax.methods.registry import DEFAULT_METHOD, make_method
from ssdnet_jax.runner.programs import forget_programs

METRICS = ("auprc", "auroc")
_DOTS_PER_INCH = 120
_A_SWEEP = "a Sweep with variants and seeds"


@dataclasses.dataclass(frozen=True)
class Sweep:
    """What `get_sweep()` of a file in configs/sweeps returns.

    Attributes:
      base: name or path of the configuration that variants change.
      variants: by name the fields that a variant changes, {"fit.mask_ratio": 0.0}; the first is
        what the others are compared with.
      seeds: each variant is fitted with each of these.
    """

    base: str
    variants: Mapping[str, Mapping[str, Any]]
    seeds: tuple[int, ...] = (0, 1, 2)


@dataclasses.dataclass(frozen=True)
class VariantFigures:
    """Over seeds: mean and standard deviation of the mean over images; None with one seed."""

    variant: str
    images: int
    failed: int
    mean: Mapping[str, float]
    spread: Mapping[str, float | None]


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
    *,
    score: Callable[..., Any] = score_dataset,
) -> list[ImageMetrics]:
    """Scores what is not scored yet and measures all of it, seed by seed.

    After each seed of a variant sweep.csv is written anew, so that a look at it is never far off.

    Args:
      samples: of one dataset.
      configs: checked, by variant.
      seeds: each once.
      workdir: below it runs/VARIANT/seedN, ordinary work folders.
      context: of the command.
      score: replaces `score_dataset`.

    Raises:
      ConfigError: a folder belongs to a run with another configuration.
      InputError: no weights, or a folder that cannot be written.
      Stopped: the executor was told to end.
    """
    rows: list[ImageMetrics] = []
    for seed, (variant, config) in itertools.product(seeds, configs.items()):
        map_set = score(
            samples,
            make_method(DEFAULT_METHOD, with_seed(config, seed)),
            workdir / "runs" / folder_name(variant) / f"seed{seed}",
            context.noting(variant=variant),
            name=variant,
        )
        rows += evaluate(samples, [map_set]).rows
        write_sweep_csv(workdir / "sweep.csv", rows)
        forget_programs()
    return rows


def write_sweep_csv(path: Path, rows: Sequence[ImageMetrics]) -> None:
    """One line a variant, seed and image; the columns are those of metrics.csv."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow("variant" if name == "method" else name for name in COLUMNS)
    for row in rows:
        cells = dataclasses.asdict(row).values()
        writer.writerow(["" if v is None else f"{v:.9g}" if type(v) is float else v for v in cells])
    content = text.getvalue().encode("utf-8", "surrogateescape")
    write_atomically(path, lambda file: file.write(content))


def figures_of(rows: Sequence[ImageMetrics]) -> list[VariantFigures]:
    """Mean over images for each seed, then mean and spread over seeds; in the order of the rows."""
    result = []
    for variant in dict.fromkeys(row.method for row in rows):
        own = [row for row in rows if row.method == variant]
        seeds = sorted({row.seed for row in own})
        mean, spread = {}, {}
        for metric in METRICS:
            by_seed = [
                [v for row in own if row.seed == seed and (v := getattr(row, metric)) is not None]
                for seed in seeds
            ]
            means = [np.mean(values) for values in by_seed if values]
            mean[metric] = float(np.mean(means)) if means else float("nan")
            spread[metric] = float(np.std(means, ddof=1)) if len(means) > 1 else None
        images = len({row.path for row in own})
        failed = sum(row.status != "ok" for row in own)
        result.append(VariantFigures(variant, images, failed, mean, spread))
    return result


def table(figures: Sequence[VariantFigures]) -> str:
    """The figures as Markdown."""
    lines = ["| variant | AUPRC | AUROC | images |", "|---|---|---|---|"]
    for each in figures:
        cells = []
        for metric in METRICS:
            spread = each.spread[metric]
            cells.append(f"{each.mean[metric]:.3f}" + (f" ± {spread:.3f}" if spread else ""))
        lines.append(f"| {each.variant} | {' | '.join(cells)} | {each.images} |")
    return "\n".join(lines) + "\n"


def write_figure(
    path: Path, rows: Sequence[ImageMetrics], figures: Sequence[VariantFigures], *, label: str
) -> None:
    """A PNG: for both metrics a row a variant, dots for images, a bar for mean and spread."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(
        figsize=(11, 1.3 + 0.42 * len(figures)), dpi=_DOTS_PER_INCH, layout="constrained"
    )
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(METRICS), sharey=True)
    for metric, axis in zip(METRICS, axes, strict=True):
        for place, each in enumerate(figures):
            by_image: dict[str, list[float]] = {}
            for row in rows:
                if row.method == each.variant and getattr(row, metric) is not None:
                    by_image.setdefault(row.path, []).append(getattr(row, metric))
            values = [np.mean(v) for v in by_image.values()]
            axis.plot(values, np.full(len(values), place), "o", color="0.75", markersize=4)
            axis.errorbar(
                each.mean[metric],
                place,
                xerr=each.spread[metric] or 0.0,
                fmt="D",
                color="tab:blue" if place else "black",
                markersize=6,
                capsize=4,
            )
        axis.axvline(figures[0].mean[metric], color="0.6", linewidth=0.8, linestyle="--")
        axis.set_xlabel(metric.upper())
        axis.grid(axis="x", color="0.92")
        axis.spines[["top", "right", "left"]].set_visible(False)
    axes[0].set_yticks(range(len(figures)), [each.variant for each in figures], parse_math=False)
    axes[0].invert_yaxis()
    figure.suptitle(label, fontsize=9, parse_math=False)
    write_atomically(path, lambda file: figure.savefig(file, format="png"))
