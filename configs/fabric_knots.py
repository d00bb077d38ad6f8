"""The fabric setting scored by the perceptual term, which the paper uses for the defect "knots".

Command:
  ssdnet --config=fabric_knots --input=FOLDER --workdir=DIR [--vgg19_weights=PATH]

Expected: AUROC 0.655, AUPRC 0.077 on the first three AITEX crops (256 px, 1 seed), where `fabric`
has 0.699 and 0.048; VGG19 sees 961 patches of 224 pixels twice for the score, which takes 217 s an
image on one core. benchmarks/results/fabric_knots.json.
"""

from ml_collections import ConfigDict

from ssdnet_jax.config import to_config_dict
from ssdnet_jax.config_files import load_config


def get_config() -> ConfigDict:
    """`fabric.py` with (alpha_rec, alpha_perc) = (0, 1)."""
    config = to_config_dict(load_config("fabric"))
    config.score.alpha_rec, config.score.alpha_perc = 0.0, 1.0
    config.score.patch_strides = (8,)
    return config
