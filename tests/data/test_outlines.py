import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco
from scipy import ndimage
from skimage.draw import polygon2mask

from ssdnet_jax.data.outlines import polygon, run_lengths


def regions(mask):
    """The box of each connected part of a mask, and which of its pixels belong to the part."""
    labels, _ = ndimage.label(mask, structure=np.ones((3, 3)))
    boxes = enumerate(ndimage.find_objects(labels), start=1)
    return [(box, labels[box] == label) for label, box in boxes]


masks = hnp.arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12)))


@settings(max_examples=200)
@given(masks)
def test_run_lengths_are_those_of_coco(mask):
    for box, inside in regions(mask):
        region = np.zeros_like(mask)
        region[box] = inside
        found = run_lengths(inside, (box[0].start, box[1].start), mask.shape)
        expected = coco.encode(np.asfortranarray(region.astype(np.uint8)))["counts"]
        assert found.encode() == expected


def test_long_runs_are_those_of_coco():
    mask = np.zeros((900, 1400), bool)
    mask[3:850, 10:1300] = True
    mask[400:500, 600:603] = False
    ((box, inside),) = regions(mask)
    found = run_lengths(inside, (box[0].start, box[1].start), mask.shape)
    expected = coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]
    assert found.encode() == expected


@settings(max_examples=200)
@given(masks)
def test_a_polygon_holds_the_centres_of_its_pixels_and_no_others(mask):
    for box, inside in regions(mask):
        region = np.zeros_like(mask)
        region[box] = inside
        outer, *holes = polygon(inside, (box[0].start, box[1].start))
        filled = fill(outer, mask.shape)
        for hole in holes:
            filled &= ~fill(hole, mask.shape)
        np.testing.assert_array_equal(filled, region)


def fill(ring, shape):
    assert ring[0] == ring[-1] and len(ring) >= 4
    # The centre of the first pixel is at (0.5, 0.5), to skimage at (0, 0).
    return polygon2mask(shape, np.array(ring)[:, ::-1] - 0.5)


def test_the_outline_of_a_box_turns_at_its_corners_only():
    (ring,) = polygon(np.ones((20, 30), bool), (5, 7))
    assert len(ring) == 9  # each corner is cut
    x, y = np.array(ring).T
    assert (x.min(), x.max(), y.min(), y.max()) == (7, 37, 5, 25)
    area = np.sum(x[:-1] * y[1:] - x[1:] * y[:-1]) / 2
    assert area == pytest.approx(600, rel=0.01)
