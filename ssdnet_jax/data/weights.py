"""Weights of the first four VGG19 convolutions, for the perceptual term.

They are torchvision's `VGG19_Weights.IMAGENET1K_V1`, layers `features.0`, `.2`, `.5` and `.7`, read
from a file the user has or fetched once into the user's cache. Whatever the container, the
values are held against one SHA-256, so a result never depends on where the weights came from.
"""

import contextlib
import hashlib
import logging
import math
import os
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from operator import methodcaller
from pathlib import Path
from typing import Any

import numpy as np

from ssdnet_jax.data.files import check_no_pipe, user_cache_folder, write_to_cache
from ssdnet_jax.data.remote_file import RemoteFile
from ssdnet_jax.data.safetensors_file import Place, find_tensors, read_safetensors
from ssdnet_jax.data.torch_checkpoint import read_torch_checkpoint
from ssdnet_jax.errors import InputError
from ssdnet_jax.text import shortened

DEFAULT_URL = "https://huggingface.co/timm/vgg19.tv_in1k/resolve/main/model.safetensors"
CACHE_FILE = "vgg19_imagenet1k_v1_conv1_1-conv2_2.npz"

_TORCHVISION_LAYERS = {"conv1_1": 0, "conv1_2": 2, "conv2_1": 5, "conv2_2": 7}
_ARRAY_LIMIT_BYTES = 16 * 2**20
_OPTIONS = (
    "give --vgg19_weights=PATH, set SSDNET_VGG19_WEIGHTS to a file, set SSDNET_VGG19_URL to a "
    "mirror, or use a configuration that needs none"
)

ConvolutionWeights = dict[str, dict[str, np.ndarray]]
"""{"conv1_1": {"kernel": (height, width, in, out) float32, "bias": (out,) float32}, ...}."""


@dataclass(frozen=True)
class WeightSpecification:
    """Which weights are meant."""

    kernel_shapes: Mapping[str, tuple[int, int, int, int]]  # convolution -> kernel shape (out, in,
    # height, width), in network order
    sha256: str  # hexadecimal digest over the little-endian float32 C-order bytes of each
    # convolution's kernel (out, in, height, width) and then its bias, in network order

    @property
    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """`"conv1_1/weight"`, `"conv1_1/bias"`, ... -> shape, in the order of the digest."""
        shapes: dict[str, tuple[int, ...]] = {}
        for name, shape in self.kernel_shapes.items():
            shapes |= {f"{name}/weight": shape, f"{name}/bias": shape[:1]}
        return shapes


VGG19_IMAGENET1K_V1 = WeightSpecification(
    kernel_shapes={
        "conv1_1": (64, 3, 3, 3),
        "conv1_2": (64, 64, 3, 3),
        "conv2_1": (128, 64, 3, 3),
        "conv2_2": (128, 128, 3, 3),
    },
    sha256="61e9953601a9a88ef8573c6d3c14a4c39955b87acc55cdfe2567918dc0332a97",
)


def load_vgg19_weights(
    path: str | Path | None = None,
    *,
    url: str | None = None,
    cache_folder: Path | None = None,
    report: Callable[[str], None] | None = None,
) -> ConvolutionWeights:
    """Loads the ImageNet weights of VGG19's conv1_1, conv1_2, conv2_1 and conv2_2.

    The first of these that is given is used: `path`; the file named by the environment variable
    SSDNET_VGG19_WEIGHTS; the file in the cache; a download of 1 MB, kept in the cache.

    Args:
      path: `.npz` (`conv1_1/weight` (out, in, height, width), `conv1_1/bias`, ...),
        `.safetensors` or torchvision's own `.pth`/`.pt` (`features.0.weight`, ...).
      url: address of a safetensors file with `features.0.weight`, ...; by default the
        environment variable SSDNET_VGG19_URL, else timm's copy on the Hugging Face hub.
      cache_folder: by default `user_cache_folder()`.
      report: given one line before a download starts, and one if the cached file is unusable;
        by default a warning is logged.

    Returns:
      For each convolution `kernel` (height, width, in, out) and `bias` (out,), float32.

    Raises:
      InputError: the weights cannot be had, or are not torchvision's IMAGENET1K_V1.
    """
    return load_pinned_weights(
        VGG19_IMAGENET1K_V1, path, url=url, cache_folder=cache_folder, report=report
    )


def random_vgg19_weights(
    seed: int, channels: tuple[int, int, int, int] = (64, 64, 128, 128)
) -> ConvolutionWeights:
    """Draws weights of the same structure: normal of variance 2 / fan-in, zero biases.

    Args:
      seed: seed of the draw; equal seeds give equal weights.
      channels: output channels of the four convolutions.

    Returns:
      As `load_vgg19_weights`, with 3x3 kernels from three input channels on.

    Source: He et al., Delving Deep into Rectifiers, arXiv 1502.01852.
    """
    generator = np.random.default_rng(seed)
    weights, channels_in = {}, 3
    for name, channels_out in zip(_TORCHVISION_LAYERS, channels, strict=True):
        kernel = generator.standard_normal((3, 3, channels_in, channels_out), np.float32)
        scale = np.float32(math.sqrt(2 / (9 * channels_in)))
        weights[name] = {"kernel": kernel * scale, "bias": np.zeros(channels_out, np.float32)}
        channels_in = channels_out
    return weights


def load_pinned_weights(
    specification: WeightSpecification,
    path: str | Path | None = None,
    *,
    url: str | None = None,
    cache_folder: Path | None = None,
    report: Callable[[str], None] | None = None,
) -> ConvolutionWeights:
    """Does what `load_vgg19_weights` says for the weights that `specification` pins."""
    report = report or logging.getLogger(__name__).warning
    if path or (path := os.environ.get("SSDNET_VGG19_WEIGHTS")):
        return _to_convolutions(_read_file(Path(path).expanduser(), specification))

    cached = Path(cache_folder or user_cache_folder()) / CACHE_FILE
    try:
        return _to_convolutions(_read_file(cached, specification))
    except InputError as error:
        if not isinstance(error.__cause__, FileNotFoundError):
            report(f"cached VGG19 weights are unusable and will be downloaded again: {error}")
    url = url or os.environ.get("SSDNET_VGG19_URL") or DEFAULT_URL
    size = sum(4 * math.prod(shape) for shape in specification.tensor_shapes.values())
    report(f"downloading VGG19 weights ({size / 1e6:.1f} MB) from {url} to {cached}")
    try:
        tensors = _download(url, cached, specification)
    except InputError as error:
        raise InputError(f"{error}; {_OPTIONS}") from error
    return _to_convolutions(tensors)


def _to_convolutions(tensors: Mapping[str, np.ndarray]) -> ConvolutionWeights:
    weights: ConvolutionWeights = {}
    for name, tensor in tensors.items():
        convolution, part = name.split("/")
        weights.setdefault(convolution, {})["kernel" if part == "weight" else "bias"] = (
            np.ascontiguousarray(tensor.transpose(2, 3, 1, 0)) if part == "weight" else tensor
        )
    return weights


def _torchvision_name(name: str) -> str:
    convolution, part = name.split("/")
    return f"features.{_TORCHVISION_LAYERS[convolution]}.{part}"


# --- files ---------------------------------------------------------------------------------------


def _read_file(path: Path, specification: WeightSpecification) -> dict[str, np.ndarray]:
    """Reads and verifies `{"conv1_1/weight": ..., "conv1_1/bias": ..., ...}`."""
    readers = {
        ".npz": _read_npz,
        ".safetensors": read_safetensors,
        ".pth": read_torch_checkpoint,
        ".pt": read_torch_checkpoint,
    }
    suffix = path.suffix.lower()
    if suffix not in readers:
        raise InputError(f"{path}: weights of type {path.suffix!r}; expected {', '.join(readers)}")
    check_no_pipe(path, "expected a file of VGG19 weights")
    names = specification.tensor_shapes
    stored = {name: name if suffix == ".npz" else _torchvision_name(name) for name in names}
    try:
        found = readers[suffix](path, stored.values())
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror or error}); expected a file of VGG19 weights"
        ) from error
    tensors = {name: found[stored[name]] for name in names}  # in the digest's order
    for name, tensor in tensors.items():
        _check_tensor(path, stored[name], tensor, names[name])
    if (digest := _sha256(tensors)) != specification.sha256:
        raise InputError(
            f"{path}: these are not torchvision's VGG19 IMAGENET1K_V1 weights "
            f"(SHA-256 of the values {digest}, expected {specification.sha256}); "
            "other weights can be passed as parameters from Python"
        )
    return tensors


def _read_npz(path: Path, names: Iterable[str]) -> dict[str, np.ndarray]:
    tensors = {}
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            for name in names:
                try:
                    size = archive.getinfo(f"{name}.npy").file_size
                except KeyError:
                    raise InputError(f"{path}: no array {name}; {_EXPECTED_NPZ}") from None
                if size > _ARRAY_LIMIT_BYTES:
                    raise InputError(f"{path}: {name} takes {size} bytes; {_EXPECTED_NPZ}")
                with archive.open(f"{name}.npy") as member:
                    tensors[name] = np.lib.format.read_array(member, allow_pickle=False)
    except (InputError, OSError):
        raise
    except Exception as error:  # zipfile, zlib and numpy raise nearly anything on broken files
        reason = shortened(str(error), 100)
        raise InputError(f"{path}: not a readable .npz file ({reason}); {_EXPECTED_NPZ}") from error
    return tensors


_EXPECTED_NPZ = "expected conv1_1/weight (out, in, height, width), conv1_1/bias, ... as float32"


def _check_tensor(
    source: str | Path, name: str, found: np.ndarray | Place, shape: tuple[int, ...]
) -> None:
    if found.shape != shape or found.dtype != np.float32:
        raise InputError(
            f"{source}: {name} is {found.dtype} {found.shape!s:.60}; expected float32 {shape}"
        )


def _sha256(tensors: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for tensor in tensors.values():
        digest.update(np.ascontiguousarray(tensor, "<f4").tobytes())
    return digest.hexdigest()


# --- download ------------------------------------------------------------------------------------


def _download(url: str, cached: Path, specification: WeightSpecification) -> dict[str, np.ndarray]:
    """Fetches, verifies and caches the tensors; what arrived whole is kept for the next try."""
    shapes = specification.tensor_shapes
    # the address is part of the name, so that pieces of two different files never mix
    prefix = f".{hashlib.sha256(url.encode()).hexdigest()[:12]}-"
    partials = {
        name: cached.with_name(f"{prefix}{_torchvision_name(name)}.partial") for name in shapes
    }
    data: dict[str, bytes] = {}
    for name, shape in shapes.items():
        with contextlib.suppress(OSError):  # most often: there is none, or a peer just removed it
            kept = partials[name].read_bytes()
            if len(kept) == 4 * math.prod(shape):
                data[name] = kept
    if len(data) < len(shapes):
        remote = RemoteFile(url)
        try:
            names = {_torchvision_name(name): name for name in shapes}
            places = find_tensors(remote.read, url, names)
            for stored, place in places.items():
                _check_tensor(url, stored, place, shapes[names[stored]])
            for stored, place in places.items():
                if (name := names[stored]) not in data:
                    data[name] = remote.read(place.start, place.stop)
                    write_to_cache(partials[name], methodcaller("write", data[name]))
        finally:
            remote.close()

    tensors = {
        name: np.frombuffer(data[name], "<f4").astype(np.float32).reshape(shape)
        for name, shape in shapes.items()
    }
    found = _sha256(tensors)
    if found == specification.sha256:
        arrays: dict[str, Any] = {**tensors}  # to NumPy's types any of them may be `allow_pickle`
        write_to_cache(cached, lambda file: np.savez(file, **arrays))
    for partial in partials.values():
        with contextlib.suppress(OSError):
            partial.unlink()
    if found != specification.sha256:
        raise InputError(
            f"{url}: not torchvision's VGG19 IMAGENET1K_V1 weights "
            f"(SHA-256 of the values {found}, expected {specification.sha256})"
        )
    return tensors
