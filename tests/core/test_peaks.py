import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, label, maximum_position

from ssdnet_jax.core.peaks import peak_mask


def test_a_peak_takes_what_is_connected_with_it_above_a_share_of_its_own_height():
    line = np.array([[0.0, 5, 9, 20, 9, 3, 7, 11, 7, 0]])
    assert peak_mask(line, 10.0, others=1.0, share=0.4).tolist() == [
        [False, False, True, True, True, False, True, True, True, False]
    ]
    # The lower peak's own share reaches further; what the higher one has taken stays its own.
    assert peak_mask(line, 10.0, others=1.0, share=0.2).sum() == 8
    assert not peak_mask(line, 20.0, others=0.5, share=0.4).any()
    assert peak_mask(line, 12.0, others=1.0, share=0.4).sum() == 3
    assert peak_mask(line, 19.0, others=0.5, share=0.4).sum() == 6


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("share", [0.1, 0.5])
def test_peaks_reach_as_far_as_in_a_search_of_the_whole_map(seed, share):
    noise = np.random.default_rng(seed).normal(size=(70, 90))
    values, significant = 20 * np.square(gaussian_filter(noise, 3)) / 0.05, 4.0
    expected = np.zeros(values.shape, bool)
    labels, count = label(values > 0.5 * significant, np.ones((3, 3)))
    for place in sorted(
        maximum_position(values, labels, range(1, count + 1)), key=lambda p: -values[p]
    ):
        if not expected[place]:
            around, _ = label(values > share * values[place], np.ones((3, 3)))
            expected |= around == around[place]
    assert expected.any()
    np.testing.assert_array_equal(peak_mask(values, significant, others=0.5, share=share), expected)
