from pathlib import Path

import numpy as np
import pytest

from ssdnet_jax.config import PAPER
from ssdnet_jax.core.config import NetworkConfig

GOLDEN = {
    "dip_skip_5scale_reflection_bilinear": PAPER.network,
    "dip_skip_3scale_zero_nearest": NetworkConfig(
        channels_down=(16, 32, 64),
        channels_up=(16, 32, 64),
        channels_skip=(4, 0, 4),
        padding="zero",
        upsampling="nearest",
        sigmoid=True,
    ),
    "dip_skip_3scale_odd_45x37": NetworkConfig(
        channels_down=(8, 16, 32), channels_up=(8, 16, 32), channels_skip=(4, 4, 4), sigmoid=True
    ),
}


@pytest.fixture(params=GOLDEN, scope="module")
def golden_file(request, shared: Path) -> tuple[str, np.lib.npyio.NpzFile, NetworkConfig]:
    """What the original PyTorch network did: name, file, and our configuration of it."""
    name = request.param
    return name, np.load(shared / "golden" / f"{name}.npz"), GOLDEN[name]
