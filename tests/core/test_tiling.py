import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssdnet_jax.core.tiling import tile_grid


@given(
    rows=st.integers(1, 40),
    columns=st.integers(1, 40),
    margin=st.integers(0, 3),
    inner=st.integers(3, 9),
)
def test_inner_parts_fill_the_image_once_and_keep_their_distance_from_cut_borders(
    rows, columns, margin, inner
):
    step = 4
    shape = (rows * step, columns * step)
    margin *= step
    side = 2 * margin + inner * step
    seen = np.zeros(shape, int)
    tiles = tile_grid(shape, side=side, margin=margin, step=step)
    for tile in tiles:
        seen[tile.inner] += 1
        for axis in (0, 1):
            start, stop = tile.start[axis], tile.stop[axis]
            assert stop - start == min(side, shape[axis])
            assert start % step == tile.inner_start[axis] % step == 0
            assert start == 0 or tile.inner_start[axis] - start >= margin
            assert stop == shape[axis] or stop - tile.inner_stop[axis] >= margin
    assert (seen == 1).all()


def test_a_tile_cuts_the_same_pixels_from_the_image_and_from_itself():
    image = np.arange(64 * 96).reshape(64, 96)
    for tile in tile_grid(image.shape, side=48, margin=8, step=8):
        np.testing.assert_array_equal(image[tile.outer][tile.inner_of_outer], image[tile.inner])


def test_a_tile_at_half_of_the_size_has_half_of_the_numbers():
    (tile,) = tile_grid((64, 32), side=128, margin=8, step=8)
    assert tile.scaled(0.5).stop == (32, 16)
    with pytest.raises(ValueError, match="whole pixels"):
        tile.scaled(0.3)


def test_a_side_that_is_no_multiple_of_the_step_is_refused():
    with pytest.raises(ValueError, match="no tiles of 60 pixels"):
        tile_grid((64, 64), side=60, margin=8, step=8)
