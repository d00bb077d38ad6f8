"""Single-image anomaly localization without training data: SSDnet (arXiv 2509.18354) in JAX.

`localize(image)` is the whole method; the pure functions under it (`init_fit`, `fit_block`,
`reconstruct`, `score_maps`) jit and vmap. Images are NHWC float32 in [0, 1], keys are explicit.
"""

from ssdnet_jax.config import Config, InpaintConfig
from ssdnet_jax.config_files import load_config
from ssdnet_jax.core import registry
from ssdnet_jax.core.config import (
    FeatureConfig,
    FitConfig,
    LossConfig,
    NetworkConfig,
    ScoreConfig,
)
from ssdnet_jax.core.fit import (
    FitSettings,
    FitState,
    StopReason,
    fit,
    fit_block,
    init_fit,
    reconstruct,
)
from ssdnet_jax.core.score import ScoreMaps, score_maps
from ssdnet_jax.core.skip_network import apply_skip_network, init_skip_network
from ssdnet_jax.core.vgg19 import vgg19_features
from ssdnet_jax.data.images import read_image
from ssdnet_jax.data.weights import load_vgg19_weights, random_vgg19_weights
from ssdnet_jax.errors import ConfigError, InputError, SSDnetError
from ssdnet_jax.localize import localize
from ssdnet_jax.runner.batching import Progress
from ssdnet_jax.runner.checkpoints import load_network
from ssdnet_jax.stages import Localization

__all__ = [
    "Config",
    "ConfigError",
    "FeatureConfig",
    "FitConfig",
    "FitSettings",
    "FitState",
    "InpaintConfig",
    "InputError",
    "Localization",
    "LossConfig",
    "NetworkConfig",
    "Progress",
    "SSDnetError",
    "ScoreConfig",
    "ScoreMaps",
    "StopReason",
    "apply_skip_network",
    "fit",
    "fit_block",
    "init_fit",
    "init_skip_network",
    "load_config",
    "load_network",
    "load_vgg19_weights",
    "localize",
    "random_vgg19_weights",
    "read_image",
    "reconstruct",
    "registry",
    "score_maps",
    "vgg19_features",
]
