import jax
import numpy as np
import pytest

from ssdnet_jax.core.corruption import (
    add_noise,
    block_mask,
    hide,
    permute_patches,
    permute_tiles,
)

KEY = jax.random.key(0)
noisy = jax.jit(add_noise, static_argnames="deviation")
mask = jax.jit(block_mask, static_argnums=1, static_argnames=("ratio", "block"))
permuted = jax.jit(permute_patches, static_argnames="ratio")


def test_noise_has_the_deviation_asked_for_and_mean_zero():
    grey = np.full((200, 200, 1), 0.5, np.float32)
    noise = np.asarray(noisy(KEY, grey, deviation=0.01)) - 0.5
    assert noise.std() == pytest.approx(0.01, rel=0.02)
    assert abs(noise.mean()) < 3 * 0.01 / 200


@pytest.mark.parametrize("block", [1, 4, 7])
def test_masks_hide_the_ratio_asked_for_in_whole_blocks(block):
    hidden = np.asarray(mask(KEY, (203, 211), ratio=0.3, block=block))
    assert hidden.shape == (203, 211)
    assert hidden.mean() == pytest.approx(0.3, abs=0.05)
    for row in range(0, 203, block):
        for column in range(0, 211, block):
            square = hidden[row : row + block, column : column + block]
            assert square.all() or not square.any()


def test_hidden_pixels_are_zero_in_all_channels_and_the_others_stay():
    image, hidden = np.ones((2, 3, 3, 2), np.float32), np.zeros((3, 3), bool)
    hidden[1, 2] = True
    result = np.asarray(jax.jit(hide)(image, hidden))
    assert (result[:, 1, 2] == 0).all()
    assert result.sum() == 2 * 2 * 8


@pytest.mark.parametrize("ratio", [0.0, 0.4, 1.0])
def test_permutation_moves_about_the_ratio_and_loses_nothing(ratio):
    patches = np.arange(500, dtype=np.float32)
    moved = np.asarray(permuted(KEY, patches, ratio=ratio))
    np.testing.assert_array_equal(np.sort(moved), patches)
    assert np.mean(moved != patches) == pytest.approx(ratio, abs=0.06)


def test_tiles_move_as_wholes_and_a_rest_stays():
    image = np.arange(10 * 9, dtype=np.float32).reshape(10, 9, 1)
    permute = jax.jit(permute_tiles, static_argnames=("size", "ratio"))
    moved = np.asarray(permute(KEY, image, size=4, ratio=1.0))
    assert not np.array_equal(moved, image)
    np.testing.assert_array_equal(moved[8:], image[8:])
    np.testing.assert_array_equal(moved[:, 8:], image[:, 8:])
    tiles = {image[r : r + 4, c : c + 4].tobytes() for r in (0, 4) for c in (0, 4)}
    assert {moved[r : r + 4, c : c + 4].tobytes() for r in (0, 4) for c in (0, 4)} == tiles


def test_other_keys_corrupt_otherwise():
    other = jax.random.key(1)
    shape = (32, 32)
    first, second = (mask(k, shape, ratio=0.5, block=2) for k in (KEY, other))
    assert (first != second).any()
