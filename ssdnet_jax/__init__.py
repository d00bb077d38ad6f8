"""Single-image anomaly localization without training data: SSDnet (arXiv 2509.18354) in JAX.

`localize(image)` and `localize_batch(images)` are the whole method. The pure functions under them,
`encode`, `fit`, `score` and `decode`, take a batch of images and jit and vmap. Images are NHWC
float32 in [0, 1], keys are explicit.
"""

from ssdnet_jax import importing as _importing  # noqa: F401  first: the rest takes long
from ssdnet_jax.config import AUTO, PAPER, Config, InpaintConfig
from ssdnet_jax.config_files import load_config
from ssdnet_jax.core import registry
from ssdnet_jax.core.config import (
    DecisionConfig,
    FeatureConfig,
    FitConfig,
    FitSettings,
    LossConfig,
    NetworkConfig,
    ScoreConfig,
)
from ssdnet_jax.core.conformal import Calibration
from ssdnet_jax.core.decision import Decision
from ssdnet_jax.core.defects import Defect
from ssdnet_jax.core.fit import StopReason
from ssdnet_jax.core.lanes import Fit, fit
from ssdnet_jax.core.noise import noise_deviation
from ssdnet_jax.core.plan import Plan, Representation
from ssdnet_jax.core.score import ScoreMaps, score
from ssdnet_jax.core.skip_network import apply_skip_network, init_skip_network
from ssdnet_jax.core.target import Target, decode, encode
from ssdnet_jax.core.vgg19 import vgg19_features
from ssdnet_jax.data.images import read_image
from ssdnet_jax.data.weights import load_vgg19_weights, random_vgg19_weights
from ssdnet_jax.errors import ConfigError, InputError, SSDnetError
from ssdnet_jax.localize import localize, localize_batch
from ssdnet_jax.methods.base import FittedLocalization, Localization, Progress, TiledLocalization
from ssdnet_jax.runner.checkpoints import load_network

__all__ = [
    "AUTO",
    "PAPER",
    "Calibration",
    "Config",
    "ConfigError",
    "Decision",
    "DecisionConfig",
    "Defect",
    "FeatureConfig",
    "Fit",
    "FitConfig",
    "FitSettings",
    "FittedLocalization",
    "InpaintConfig",
    "InputError",
    "Localization",
    "LossConfig",
    "NetworkConfig",
    "Plan",
    "Progress",
    "Representation",
    "SSDnetError",
    "ScoreConfig",
    "ScoreMaps",
    "StopReason",
    "Target",
    "TiledLocalization",
    "apply_skip_network",
    "decode",
    "encode",
    "fit",
    "init_skip_network",
    "load_config",
    "load_network",
    "load_vgg19_weights",
    "localize",
    "localize_batch",
    "noise_deviation",
    "random_vgg19_weights",
    "read_image",
    "registry",
    "score",
    "vgg19_features",
]
