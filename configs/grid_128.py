"""`grid` for small pictures (128 pixels): native size, patches and level of half the side.

Command:
  ssdnet --config=grid_128 --input=FOLDER --workdir=DIR

Expected: AUROC 0.985, AUPRC 0.603 +- 0.007 on 30 MVTec AD grid images of 128 px (3 seeds), where
`grid_128_literal` has 0.963, 0.403 with four fits; benchmarks/results/grid_relative.json.
"""

from ml_collections import ConfigDict

from ssdnet_jax.config import to_config_dict
from ssdnet_jax.config_files import load_config


def get_config() -> ConfigDict:
    """`grid.py` at the picture's own size, with patches of half the side."""
    config = to_config_dict(load_config("grid"))
    config.image_size = 0
    config.loss.patch_sizes, config.loss.patch_strides = (8,), (4,)
    config.score.patch_sizes = (8,)
    config.score.level_width = 10.0
    return config
