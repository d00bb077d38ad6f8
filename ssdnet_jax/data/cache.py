"""The user's cache folder."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from ssdnet_jax.data.files import write_atomically
from ssdnet_jax.errors import InputError


def user_cache_folder() -> Path:
    """Returns where downloads are kept; the folder need not exist.

    `$SSDNET_CACHE`, else `$XDG_CACHE_HOME/ssdnet_jax`, else `~/.cache/ssdnet_jax`. A relative
    `XDG_CACHE_HOME` is ignored, as the XDG base directory specification asks.

    Raises:
        InputError: If neither variable is set and the user has no home folder.
    """
    try:
        if explicit := os.environ.get("SSDNET_CACHE"):
            return Path(explicit).expanduser()
        base = Path(os.environ.get("XDG_CACHE_HOME", ""))
        return (base if base.is_absolute() else Path.home() / ".cache") / "ssdnet_jax"
    except RuntimeError:
        raise InputError(
            "no cache folder: the home folder is unknown; set SSDNET_CACHE to a folder"
        ) from None


def write_to_cache(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """`write_atomically` into a cache folder, which is made private to the user (0700) if missing.

    Raises:
        InputError: If the folder or file cannot be written.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(path, write)
    except OSError as error:
        reason = error.strerror or error
        raise InputError(
            f"{path}: cannot be written ({reason}); "
            "expected a writable cache folder, set SSDNET_CACHE to choose another"
        ) from error
