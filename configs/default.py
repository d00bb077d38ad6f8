"""The default: the grid preset, the paper's reading that works without any pretrained weights.

Command:
  ssdnet --input=PICTURE_OR_FOLDER --workdir=DIR

Expected: as for `configs/grid.py`.
"""

from ml_collections import ConfigDict

from ssdnet_jax.config import Config, to_config_dict


def get_config() -> ConfigDict:
    """`Config()` as it stands."""
    return to_config_dict(Config())
