"""Reading named tensors out of safetensors files.

The format: header length (uint64, little endian), JSON header, raw tensors. Source:
https://github.com/huggingface/safetensors#format
"""

import io
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ssdnet_jax.data.json_values import parse_json
from ssdnet_jax.errors import InputError

HEADER_LIMIT_BYTES = 2**20
"""Largest header accepted; that of VGG19 takes about 4 kB, that of CLIP about 40 kB."""

_DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "V2",  # numpy has no bfloat16; the raw two bytes are handed back
    "I64": "<i8",
    "I32": "<i4",
}


_MOST_AXES = 32  # of numpy's arrays in any version

Read = Callable[[int, int], bytes]  # (first, end) -> the bytes between


class Place(NamedTuple):
    """A tensor within a file."""

    dtype: np.dtype  # bfloat16 as `V2`
    shape: tuple[int, ...]
    start: int  # its first byte
    stop: int  # the byte behind it

    def read(self, read: Read) -> np.ndarray:
        """The tensor itself."""
        return np.frombuffer(read(self.start, self.stop), self.dtype).reshape(self.shape)


def read_safetensors(path: str | Path, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Reads the named tensors of a `.safetensors` file, nothing else of it.

    Raises:
      InputError: the file cannot be read, is damaged or truncated, or lacks a name.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            file_size = file.seek(0, io.SEEK_END)

            def read(start: int, stop: int) -> bytes:
                if stop > file_size:
                    raise InputError(
                        f"{path}: ends at byte {file_size}; expected {stop} (truncated?)"
                    )
                file.seek(start)
                return file.read(stop - start)

            places = find_tensors(read, path, names)
            return {name: place.read(read) for name, place in places.items()}
    except OSError as error:
        reason = error.strerror or error
        raise InputError(
            f"{path}: cannot be read ({reason}); expected a .safetensors file"
        ) from error


def find_tensors(read: Read, source: str | Path, names: Iterable[str]) -> dict[str, Place]:
    """Where the named tensors are, by the header alone, in the order of the file.

    `read` gives bytes of the file, which errors call `source`.

    Raises:
      InputError: this is no safetensors file, or lacks a name.
    """
    length = int.from_bytes(read(0, 8), "little")
    if not 2 <= length <= HEADER_LIMIT_BYTES:
        raise InputError(
            f"{source}: not a safetensors file (header of {length} bytes; "
            f"expected at most {HEADER_LIMIT_BYTES})"
        )
    encoded = read(8, 8 + length)
    try:
        header = parse_json(encoded)
    except ValueError:
        raise InputError(f"{source}: not a safetensors file (header is not JSON)") from None
    places = {name: _place(header, 8 + length, source, name) for name in names}
    return dict(sorted(places.items(), key=lambda item: item[1].start))


def _place(header: Any, first: int, source: str | Path, name: str) -> Place:
    if isinstance(header, dict) and name not in header:
        found = ", ".join(f"{key!r:.60}" for key in list(header)[:4])
        raise InputError(f"{source}: no tensor {name}; found {found}, ...")
    try:
        entry = header[name]
        dtype = np.dtype(_DTYPES[entry["dtype"]])
        shape = tuple(_count(side) for side in entry["shape"])
        start, stop = (first + _count(offset) for offset in entry["data_offsets"])
        if len(shape) > _MOST_AXES:
            raise ValueError("more axes than an array can have")
    except (KeyError, TypeError, ValueError, OverflowError):
        raise InputError(
            f"{source}: no usable tensor {name} in its header; expected its dtype "
            f"({', '.join(_DTYPES)}), shape and data_offsets"
        ) from None
    expected = math.prod(shape) * dtype.itemsize
    if start < first or min(shape, default=0) < 0 or stop - start != expected:
        raise InputError(
            f"{source}: {name} of shape {shape!s:.60} is at bytes {start} to {stop}; "
            f"expected {expected} bytes behind the header"
        )
    return Place(dtype, shape, start, stop)


def _count(value: Any) -> int:
    """A whole number of a size that files and arrays have; raises ValueError or TypeError."""
    number = int(value)
    if abs(number) >= 2**60:
        raise ValueError("no size of a file")
    return number
