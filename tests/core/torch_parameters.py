"""Parameters of Deep Image Prior's PyTorch `skip` network, as our skip network takes them."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ssdnet_jax.core.config import NetworkConfig


def skip_parameters_from_torch(
    tensors: Mapping[str, np.ndarray], config: NetworkConfig
) -> dict[str, dict[str, Any]]:
    """Renames and transposes a `state_dict` of `skip(...)` (Ulyanov et al., models/skip.py).

    Args:
      tensors: name in torch -> array; kernels OIHW. Running statistics may be absent.
      config: of the same network.

    Returns:
      Parameters for `apply_skip_network`.

    Raises:
      KeyError: the tensors are not those of a network of this configuration.
    """
    conv = "1" if config.padding == "reflection" else "0"  # reflection is a module of its own

    def convolution(name: str) -> dict[str, np.ndarray]:
        kernel = np.asarray(tensors[f"{name}.{conv}.weight"]).transpose(2, 3, 1, 0)
        return {"kernel": kernel, "bias": np.asarray(tensors[f"{name}.{conv}.bias"])}

    def norm(name: str) -> dict[str, np.ndarray]:
        return {
            "scale": np.asarray(tensors[f"{name}.weight"]),
            "shift": np.asarray(tensors[f"{name}.bias"]),
        }

    def scale(prefix: str, index: int) -> dict[str, dict[str, Any]]:
        skips = config.channels_skip[index] > 0
        deep = f"{prefix}1.1." if skips else f"{prefix}1."
        params: dict[str, dict[str, Any]] = {
            "down_conv": convolution(f"{deep}1"),
            "down_norm": norm(f"{deep}2"),
            "deep_conv": convolution(f"{deep}4"),
            "deep_norm": norm(f"{deep}5"),
            "merge_norm": norm(f"{prefix}2"),
            "up_conv": convolution(f"{prefix}3"),
            "up_norm": norm(f"{prefix}4"),
        }
        if skips:
            params["skip_conv"] = convolution(f"{prefix}1.0.1")
            params["skip_norm"] = norm(f"{prefix}1.0.2")
        if config.conv1x1_up:
            params["mix_conv"] = convolution(f"{prefix}6")
            params["mix_norm"] = norm(f"{prefix}7")
        if index + 1 < len(config.channels_down):
            params[f"scale{index + 1}"] = scale(f"{deep}7.", index + 1)
        return params

    output = "9" if config.conv1x1_up else "6"
    return {"scale0": scale("", 0), "output": convolution(output)}
