"""What is done to an image: a static value, made once from what was measured on the image."""

import dataclasses
from typing import Literal, NamedTuple

from ssdnet_jax.core.config import FeatureConfig, FitSettings, ScoreConfig

DETAIL_SCALE = 2.0  # of an image whose file has so many pixels
_SMALLEST_SCALE = 0.5  # of a noisy image's size, where its noise is least


class Representation(NamedTuple):
    """A feature representation of an image: its principal components at one layer and scale.

    Attributes:
      layer: "fine" or "coarse", of `core.features.FeatureMaps`.
      scale: of the image's size: features are those of the image resized so. In (0, 1], or 2 for
        features of the detail that its file has beyond the size at which it is analysed.
      components: number of principal components that are kept.
      stride: of the features every `stride`-th position is kept, in both directions.
    """

    layer: Literal["fine", "coarse"]
    scale: float
    components: int
    stride: int = 1


@dataclasses.dataclass(frozen=True)
class Plan:
    """How one image is fitted and scored; hashable, so that jit takes it as a static argument.

    Images of one plan can be neighbours in a batch.

    Attributes:
      shape: height and width at which the image is analysed, in pixels.
      target: what the network is fitted to, a name in `core.registry.TARGETS`.
      fitted: the representation that is fitted; of pixels it has no meaning.
      compared: the representations that the score compares beside what the fit leaves.
      fit: what is compiled into the fit; its `max_steps` is the number of steps.
      score: how the fit is scored.
      seeds: fits of the image from different keys.
      masked: whether some pixels take no part, so that programs take a mask of those that do.
      marks: whether marks of the whitened image are scored beside `compared`.
      guided: whether the map follows the image (`core.guided`).
    """

    shape: tuple[int, int]
    target: str
    fitted: Representation
    compared: tuple[Representation, ...]
    fit: FitSettings
    score: ScoreConfig
    seeds: int = 1
    masked: bool = False
    marks: bool = False
    guided: bool = False

    @property
    def detailed(self) -> bool:
        """Whether programs take the image at twice its size, too."""
        return any(representation.scale > 1 for representation in self.compared)


def representations(
    config: FeatureConfig, *, coarse_scale: float, noisy: bool, detailed: bool = False
) -> tuple[Representation, tuple[Representation, ...]]:
    """The fitted and the compared representations of an image.

    Fine features see the smallest neighbourhoods; coarse ones are taken at `coarse_scale`, where
    they see the largest. Only the first principal components are compared: the others are mostly
    the texture's own randomness. A noisy image is analysed at reduced resolution, where its noise
    is lower. Of an image with detail, fine and coarse features are compared at twice its size as
    well, at every second position, so that there are as many positions as at its own size.

    Args:
      config: numbers of components, and the kind of features.
      coarse_scale: of the image's size, for the coarser of two scales.
      noisy: whether it has more noise than `config.noise_limit`; its detail is then not used.
      detailed: whether the image is known at twice the size at which it is analysed.
    """
    scale = coarse_scale if noisy else 1.0
    # Patches have no channels that were learned: what is unusual in them is not among the first.
    of_patches = config.kind == "filters"
    fine_components = config.components if of_patches else config.fine_components
    fine = Representation("fine", scale, fine_components)
    coarse = Representation("coarse", coarse_scale, config.components)
    # Stains that noise hides at one scale show at another.
    if noisy:
        others = [coarse._replace(scale=_SMALLEST_SCALE)]
    elif detailed:
        others = [one._replace(scale=DETAIL_SCALE, stride=2) for one in (fine, coarse)]
    else:
        others = []
    return coarse._replace(scale=scale), (fine, coarse, *others)


def smallest_scale(*, coarse_scale: float) -> float:
    """The smallest scale at which a noisy image is analysed."""
    return min(coarse_scale, _SMALLEST_SCALE)
