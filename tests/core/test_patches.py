import jax.numpy as jnp
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

pytestmark = pytest.mark.usefixtures("fast_compilation")


@st.composite
def grids(draw):
    """An image shape, a patch size that fits and a stride that leaves no gap."""
    shape = (draw(st.integers(1, 12)), draw(st.integers(1, 12)))
    size = draw(st.integers(1, min(shape)))
    return shape, size, draw(st.integers(1, size)), draw(st.integers(0, 2**32 - 1))


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


@settings(max_examples=12)
@given(grids())
def test_overlap_mean_inverts_extraction(grid):
    shape, size, stride, seed = grid
    image = np.random.default_rng(seed).random((*shape, 2), np.float32)
    patches = extract_patches(jnp.asarray(image), size=size, stride=stride)
    assert patches.shape == (patch_count(shape, size=size, stride=stride), size, size, 2)
    np.testing.assert_allclose(overlap_mean(patches, shape, stride=stride), image, atol=1e-6)


@settings(max_examples=12)
@given(grids())
def test_overlap_add_is_the_adjoint_of_extraction(grid):
    shape, size, stride, seed = grid
    generator = np.random.default_rng(seed)
    image = generator.random((*shape, 1), np.float32)
    patches = generator.random((patch_count(shape, size=size, stride=stride), size, size, 1))
    forward = np.vdot(extract_patches(jnp.asarray(image), size=size, stride=stride), patches)
    added = overlap_add(jnp.asarray(patches, jnp.float32), shape, stride=stride)
    assert forward == pytest.approx(np.vdot(image, added), rel=1e-4)


@settings(max_examples=12)
@given(grids())
def test_sums_painting_and_coverage_equal_the_literal_indicators(grid):
    shape, size, stride, seed = grid
    values = np.random.default_rng(seed).random(shape, np.float32)
    indicators = list(literal_indicators(shape, size, stride))
    sums = patch_sums(jnp.asarray(values), size=size, stride=stride)
    np.testing.assert_allclose(np.ravel(sums), [(r * values).sum() for r in indicators], rtol=1e-4)
    painted = paint(sums, shape, size=size, stride=stride)
    expected = sum(r * (r * values).sum() for r in indicators)
    np.testing.assert_allclose(painted, expected, rtol=1e-4)
    np.testing.assert_array_equal(coverage(shape, size=size, stride=stride), sum(indicators))


def test_patches_hold_the_pixels_at_their_corners():
    image = jnp.arange(30.0).reshape(5, 6, 1)
    patches = extract_patches(image, size=2, stride=2)
    corners = patch_corners((5, 6), size=2, stride=2)
    np.testing.assert_array_equal(corners[:4], [[0, 0], [0, 2], [0, 4], [2, 0]])
    np.testing.assert_array_equal(corners[-1], [3, 4])
    np.testing.assert_array_equal(patches[-1, ..., 0], [[22, 23], [28, 29]])


@pytest.mark.parametrize(("size", "stride"), [(0, 1), (2, 0)])
def test_sizes_and_strides_below_one_are_refused(size, stride):
    with pytest.raises(ValueError, match="at least 1"):
        patch_starts(5, size=size, stride=stride)
