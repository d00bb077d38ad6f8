"""Flags of `ssdnet-evaluate`: parsing, help, one-line errors."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from ssdnet_jax.config import Config
from ssdnet_jax.errors import ConfigError
from ssdnet_jax.flag_values import listed_seeds, listed_words
from ssdnet_jax.flags import (
    EXECUTION_FLAGS,
    METHODS,
    Execution,
    execution_values,
    parse_flags,
    shared_help,
)

_USAGE = """\
ssdnet-evaluate: how well are the defects of a labelled dataset found?

Scores every test image (what is scored already stays), compares the maps with the masks at the
image's own size, and writes tables and a report to look at.

  ssdnet-evaluate --dataset=mvtec --workdir=out                    all categories, seed 0
  ssdnet-evaluate --dataset=mvtec --workdir=out --categories=grid,tile --seeds=0,1,2
  ssdnet-evaluate --dataset=set.csv --workdir=out --config=fabric
  ssdnet-evaluate --dataset=mvtec --workdir=out --maps=theirs --methods=PaDiM

Flags:
  --dataset=PATH          folder in MVTec AD's layout (CATEGORY/test/DEFECT/NAME.png with
                          CATEGORY/ground_truth/DEFECT/NAME_mask.png), or a CSV with the columns
                          image,mask and, if wanted, category,defect
  --categories=A,B        only these; without it all
  --mask_suffix=TEXT      what a mask's name has after its image's name; without it found out
  --masks=DIR             for a --dataset that is a plain folder: that of the masks, which are
                          named as their images; images without one are good
  --workdir=DIR           where results go (needed)
  --methods=A,B           some of {methods};
                          with --maps: what to call the maps in tables ("maps")
  --seeds=0,1,2           of what is random; without it the seed of the configuration
  --maps=DIR              evaluates these raw maps instead of scoring: float .tiff, .npy or .npz of
                          the image's size at DIR/IMAGE_PATH.tiff, with or without the image's own
                          suffix before it; CATEGORY/test/DEFECT/NAME.tiff; or a folder of ssdnet
{config}
  --image_size=PIXELS     side of the square that is fitted (256); 0: the picture's own size
  --vgg19_weights=PATH    .npz, .safetensors or .pth of VGG19, for configurations that need it
{clip_weights}
{execution}
  --help, --help_config   this text; the configuration's fields with their values

Results in DIR:
  report.html             tables, box plots, curves, best and worst cases; one file, no network
  metrics.csv             AUROC, AUPRC, F1-max, AUPRO of each image
  summary.json            means, medians, pooled metrics by category and defect; over seeds
  anomaly_maps/METHOD/    raw maps as MVTec AD's evaluation code reads them (of the first seed)
  runs/METHOD/seedN/      what `ssdnet` writes: maps, heat maps, masks, results.csv, run.json

Exit status: 0 all images evaluated, 1 some failed, 2 nothing could be started, 130 interrupted,
143 terminated. The same command again goes on.
"""


@dataclasses.dataclass(frozen=True)
class Arguments(Execution):
    """What the command line says; None where a flag was not given.

    Attributes:
      config: `--config` with its overrides applied, checked.
      dataset: folder or CSV.
      categories: the ones wanted.
      mask_suffix: what a mask's name has after its image's name.
      masks: folder of masks.
      workdir: where results go.
      methods: some of `METHODS`, each once; with `maps` the one name of the maps.
      seeds: each once; (None,) with `maps`, which have none.
      maps: folder of existing maps.
      vgg19_weights: file of VGG19.
      clip_weights: file of CLIP.
      help_config: whether only the configuration's fields are asked for.
    """

    config: Config
    dataset: Path | None
    categories: tuple[str, ...] | None
    mask_suffix: str | None
    masks: str | None
    workdir: Path | None
    methods: tuple[str, ...]
    seeds: tuple[int | None, ...]
    maps: Path | None
    vgg19_weights: str | None
    clip_weights: str | None
    help_config: bool


def parse(arguments: Sequence[str]) -> Arguments:
    """Parses the command line.

    Args:
      arguments: `sys.argv`, the program's name first.

    Raises:
      ConfigError: an unknown flag or field, or an illegal value.
    """
    texts = [field.name for field in dataclasses.fields(Arguments)]
    texts = [n for n in texts if n not in ("config", "help_config", *EXECUTION_FLAGS)]
    own = {**dict.fromkeys(texts), **EXECUTION_FLAGS, "help_config": False}
    config, given = parse_flags(arguments, own)
    methods = listed_words("--methods", given["methods"])
    seeds = listed_seeds("--seeds", given["seeds"])
    if given["maps"] is None:
        methods = methods or (METHODS[0],)
        for method in methods:
            if method not in METHODS:
                raise ConfigError(f"--methods: found {method!r}; expected {', '.join(METHODS)}")
        numbers: tuple[int | None, ...] = seeds or (config.seed,)
    else:
        methods = methods or ("maps",)
        if len(methods) > 1 or methods[0][0] == "." or set(methods[0]) & set("/\\"):
            raise ConfigError(
                f"--methods: found {given['methods']!r} with --maps; expected one name for the "
                f"maps, without slashes"
            )
        if seeds:
            raise ConfigError("--seeds: found with --maps; expected one of the two")
        numbers = (None,)
    return Arguments(
        config=config,
        dataset=_path(given["dataset"]),
        categories=listed_words("--categories", given["categories"]),
        mask_suffix=given["mask_suffix"],
        masks=given["masks"],
        workdir=_path(given["workdir"]),
        methods=methods,
        seeds=numbers,
        maps=_path(given["maps"]),
        vgg19_weights=given["vgg19_weights"],
        clip_weights=given["clip_weights"],
        help_config=given["help_config"],
        **execution_values(given),
    )


def help_text() -> str:
    """What `--help` prints."""
    return _USAGE.format(**shared_help())


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None
