import numpy as np
import pytest
from skimage.transform import resize as reference

from ssdnet_jax.data.resize import resize


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ((64, 48), (32, 32)),
        ((5, 7), (64, 3)),
        ((1, 9), (4, 2)),
        ((2, 2), (1, 1)),
        ((3, 100), (100, 3)),
        ((301, 150), (128, 128)),
        ((128, 128), (300, 170)),
        ((17, 16), (16, 17)),
        ((1, 1), (3, 2)),
    ],
)
def test_values_are_those_of_skimage(old, new):
    array = np.random.default_rng(0).random((*old, 3)).astype(np.float32)
    expected = reference(array, new, order=1, anti_aliasing=True, preserve_range=True)
    found = resize(array, new)
    assert found.dtype == np.float32 and found.flags.c_contiguous
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_array_equal(resize(array[..., 0], new), found[..., 0])


def test_an_array_of_the_size_is_a_copy():
    array = np.ones((3, 4), np.float32)
    assert resize(array, (3, 4)) is not array
    np.testing.assert_array_equal(resize(array, (3, 4)), array)
