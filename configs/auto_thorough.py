"""The default with a fit of 120 steps at a constant learning rate, three times as long.

Command:
  ssdnet --input=PICTURE_OR_FOLDER --workdir=DIR --config=auto_thorough

Expected: see docs/performance.md, "Shorter fits".
"""

from ml_collections import ConfigDict

from ssdnet_jax.config import AUTO, to_config_dict


def get_config() -> ConfigDict:
    """`AUTO`, fitted for longer."""
    config = to_config_dict(AUTO)
    config.fit.max_steps = 120
    config.fit.learning_rate = 5e-3
    config.fit.schedule = "constant"
    config.fit.warmup_steps = 0
    config.fit.average_decay = 0.97
    return config
