import dataclasses

import jax
import numpy as np
import pytest

from ssdnet_jax.config import from_config_dict
from ssdnet_jax.core.fit import StopReason
from ssdnet_jax.data.fits_file import read_fits, write_fits
from ssdnet_jax.data.synthetic import grid_texture
from ssdnet_jax.errors import InputError
from ssdnet_jax.localize import localize
from ssdnet_jax.methods.base import Done
from ssdnet_jax.methods.finished import FinishedSSDnet

KEY = jax.random.key(0)


def configuration(tiny, kind):
    if kind == "pixels":
        return from_config_dict({**tiny, "fit": {**tiny["fit"], "seeds": 2}})
    features = {"kind": "filters", "components": 3}
    score = {"method": "tiles", "tile_size": 5}
    return from_config_dict({**tiny, "image_size": 48, "features": features, "score": score})


@pytest.fixture(scope="module", params=["pixels", "filters", "pixels with holes"])
def original(request, tiny):
    """A configuration and what it said about an image."""
    kind, _, holes = request.param.partition(" ")
    config = configuration(tiny, kind)
    missing = np.zeros((40, 56), bool)
    missing[10:20, 30:36] = bool(holes)
    image = np.asarray(grid_texture((40, 56), period=8, seed=1))
    return config, localize(image, config, KEY, missing=missing)


def finished(method, fits):
    prepared = method.prepare(fits, KEY)
    (encoded,) = method.encode([prepared], 1)
    assert method.jobs(encoded, "a") == []
    (finish,) = method.finish([Done("a", encoded)], 1)
    return finish()


def test_fits_scored_again_give_the_original_maps_bit_for_bit(original, tmp_path):
    config, expected = original
    write_fits(tmp_path / "a.npz", expected.fits)
    stored = read_fits(tmp_path / "a.npz")
    method = FinishedSSDnet(config)
    bucket = method.bucket(method.prepare(stored, KEY))
    assert (bucket.stage, bucket.settings) == ("score", None)
    result = finished(method, stored)
    for name in ("score_map", "normalized_map", "mask", "uncertainty", "losses", "reconstruction"):
        np.testing.assert_array_equal(getattr(result, name), getattr(expected, name))
    for name in ("score", "threshold", "steps", "stop_reason", "restorations", "is_anomalous"):
        assert getattr(result, name) == getattr(expected, name)
    assert result.image.shape == expected.image.shape
    assert result.fits is stored  # and is linked, not written again


@pytest.fixture(scope="module")
def config(tiny):
    return configuration(tiny, "pixels")


@pytest.fixture(scope="module")
def fits(config):
    return localize(np.asarray(grid_texture((32, 32), period=8)), config, KEY).fits


def test_another_score_is_of_the_same_fits(config, fits):
    score = dataclasses.replace(config.score, patch_sizes=(4,), patch_strides=(1,))
    other = dataclasses.replace(config, score=score)
    found = finished(FinishedSSDnet(other), fits)
    image = np.asarray(grid_texture((32, 32), period=8))
    np.testing.assert_array_equal(found.score_map, localize(image, other, KEY).score_map)


def test_fits_of_another_configuration_are_refused(tiny, config, fits):
    one_seed = from_config_dict(tiny)
    for method in (FinishedSSDnet(one_seed), FinishedSSDnet(configuration(tiny, "filters"))):
        with pytest.raises(InputError, match=r"found reconstructions of shape \(2, 32, 32, 1\)"):
            method.prepare(dataclasses.replace(fits, image=np.resize(fits.image, (48, 48, 1))), KEY)


def test_a_fit_that_did_not_stay_finite_is_an_error(config, fits):
    unstable = dataclasses.replace(fits, stop=np.array([1, int(StopReason.UNSTABLE)]))
    with pytest.raises(InputError, match="did not stay finite"):
        finished(FinishedSSDnet(config), unstable)


def test_weights_are_needed_for_scores_only(tiny):
    fabric = from_config_dict({**tiny, "loss": {**tiny["loss"], "w_perc": 1.0}})
    assert fabric.needs_vgg19 and not FinishedSSDnet(fabric).needs_vgg19
    score = {**tiny["score"], "alpha_rec": 0.0, "alpha_perc": 1.0}
    assert FinishedSSDnet(from_config_dict({**tiny, "score": score})).needs_vgg19


def test_fits_of_a_part_of_an_image_are_scored_again_as_they_were(tmp_path, tiny):
    ignored = np.zeros((48, 60), bool)
    ignored[:, :12] = ignored[15:30, 20:40] = True
    image = np.asarray(grid_texture((48, 60), period=8, seed=0))
    config = from_config_dict({**tiny, "score": {"method": "tiles", "tile_size": 3}})
    result = localize(image, config, ignored=ignored)
    assert np.isnan(result.score_map[ignored]).all()
    write_fits(tmp_path / "a.npz", result.fits)
    stored = read_fits(tmp_path / "a.npz")
    np.testing.assert_array_equal(stored.ignored, ignored)
    method = FinishedSSDnet(config)
    prepared = method.prepare(stored, jax.random.key(0))
    (encoded,) = method.encode([prepared], 1)
    again = method.finish([Done("a", encoded)], 1)[0]()
    np.testing.assert_array_equal(again.score_map, result.score_map)
    assert again.calibrated_score == result.calibrated_score
