from pathlib import Path

import numpy as np
import pytest

from ssdnet_jax.baselines.clip_weights import (
    CLIPSizes,
    CLIPWeights,
    image_entries,
    load_clip_weights,
    text_entries,
)

# Hand-made: "texture", "photo", "flaw" and "with" become few tokens, the rest stays letters.
MERGES = """\
e x
t ex
t u
tu re</w>
r e</w>
p h
o t
ot o</w>
w i
t h</w>
f l
a w</w>
a m
"""


@pytest.fixture(scope="session")
def clip_sizes() -> CLIPSizes:
    """A model with every size of its own, so that no two can be mixed up."""
    return CLIPSizes(
        image_size=30,
        patch_size=6,
        image_width=12,
        image_layers=2,
        image_heads=3,
        text_width=8,
        text_layers=3,
        text_heads=2,
        vocabulary=514 + len(MERGES.splitlines()),
        embedding=7,
    )


@pytest.fixture(scope="session")
def clip_state(clip_sizes: CLIPSizes) -> dict[str, np.ndarray]:
    """Random tensors by OpenCLIP's names."""
    generator = np.random.default_rng(0)
    state = {"logit_scale": np.ones((), np.float32)}
    for entry in [*image_entries(clip_sizes), *text_entries(clip_sizes)]:
        for name in entry.names:
            # Matrices that keep the size of what goes through, scales around 1.
            fan_in = np.prod(entry.shape[1:]) if len(entry.shape) > 1 else 9
            tensor = generator.standard_normal(entry.shape) / np.sqrt(fan_in)
            state[name] = (tensor + entry.place.endswith("scale")).astype(np.float32)
    return state


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory, clip_state: dict[str, np.ndarray]) -> Path:
    """clip.safetensors with its vocabulary beside it."""
    from safetensors.numpy import save_file

    folder = tmp_path_factory.mktemp("clip")
    save_file(clip_state, folder / "clip.safetensors")
    (folder / "merges.txt").write_text(f"#version: 0.2\n{MERGES}", encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def clip(clip_folder: Path, clip_sizes: CLIPSizes) -> CLIPWeights:
    """The random model, loaded."""
    return load_clip_weights(clip_folder / "clip.safetensors", sizes=clip_sizes)
