import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssdnet_jax.config import from_config_dict
from ssdnet_jax.core.fit import StopReason
from ssdnet_jax.core.skip_network import apply_skip_network, flatten_parameters, init_skip_network
from ssdnet_jax.errors import InputError
from ssdnet_jax.methods.base import Fitted, alone
from ssdnet_jax.runner.checkpoints import load_network, save_networks

IMAGE = np.random.default_rng(0).random((16, 24, 3), np.float32)


@pytest.fixture(scope="module")
def network(tiny):
    return from_config_dict(tiny).network


@pytest.fixture(scope="module")
def params(network):
    return [init_skip_network(jax.random.key(n), network, channels=3) for n in range(2)]


def fitted(params):
    vector = alone(flatten_parameters(params))
    losses = np.ones(3, np.float32)
    return Fitted(0, alone(IMAGE), losses, StopReason.THRESHOLD, 0, vector)


@pytest.fixture
def folder(tmp_path, params, network):
    save_networks(tmp_path / "a b.png", [fitted(each) for each in params], network)
    return tmp_path / "a b.png"


@pytest.mark.parametrize("seed", [0, 1])
def test_a_restored_network_is_the_fitted_one(folder, params, network, seed):
    restored = load_network(folder, seed=seed)
    expected = apply_skip_network(params[seed], jnp.asarray(IMAGE)[None], network)[0]
    np.testing.assert_array_equal(restored(IMAGE), expected)
    np.testing.assert_allclose(jax.jit(restored)(IMAGE), expected, atol=1e-6)


def test_saving_again_replaces(folder, params, network):
    save_networks(folder, [fitted(params[1])], network)
    expected = apply_skip_network(params[1], jnp.asarray(IMAGE)[None], network)[0]
    np.testing.assert_array_equal(load_network(folder)(IMAGE), expected)


def test_a_seed_that_is_not_there_is_an_error(folder):
    with pytest.raises(InputError, match="holds 2 seeds; expected seed from 0 to 1"):
        load_network(folder, seed=2)


def test_a_folder_without_a_checkpoint_is_an_error(tmp_path):
    with pytest.raises(InputError, match="nowhere: found no fitted network"):
        load_network(tmp_path / "nowhere")


@pytest.mark.parametrize("content", ["[]", "[" * 100_000, "{}", '{"network": [], "seeds": 1}'])
def test_a_damaged_note_is_an_error(folder, content):
    (folder / "network.json").write_text(content)
    with pytest.raises(InputError, match=r"a b.png: found no fitted network"):
        load_network(folder)


@pytest.mark.parametrize(
    "changed", [{"channels": 0}, {"seeds": "2"}, {"network": {"kernel_down": -1}}]
)
def test_a_note_of_numbers_that_cannot_be_is_an_error(folder, changed):
    note = json.loads((folder / "network.json").read_text())
    (folder / "network.json").write_text(json.dumps(note | changed))
    with pytest.raises(InputError, match=r"a b.png: found no fitted network"):
        load_network(folder)


def test_a_damaged_checkpoint_is_an_error(folder):
    (folder / "parameters" / "_CHECKPOINT_METADATA").write_text("[" * 100_000)
    with pytest.raises(InputError, match="cannot be restored"):
        load_network(folder)
    for path in (folder / "parameters").rglob("*"):
        if path.is_file():
            path.unlink()
    with pytest.raises(InputError, match="cannot be restored"):
        load_network(folder)
