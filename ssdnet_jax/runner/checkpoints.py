"""Fitted networks on disk, by Orbax: one folder an image, all seeds in it.

FOLDER/network.json     architecture and image channels
FOLDER/parameters/      an Orbax checkpoint: `core.skip_network`'s tree, a leading axis of seeds
"""

import dataclasses
import functools
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ssdnet_jax.config import from_config_dict
from ssdnet_jax.core.config import NetworkConfig
from ssdnet_jax.core.networks import apply_network, network_structure
from ssdnet_jax.core.skip_network import unflatten_parameters
from ssdnet_jax.data.files import write_bytes
from ssdnet_jax.data.json_values import parse_json
from ssdnet_jax.errors import InputError
from ssdnet_jax.methods.base import Fitted, known_to_be

_NETWORK, _PARAMETERS = "network.json", "parameters"


def save_networks(
    folder: str | os.PathLike[str], fits: Sequence[Fitted], network: NetworkConfig
) -> None:
    """Writes theta of each fit at its last step; an earlier checkpoint there is replaced."""
    from orbax.checkpoint import v1 as orbax

    folder = Path(folder).absolute()
    channels = fits[0].reconstruction.value.shape[-1]
    structure = network_structure(network, channels=channels)
    vectors = jnp.stack([jnp.asarray(known_to_be(fit.params).value) for fit in fits])
    tree = jax.vmap(lambda vector: unflatten_parameters(vector, structure))(vectors)
    note = {"network": dataclasses.asdict(network), "channels": channels, "seeds": len(fits)}
    text = json.dumps(note, indent=2) + "\n"
    write_bytes(folder / _NETWORK, text.encode())
    orbax.save(folder / _PARAMETERS, jax.device_get(tree), overwrite=True)


def load_network(
    folder: str | os.PathLike[str], *, seed: int = 0
) -> Callable[[Float[Array, "h w c"]], Float[Array, "h w c"]]:
    """Restores f_theta of one image as a function of an image in [0, 1], jit- and vmap-able.

    Args:
      folder: `WORKDIR/params/PATH` of a run with --save_params.
      seed: which of the image's fits, counted from 0.

    Raises:
      InputError: there is no such checkpoint, or it has not so many seeds.
    """
    from orbax.checkpoint import v1 as orbax

    folder = Path(folder).absolute()
    try:
        note = parse_json((folder / _NETWORK).read_bytes())
        network = from_config_dict({"image_size": 0, "network": note["network"]}).network
        channels, seeds = _count(note["channels"]), _count(note["seeds"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{folder}: found no fitted network ({error}); expected a folder below params/ of a "
            f"run with --save_params"
        ) from error
    if not 0 <= seed < seeds:
        raise InputError(f"{folder}: holds {seeds} seeds; expected seed from 0 to {seeds - 1}")
    structure = network_structure(network, channels=channels)

    def stacked(leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        return np.empty((seeds, *leaf.shape), leaf.dtype)

    try:
        tree: Any = orbax.load(folder / _PARAMETERS, jax.tree.map(stacked, structure))
    except Exception as error:  # Orbax fails on damaged files in too many ways to list
        reason = " ".join(str(error).split())
        raise InputError(f"{folder}: cannot be restored ({reason}); expected it whole") from error
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf[seed]), tree)
    return functools.partial(_reconstruct, params, network)


def _count(value: Any) -> int:
    if type(value) is not int or value < 1:
        raise ValueError(f"{value!r:.40}, which is no number of channels or seeds")
    return value


def _reconstruct(params: Any, network: NetworkConfig, image: Array) -> Array:
    return apply_network(params, jnp.asarray(image)[None], network)[0]
