"""Weights of an OpenCLIP model by path: names, shapes and the vocabulary that belongs to them.

Nothing is downloaded, and checkpoints of PyTorch are read without running their code (see
`ssdnet_jax.data.torch_checkpoint`).
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ssdnet_jax.baselines.clip_tokens import Vocabulary, find_vocabulary, read_vocabulary
from ssdnet_jax.data.safetensors_file import read_safetensors
from ssdnet_jax.data.torch_checkpoint import read_torch_checkpoint
from ssdnet_jax.errors import InputError, NoWeightsError

_OPTIONS = (
    "give --clip_weights=PATH or set SSDNET_CLIP_WEIGHTS to a file of OpenCLIP's "
    "ViT-B-16-plus-240 (.safetensors, .bin, .pt) with its vocabulary beside it"
)


@dataclass(frozen=True)
class CLIPSizes:
    """Sizes of both towers; by default those of OpenCLIP's ViT-B-16-plus-240."""

    image_size: int = 240  # side of the image in pixels
    patch_size: int = 16  # side of a patch in pixels; divides `image_size`
    image_width: int = 896  # channels of the image tower, a multiple of `image_heads`
    image_layers: int = 12  # its transformer layers
    image_heads: int = 14  # its attention heads
    text_width: int = 640  # channels of the text tower, a multiple of `text_heads`
    text_layers: int = 12  # its transformer layers
    text_heads: int = 10  # its attention heads
    context: int = 77  # tokens of a text at most
    vocabulary: int = 49408  # how many different tokens there are
    embedding: int = 640  # channels of what both towers give

    @property
    def grid(self) -> int:
        """Patches along a side of the image."""
        return self.image_size // self.patch_size


VIT_B_16_PLUS_240 = CLIPSizes()


@dataclass(frozen=True, eq=False)
class CLIPWeights:
    """A model, as `clip_model` takes it apart."""

    sizes: CLIPSizes  # of the towers
    image: Mapping[str, Any]  # parameters of the image tower, float32; its layers' are stacked
    text: Mapping[str, Any]  # those of the text tower
    vocabulary: Vocabulary  # what texts are cut into


def load_clip_weights(
    path: str | Path | None = None,
    *,
    vocabulary: str | Path | None = None,
    sizes: CLIPSizes = VIT_B_16_PLUS_240,
) -> CLIPWeights:
    """Loads a model of OpenCLIP.

    Args:
      path: a state_dict as `.safetensors`, or as `.bin`, `.pt` or `.pth` of PyTorch; by default the
        file named by the environment variable SSDNET_CLIP_WEIGHTS.
      vocabulary: `bpe_simple_vocab_16e6.txt.gz`, `merges.txt` or `tokenizer.json`; by default the
        first of these in the folder of the weights.
      sizes: of the model.

    Raises:
      NoWeightsError: no file was named.
      InputError: a file cannot be read, or holds another model.
    """
    path = path or os.environ.get("SSDNET_CLIP_WEIGHTS")
    if not path:
        raise NoWeightsError(f"no CLIP weights; {_OPTIONS}")
    path = Path(path).expanduser()
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{path}: weights of type {path.suffix!r}; expected {', '.join(_READERS)}")
    if not path.is_file():
        raise InputError(f"{path}: no such file; {_OPTIONS}")
    words = read_vocabulary(vocabulary or find_vocabulary(path.parent), size=sizes.vocabulary)
    image, text = image_entries(sizes), text_entries(sizes)
    tensors = reader(path, _names([*image, *text]))
    return CLIPWeights(sizes, _tree(path, tensors, image), _tree(path, tensors, text), words)


_READERS = {
    ".safetensors": read_safetensors,
    ".bin": read_torch_checkpoint,
    ".pt": read_torch_checkpoint,
    ".pth": read_torch_checkpoint,
}


@dataclass(frozen=True)
class Entry:
    """A parameter of ours and where OpenCLIP has it."""

    place: str  # its path in our tree, with slashes
    name: str  # OpenCLIP's name; with "{}" for the layer where `layers` are stacked
    shape: tuple[int, ...]  # of one layer's tensor, as OpenCLIP has it
    layers: int = 0  # how many are stacked; 0: it belongs to no layer

    @property
    def names(self) -> list[str]:
        """OpenCLIP's names, in the order of the layers."""
        return [self.name.format(i) for i in range(self.layers)] if self.layers else [self.name]


def image_entries(sizes: CLIPSizes) -> list[Entry]:
    """The parameters of the image tower."""
    width, patch = sizes.image_width, sizes.patch_size
    return [
        Entry("class_embedding", "visual.class_embedding", (width,)),
        Entry("positions", "visual.positional_embedding", (1 + sizes.grid**2, width)),
        Entry("patch_kernel", "visual.conv1.weight", (width, 3, patch, patch)),
        *_normalization("pre_norm", "visual.ln_pre", width),
        *_layer_entries("visual.transformer", width, sizes.image_layers),
        *_normalization("post_norm", "visual.ln_post", width),
        Entry("projection", "visual.proj", (width, sizes.embedding)),
    ]


def text_entries(sizes: CLIPSizes) -> list[Entry]:
    """The parameters of the text tower."""
    width = sizes.text_width
    return [
        Entry("token_embedding", "token_embedding.weight", (sizes.vocabulary, width)),
        Entry("positions", "positional_embedding", (sizes.context, width)),
        *_layer_entries("transformer", width, sizes.text_layers),
        *_normalization("post_norm", "ln_final", width),
        Entry("projection", "text_projection", (width, sizes.embedding)),
    ]


def _layer_entries(prefix: str, width: int, layers: int) -> list[Entry]:
    block = f"{prefix}.resblocks.{{}}"
    return [
        *_normalization("layers/norm1", f"{block}.ln_1", width, layers),
        Entry("layers/qkv/kernel", f"{block}.attn.in_proj_weight", (3 * width, width), layers),
        Entry("layers/qkv/bias", f"{block}.attn.in_proj_bias", (3 * width,), layers),
        *_linear("layers/out", f"{block}.attn.out_proj", (width, width), layers),
        *_normalization("layers/norm2", f"{block}.ln_2", width, layers),
        *_linear("layers/expand", f"{block}.mlp.c_fc", (4 * width, width), layers),
        *_linear("layers/contract", f"{block}.mlp.c_proj", (width, 4 * width), layers),
    ]


def _normalization(place: str, name: str, width: int, layers: int = 0) -> list[Entry]:
    return [
        Entry(f"{place}/scale", f"{name}.weight", (width,), layers),
        Entry(f"{place}/bias", f"{name}.bias", (width,), layers),
    ]


def _linear(place: str, name: str, shape: tuple[int, int], layers: int) -> list[Entry]:
    return [
        Entry(f"{place}/kernel", f"{name}.weight", shape, layers),
        Entry(f"{place}/bias", f"{name}.bias", shape[:1], layers),
    ]


def _names(entries: Iterable[Entry]) -> list[str]:
    return [name for entry in entries for name in entry.names]


def _tree(path: Path, tensors: dict[str, np.ndarray], entries: Iterable[Entry]) -> dict[str, Any]:
    """Checks, converts and stacks the tensors of a tower; takes them out of `tensors`."""
    tree: dict[str, Any] = {}
    for entry in entries:
        found = [_checked(path, name, tensors.pop(name), entry.shape) for name in entry.names]
        *folders, leaf = entry.place.split("/")
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
        node[leaf] = np.stack(found) if entry.layers else found[0]
    return tree


def _checked(path: Path, name: str, tensor: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    kind = tensor.dtype.newbyteorder("=").name if tensor.dtype.kind != "V" else "bfloat16"
    if tensor.shape != shape or kind not in ("float16", "bfloat16", "float32"):
        raise InputError(
            f"{path}: {name} is {kind} {tensor.shape!s:.60}; expected float32 {shape}, as in "
            f"ViT-B-16-plus-240"
        )
    if kind == "bfloat16":  # the upper half of a float32
        return (tensor.view("<u2").astype(np.uint32) << 16).view(np.float32)
    return tensor.astype(np.float32)
