"""Checkpoints are written here by pickle itself over stand-in torch modules, or by torch."""

import io
import os
import pickle
import struct
import sys
import time
import types
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ssdnet_jax.data import _pickle_work, torch_checkpoint
from ssdnet_jax.data.torch_checkpoint import read_torch_checkpoint
from ssdnet_jax.errors import InputError

STORAGE_TYPES = {"f4": "FloatStorage", "f8": "DoubleStorage", "f2": "HalfStorage"} | {
    "i8": "LongStorage",
    "u1": "ByteStorage",
    "b1": "BoolStorage",
}


class Storage:
    def __init__(self, key, values, view=None, claimed=None):
        self.key, self.values, self.view = key, np.asarray(values), view
        self.claimed = self.values.size if claimed is None else claimed


class Tensor:
    """Pickles as a torch tensor does: a rebuild function over a storage."""

    def __init__(self, storage, offset, size, stride, rebuild="_rebuild_tensor_v2"):
        self.arguments, self.rebuild = (storage, offset, size, stride), rebuild

    def __reduce__(self):
        function = getattr(sys.modules["torch._utils"], self.rebuild)
        extra = (False, OrderedDict()) if self.rebuild.endswith("v2") else ()
        return function, self.arguments + extra


def whole(key, values):
    values = np.asarray(values)
    stride = tuple(step // values.itemsize for step in values.strides)
    return Tensor(Storage(key, values.ravel()), 0, values.shape, stride)


@pytest.fixture(autouse=True)
def stand_in_torch(request, monkeypatch):
    """Modules with torch's names, which pickle needs to write references to them."""
    if "real_torch" in request.fixturenames:
        return
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    parameter = types.ModuleType("torch.nn.parameter")
    for name in STORAGE_TYPES.values():
        setattr(torch, name, type(name, (), {"__module__": "torch"}))
    for name in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter", "_evil"):
        function = types.FunctionType((lambda *a: None).__code__, {"__name__": "torch._utils"})
        function.__name__ = function.__qualname__ = name
        function.__module__ = "torch._utils"
        setattr(utils, name, function)
    parameter.Parameter = type("Parameter", (), {"__module__": "torch.nn.parameter"})
    modules = {"torch": torch, "torch._utils": utils, "torch.nn.parameter": parameter}
    modules["torch.nn"] = types.ModuleType("torch.nn")
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)


def pickle_state(state, legacy):
    storages = {}

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            if not isinstance(value, Storage):
                return None
            storages[value.key] = value
            storage_type = getattr(sys.modules["torch"], STORAGE_TYPES[value.values.dtype.str[1:]])
            identifier = ("storage", storage_type, value.key, "cpu", value.claimed)
            return (*identifier, value.view) if legacy else identifier

    buffer = io.BytesIO()
    Pickler(buffer, protocol=2).dump(state)
    return buffer.getvalue(), storages


def write_zip(path, state, *, leave_out=(), compression=zipfile.ZIP_STORED, byteorder=b"little"):
    data, storages = state if isinstance(state, tuple) else pickle_state(state, legacy=False)
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/byteorder", byteorder)
        for key, storage in storages.items():
            if key not in leave_out:
                archive.writestr(f"archive/data/{key}", storage.values.tobytes())
        archive.writestr("archive/version", b"3\n")
    return path


def write_legacy(path, state):
    data, storages = state if isinstance(state, tuple) else pickle_state(state, legacy=True)
    with path.open("wb") as file:
        pickle.dump(0x1950A86A20F9469CFC6C, file, protocol=2)
        pickle.dump(1001, file, protocol=2)
        pickle.dump({"protocol_version": 1001, "little_endian": True}, file, protocol=2)
        file.write(data)
        pickle.dump(sorted(storages), file, protocol=2)
        for key in sorted(storages):
            values = storages[key].values
            file.write(struct.pack("<q", storages[key].claimed) + values.tobytes())
    return path


both_formats = pytest.mark.parametrize("write", [write_zip, write_legacy])


@both_formats
def test_tensors_come_back_with_values_shapes_and_dtypes(tmp_path, write):
    values = {dtype: np.arange(24).reshape(2, 3, 4).astype(dtype) for dtype in STORAGE_TYPES} | {
        "scalar": np.float32(5)
    }
    state = OrderedDict((name, whole(f"{i}", v)) for i, (name, v) in enumerate(values.items()))
    state._metadata = OrderedDict(version=1)  # as every state_dict of torch carries
    found = read_torch_checkpoint(write(tmp_path / "a.pth", state), values)
    assert list(found) == list(values)
    for name, expected in values.items():
        assert found[name].dtype == expected.dtype
        np.testing.assert_array_equal(found[name], expected)


@both_formats
@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_training_checkpoint_holds_its_state_dict(tmp_path, write, prefix):
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    state = {f"{prefix}a.weight": whole("0", values), f"{prefix}b": whole("1", values[0])}
    saved = {"epoch": 32, "optimizer": {"lr": 0.1}, "state_dict": state}
    for number, content in enumerate((saved, state)):
        path = write(tmp_path / f"{number}.pt", content)
        found = read_torch_checkpoint(path, ["a.weight", "b"])
        np.testing.assert_array_equal(found["a.weight"], values)
        np.testing.assert_array_equal(found["b"], values[0])


@both_formats
@pytest.mark.parametrize("rebuild", ["_rebuild_tensor", "_rebuild_tensor_v2"])
def test_strides_and_offset_are_honoured(tmp_path, write, rebuild):
    base = np.arange(60, dtype=np.float32)
    storage = Storage("0", base)
    state = {
        "transposed": Tensor(storage, 5, (4, 3), (1, 4), rebuild),
        "sparse": Tensor(storage, 7, (2, 5), (20, 3), rebuild),
        "repeated": Tensor(storage, 9, (6, 2), (0, 1), rebuild),
        "empty": Tensor(storage, 0, (0, 3), (3, 1), rebuild),
    }
    found = read_torch_checkpoint(write(tmp_path / "a.pth", state), state)
    np.testing.assert_array_equal(found["transposed"], base[5:17].reshape(3, 4).T)
    np.testing.assert_array_equal(
        found["sparse"], [[base[7 + 20 * i + 3 * j] for j in range(5)] for i in range(2)]
    )
    np.testing.assert_array_equal(found["repeated"], np.tile(base[9:11], (6, 1)))
    assert found["empty"].shape == (0, 3)
    assert all(tensor.flags.c_contiguous for tensor in found.values())


def test_a_legacy_view_of_a_storage_starts_at_its_own_first_element(tmp_path):
    view = Storage("0", np.arange(20, dtype=np.float32), view=("1", 4, 6))
    path = write_legacy(tmp_path / "a.pth", {"x": Tensor(view, 1, (5,), (1,))})
    np.testing.assert_array_equal(read_torch_checkpoint(path, ["x"])["x"], np.arange(5, 10))
    path = write_legacy(tmp_path / "b.pth", {"x": Tensor(view, 2, (5,), (1,))})
    with pytest.raises(InputError, match="reaches element 7; expected at most the 6"):
        read_torch_checkpoint(path, ["x"])


@both_formats
@pytest.mark.parametrize("data_in_state", [False, True])
def test_parameters_of_the_oldest_pytorch_are_read(tmp_path, write, data_in_state):
    parameter = sys.modules["torch.nn.parameter"].Parameter
    tensor = whole("0", np.arange(6, dtype=np.float32).reshape(2, 3))

    class OldParameter:
        def __reduce_ex__(self, protocol):
            new = sys.modules["copyreg"].__newobj__
            if data_in_state:
                return new, (parameter,), (tensor, None, OrderedDict(), True, False)
            return new, (parameter, tensor), (True, False, OrderedDict())

        __class__ = parameter  # the pickler asserts that instances are made of their own class

    path = write(tmp_path / "a.pth", {"x": OldParameter()})
    np.testing.assert_array_equal(
        read_torch_checkpoint(path, ["x"])["x"], np.arange(6).reshape(2, 3)
    )


def test_only_the_storages_asked_for_are_read(tmp_path):
    state = {"wanted": whole("0", np.ones(3, "f4")), "other": whole("1", np.ones(3, "f4"))}
    path = write_zip(tmp_path / "a.pth", state, leave_out={"1"})
    np.testing.assert_array_equal(read_torch_checkpoint(path, ["wanted"])["wanted"], np.ones(3))
    with pytest.raises(InputError, match="data/1' is missing"):
        read_torch_checkpoint(path, ["other"])


class Call:
    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


@both_formats
def test_a_command_in_the_pickle_is_refused_and_not_run(tmp_path, write):
    canary = tmp_path / "canary"
    state = {"x": whole("0", np.ones(2, "f4")), "y": Call(os.system, f"touch {canary}")}
    path = write(tmp_path / "evil.pth", state)
    with pytest.raises(InputError, match=rf"evil\.pth: refused to load {os.name}\.system"):
        read_torch_checkpoint(path, ["x"])
    assert not canary.exists()
    data, _ = pickle_state(state["y"], legacy=False)
    pickle.loads(data)  # the attack works where it is not refused
    assert canary.exists()


@both_formats
@pytest.mark.parametrize(
    ("payload", "refused"),
    [
        (b"cbuiltins\neval\n.", "builtins.eval"),
        (b"c__builtin__\neval\n.", "__builtin__.eval"),
        (b"ctorch._utils\n_evil\n.", "torch._utils._evil"),
        (b"ctorch\nload\n.", "torch.load"),
        (b"\x80\x04\x8c\x0bcollections\x8c\x14OrderedDict.fromkeys\x93.", "OrderedDict.fromkeys"),
        (b"\x80\x04\x8c\x05torch\x8c\x03a\nb\x93.", "torch.a b"),
        (b"cnumpy\ndtype\n.", "numpy.dtype"),
    ],
)
def test_every_other_name_is_refused_by_name(tmp_path, write, payload, refused):
    path = write(tmp_path / "a.pth", (payload, {}))
    with pytest.raises(InputError, match="refused to load") as caught:
        read_torch_checkpoint(path, ["x"])
    assert refused in str(caught.value)
    assert "\n" not in str(caught.value)


@both_formats
@pytest.mark.parametrize(
    "arguments",
    [
        (1, (4,), (1,)),  # one past the end
        (0, (2, 2), (3, 1)),
        (-1, (2,), (1,)),
        (0, (2,), (-1,)),
        (0, (10**6, 10**6), (0, 0)),  # nothing stored, terabytes in memory
        (0, (2,), (1, 1)),
        (0, (2.0,), (1,)),
        (0, "ab", (1, 1)),
        (0, (0, 2**59, 2**59), (1, 1, 1)),
        (10**5000, (2,), (1,)),  # Python refuses to print so long a number
        (None, (2,), (1,)),
        (0, (True,), (1,)),
    ],
)
def test_a_tensor_that_its_storage_cannot_hold_is_refused(tmp_path, write, arguments):
    state = {"x": Tensor(Storage("0", np.ones(4, "f4")), *arguments)}
    with pytest.raises(InputError, match=r"a\.pth: x (of shape|has no usable shape)"):
        read_torch_checkpoint(write(tmp_path / "a.pth", state), ["x"])


@both_formats
def test_a_storage_that_claims_more_than_the_file_is_refused(tmp_path, write):
    state = {"x": Tensor(Storage("0", np.ones(4, "f4"), claimed=2**50), 0, (2**49,), (1,))}
    with pytest.raises(InputError, match=r"expected (at most the 4 left|\d+ \(truncated)"):
        read_torch_checkpoint(write(tmp_path / "a.pth", state), ["x"])


def test_a_pickle_that_reserves_memory_by_memo_index_is_refused(tmp_path):
    path = write_zip(tmp_path / "a.pth", (b"}r\xff\xff\xff\xff.", {}))
    with pytest.raises(InputError, match="memo index 4294967295"):
        read_torch_checkpoint(path, ["x"])


@both_formats
@pytest.mark.parametrize("doubled", [b"h%ch%c\x86", b"h%ch%c\x86\x85R"])
def test_a_key_that_would_be_hashed_for_ever_is_refused(tmp_path, write, doubled):
    size = b"ctorch\nSize\n" if b"R" in doubled else b""
    payload = b"\x80\x02})q\x00"
    for i in range(60):  # a pair of the pair before, twice; with R through torch.Size
        payload += b"0" + size + doubled % (i, i) + b"q%c" % (i + 1)
    path = write(tmp_path / "a.pth", (payload + b"K\x01s.", {}))
    started = time.monotonic()
    with pytest.raises(InputError, match="objects nested without end in its pickle"):
        read_torch_checkpoint(path, ["x"])
    assert time.monotonic() - started < 5


def test_a_pickle_with_more_operations_than_any_checkpoint_is_refused(tmp_path, monkeypatch):
    state = {f"{i}": whole(f"{i}", np.ones(2, "f4")) for i in range(300)}
    state["optimizer"] = [[float(j) for j in range(2000)] for _ in range(20)]
    path = write_zip(tmp_path / "a.pth", state)
    np.testing.assert_array_equal(read_torch_checkpoint(path, ["7"])["7"], [1, 1])
    monkeypatch.setattr(_pickle_work, "MOST_OPERATIONS", 1000)
    with pytest.raises(InputError, match="more than 1000 operations in its pickle"):
        read_torch_checkpoint(path, ["7"])


def test_names_in_the_archive_that_are_no_utf8_and_pipes_are_errors(tmp_path):
    path = write_zip(tmp_path / "a.pth", {"é": whole("0", np.ones(4, "f4"))})
    content = path.read_bytes().replace(b"archive/data/0", b"archive/\xffata/0")
    content = content.replace(b"\x14\x00\x00\x00", b"\x14\x00\x00\x08")  # names are UTF-8
    central = content.rindex(b"archive/\xffata/0") - 46
    content = bytearray(content)
    content[central + 8 : central + 10] = b"\0\x08"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.pth: cannot be read \(.*utf-8"):
        read_torch_checkpoint(path, ["é"])
    os.mkfifo(tmp_path / "pipe.pth")
    with pytest.raises(InputError, match=r"pipe\.pth: no regular file"):
        read_torch_checkpoint(tmp_path / "pipe.pth", ["x"])


def test_an_oversized_pickle_is_refused(tmp_path, monkeypatch):
    path = write_zip(tmp_path / "a.pth", {"x": whole("0", np.ones(4, "f4"))})
    monkeypatch.setattr(torch_checkpoint, "PICKLE_LIMIT_BYTES", 20)
    with pytest.raises(InputError, match=r"data\.pkl' claims \d+ bytes; expected at most 20"):
        read_torch_checkpoint(path, ["x"])


def test_compressed_and_big_endian_storages_are_refused(tmp_path):
    state = {"x": whole("0", np.zeros(10_000, "f4"))}
    path = write_zip(tmp_path / "a.pth", state, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(InputError, match="compressed"):
        read_torch_checkpoint(path, ["x"])
    path = write_zip(tmp_path / "b.pth", state, byteorder=b"big")
    with pytest.raises(InputError, match="big-endian"):
        read_torch_checkpoint(path, ["x"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "broken pickle"),
        (b"not a checkpoint", "broken pickle"),
        (b"PK\x03\x04 cut off", "cannot be read"),
        (pickle.dumps({"x": 1}), "neither a zip file nor PyTorch's magic number"),
        (
            pickle.dumps(0x1950A86A20F9469CFC6C) + pickle.dumps(7),
            "unknown protocol; expected version 1001",
        ),
    ],
)
def test_a_file_of_another_kind_is_named(tmp_path, content, message):
    path = tmp_path / "a.pth"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_torch_checkpoint(path, ["x"])
    assert str(path) in str(caught.value)


@both_formats
def test_missing_files_names_and_tensors_are_named(tmp_path, write):
    with pytest.raises(InputError, match=r"none\.pth: cannot be read \(No such file"):
        read_torch_checkpoint(tmp_path / "none.pth", ["x"])
    path = write(tmp_path / "a.pth", {"x": 3, "y": whole("0", np.ones(2, "f4"))})
    with pytest.raises(InputError, match=r"no tensor z; found 'x', 'y'"):
        read_torch_checkpoint(path, ["z"])
    with pytest.raises(InputError, match="x is no tensor"):
        read_torch_checkpoint(path, ["x"])
    with pytest.raises(InputError, match="holds a list"):
        read_torch_checkpoint(write(tmp_path / "b.pth", [1]), ["x"])


@both_formats
@settings(max_examples=150, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_damaged_file_never_raises_anything_but_input_errors(tmp_path, write, data):
    expected = np.arange(12, dtype=np.float32).reshape(3, 4)
    path = write(tmp_path / "a.pth", {"x": whole("0", expected)})
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    else:
        for _ in range(data.draw(st.integers(1, 3))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        found = read_torch_checkpoint(path, ["x"])["x"]
    except InputError as error:
        assert str(error).startswith(str(path))
        assert "\n" not in str(error)
    else:
        assert found.nbytes <= len(content)


@pytest.fixture
def real_torch():
    return pytest.importorskip("torch", reason="torch writes the files of this test")


@pytest.mark.parametrize("zip_format", [True, False])
def test_what_torch_saves_is_read(tmp_path: Path, real_torch, zip_format):
    torch = real_torch
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Conv2d(4, 2, 1)
    )
    base = torch.arange(60, dtype=torch.float64)
    saved = network.state_dict()
    saved["parameter"] = torch.nn.Parameter(torch.randn(2, 3))
    saved["transposed"] = base[5:17].reshape(3, 4).T
    saved["part"] = base.reshape(3, 20)[1:, 3::4]
    saved["half"] = torch.randn(5).half()
    saved["expanded"] = base[:2].expand(4, 2)
    path = tmp_path / "network.pth"
    torch.save(saved, path, _use_new_zipfile_serialization=zip_format)
    found = read_torch_checkpoint(path, saved)
    for name, tensor in saved.items():
        expected = tensor.detach().numpy()
        assert found[name].dtype == expected.dtype
        np.testing.assert_array_equal(found[name], expected)


@pytest.mark.parametrize("zip_format", [True, False])
def test_a_whole_module_that_torch_saved_is_refused(tmp_path, real_torch, zip_format):
    path = tmp_path / "module.pth"
    real_torch.save(real_torch.nn.Linear(2, 2), path, _use_new_zipfile_serialization=zip_format)
    with pytest.raises(InputError, match=r"refused to load torch\.nn\.modules\.linear\.Linear"):
        read_torch_checkpoint(path, ["weight"])
