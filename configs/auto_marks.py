"""The default setting with detail of the file and marks of the whitened image: more is found.

Cracks and small spots, also under uneven light. Its maps have higher peaks on good images than the
verdict's law expects: give a calibration.

Command:
  ssdnet --input=PICTURE_OR_FOLDER --workdir=DIR --config=auto_marks

Expected: see docs/auto.md.
"""

from ml_collections import ConfigDict

from ssdnet_jax.config import AUTO, to_config_dict


def get_config() -> ConfigDict:
    """`AUTO`, scored by tiles and marks."""
    config = to_config_dict(AUTO)
    config.score.method = "tiles_and_marks"
    return config
