"""What runs without --config: the setting of auto.py, under the name that never changes.

Command:
  ssdnet --config=default --input=PICTURE_OR_FOLDER --workdir=DIR

Expected: see auto.py.
"""

from ml_collections import ConfigDict

from ssdnet_jax.config import AUTO, to_config_dict


def get_config() -> ConfigDict:
    """`AUTO` as it stands."""
    return to_config_dict(AUTO)
