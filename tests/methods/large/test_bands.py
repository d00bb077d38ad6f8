import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssdnet_jax.methods.large.bands import Bands, Window, cuts, ended, even_spans, trimmed, windows


@given(length=st.integers(1, 40), most=st.integers(1, 12), margin=st.integers(0, 5))
def test_windows_have_one_length_and_hold_their_span_with_its_margins(length, most, margin):
    align = 4
    spans = [(align * a, align * b) for a, b in even_spans(length, most)]
    assert spans[0][0] == 0 and spans[-1][1] == align * length
    assert max(stop - start for start, stop in spans) <= align * most
    found = cuts(spans, margin=margin, align=align)
    assert len({cut.stop - cut.start for cut in found}) == 1
    for cut, (first, last) in zip(found, spans, strict=True):
        assert cut.start % align == 0 and (cut.first, cut.last) == (first, last)
        assert cut.start <= max(0, first - margin)
        assert cut.stop >= min(align * length, last + margin)
        assert 0 <= cut.start < cut.stop <= align * length


@pytest.mark.parametrize("axis", [0, 1])
def test_windows_are_those_of_the_whole_map_while_bands_are_forgotten(axis):
    shape = (40, 24) if axis == 0 else (24, 40)
    whole = np.random.default_rng(0).random((*shape, 2))
    known = whole[..., 0] > 0.5
    values, weights = Bands(axis), Bands(axis)
    along = cuts(even_spans(40, 8), margin=3)
    across = cuts(even_spans(24, 7), margin=3)
    seen = np.zeros(shape, int)
    todo = iter(np.split(np.arange(40), 8))
    for cut in along:
        for bands in (values, weights):
            bands.forget(cut.start)
        while values.stop < cut.stop:
            band = next(todo)
            values.append(whole.take(band, axis))
            weights.append(known.take(band, axis))
        for window in windows(values, weights, cut, across, axis):
            np.testing.assert_array_equal(window.values[window.inner], whole[window.place])
            np.testing.assert_array_equal(window.weights[window.inner], known[window.place])
            seen[window.place] += 1
            small = trimmed(window, margin=1, shape=(10, 10))
            assert small.weights.shape == (10, 10)
            np.testing.assert_array_equal(small.values[small.inner], whole[window.place])
            for place, inner, length in zip(small.place, small.inner, shape, strict=True):
                assert inner.start >= min(1, place.start)
                assert 10 - inner.stop >= min(1, length - place.stop)
    assert (seen == 1).all()
    with pytest.raises(ValueError, match="concatenate"):
        values.window((0, 3), (0, 24))  # which is forgotten


def test_a_window_ends_where_the_map_does():
    whole = np.random.default_rng(0).random((12, 20, 2))
    place = np.s_[4:12, 10:16]
    window = Window(*(whole[2:, 8:18], whole[2:, 8:18, 0]), inner=np.s_[2:10, 2:8], place=place)
    same = ended(window, (12, 20))
    assert same.place == place and same.inner == window.inner
    found = ended(window, (9, 15))
    assert found.place == np.s_[4:9, 10:15] and found.weights.shape == (7, 7)
    np.testing.assert_array_equal(found.values[found.inner], whole[found.place])
    np.testing.assert_array_equal(found.values, whole[2:9, 8:15])
