"""Pictures as people bring them: what is not the product decides nothing (docs/pictures.md)."""

import dataclasses

import numpy as np
import pytest

from ssdnet_jax.config import from_config_dict
from ssdnet_jax.data.synthetic import grid_texture, plant_defect
from ssdnet_jax.evaluation.metrics import auprc
from ssdnet_jax.localize import localize

SIDE = 96
CONFIG = from_config_dict(
    {
        "image_size": SIDE,
        "features": {"kind": "filters", "components": 6, "fine_components": 4},
        "network": {"channels_down": 4, "channels_up": 4, "channels_skip": 0},
        "loss": {"patch_sizes": 4, "patch_strides": 4},
        "fit": {"max_steps": 10},
        "score": {"tile_size": 5},
    }
)
GOOD = np.asarray(grid_texture((SIDE, SIDE), period=8, seed=0))
DEFECTIVE, DEFECT = plant_defect(GOOD, kind="blob", center=(44, 50), size=14, seed=1)
ROWS, COLUMNS = np.indices((SIDE, SIDE)) - (SIDE - 1) / 2


def precision(result, defect=DEFECT):
    judged = np.isfinite(result.score_map)
    return auprc(defect[judged], result.score_map[judged])


@pytest.fixture(scope="module")
def clean():
    return localize(GOOD, CONFIG)


@pytest.fixture(scope="module")
def found():
    """Of the defect where nothing is in the way."""
    return localize(DEFECTIVE, CONFIG)


def test_a_label_that_is_ignored_is_as_if_it_were_not_there(clean):
    label = np.zeros((SIDE, SIDE), bool)
    label[50:68, 20:62] = True
    image = np.where(label[..., None], np.float32(0.95), GOOD)
    seen, ignored = localize(image, CONFIG), localize(image, CONFIG, ignored=label)
    assert seen.calibrated_score > 4 * clean.calibrated_score
    assert ignored.calibrated_score < 1.4 * clean.calibrated_score
    np.testing.assert_array_equal(np.isnan(ignored.score_map), label)
    np.testing.assert_array_equal(ignored.residual[label], 0)
    missing = localize(image, CONFIG, missing=label)
    np.testing.assert_array_equal(missing.score_map, ignored.score_map)


def test_bars_hide_no_defect_whether_they_are_ignored_or_black(found):
    bars = np.abs(COLUMNS) > 33
    image = np.where(bars[..., None], np.float32(0), DEFECTIVE)
    black = localize(image, CONFIG)
    ignored = localize(image, CONFIG, ignored=bars)
    kept = localize(image, dataclasses.replace(CONFIG, ground="keep"))
    assert np.isfinite(kept.score_map).all() and kept.ground is None
    for result in (black, ignored):
        assert precision(result) > 0.8 * precision(found)
        assert np.isnan(result.score_map[bars]).all() and not result.mask[bars].any()
    assert black.ground == pytest.approx(np.isnan(black.score_map).mean())
    assert ignored.ground is None


@pytest.mark.parametrize("radius", [40, SIDE / 2])
def test_of_a_round_part_the_ground_is_not_judged(found, radius):
    part = np.hypot(ROWS, COLUMNS) < radius
    result = localize(np.where(part[..., None], DEFECTIVE, np.float32(0)), CONFIG)
    assert np.isnan(result.score_map[~part]).all()
    assert precision(result) > 0.8 * precision(found)


@pytest.mark.parametrize("bits", [10, 12])
def test_few_bits_in_sixteen_are_fitted_as_long_and_found_as_well(tiny, bits):
    """The paper's threshold is a mean squared error, which low contrast meets at once."""
    fit = {**tiny["fit"], "max_steps": 60, "stop_threshold": 4e-3}
    network = {**tiny["network"], "sigmoid": False}
    config = from_config_dict({**tiny, "image_size": 48, "fit": fit, "network": network})
    image, defect = plant_defect(
        np.asarray(grid_texture((48, 48), period=8, seed=0)),
        kind="blob",
        center=(24, 24),
        size=14,
        contrast=0.45,
        seed=1,
    )
    few = np.round(image * (2**bits - 1)).astype(np.uint16)
    full, stretched, low = (
        localize(pixels, dataclasses.replace(config, range=how))
        for pixels, how in ((image, "auto"), (few, "auto"), (few, "full"))
    )
    assert full.used_range is None and low.used_range is None
    assert low.steps < 0.5 * min(full.steps, stretched.steps)
    assert precision(stretched, defect) > 0.9 * precision(full, defect)
    np.testing.assert_allclose(stretched.image, few / np.float32(65535), atol=1e-7)
    assert np.abs(stretched.reconstruction - stretched.image).max() < 0.1


def test_in_a_line_scan_a_defect_is_found_as_in_a_square():
    square, defect = plant_defect(
        np.asarray(grid_texture((192, 192), period=8, seed=0)),
        **{"kind": "blob", "center": (72, 100), "size": 14, "seed": 1},
    )
    line, defect_of_line = (np.concatenate(np.split(x, 4), axis=1) for x in (square, defect))
    assert line.shape[:2] == (48, 768)
    results = []
    for image, side in ((square, 192), (line, 48)):
        results.append(localize(image, dataclasses.replace(CONFIG, image_size=side)))
    of_square, of_line = results
    assert of_line.is_anomalous
    assert defect_of_line[np.unravel_index(of_line.score_map.argmax(), line.shape[:2])]
    assert precision(of_line, defect_of_line) > 0.9 * precision(of_square, defect)
