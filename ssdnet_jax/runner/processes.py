"""What a process needs before it can run: inputs, compilation cache, device, weights."""

import os
from collections.abc import Callable
from pathlib import Path

import jax

from ssdnet_jax.config import Config
from ssdnet_jax.core.vgg19 import VGG19Weights
from ssdnet_jax.data.cache import user_cache_folder
from ssdnet_jax.data.images import find_images
from ssdnet_jax.errors import InputError


def find_inputs(pattern: str, workdir: Path) -> tuple[Path, list[Path]]:
    """Images that `pattern` names, without those that earlier runs wrote into `workdir`.

    Raises:
      InputError: there is none.
    """
    root, relatives = find_images(pattern)
    own = [workdir.resolve() / name for name in ("maps", "heatmaps", "masks")]
    kept = [p for p in relatives if not any(_inside(root / p, folder) for folder in own)]
    if not kept:
        raise InputError(f"{pattern}: found only results of --workdir={workdir}; expected images")
    return root, kept


def use_compilation_cache() -> None:
    """Keeps compiled programs in the user's cache folder, so that a second start is quick.

    The cache holds executable code: the folder is private to the user. A folder that JAX was
    given through its own environment variable is left as it is.
    """
    if os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return
    folder = user_cache_folder() / "xla"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        private = folder.stat().st_uid == os.getuid() and not folder.stat().st_mode & 0o022
    except OSError:
        return  # without a cache the run is slower, nothing else
    if private:
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def device_name() -> str:
    """The device that fits run on, in words."""
    device = jax.devices()[0]
    if device.platform == "cpu":
        return f"CPU ({os.cpu_count()} cores)"
    return f"{device.device_kind} ({device.platform})"


def vgg19_weights(
    config: Config, path: str | None, report: Callable[[str], None]
) -> VGG19Weights | None:
    """VGG19 weights if the configuration has a perceptual term, else None."""
    if not config.needs_vgg19:
        return None
    from ssdnet_jax.data.weights import load_vgg19_weights

    return load_vgg19_weights(path, report=report)


def _inside(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder)
