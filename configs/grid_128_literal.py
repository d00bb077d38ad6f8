"""The paper's setting for small pictures (128 pixels): native size, 8-pixel patches, four fits.

Command:
  ssdnet --config=grid_128_literal --input=FOLDER --workdir=DIR

Expected: AUROC 0.963, AUPRC 0.403 on 30 MVTec AD grid images of 128 px (3 seeds);
benchmarks/results/grid_128_native_seeds4.json. Single fits have 0.936 +- 0.009, 0.330 +- 0.019
(3 seeds; grid_128_native_patch8.json), and `grid_literal`, which enlarges such pictures to 256
pixels, 0.820 +- 0.035, 0.164 +- 0.025. `grid_128` finds more.
"""

from ml_collections import ConfigDict

from ssdnet_jax.config import to_config_dict
from ssdnet_jax.config_files import load_config


def get_config() -> ConfigDict:
    """`grid_literal.py` at the picture's own size, with patches of half the side.

    Single fits of small pictures differ much from each other, so the median of four counts.
    """
    config = to_config_dict(load_config("grid_literal"))
    config.image_size = 0
    config.loss.patch_sizes, config.loss.patch_strides = (8,), (4,)
    config.score.patch_sizes = (8,)
    config.fit.seeds = 4
    return config
