"""The paper's setting for periodic patterns (MVTec AD grid) to the letter: pixels, (1, 0), Eq. 3.

Command:
  ssdnet --config=grid_literal --input=FOLDER --workdir=DIR

Expected: AUROC 0.989 +- 0.004, AUPRC 0.688 +- 0.021 on four full-resolution MVTec AD grid images
(hand-drawn masks, 256 px, 3 seeds); benchmarks/results/grid_256.json. `grid` finds more.
"""

from ml_collections import ConfigDict

from ssdnet_jax.config import PAPER, to_config_dict


def get_config() -> ConfigDict:
    """(w_rec, w_perc) = (1, 0), up to 10 epochs, threshold 1e-4, 16-pixel patches (section 4.2)."""
    config = to_config_dict(PAPER)
    config.loss.w_rec, config.loss.w_perc = 1.0, 0.0
    config.loss.patch_sizes, config.loss.patch_strides = (16,), (8,)
    config.loss.patches_per_step = 32
    config.fit.epochs = 10
    config.fit.stop_threshold = 1e-4
    config.score.alpha_rec, config.score.alpha_perc = 1.0, 0.0
    return config
