"""The fabric setting scored by the perceptual term, which the paper uses for the defect "knots".

Command:
  ssdnet --config=fabric_knots --input=FOLDER --workdir=DIR [--vgg19_weights=PATH]

Expected: as for `configs/fabric.py`, plus a pass of VGG19 over all patches for the score.
"""

import importlib.util
from pathlib import Path

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """`fabric.py` with (alpha_rec, alpha_perc) = (0, 1)."""
    path = Path(__file__).with_name("fabric.py")
    specification = importlib.util.spec_from_file_location("fabric", path)
    fabric = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(fabric)
    config = fabric.get_config()
    config.score.alpha_rec, config.score.alpha_perc = 0.0, 1.0
    config.score.patch_strides = (8,)
    return config
