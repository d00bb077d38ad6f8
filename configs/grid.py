"""The paper's setting for periodic patterns (MVTec AD grid), made fit for light that is uneven.

Command:
  ssdnet --config=grid --input=FOLDER --workdir=DIR

Expected: AUROC 0.998, AUPRC 0.805 +- 0.043 on four full-resolution MVTec AD grid images (hand-drawn
masks, 256 px, 3 seeds), where `grid_literal` has 0.989, 0.688;
benchmarks/results/grid_relative.json.
"""

from ml_collections import ConfigDict

from ssdnet_jax.config import to_config_dict
from ssdnet_jax.config_files import load_config


def get_config() -> ConfigDict:
    """`grid_literal.py` with more input noise and errors relative to their surroundings."""
    config = to_config_dict(load_config("grid_literal"))
    config.fit.input_noise = 0.1
    config.score.method = "relative"
    config.score.level_width = 20.0
    return config
