import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssdnet_jax import load_config, localize
from ssdnet_jax.cli.flags import config_help
from ssdnet_jax.config import from_config_dict
from ssdnet_jax.core import registry
from ssdnet_jax.core.networks import Network
from ssdnet_jax.core.score import from_raw
from ssdnet_jax.data.synthetic import grid_texture
from ssdnet_jax.errors import ConfigError

IMAGE = grid_texture((32, 32), period=8)


def chosen(tiny, field, name):
    *groups, last = field.split(".")
    values = {key: dict(value) if isinstance(value, dict) else value for key, value in tiny.items()}
    values.setdefault(groups[0], {})[last] = name
    return from_config_dict(values)


def test_an_error_of_ones_own_is_what_the_fit_minimizes_and_the_score_shows(tiny):
    @registry.RECONSTRUCTION_ERRORS.register("quadrupled")
    def quadrupled(y, f):
        return 4 * ((y - f) ** 2).mean(-1)

    own = chosen(tiny, "loss.reconstruction", "quadrupled")
    usual = from_config_dict(tiny)
    result, expected = localize(IMAGE, own), localize(IMAGE, usual)
    np.testing.assert_allclose(result.losses[0], 4 * expected.losses[0], rtol=1e-4)
    error = ((result.image - result.reconstruction) ** 2).mean()
    assert result.score_map.mean() == pytest.approx(4 * error, rel=0.5)


def test_an_aggregation_of_ones_own_is_used(tiny):
    @registry.AGGREGATIONS.register("first")
    def first(terms):
        return terms[0]

    sizes = {"patch_sizes": (8, 4), "patch_strides": (2, 2)}
    values = {**tiny, "score": {"method": "patches", **sizes, "aggregation": "first"}}
    both = localize(IMAGE, from_config_dict(values))
    one = localize(IMAGE, from_config_dict(tiny))
    np.testing.assert_allclose(both.score_map, one.score_map, rtol=1e-6)


def test_a_score_of_ones_own_gives_the_map(tiny):
    @registry.SCORES.register("brightness")
    def brightness(target, reconstruction, vgg19, plan):
        return from_raw(target.values.mean(-1))

    result = localize(IMAGE, chosen(tiny, "score.method", "brightness"))
    np.testing.assert_allclose(result.score_map, IMAGE[..., 0], atol=1e-6)


def test_a_network_of_ones_own_is_fitted(tiny):
    def init(key, config, *, channels):
        return {"gain": jnp.ones((channels,)), "shift": jnp.zeros((channels,))}

    def apply(params, images, config):
        return params["gain"] * images + params["shift"]

    registry.NETWORKS.register("affine")(Network(init, apply, lambda config: 1))
    config = chosen(tiny, "network.kind", "affine")
    still = dataclasses.replace(config.fit, input_noise=0.0, learning_rate=1e-9)
    result = localize(IMAGE, dataclasses.replace(config, fit=still))
    np.testing.assert_allclose(result.reconstruction, IMAGE, atol=1e-5)


def test_a_configuration_file_may_bring_its_own_loss(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from ssdnet_jax import registry\n\n\n"
        "@registry.RECONSTRUCTION_ERRORS.register('from_a_file')\n"
        "def error(y, f):\n    return abs(y - f).max(-1)\n\n\n"
        "def get_config():\n    return {'loss': {'reconstruction': 'from_a_file'}}\n"
    )
    config = load_config(str(tmp_path / "mine.py"))
    assert config.loss.reconstruction == "from_a_file"
    assert load_config(str(tmp_path / "mine.py")) == config
    assert "from_a_file" in config_help(config)


def test_an_unknown_name_is_refused_with_those_that_there_are():
    with pytest.raises(ConfigError, match=r"loss\.reconstruction: found 'l3'.*squared, absolute"):
        from_config_dict({"loss": {"reconstruction": "l3"}})


def test_names_of_the_package_cannot_be_taken():
    with pytest.raises(ValueError, match="'squared' is taken"):
        registry.RECONSTRUCTION_ERRORS.register("squared")
    with pytest.raises(ValueError, match="expected letters"):
        registry.SCORES.register("two words")


def test_another_process_adopts_what_was_added():
    def added(y, f):
        return jax.numpy.zeros(y.shape[:-1])

    registry.RECONSTRUCTION_ERRORS.register("added")(added)
    found = registry.foreign_entries()
    assert found == {"loss.reconstruction": {"added": added}}
    registry.adopt(found)  # again, as another process would
    assert registry.RECONSTRUCTION_ERRORS["added"] is added
