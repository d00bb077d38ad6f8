"""Weights from files, and downloads from a loopback server that can be told to misbehave."""

import hashlib
import http.server
import json
import os
import pickle
import re
import socket
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from ssdnet_jax.data import remote_file
from ssdnet_jax.data import weights as weights_module
from ssdnet_jax.data.files import user_cache_folder, write_to_cache
from ssdnet_jax.data.weights import (
    CACHE_FILE,
    VGG19_IMAGENET1K_V1,
    WeightSpecification,
    load_pinned_weights,
    load_vgg19_weights,
    random_vgg19_weights,
)
from ssdnet_jax.errors import InputError

LAYERS = {"conv1_1": 0, "conv1_2": 2, "conv2_1": 5, "conv2_2": 7}
SHAPES = {
    "conv1_1": (4, 3, 3, 3),
    "conv1_2": (4, 4, 3, 3),
    "conv2_1": (6, 4, 3, 3),
    "conv2_2": (6, 6, 3, 3),
}
OPTIONS = (
    "--vgg19_weights=PATH",
    "SSDNET_VGG19_WEIGHTS",
    "SSDNET_VGG19_URL",
    "a configuration that needs none",
)


def make_tensors(seed=0):
    """{"conv1_1/weight": (out, in, height, width), "conv1_1/bias": (out,), ...} in that order."""
    generator = np.random.default_rng(seed)
    tensors = {}
    for name, shape in SHAPES.items():
        tensors[f"{name}/weight"] = generator.standard_normal(shape, np.float32)
        tensors[f"{name}/bias"] = generator.standard_normal(shape[0], np.float32)
    return tensors


def torchvision_names(tensors):
    return {
        f"features.{LAYERS[name.split('/')[0]]}.{name.split('/')[1]}": tensor
        for name, tensor in tensors.items()
    }


TENSORS = make_tensors()
SPECIFICATION = WeightSpecification(
    SHAPES, hashlib.sha256(b"".join(t.tobytes() for t in TENSORS.values())).hexdigest()
)


def encode_safetensors(tensors, padding=50_000):
    """The needed tensors in torchvision's order of names, between others that are not needed."""
    named = {"a.unneeded": np.zeros(padding // 4, np.float32), **torchvision_names(tensors)}
    named |= {"features.10.weight": np.ones(99, np.float32)}
    named |= {"z.unneeded": np.ones(padding // 4, np.float32)}
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, tensor in sorted(named.items()):
        begin, data = len(data), data + tensor.tobytes()
        header[name] = {
            "dtype": "F32",
            "shape": tensor.shape,
            "data_offsets": [begin, len(data)],
        }
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    return struct.pack("<Q", len(encoded)) + encoded + data


def encode_legacy_checkpoint(tensors):
    """A legacy .pth assembled opcode by opcode."""

    def plain(value):
        return pickle.dumps(value, protocol=2)[2:-1]

    state, storages = b"\x80\x02}", b""
    named = torchvision_names(tensors)
    for key, (name, tensor) in enumerate(named.items()):
        storage = b"(" + plain("storage") + b"ctorch\nFloatStorage\n" + plain(str(key))
        storage += plain("cpu") + plain(tensor.size) + plain(None) + b"tQ"
        stride = tuple(step // 4 for step in tensor.strides)
        state += plain(name) + b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + plain(0)
        state += plain(tensor.shape) + plain(stride) + plain(False) + plain(None) + b"tRs"
        storages += struct.pack("<q", tensor.size) + tensor.tobytes()
    head = [pickle.dumps(v, 2) for v in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
    keys = pickle.dumps([str(key) for key in range(len(named))], 2)
    return b"".join(head) + state + b"." + keys + storages


def write_npz(path, tensors):
    with path.open("wb") as file:
        np.savez(file, **tensors)


WRITERS = {
    ".npz": write_npz,
    ".safetensors": lambda path, tensors: path.write_bytes(encode_safetensors(tensors)),
    ".pth": lambda path, tensors: path.write_bytes(encode_legacy_checkpoint(tensors)),
    ".PT": lambda path, tensors: path.write_bytes(encode_legacy_checkpoint(tensors)),
}
containers = pytest.mark.parametrize("suffix", WRITERS)


def assert_are_the_tensors(weights, tensors=TENSORS):
    assert list(weights) == list(SHAPES)
    for name, parameters in weights.items():
        out, channels_in, height, width = SHAPES[name]
        assert parameters["kernel"].shape == (height, width, channels_in, out)
        for index in np.ndindex(out, channels_in, height, width):
            o, i, h, w = index
            assert parameters["kernel"][h, w, i, o] == tensors[f"{name}/weight"][index]
        np.testing.assert_array_equal(parameters["bias"], tensors[f"{name}/bias"])
        assert parameters["kernel"].dtype == parameters["bias"].dtype == np.float32


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch, tmp_path):
    """No test reaches the user's files, a proxy or the internet."""
    for name in ("SSDNET_VGG19_WEIGHTS", "SSDNET_VGG19_URL", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("SSDNET_CACHE", str(tmp_path / "user_cache"))
    monkeypatch.setattr(weights_module, "DEFAULT_URL", "http://127.0.0.1:9/no/internet/in/tests")


# --- files ---------------------------------------------------------------------------------------


@containers
def test_every_container_gives_the_same_weights(tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    WRITERS[suffix](path, TENSORS)
    assert_are_the_tensors(load_pinned_weights(SPECIFICATION, path))
    assert_are_the_tensors(load_pinned_weights(SPECIFICATION, str(path)))


@containers
def test_other_values_are_refused_with_the_way_to_use_them(tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    changed = make_tensors()
    changed["conv2_2/bias"][3] = np.nextafter(changed["conv2_2/bias"][3], np.float32(9))
    WRITERS[suffix](path, changed)
    with pytest.raises(InputError, match="not torchvision's VGG19 IMAGENET1K_V1") as caught:
        load_pinned_weights(SPECIFICATION, path)
    message = str(caught.value)
    assert str(path) in message and SPECIFICATION.sha256 in message
    assert "parameters from Python" in message


@containers
def test_shapes_are_checked_before_values(tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    WRITERS[suffix](path, TENSORS | {"conv1_2/weight": np.zeros((4, 4, 5, 5), np.float32)})
    with pytest.raises(InputError) as caught:
        load_pinned_weights(SPECIFICATION, path)
    assert re.search(r"(conv1_2/|features\.2\.)weight is float32 \(4, 4, 5, 5\)", str(caught.value))
    assert "expected float32 (4, 4, 3, 3)" in str(caught.value)
    assert str(path) in str(caught.value)


def test_dtypes_are_checked(tmp_path):
    path = tmp_path / "a.npz"
    write_npz(path, TENSORS | {"conv1_1/bias": TENSORS["conv1_1/bias"].astype(np.float64)})
    with pytest.raises(InputError, match=r"conv1_1/bias is float64 \(4,\); expected float32"):
        load_pinned_weights(SPECIFICATION, path)
    path = tmp_path / "a.safetensors"
    path.write_bytes(encode_safetensors(TENSORS).replace(b'"F32"', b'"I32"'))
    with pytest.raises(InputError, match=r"features\.0\.weight is int32"):
        load_pinned_weights(SPECIFICATION, path)


def test_safetensors_written_by_its_own_library_are_read(tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy", reason="writes the file of this test")
    named = torchvision_names(TENSORS) | {"classifier.0.weight": np.ones((7, 9), np.float16)}
    safetensors.save_file(named, tmp_path / "a.safetensors", metadata={"format": "pt"})
    assert_are_the_tensors(load_pinned_weights(SPECIFICATION, tmp_path / "a.safetensors"))
    # and the files of these tests are what that library reads
    found = safetensors.load(encode_safetensors(TENSORS))
    for name, tensor in torchvision_names(TENSORS).items():
        np.testing.assert_array_equal(found[name], tensor)


def with_header(header):
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(encoded)) + encoded + bytes(10_000)


def entry(**changes):
    first = {"dtype": "F32", "shape": [4, 3, 3, 3], "data_offsets": [0, 432]} | changes
    return with_header({"features.0.weight": first})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "ends at byte 0; expected 8"),
        (b"\xff" * 100, "header of 18446744073709551615 bytes; expected at most 1048576"),
        (struct.pack("<Q", 100) + b"{}", "ends at byte 10; expected 108"),
        (with_header(b"\x93NUMPY"), "header is not JSON"),
        (with_header(b"[" * 500_000), "header is not JSON"),
        (with_header([1]), r"no usable tensor features\.0\.weight"),
        (with_header({}), r"no tensor features\.0\.weight; found"),
        (entry(data_offsets=[0, 431]), "expected 432 bytes behind the header"),
        (entry(data_offsets=[-432, 0]), "expected 432 bytes behind the header"),
        (entry(data_offsets=[0, float("inf")]), "no usable tensor"),
        (entry(data_offsets=[0]), "no usable tensor"),
        (entry(shape=[10**9] * 4), r"weight of shape \(1000000000, .* expected 4\d+ bytes"),
        (encode_safetensors(TENSORS)[:53_000], r"ends at byte 53000; expected \d+"),
    ],
)
def test_broken_safetensors_are_refused(tmp_path, content, message):
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        load_pinned_weights(SPECIFICATION, path)
    assert str(caught.value).startswith(str(path))


def test_broken_npz_files_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    path.write_bytes(b"PK\x03\x04 no more")
    with pytest.raises(InputError, match="not a readable"):
        load_pinned_weights(SPECIFICATION, path)
    write_npz(path, {"conv1_1/weight": TENSORS["conv1_1/weight"]})
    with pytest.raises(InputError, match="no array conv1_1/bias"):
        load_pinned_weights(SPECIFICATION, path)
    write_npz(path, TENSORS | {"conv1_1/bias": np.array([{}, {}, {}, {}])})
    with pytest.raises(InputError, match="not a readable"):
        load_pinned_weights(SPECIFICATION, path)
    monkeypatch.setattr(weights_module, "_ARRAY_LIMIT_BYTES", 900)
    write_npz(path, TENSORS)
    with pytest.raises(InputError, match=r"conv2_1/weight takes \d+ bytes"):
        load_pinned_weights(SPECIFICATION, path)


def test_a_missing_file_a_folder_and_another_type_are_named(tmp_path):
    for name in ("none.npz", "none.safetensors", "none.pth"):
        with pytest.raises(InputError, match=rf"{name}: cannot be read \(No such file"):
            load_pinned_weights(SPECIFICATION, tmp_path / name)
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(InputError, match=r"folder\.npz: cannot be read \(Is a directory"):
        load_pinned_weights(SPECIFICATION, tmp_path / "folder.npz")
    with pytest.raises(InputError, match=r"'\.h5'; expected \.npz, \.safetensors, \.pth, \.pt"):
        load_pinned_weights(SPECIFICATION, tmp_path / "weights.h5")


def test_the_path_goes_before_the_variable_before_the_cache(tmp_path, monkeypatch):
    good, missing = tmp_path / "good.npz", tmp_path / "missing.npz"
    write_npz(good, TENSORS)
    cache_folder = tmp_path / "cache"
    cache_folder.mkdir()
    write_npz(cache_folder / CACHE_FILE, TENSORS)
    monkeypatch.setenv("SSDNET_VGG19_WEIGHTS", str(missing))
    assert_are_the_tensors(load_pinned_weights(SPECIFICATION, good, cache_folder=cache_folder))
    with pytest.raises(InputError, match=r"missing\.npz"):
        load_pinned_weights(SPECIFICATION, cache_folder=cache_folder)
    monkeypatch.setenv("SSDNET_VGG19_WEIGHTS", str(good))
    assert_are_the_tensors(load_pinned_weights(SPECIFICATION, cache_folder=tmp_path / "empty"))
    monkeypatch.setenv("SSDNET_VGG19_WEIGHTS", "")
    lines = []
    found = load_pinned_weights(SPECIFICATION, cache_folder=cache_folder, report=lines.append)
    assert_are_the_tensors(found)
    assert lines == []


# --- download ------------------------------------------------------------------------------------


class Server:
    """Serves `content`; the attributes say how badly.

    `log` has one [first byte asked for or None, bytes sent] an answer, noted before they are
    sent, and `done` is set when the server has finished an answer.
    """

    def __init__(self, content):
        self.content, self.ranges, self.status = content, True, None
        self.break_after = None  # bytes of each body sent before the connection breaks
        self.break_from = 0  # the first byte of the file from which answers break
        self.shift = 0  # added to the range served
        self.stall = threading.Event()
        self.stalls = False
        self.log, self.done = [], threading.Event()
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                server.answer(self)

            def log_message(self, *_):
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}/model.safetensors"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def answer(self, request):
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers.get("Range", ""))
        if request.path == "/redirect":
            request.send_response(302)
            request.send_header("Location", self.url)
            request.end_headers()
            return
        if self.status:
            request.send_error(self.status)
            return
        if self.stalls:
            self.stall.wait(10)
            return
        start, stop = 0, len(self.content)
        if wanted and self.ranges:
            start, stop = int(wanted[1]) + self.shift, int(wanted[2]) + 1 + self.shift
            request.send_response(206)
            request.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(self.content)}")
        else:
            request.send_response(200)
        request.send_header("Content-Length", str(stop - start))
        request.end_headers()
        broken = self.break_after is not None and stop > self.break_from
        body = self.content[start : start + self.break_after if broken else stop]
        entry = [wanted and int(wanted[1]), 0]
        self.log.append(entry)
        try:
            for at in range(0, len(body), 4096):
                entry[1] += len(body[at : at + 4096])
                request.wfile.write(body[at : at + 4096])
        except OSError:  # the client has what it needs and hung up
            pass
        self.done.set()


@pytest.fixture
def server():
    server = Server(encode_safetensors(TENSORS))
    yield server
    server.stall.set()
    server.http.shutdown()
    server.http.server_close()


def download(server, folder, lines=None, url=None):
    report = (lambda line: None) if lines is None else lines.append
    return load_pinned_weights(
        SPECIFICATION, url=url or server.url, cache_folder=folder, report=report
    )


def tensor_starts(content):
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    names = torchvision_names(TENSORS)
    return {name: 8 + length + header[name]["data_offsets"][0] for name in names}


NEEDED_BYTES = sum(tensor.nbytes for tensor in TENSORS.values())


def test_only_the_needed_ranges_are_fetched_and_then_none(tmp_path, server):
    folder, lines = tmp_path / "cache", []
    assert_are_the_tensors(download(server, folder, lines))
    (line,) = lines
    assert server.url in line and str(folder) in line
    header = struct.unpack("<Q", server.content[:8])[0]
    assert sum(sent for _, sent in server.log) == 8 + header + NEEDED_BYTES
    assert len(server.log) == 10
    assert [path.name for path in folder.iterdir()] == [CACHE_FILE]

    assert_are_the_tensors(download(server, folder, lines))
    assert len(server.log) == 10 and len(lines) == 1
    with np.load(folder / CACHE_FILE, allow_pickle=False) as cached:
        assert set(cached.files) == set(TENSORS)
        np.testing.assert_array_equal(cached["conv2_1/weight"], TENSORS["conv2_1/weight"])


@pytest.mark.skipif(os.name == "nt", reason="POSIX modes")
def test_the_cache_is_the_users_alone(tmp_path, server):
    folder = tmp_path / "new" / "cache"
    download(server, folder)
    assert folder.stat().st_mode & 0o777 == 0o700


def test_the_mirror_and_the_cache_folder_come_from_the_environment(tmp_path, server, monkeypatch):
    monkeypatch.setenv("SSDNET_VGG19_URL", server.url)
    assert_are_the_tensors(load_pinned_weights(SPECIFICATION, report=print))
    assert (tmp_path / "user_cache" / CACHE_FILE).is_file()


def test_without_report_the_download_is_logged(tmp_path, server, caplog):
    load_pinned_weights(SPECIFICATION, url=server.url, cache_folder=tmp_path)
    (record,) = caplog.records
    assert server.url in record.message


def test_a_server_without_ranges_is_read_up_to_the_last_needed_byte(tmp_path, server):
    server.content = encode_safetensors(TENSORS, padding=32_000_000)
    server.ranges = False
    assert_are_the_tensors(download(server, tmp_path))
    assert server.done.wait(10)
    ((_, sent),) = server.log
    # all before the last needed tensor, then no more than the sockets' buffers hold
    assert 32_000_000 + NEEDED_BYTES < sent < 52_000_000


def test_redirects_are_followed_with_the_range(tmp_path, server):
    url = server.url.replace("model.safetensors", "redirect")
    assert_are_the_tensors(download(server, tmp_path, url=url))
    assert all(start is not None for start, _ in server.log)


def test_the_proxy_of_the_environment_is_used(tmp_path, server, monkeypatch):
    monkeypatch.delenv("no_proxy")
    monkeypatch.setenv("http_proxy", server.url.removesuffix("/model.safetensors"))
    url = "http://weights.invalid/model.safetensors"
    assert_are_the_tensors(download(server, tmp_path, url=url))


def assert_one_helpful_line(error, url):
    message = str(error)
    assert url in message and "\n" not in message
    for option in OPTIONS:
        assert option in message


@pytest.mark.parametrize("ranges", [True, False])
def test_a_rerun_after_truncation_fetches_only_what_is_missing(tmp_path, server, ranges):
    server.ranges = ranges
    starts = tensor_starts(server.content)
    # safetensors has features.0.bias, 0.weight, 2.bias, 2.weight, ... in this order
    if ranges:
        server.break_from, server.break_after = starts["features.2.weight"], 100
    else:
        server.break_after = starts["features.2.weight"] + 100
    with pytest.raises(InputError, match="download failed") as caught:
        download(server, tmp_path)
    assert_one_helpful_line(caught.value, server.url)
    assert not (tmp_path / CACHE_FILE).exists()
    kept = sorted(path.name.split("-")[1] for path in tmp_path.iterdir())
    assert kept == [f"features.{name}.partial" for name in ("0.bias", "0.weight", "2.bias")]

    server.log.clear()
    server.break_after = None
    assert_are_the_tensors(download(server, tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == [CACHE_FILE]
    if ranges:
        fetched = {start for start, _ in server.log if start > 8}
        done = {"features.0.bias", "features.0.weight", "features.2.bias"}
        assert fetched == {start for name, start in starts.items() if name not in done}


def test_partial_files_of_another_address_or_length_are_not_used(tmp_path, server):
    server.break_from, server.break_after = tensor_starts(server.content)["features.5.bias"], 0
    with pytest.raises(InputError):
        download(server, tmp_path)
    partials = sorted(tmp_path.iterdir())
    assert len(partials) == 4
    partials[0].write_bytes(b"short")
    server.break_after = None
    server.log.clear()
    assert_are_the_tensors(download(server, tmp_path))
    assert len(server.log) == 2 + 5

    (tmp_path / CACHE_FILE).unlink()
    for partial in partials:
        partial.write_bytes(bytes(TENSORS["conv1_1/bias"].nbytes))
    assert_are_the_tensors(download(server, tmp_path, url=server.url + "?mirror=2"))


def test_wrong_values_are_not_cached_and_the_pieces_are_deleted(tmp_path, server):
    server.content = encode_safetensors(make_tensors(seed=1))
    found = hashlib.sha256(b"".join(t.tobytes() for t in make_tensors(1).values())).hexdigest()
    with pytest.raises(InputError, match="not torchvision's") as caught:
        download(server, tmp_path)
    assert_one_helpful_line(caught.value, server.url)
    assert found in str(caught.value) and SPECIFICATION.sha256 in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    server.content = encode_safetensors(TENSORS)
    assert_are_the_tensors(download(server, tmp_path))


def test_other_shapes_are_noticed_before_a_tensor_is_fetched(tmp_path, server):
    server.content = encode_safetensors(
        TENSORS | {"conv2_2/weight": np.zeros((6, 6, 1, 1), np.float32)}
    )
    with pytest.raises(InputError, match=r"features\.7\.weight is float32 \(6, 6, 1, 1\)"):
        download(server, tmp_path)
    assert len(server.log) == 2


@pytest.mark.parametrize("status", [403, 404, 416, 500])
def test_http_errors_are_one_line_with_the_options(tmp_path, server, status):
    server.status = status
    with pytest.raises(InputError, match=f"HTTP Error {status}") as caught:
        download(server, tmp_path)
    assert_one_helpful_line(caught.value, server.url)


def test_refused_connections_and_unusable_addresses_are_one_line(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    for url, reason in {
        f"http://127.0.0.1:{port}/x": "refused",
        "http://127.0.0.1:port/x": "download failed",
        "http://a b/x": "download failed",
        "http:///x": "download failed",
        f"file://{tmp_path}": "expected an address beginning with http",
        "weights.safetensors": "expected an address beginning with http",
    }.items():
        with pytest.raises(InputError, match=reason) as caught:
            load_pinned_weights(SPECIFICATION, url=url, cache_folder=tmp_path, report=print)
        assert_one_helpful_line(caught.value, url)


def test_a_stalled_server_times_out(tmp_path, server, monkeypatch):
    monkeypatch.setattr(remote_file, "TIMEOUT_SECONDS", 0.1)
    server.stalls = True
    with pytest.raises(InputError, match="timed out") as caught:
        download(server, tmp_path)
    assert_one_helpful_line(caught.value, server.url)


def test_without_an_answer_nobody_waits_longer_than_told(tmp_path, server, monkeypatch):
    monkeypatch.setattr(remote_file, "ANSWER_SECONDS", 0.2)
    server.stalls = True  # far longer, and so does the socket's own timeout of 30 s
    started = time.monotonic()
    with pytest.raises(InputError, match=r"no answer within 0\.2 s") as caught:
        download(server, tmp_path)
    assert time.monotonic() - started < 5
    assert_one_helpful_line(caught.value, server.url)


def test_a_server_that_answers_with_another_range_is_refused(tmp_path, server):
    server.shift = 4
    with pytest.raises(InputError, match="answered with 'bytes 4-") as caught:
        download(server, tmp_path)
    assert_one_helpful_line(caught.value, server.url)


def test_a_page_instead_of_the_file_is_refused(tmp_path, server):
    server.content, server.ranges = b"<!DOCTYPE html>" * 100, False
    with pytest.raises(InputError, match="not a safetensors file") as caught:
        download(server, tmp_path)
    assert_one_helpful_line(caught.value, server.url)


@pytest.mark.parametrize("ranges", [True, False])
def test_tensors_that_overlap_in_the_file_are_read_and_refused_for_their_values(
    tmp_path, server, ranges
):
    starts = tensor_starts(server.content)
    begin = 8 + struct.unpack("<Q", server.content[:8])[0]
    first, second = (starts[f"features.{n}.bias"] - begin for n in (0, 2))
    server.content = server.content.replace(
        f"[{second}, {second + 16}]".encode(), f"[{first}, {first + 16}]".encode()
    )
    assert tensor_starts(server.content)["features.2.bias"] == starts["features.0.bias"]
    server.ranges = ranges
    with pytest.raises(InputError, match="not torchvision's"):
        download(server, tmp_path)


@pytest.mark.parametrize("damage", [b"", b"garbage", "other values"])
def test_a_corrupt_cached_file_is_reported_and_replaced(tmp_path, server, damage):
    if damage == "other values":
        write_npz(tmp_path / CACHE_FILE, make_tensors(seed=1))
    else:
        (tmp_path / CACHE_FILE).write_bytes(damage)
    lines = []
    assert_are_the_tensors(download(server, tmp_path, lines))
    assert len(lines) == 2 and "unusable" in lines[0] and CACHE_FILE in lines[0]
    assert_are_the_tensors(load_pinned_weights(SPECIFICATION, tmp_path / CACHE_FILE))


def test_parallel_downloads_into_one_folder_all_succeed(tmp_path, server):
    def one(_):
        return download(server, tmp_path)

    with ThreadPoolExecutor(8) as pool:
        for weights in pool.map(one, range(24)):
            assert_are_the_tensors(weights)
    assert [path.name for path in tmp_path.iterdir()] == [CACHE_FILE]


def test_a_cache_folder_that_cannot_be_written_is_named(tmp_path, server):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(InputError, match=r"cannot be written .* set SSDNET_CACHE") as caught:
        download(server, tmp_path / "file")
    assert str(tmp_path / "file") in str(caught.value)


# --- cache folder, random and real weights -------------------------------------------------------


def test_the_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    assert user_cache_folder() == tmp_path / "user_cache"
    monkeypatch.delenv("SSDNET_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert user_cache_folder() == tmp_path / "xdg" / "ssdnet_jax"
    for ignored in ("", "relative/folder"):
        monkeypatch.setenv("XDG_CACHE_HOME", ignored)
        assert user_cache_folder() == Path.home() / ".cache" / "ssdnet_jax"


def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a"
    write_to_cache(path, lambda file: file.write(b"old"))

    def fail(file):
        file.write(b"new")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_to_cache(path, fail)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_random_weights_are_he_scaled_repeatable_and_of_the_same_structure():
    weights = random_vgg19_weights(3)
    for name, (out, channels_in, height, width) in VGG19_IMAGENET1K_V1.kernel_shapes.items():
        kernel, bias = weights[name]["kernel"], weights[name]["bias"]
        assert kernel.shape == (height, width, channels_in, out) and bias.shape == (out,)
        assert kernel.dtype == bias.dtype == np.float32
        assert not bias.any()
        assert kernel.std() == pytest.approx(np.sqrt(2 / (9 * channels_in)), rel=0.06)
    again, other = random_vgg19_weights(3), random_vgg19_weights(4)
    assert (again["conv2_2"]["kernel"] == weights["conv2_2"]["kernel"]).all()
    assert (other["conv2_2"]["kernel"] != weights["conv2_2"]["kernel"]).all()
    small = random_vgg19_weights(0, channels=(2, 3, 4, 5))
    assert [w["kernel"].shape[2:] for w in small.values()] == [(3, 2), (2, 3), (3, 4), (4, 5)]


@pytest.fixture
def real_file():
    if not (shared := os.environ.get("SSDNET_SHARED")):
        pytest.skip("SSDNET_SHARED is unset: the real VGG19 weights are not at hand")
    return Path(shared) / "weights" / "vgg19_imagenet_conv1_1-conv2_2.npz"


def test_the_real_weights_pass_the_pinned_digest(real_file):
    weights = load_vgg19_weights(real_file)
    assert sum(array.size for part in weights.values() for array in part.values()) == 260_160
    with np.load(real_file) as stored:
        np.testing.assert_array_equal(
            weights["conv2_1"]["kernel"], np.moveaxis(stored["conv2_1/weight"], (0, 1), (3, 2))
        )


@pytest.mark.parametrize("zip_format", [True, False])
def test_the_real_weights_pass_the_pinned_digest_as_a_torch_checkpoint(
    real_file, tmp_path, zip_format
):
    torch = pytest.importorskip("torch", reason="torch writes the file of this test")
    with np.load(real_file) as stored:
        tensors = {name: stored[name] for name in VGG19_IMAGENET1K_V1.tensor_shapes}
    state = {name: torch.from_numpy(tensor) for name, tensor in torchvision_names(tensors).items()}
    path = tmp_path / "vgg19-dcbb9e9d.pth"
    torch.save(state, path, _use_new_zipfile_serialization=zip_format)
    assert list(load_vgg19_weights(path)) == list(SHAPES)
