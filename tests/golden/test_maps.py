import importlib.util
from pathlib import Path

import numpy as np
import pytest

_spec = importlib.util.spec_from_file_location(
    "make_maps", Path(__file__).with_name("make_maps.py")
)
make_maps = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(make_maps)


@pytest.fixture(scope="module")
def kept():
    return np.load(make_maps.FILE)


@pytest.mark.parametrize("name", make_maps.CASES)
def test_the_score_of_a_given_fit_is_what_it_was(kept, name):
    expected = kept[f"given_{name}"]
    actual = make_maps.map_of_a_given_fit(name)[::4, ::4]
    noisy = name == "auto_noisy"
    tolerance = make_maps.TOLERANCE_OF_NOISY if noisy else make_maps.TOLERANCE
    np.testing.assert_allclose(actual, expected, atol=tolerance * np.ptp(expected))


@pytest.mark.parametrize("name", ["auto_filters", "grid", "grid_literal"])
def test_a_fit_finds_what_it_found(kept, name):
    expected = kept[f"fit_{name}"]
    actual = make_maps.map_of_a_fit(name)[::2, ::2]
    assert np.corrcoef(actual.ravel(), expected.ravel())[0, 1] > make_maps.CORRELATION
