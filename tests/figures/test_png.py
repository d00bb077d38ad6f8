import numpy as np
import pytest
from PIL import Image

from ssdnet_jax.figures.png import write_png


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (9, 1), (64, 80)])
def test_pictures_come_back(tmp_path, shape):
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    for values in (pixels, pixels[::-1], pixels[:, ::-1]):
        write_png(tmp_path / "a" / "p.png", values)
        with Image.open(tmp_path / "a" / "p.png") as image:
            image.verify()
        with Image.open(tmp_path / "a" / "p.png") as image:
            assert (image.mode, image.size) == ("RGB", shape[::-1])
            np.testing.assert_array_equal(np.asarray(image), values)
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["p.png"]
