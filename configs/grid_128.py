"""Periodic patterns in small pictures (128 pixels, cells of 10): native size, 8-pixel patches.

Command:
  ssdnet --config=grid_128 --input=FOLDER --workdir=DIR

Expected: AUROC 0.936 +- 0.009, AUPRC 0.330 +- 0.019 on 30 MVTec AD grid images of 128 px (3
seeds); benchmarks/results/grid_128_native_patch8.json. The grid preset, which enlarges such
pictures to 256 pixels, has 0.820 +- 0.035, 0.164 +- 0.025.
"""

from ml_collections import ConfigDict

from ssdnet_jax.config import to_config_dict
from ssdnet_jax.flags import load_config


def get_config() -> ConfigDict:
    """`grid.py` at the picture's own size, with patches of half the side."""
    config = to_config_dict(load_config("grid"))
    config.image_size = 0
    config.loss.patch_sizes, config.loss.patch_strides = (8,), (4,)
    config.score.patch_sizes = (8,)
    return config
