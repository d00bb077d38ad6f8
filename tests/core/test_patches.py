import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssdnet_jax.core.patches import (
    coverage,
    extract_patches,
    overlap_add,
    overlap_mean,
    paint,
    patch_corners,
    patch_count,
    patch_starts,
    patch_sums,
)

# Image shape, patch size, stride. A few that differ in kind, for each is compiled on its own.
GRIDS = [
    ((1, 1), 1, 1),
    ((1, 7), 1, 1),  # no patch is larger than a pixel
    ((12, 8), 4, 4),  # no overlap and nothing left over
    ((11, 9), 4, 3),  # the last patch overlaps the one before by more
    ((9, 12), 5, 1),
    ((6, 10), 6, 5),  # one row of patches
    ((12, 11), 2, 2),
]
each_grid = pytest.mark.parametrize(("shape", "size", "stride"), GRIDS, ids=str)
drawn = given(seed=st.integers(0, 2**32 - 1))
few = settings(max_examples=5)


def jit(function):
    """Compiled once for each grid: an operation alone would be compiled alone."""
    return jax.jit(function, static_argnames=("shape", "size", "stride"))


def literal_indicators(shape, size, stride):
    """R_{p,r} as the paper writes it: one 0/1 matrix of the image's size for each patch."""
    for row, column in patch_corners(shape, size=size, stride=stride):
        indicator = np.zeros(shape)
        indicator[row : row + size, column : column + size] = 1
        yield indicator


@settings(max_examples=60)
@given(st.integers(1, 50), st.integers(1, 20), st.integers(1, 25))
def test_patches_start_every_stride_and_end_flush_with_the_border(length, size, stride):
    if size > length:
        with pytest.raises(ValueError, match=f"{size} is larger than the image side {length}"):
            patch_starts(length, size=size, stride=stride)
        return
    starts = patch_starts(length, size=size, stride=stride)
    assert starts[0] == 0
    assert starts[-1] == length - size
    steps = np.diff(starts)
    assert (steps[:-1] == stride).all()
    assert (steps > 0).all() and (steps <= stride).all()


extracted = jax.jit(extract_patches, static_argnames=("size", "stride"))


@jit
def taken_apart_and_put_together(image, shape, size, stride):
    patches = extract_patches(image, size=size, stride=stride)
    return patches, overlap_mean(patches, shape, stride=stride)


@each_grid
@few
@drawn
def test_overlap_mean_inverts_extraction(shape, size, stride, seed):
    image = np.random.default_rng(seed).random((*shape, 2), np.float32)
    patches, again = taken_apart_and_put_together(image, shape, size, stride)
    assert patches.shape == (patch_count(shape, size=size, stride=stride), size, size, 2)
    np.testing.assert_allclose(again, image, atol=1e-6)


@jit
def extracted_and_added(image, patches, shape, size, stride):
    added = overlap_add(patches, shape, stride=stride)
    return extract_patches(image, size=size, stride=stride), added


@each_grid
@few
@drawn
def test_overlap_add_is_the_adjoint_of_extraction(shape, size, stride, seed):
    generator = np.random.default_rng(seed)
    image = generator.random((*shape, 1), np.float32)
    count = patch_count(shape, size=size, stride=stride)
    patches = generator.random((count, size, size, 1), np.float32)
    extracted, added = extracted_and_added(image, patches, shape, size, stride)
    assert np.vdot(extracted, patches) == pytest.approx(np.vdot(image, added), rel=1e-4)


@jit
def summed_and_painted(values, shape, size, stride):
    sums = patch_sums(values, size=size, stride=stride)
    return sums, paint(sums, shape, size=size, stride=stride)


@each_grid
@few
@drawn
def test_sums_painting_and_coverage_equal_the_literal_indicators(shape, size, stride, seed):
    values = np.random.default_rng(seed).random(shape, np.float32)
    indicators = list(literal_indicators(shape, size, stride))
    sums, painted = summed_and_painted(values, shape, size, stride)
    np.testing.assert_allclose(np.ravel(sums), [(r * values).sum() for r in indicators], rtol=1e-4)
    expected = sum(r * (r * values).sum() for r in indicators)
    np.testing.assert_allclose(painted, expected, rtol=1e-4)
    np.testing.assert_array_equal(coverage(shape, size=size, stride=stride), sum(indicators))


def test_patches_hold_the_pixels_at_their_corners():
    image = np.arange(30, dtype=np.float32).reshape(5, 6, 1)
    patches = np.asarray(extracted(image, size=2, stride=2))
    corners = patch_corners((5, 6), size=2, stride=2)
    np.testing.assert_array_equal(corners[:4], [[0, 0], [0, 2], [0, 4], [2, 0]])
    np.testing.assert_array_equal(corners[-1], [3, 4])
    np.testing.assert_array_equal(patches[-1, ..., 0], [[22, 23], [28, 29]])


@pytest.mark.parametrize(("size", "stride"), [(0, 1), (2, 0)])
def test_sizes_and_strides_below_one_are_refused(size, stride):
    with pytest.raises(ValueError, match="at least 1"):
        patch_starts(5, size=size, stride=stride)
