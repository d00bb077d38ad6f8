import json
import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from ssdnet_jax.data.safetensors_file import read_safetensors
from ssdnet_jax.errors import InputError

_types = st.sampled_from([np.float64, np.float32, np.float16, np.int64, np.int32])
_shapes = st.lists(st.integers(0, 4), max_size=3).map(tuple)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.text(max_size=5), st.tuples(_types, _shapes), min_size=1, max_size=4))
def test_what_safetensors_writes_is_read(tmp_path, layout):
    generator = np.random.default_rng(0)
    layout.pop("__metadata__", None)
    tensors = {n: np.asarray(100 * generator.random(s)).astype(t) for n, (t, s) in layout.items()}
    save_file(tensors, tmp_path / "t.safetensors", metadata={"format": "pt"})
    found = read_safetensors(tmp_path / "t.safetensors", tensors)
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        np.testing.assert_array_equal(found[name], tensor)


def put(path, header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    ("header", "data", "word"),
    [
        (b"{]", b"", "not JSON"),
        (b"[]", b"", "no usable tensor a"),
        (b" ", b"", "header of 1 bytes"),
        ({"b": ENTRY}, bytes(8), "no tensor a; found 'b'"),
        ({"a": ENTRY}, bytes(7), "truncated"),
        ({"a": 3}, b"", "no usable tensor a"),
        ({"a": {**ENTRY, "dtype": "F4"}}, bytes(8), "no usable tensor a"),
        ({"a": {**ENTRY, "dtype": []}}, bytes(8), "no usable tensor a"),
        ({"a": {**ENTRY, "data_offsets": [0]}}, bytes(8), "no usable tensor a"),
        ({"a": {**ENTRY, "shape": [3]}}, bytes(8), "expected 12 bytes"),
        ({"a": {**ENTRY, "shape": [-1, -2]}}, bytes(8), "expected 8 bytes behind the header"),
        ({"a": {**ENTRY, "data_offsets": [-8, 0]}}, bytes(8), "expected 8 bytes behind the header"),
    ],
)
def test_a_broken_file_is_named(tmp_path, header, data, word):
    path = put(tmp_path / "t.safetensors", header, data)
    with pytest.raises(InputError) as caught:
        read_safetensors(path, ["a"])
    assert str(caught.value).startswith(f"{path}: ") and word in str(caught.value)


def test_a_header_that_claims_too_much_is_refused(tmp_path):
    path = tmp_path / "t.safetensors"
    path.write_bytes(struct.pack("<Q", 2**40))
    with pytest.raises(InputError, match="header of 1099511627776 bytes"):
        read_safetensors(path, ["a"])
    with pytest.raises(InputError, match=r"cannot be read \(No such file"):
        read_safetensors(tmp_path / "no.safetensors", ["a"])
