"""Reading tensors out of PyTorch checkpoints without PyTorch and without running their code.

A checkpoint is a pickle, and a pickle is a program. The reader here resolves only the names that
a plain `state_dict` of tensors needs, each to an inert stand-in, and refuses every other name.
Both layouts of `torch.save` are read:

* zip (since PyTorch 1.6): `<root>/data.pkl` beside one stored member `<root>/data/<key>` a storage;
* legacy: pickles of a magic number, a protocol version, system facts, the object and the list of
  storage keys; then for each key an int64 element count and the elements.
"""

import io
import math
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np

from ssdnet_jax.data._pickle_work import find_unbounded_work
from ssdnet_jax.data.files import check_no_pipe
from ssdnet_jax.errors import InputError
from ssdnet_jax.text import shortened

LEGACY_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL_VERSION = 1001
PICKLE_LIMIT_BYTES = 16 * 2**20
"""A state_dict's pickle holds names and shapes only, tens of kilobytes for a large network."""

_STORAGE_DTYPES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "BFloat16Storage": "V2",  # numpy has no bfloat16; the raw two bytes are handed back
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}


@dataclass(frozen=True)
class _Storage:
    """`count` elements from `first` on of a stored run of `total`; only legacy views see a part."""

    key: str
    dtype: np.dtype
    total: int
    first: int
    count: int


@dataclass(frozen=True)
class _TensorReference:
    storage: Any
    offset: Any
    size: Any
    stride: Any


_Read = Callable[[_Storage, int, int], bytes]
"""(storage, first, last) -> the bytes of the stored run's elements first to last - 1."""

_EXPECTED = "expected a PyTorch checkpoint of a plain state_dict (.pth, .pt)"


def read_torch_checkpoint(path: str | Path, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Reads the named tensors of a `state_dict` that `torch.save` wrote.

    Only the storages of the named tensors are read, and the sizes that the file claims are held
    against the file's own length before anything is allocated.

    Args:
      path: a `.pth` or `.pt` file, zip or legacy format, whose object is a mapping from names
        to tensors, or, as training programs save it, a mapping with such a one under
        "state_dict". Names may all begin with "module." there (data-parallel training).
      names: names in that mapping, `"features.0.weight"` for instance.

    Returns:
      For each name a C-contiguous array of the tensor's shape and dtype (bfloat16 as `V2`).

    Raises:
      InputError: the file cannot be read, is not a checkpoint, refers to any class or
        function besides those of plain tensors, contradicts itself, or lacks a name.
    """
    path = Path(path)
    try:
        check_no_pipe(path, _EXPECTED)
        with path.open("rb") as file:
            layout = _zip_layout if file.read(4) == b"PK\x03\x04" else _legacy_layout
            with layout(path, file) as (saved, read):
                state = _state_dict(saved)
                return {name: _tensor(path, name, state, read) for name in names}
    except InputError:
        raise
    except Exception as error:  # damaged archives fail in too many ways to list
        reason = shortened(str(getattr(error, "strerror", None) or error), 100)
        raise InputError(f"{path}: cannot be read ({reason}); {_EXPECTED}") from error


@contextmanager
def _zip_layout(path: Path, file: BinaryIO) -> Iterator[tuple[Any, _Read]]:
    file_size = file.seek(0, io.SEEK_END)
    with zipfile.ZipFile(file) as archive:

        def open_stored(member: str, most_bytes: int) -> IO[bytes]:
            try:
                info = archive.getinfo(member)
            except KeyError:
                raise InputError(f"{path}: {member!r:.60} is missing; {_EXPECTED}") from None
            # torch compresses nothing, so sizes can be held against the file's own
            size = info.file_size
            if info.compress_type != zipfile.ZIP_STORED or size != info.compress_size:
                raise InputError(f"{path}: {member!r:.60} is compressed; expected it stored")
            if size > min(most_bytes, file_size):
                raise InputError(
                    f"{path}: {member!r:.60} claims {size} bytes; "
                    f"expected at most {min(most_bytes, file_size)}"
                )
            return archive.open(info)

        pickles = [n for n in archive.namelist() if n.count("/") == 1 and n.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise InputError(f"{path}: a zip file with {len(pickles)} data.pkl; {_EXPECTED}")
        root = pickles[0].removesuffix("data.pkl")
        if f"{root}byteorder" in archive.namelist():
            with open_stored(f"{root}byteorder", 6) as member:
                if member.read() != b"little":
                    raise InputError(f"{path}: big-endian storages; expected little-endian ones")
        with open_stored(pickles[0], PICKLE_LIMIT_BYTES) as member:
            state = _load_pickle(path, io.BytesIO(member.read()))

        def read(storage: _Storage, first: int, last: int) -> bytes:
            itemsize = storage.dtype.itemsize
            with open_stored(f"{root}data/{storage.key}", storage.total * itemsize) as member:
                member.seek(first * itemsize)
                return member.read((last - first) * itemsize)

        yield state, read


@contextmanager
def _legacy_layout(path: Path, file: BinaryIO) -> Iterator[tuple[Any, _Read]]:
    file_size = file.seek(0, io.SEEK_END)
    file.seek(0)
    stream = io.BytesIO(file.read(PICKLE_LIMIT_BYTES))
    if _load_pickle(path, stream) != LEGACY_MAGIC_NUMBER:
        raise InputError(f"{path}: neither a zip file nor PyTorch's magic number; {_EXPECTED}")
    if _load_pickle(path, stream) != LEGACY_PROTOCOL_VERSION:
        raise InputError(f"{path}: unknown protocol; expected version {LEGACY_PROTOCOL_VERSION}")
    _load_pickle(path, stream)  # facts about the writing system; storages are always little-endian
    dtypes: dict[str, np.dtype] = {}
    state = _load_pickle(path, stream, dtypes)
    keys = _load_pickle(path, stream)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise InputError(f"{path}: its list of storages is not a list of names; {_EXPECTED}")

    places: dict[str, tuple[int, int]] = {}  # key -> (byte of the first element, elements)
    position = stream.tell()
    for key in keys:
        if key not in dtypes:
            raise InputError(f"{path}: storage {key!r:.40} belongs to no tensor; {_EXPECTED}")
        file.seek(position)
        count = int.from_bytes(file.read(8), "little", signed=True)
        position += 8
        available = (file_size - position) // dtypes[key].itemsize
        if not 0 <= count <= available:
            raise InputError(
                f"{path}: storage {key!r:.40} claims {count} elements; "
                f"expected at most the {max(available, 0)} left in the file (truncated?)"
            )
        places[key] = position, count
        position += count * dtypes[key].itemsize

    def read(storage: _Storage, first: int, last: int) -> bytes:
        start, found = places.get(storage.key, (0, None))
        if found != storage.total:
            raise InputError(
                f"{path}: storage {storage.key!r:.40} has {found} elements; "
                f"expected {storage.total}"
            )
        itemsize = storage.dtype.itemsize
        file.seek(start + first * itemsize)
        return file.read((last - first) * itemsize)

    yield state, read


def _state_dict(saved: Any) -> Any:
    """The mapping from names to tensors within what was saved."""
    if isinstance(saved, Mapping) and isinstance(saved.get("state_dict"), Mapping):
        saved = saved["state_dict"]
    prefix = "module."
    if isinstance(saved, Mapping) and saved and all(str(key).startswith(prefix) for key in saved):
        return {str(key).removeprefix(prefix): value for key, value in saved.items()}
    return saved


def _tensor(path: Path, name: str, state: Any, read: _Read) -> np.ndarray:
    if not isinstance(state, Mapping):
        raise InputError(f"{path}: holds a {type(state).__name__}; {_EXPECTED}")
    if name not in state:
        found = ", ".join(repr(key[:60]) for key in list(state)[:4] if isinstance(key, str))
        raise InputError(f"{path}: no tensor {name}; found {found}, ...")
    reference = getattr(state[name], "data", state[name])  # a Parameter holds its tensor in data
    if not isinstance(reference, _TensorReference) or not isinstance(reference.storage, _Storage):
        raise InputError(f"{path}: {name} is no tensor; {_EXPECTED}")
    storage, offset = reference.storage, reference.offset
    size, stride = reference.size, reference.stride
    well_formed = (
        isinstance(size, tuple | list)
        and isinstance(stride, tuple | list)
        and len(size) == len(stride) <= 32
        and all(map(_is_count, (offset, *size, *stride)))
        and math.prod(max(n, 1) for n in size) < 2**60  # numpy's limit, empty arrays included
    )
    if not well_formed:
        raise InputError(f"{path}: {name} has no usable shape; expected sizes, strides, offset")
    elements = math.prod(size)
    last = offset + 1 + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if elements == 0:
        return np.empty(size, storage.dtype)
    if max(last, elements) > storage.count:
        raise InputError(
            f"{path}: {name} of shape {tuple(size)} reaches element {last}; "
            f"expected at most the {storage.count} of its storage"
        )
    raw = read(storage, storage.first + offset, storage.first + last)
    expected = (last - offset) * storage.dtype.itemsize
    if len(raw) != expected:
        raise InputError(f"{path}: {name} has {len(raw)} bytes; expected {expected} (truncated?)")
    flat = np.frombuffer(raw, storage.dtype)
    strides = [step * flat.itemsize for step in stride]
    return np.lib.stride_tricks.as_strided(flat, tuple(size), strides).copy()


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**60


def _load_pickle(path: Path, stream: io.BytesIO, dtypes: dict[str, np.dtype] | None = None) -> Any:
    """Unpickles the next object of `stream`; fills `dtypes` with the storages it names."""
    dtypes = {} if dtypes is None else dtypes
    start = stream.tell()
    try:
        if problem := find_unbounded_work(stream):
            raise InputError(f"{path}: {problem} in its pickle; {_EXPECTED}")
        one_pickle = io.BytesIO(stream.getvalue()[start : stream.tell()])
        return _StateDictUnpickler(path, one_pickle, dtypes).load()
    except InputError:
        raise
    except Exception as error:  # a broken pickle raises nearly anything
        reason = shortened(str(error), 100)
        raise InputError(f"{path}: broken pickle ({reason}); {_EXPECTED}") from error


class _StateDictUnpickler(pickle.Unpickler):
    def __init__(self, path: Path, stream: io.BytesIO, dtypes: dict[str, np.dtype]):
        super().__init__(stream, encoding="utf-8")  # strings written under Python 2
        self._path, self._dtypes = path, dtypes
        self._stand_ins = _make_stand_ins()

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in _STORAGE_DTYPES:
            return name
        try:
            return self._stand_ins[module, name]
        except KeyError:
            raise InputError(
                f"{self._path}: refused to load {' '.join(f'{module}.{name}'.split())[:100]}; "
                "expected a plain state_dict of tensors"
            ) from None

    def persistent_load(self, identifier: Any) -> _Storage:
        kind, storage_type, key, _location, count, *view = identifier
        if kind != "storage" or not _is_count(count) or not isinstance(key, str):
            raise ValueError("a reference to no storage")
        dtype = np.dtype(_STORAGE_DTYPES[storage_type])
        if self._dtypes.setdefault(key, dtype) != dtype:
            raise ValueError(f"storage {key!r:.40} with two types")
        if view and view[0] is not None:  # legacy only: (name of the view, first element, elements)
            _view_key, first, viewed = view[0]
            if not _is_count(first) or not _is_count(viewed) or first + viewed > count:
                raise ValueError(f"storage {key!r:.40} with a view past its end")
            return _Storage(key, dtype, total=count, first=first, count=viewed)
        return _Storage(key, dtype, total=count, first=0, count=count)


def _make_stand_ins() -> dict[tuple[str, str], Any]:
    """Makes what the allowed names stand for, anew for each pickle.

    A pickle may set attributes on what it is given; what it is given is thrown away with it.
    """

    class Parameter:
        """`torch.nn.Parameter` as PyTorch before 0.4 pickled it, torchvision's oldest files."""

        def __new__(cls, data: Any = None, *_: Any):
            instance = super().__new__(cls)
            instance.data = data
            return instance

        def __setstate__(self, state: Any) -> None:
            if isinstance(state, tuple) and len(state) == 5:  # the form with the data inside
                self.data = state[0]

    return {
        ("collections", "OrderedDict"): OrderedDict,
        ("torch", "Size"): tuple,
        ("torch._utils", "_rebuild_tensor"): lambda *args: _TensorReference(*args[:4]),
        ("torch._utils", "_rebuild_tensor_v2"): lambda *args: _TensorReference(*args[:4]),
        ("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
        ("torch.nn.parameter", "Parameter"): Parameter,
    }
