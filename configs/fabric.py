"""The paper's setting for stochastic texture (HKBU dot fabric): perceptual only, (0, 1).

Command:
  ssdnet --config=fabric --input=FOLDER --workdir=DIR [--vgg19_weights=PATH]

Expected: AUROC 0.600 +- 0.052, AUPRC 0.068 +- 0.006 on 28 AITEX crops (256 px, 3 seeds), about 5 s
an image; benchmarks/results/fabric.json.
"""

from ml_collections import ConfigDict

from ssdnet_jax.config import PAPER, to_config_dict


def get_config() -> ConfigDict:
    """(w_rec, w_perc) = (0, 1), 1 epoch, threshold -100, alpha = (1, 0) (section 4.2).

    Disjoint patches, 4 a step: an epoch is 64 steps of a 256-pixel image.
    """
    config = to_config_dict(PAPER)
    config.loss.w_rec, config.loss.w_perc = 0.0, 1.0
    config.loss.patch_sizes, config.loss.patch_strides = (16,), (16,)
    config.loss.patches_per_step = 4
    config.fit.epochs = 1
    config.fit.stop_threshold = -100.0
    config.score.alpha_rec, config.score.alpha_perc = 1.0, 0.0
    return config
