import os
from pathlib import Path

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real images, weights and golden numbers that are not part of the repository."""
    folder = os.environ.get("SSDNET_SHARED")
    if not folder or not Path(folder).is_dir():
        pytest.skip("SSDNET_SHARED is not set to a folder: real images and golden files are absent")
    return Path(folder)
