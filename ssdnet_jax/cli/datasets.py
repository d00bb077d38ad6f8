"""What the commands on labelled datasets share: their flags, and how they read and score one."""

import dataclasses
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ssdnet_jax.cli.flag_values import listed_words, one_of
from ssdnet_jax.cli.flags import EXECUTION_FLAGS, execution_values
from ssdnet_jax.data.datasets import AUTO, LAYOUTS, read_dataset
from ssdnet_jax.data.files import real_path
from ssdnet_jax.data.layouts.sample import Sample
from ssdnet_jax.errors import ConfigError
from ssdnet_jax.experiments.scoring import Context
from ssdnet_jax.runner.executors import Execution, Executor
from ssdnet_jax.runner.terminal import Terminal

_OWN = (
    *("dataset", "layout", "workdir", "categories", "mask_suffix", "masks"),
    *("vgg19_weights", "clip_weights"),
)
DATASET_FLAGS: dict[str, str | bool | tuple[str, ...] | None] = {
    **dict.fromkeys(_OWN),
    "layout": AUTO,
    **EXECUTION_FLAGS,
}
DATASET_HELP = """\
  --dataset=PATH          a labelled set: its folder, a CSV with the columns image,mask (or
                          image,label) and, if wanted, category,defect, or a JSON of COCO
  --layout=NAME           auto (the default): found out, or one of
                          {layouts}
  --categories=A,B        only these; without it all
  --mask_suffix=TEXT      what a mask's name has after its image's name; without it found out
  --masks=DIR             for a --dataset that is a plain folder: that of the masks, which are
                          named as their images; images without one are good
  --workdir=DIR           where results go (needed)""".format(
    layouts=f"\n{' ' * 26}".join(textwrap.wrap(", ".join(LAYOUTS), 70))
)


@dataclasses.dataclass(frozen=True)
class DatasetArguments(Execution):
    """What the command lines of these commands have in common; None where a flag was not given."""

    dataset: Path  # folder, CSV or JSON
    layout: str  # one of `LAYOUTS`, or "auto"
    workdir: Path  # where results go
    categories: tuple[str, ...] | None  # the ones wanted
    mask_suffix: str | None  # what a mask's name has after its image's name
    masks: str | None  # folder of masks
    vgg19_weights: str | None  # file of VGG19
    clip_weights: str | None  # file of CLIP

    def samples(self, report: Callable[[str], object]) -> list[Sample]:
        """The dataset, without images that a run has written into it.

        `report` is told which layout was found.
        """
        found = read_dataset(
            self.dataset,
            layout=self.layout,
            categories=self.categories,
            mask_suffix=self.mask_suffix,
            masks=self.masks,
            report=report,
        )
        results = real_path(self.workdir)
        return [s for s in found if not real_path(s.path).is_relative_to(results)]

    def context(self, terminal: Terminal, executor: Executor, command: str) -> Context:
        """What the runs of the command share."""
        weights = (self.vgg19_weights, self.clip_weights)
        return Context(self.dataset, terminal, executor, *weights, {"command": command})


def dataset_values(given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `DatasetArguments` from the values of `DATASET_FLAGS`; raises ConfigError."""
    categories = listed_words("--categories", given["categories"])
    one_of("--layout", given["layout"], (AUTO, *LAYOUTS))
    for name in ("dataset", "workdir"):
        if not given[name] and not given.get("help_config"):
            raise ConfigError(f"--{name}: found none; expected one, see --help")
    return {
        **{name: given[name] for name in _OWN},
        "dataset": Path(given["dataset"] or ""),
        "workdir": Path(given["workdir"] or ""),
        "categories": categories,
        **execution_values(given),
    }
