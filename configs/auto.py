"""The default: one setting for every texture, grey or colour, periodic or not (docs/auto.md).

The network is fitted to features of the picture, and the score says where features, or what the fit
left of them, are distributed unlike in the rest of the picture. With VGG19 weights the features are
VGG19's, without them those of a filter bank.

Command:
  ssdnet --input=PICTURE_OR_FOLDER --workdir=DIR

Expected: see docs/auto.md.
"""

from ml_collections import ConfigDict

from ssdnet_jax.config import AUTO, to_config_dict


def get_config() -> ConfigDict:
    """`AUTO` as it stands."""
    return to_config_dict(AUTO)
