import math

import jax
import numpy as np
import pytest
from scipy.ndimage import convolve1d, gaussian_filter

from ssdnet_jax.core import smoothing

smoothed = jax.jit(smoothing.smoothed, static_argnames="deviation")
separable = jax.jit(smoothing.separable)


@pytest.mark.parametrize("deviation", [0.8, 2.0])
def test_a_map_is_smoothed_as_scipy_does(deviation):
    values = np.random.default_rng(0).random((20, 31), np.float32)
    expected = gaussian_filter(values, deviation, mode="mirror", radius=math.ceil(3 * deviation))
    np.testing.assert_allclose(smoothed(values, deviation=deviation), expected, atol=1e-5)


def test_of_a_small_map_no_more_is_mirrored_than_there_is():
    values = np.random.default_rng(0).random((4, 9), np.float32)
    weights = smoothing.gaussian(7, 5.0)
    expected = convolve1d(convolve1d(values, weights, 0, mode="mirror"), weights, 1, mode="mirror")
    np.testing.assert_allclose(smoothed(values, deviation=5.0), expected, atol=1e-6)


def test_channels_are_filtered_apart():
    features = np.random.default_rng(0).random((6, 7, 2), np.float32)
    weights = [0.25, 0.5, 0.25]
    found = separable(features, weights)
    for channel in range(2):
        expected = features[..., channel]
        for axis in (0, 1):
            expected = convolve1d(expected, weights, axis, mode="mirror")
        np.testing.assert_allclose(found[..., channel], expected, atol=1e-6)
