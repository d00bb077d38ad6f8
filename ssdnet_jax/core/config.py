"""Every knob of the method, one frozen dataclass a stage; fields name their unit and legal values.

The defaults are those of `configs/auto.py`, one setting for every texture (docs/auto.md);
`ssdnet_jax.config.PAPER` has the paper's. Symbols are the paper's (arXiv 2509.18354): w_rec, w_perc
in Eq. 2, alpha_rec, alpha_perc in Eq. 3.
An annotated field is the name of a function in that registry.
"""

import dataclasses
from typing import Annotated, Literal

from ssdnet_jax.core import registry

Aggregation = Annotated[str, registry.AGGREGATIONS]


@dataclasses.dataclass(frozen=True)
class NetworkConfig:
    """Skip encoder-decoder (paper section 3.2; Ulyanov et al. 2018, `skip`)."""

    kind: Annotated[str, registry.NETWORKS] = "skip"
    channels_down: tuple[int, ...] = (48, 64, 96, 96)  # one entry a scale, finest first, >= 1
    channels_up: tuple[int, ...] = (48, 64, 96, 96)  # as many entries as channels_down, >= 1
    channels_skip: tuple[int, ...] = (4, 4, 4, 4)  # as many entries, >= 0; 0: no skip connection
    kernel_down: int = 3  # pixels, odd
    kernel_up: int = 3  # pixels, odd
    kernel_skip: int = 1  # pixels, odd
    padding: Literal["reflection", "zero"] = "reflection"
    upsampling: Literal["bilinear", "nearest"] = "bilinear"
    activation: Literal["leaky_relu", "elu", "swish", "none"] = "leaky_relu"  # leaky slope 0.2
    conv1x1_up: bool = True  # a 1x1 convolution after each up convolution
    sigmoid: bool = False  # squash the output to (0, 1)


PAPER_NETWORK = NetworkConfig(
    channels_down=(16, 32, 64, 128, 128),
    channels_up=(16, 32, 64, 128, 128),
    channels_skip=(4, 4, 4, 4, 4),
    sigmoid=True,
)
"""The paper's (section 3.2)."""


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """Patch loss (paper Eq. 2)."""

    patch_sizes: tuple[int, ...] = (8,)  # m_r, pixels, one entry a resolution r, >= 1
    patch_strides: tuple[int, ...] = (8,)  # pixels between patches, one entry a resolution, >= 1
    w_rec: float = 1.0  # >= 0, weight of the reconstruction error
    w_perc: float = 0.0  # >= 0, weight of the similarity of features
    reconstruction: Annotated[str, registry.RECONSTRUCTION_ERRORS] = "squared"  # also of the score
    perceptual: Annotated[str, registry.PERCEPTUAL_SIMILARITIES] = "inner_product"  # likewise
    aggregation: Aggregation = "mean"  # Lambda over resolutions
    perceptual_layer: Literal["conv2_2", "relu2_2"] = "conv2_2"  # VGG19, before or after the ReLU
    perceptual_view: Literal["patch", "image"] = "patch"  # VGG19 sees each patch, resized, as in
    # the paper; or the image as it is, once, and patches are cut from its features
    perceptual_size: int = 224  # pixels, >= 2: patches are resized to this square for VGG19
    perceptual_precision: Literal["float32", "bfloat16"] = "float32"  # of VGG19's arithmetic
    patches_per_step: int = 32  # >= 1, perceptual or patch-wise minibatch; it defines an epoch


@dataclasses.dataclass(frozen=True)
class FitConfig:
    """Optimization (paper sections 3.5 and 4.2)."""

    learning_rate: float = 2e-2  # Adam, in [1e-12, 100]; with a schedule the largest
    schedule: Literal["constant", "cosine"] = "cosine"  # of the learning rate; cosine: it falls
    # to 0 at the last step, as half a cosine that begins after warm-up
    warmup_steps: int = 4  # steps, >= 0, in which the learning rate rises linearly to the above
    epochs: int = 10  # >= 1; one epoch is ceil(patches / patches_per_step) steps
    max_steps: int = 40  # steps, >= 0; 0: as many as the epochs ask for
    stop_threshold: float = 0.0  # the fit ends when the loss of Eq. 2 first falls below this
    input_noise: float = 0.3  # standard deviation of Gaussian input noise, image units, >= 0
    mask_ratio: float = 0.5  # fraction of input pixels set to 0 at each step, in [0, 1)
    mask_block: int = 4  # pixels, side of the square blocks that are masked together, >= 1
    permute_ratio: float = 0.0  # fraction of output patches that change places, in [0, 1]
    blowup_factor: float = 5.0  # > 1: a loss above this times its recent median is undone; 0: never
    average_decay: float = 0.85  # in [0, 1): memory of the running average of outputs; 0: none
    seeds: int = 1  # fits of one image from different keys, >= 1; their maps' median is the result
    block_steps: int = 20  # steps a compiled call, >= 1; between calls progress is shown
    precision: Literal["float32", "bfloat16"] = "float32"  # of what the network's layers give, and
    # of their products; parameters, statistics, losses, Adam and averages are always float32


@dataclasses.dataclass(frozen=True)
class ScoreConfig:
    """Anomaly score (paper Eq. 3)."""

    method: Annotated[str, registry.SCORES] = "tiles"  # tiles unlike the typical one; Eq. 3
    # ("patches"); or Eq. 3 for images whose light is uneven ("relative")
    patch_sizes: tuple[int, ...] = (16,)  # m_r, pixels, one entry a resolution r, >= 1
    patch_strides: tuple[int, ...] = (1,)  # pixels between patches, one entry a resolution, >= 1
    alpha_rec: float = 1.0  # >= 0; alpha_rec + alpha_perc = 1
    alpha_perc: float = 0.0  # >= 0
    aggregation: Aggregation = "mean"  # Lambda over resolutions
    coverage: Literal["mean", "paper"] = "mean"  # divide by the patches on a pixel, or by N_r
    level_width: float = 20.0  # pixels, >= 1: standard deviation of the Gaussian over which the
    # score "relative" takes the level of errors
    tile_size: int = 9  # feature pixels, odd, >= 3: side of the tiles whose values are compared
    coarse_scale: float = 0.75  # in [0.05, 1]: of the image, for the coarser of two resolutions
    agreement_scale: float = 4.0  # quartiles, >= 1e-3: distances of tiles above this count where
    # maps agree (a geometric mean), below it they are averaged
    marks: Literal["all", "none"] = "all"  # lines, spots and coloured stripes of the whitened image
    # beside tiles of features (`core.matched_filter`); none: tiles alone
    detail: Literal["auto", "none"] = "auto"  # auto: features of the image at twice the size at
    # which it is analysed are compared as well, where its file has that many pixels
    guide: Literal["image", "none"] = "image"  # what the map of tiles follows within a tile: edges
    # of the image (`core.guided`); none: nothing


@dataclasses.dataclass(frozen=True)
class FeatureConfig:
    """What the network is fitted to: the image, or features of its texture (docs/auto.md)."""

    kind: Annotated[str, registry.TARGETS] = "auto"  # auto: vgg19 if there are weights, else
    # filters
    components: int = 24  # >= 1, principal components of the coarse features, which are fitted
    fine_components: int = 8  # >= 1, of VGG19's fine ones, which the score "tiles" compares as
    # well; of patches, which "filters" has instead, it compares `components`
    noise_limit: float = 0.04  # standard deviation, image units, >= 0: an image with more noise
    # is analysed at `score.coarse_scale` of its size, where its noise is lower


@dataclasses.dataclass(frozen=True)
class DecisionConfig:
    """From a map to a verdict, a mask and a list of defects (docs/decisions.md)."""

    false_alarms: float = 0.01  # in (0, 1): share of good images that may be called anomalous
    mask: Literal["significant", "otsu"] = "significant"  # significant: what stands out, on a good
    # image nothing; otsu: the upper of two classes of any map (the paper, section 5.3)
    mask_false_alarms: float = 0.05  # in (0, 1): share of good images that may have a "significant"
    # mask; an image between the two rates is called unsure
    peak_share: float = 0.4  # in (0, 1): of a significant region or peak pixels above this share of
    # its largest value are marked
    other_false_alarms: float = 0.17  # in (0, 1): where an image has a significant region, others
    # count that are as heavy as this share of good images has one
    other_peaks: float = 0.6  # in (0, 1]: beside known good images, where an image has a
    # significant peak, others count from this share of the value that makes one significant
    min_area: int = 0  # image pixels, >= 0: smaller defects are left out
    max_defects: int = 100  # >= 0: no more than the worst so many are listed; 0: all
    false_discoveries: float = 0.05  # in (0, 1): expected share of good images among those that the
    # comparison within a run calls anomalous


@dataclasses.dataclass(frozen=True)
class FitSettings:
    """What is compiled into a fit; hashable, so that jit takes it as a static argument."""

    network: NetworkConfig = NetworkConfig()
    loss: LossConfig = LossConfig()
    fit: FitConfig = FitConfig()
