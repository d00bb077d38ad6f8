"""The fabric setting scored by the perceptual term, which the paper uses for the defect "knots".

Command:
  ssdnet --config=fabric_knots --input=FOLDER --workdir=DIR [--vgg19_weights=PATH]

Expected: as for `configs/fabric.py`, plus a pass of VGG19 over all patches for the score.
"""

from ml_collections import ConfigDict

from ssdnet_jax.config import to_config_dict
from ssdnet_jax.flags import load_config


def get_config() -> ConfigDict:
    """`fabric.py` with (alpha_rec, alpha_perc) = (0, 1)."""
    config = to_config_dict(load_config("fabric"))
    config.score.alpha_rec, config.score.alpha_perc = 0.0, 1.0
    config.score.patch_strides = (8,)
    return config
