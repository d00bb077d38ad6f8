"""Fuzzing for a given time: images, weights, settings, flags, results, calibrations and labels.

    python benchmarks/fuzz.py --minutes=60

Each round takes a well-formed input, damages it, and hands it to the reader of its kind. A reader
may give a value or raise one of the errors that a user can mend (`ssdnet_jax.errors`);
anything else is printed with the seed of its round and counted, and so is a round of more than ten
seconds. `--seed` repeats rounds. The exit status is 1 if anything was found.
"""

import argparse
import contextlib
import importlib.util
import io
import json
import pickle
import random
import signal
import struct
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from ssdnet_jax.cli import evaluate, rescore, ssdnet
from ssdnet_jax.config import AUTO, field_names, from_config_dict, to_config_dict
from ssdnet_jax.core.conformal import POSITIONS
from ssdnet_jax.data.calibration_file import known_contents, write_calibration
from ssdnet_jax.data.datasets import read_dataset
from ssdnet_jax.data.fits_file import StoredFits, read_fits, write_fits
from ssdnet_jax.data.images import read_image, search_images, with_pages
from ssdnet_jax.data.labels import image_shape, read_label
from ssdnet_jax.data.regions import ignored_regions
from ssdnet_jax.data.safetensors_file import read_safetensors
from ssdnet_jax.data.score_maps import read_map
from ssdnet_jax.data.torch_checkpoint import read_torch_checkpoint
from ssdnet_jax.data.weights import load_vgg19_weights, random_vgg19_weights
from ssdnet_jax.errors import SSDnetError
from ssdnet_jax.runner.decisions import write_defects
from ssdnet_jax.runner.rescore import read_run
from ssdnet_jax.runner.workdir import COLUMNS, Workdir, read_rows

SECONDS = 10.0  # that a round may take
_ODD = (0, 1, 2, 127, 128, 254, 255)
_WORDS = (
    *("0", "1", "-1", "1e308", "1e-320", "nan", "inf", "9" * 20, "9" * 5000, "0x" + "f" * 4000),
    *("", " ", "a", "True", "none", "()", "1,2", "16," * 99, "[" * 2000, "'", '"', "\\", "{}"),
    *("\0", "\n", "é", "\udcff", "../..", "/dev/zero", "=1+1", "1" + "_1" * 50, "1j", "b'a'"),
)

Round = Callable[[random.Random, Path], object]


def load_bad_files() -> ModuleType:
    """The generator of odd image files, which belongs to the tests."""
    path = Path(__file__).parents[1] / "tests/data/bad_files.py"
    spec = importlib.util.spec_from_file_location("bad_files", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["bad_files"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def damaged(content: bytes, generator: random.Random) -> bytes:
    """A file that is cut, or has bytes changed, taken out, doubled, or put elsewhere."""
    changed = bytearray(content)
    for _ in range(generator.choice((1, 1, 1, 2, 4))):
        if not changed:
            break
        most = min(len(changed), generator.choice((64, len(changed), len(changed))))
        place = generator.randrange(most)
        kind = generator.randrange(6)
        length = generator.choice((1, 2, 4, 8, 16))
        if kind == 0:
            changed[place] = generator.choice(_ODD)
        elif kind == 1:
            changed[place] ^= 1 << generator.randrange(8)
        elif kind == 2:
            del changed[place : place + length]
        elif kind == 3:
            changed[place:place] = changed[place : place + length]
        elif kind == 4:
            number = generator.choice((0, 1, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1))
            changed[place : place + 4] = struct.pack(generator.choice("<>") + "I", number)
        else:
            del changed[generator.randrange(len(changed)) :]
    return bytes(changed)


def image_round() -> Round:
    """Images of all formats, also as a folder."""
    bad_files = load_bad_files()
    groups = (bad_files.pixel_types, bad_files.orientations, bad_files.bombs)
    files = [file for group in groups for file in group()]

    def once(generator: random.Random, folder: Path) -> object:
        file = generator.choice(files)
        path = folder / file.name
        file.put(path)
        if path.stat().st_size > 2**20:
            return None
        path.write_bytes(damaged(path.read_bytes(), generator))
        found = with_pages(folder, search_images(folder).images)
        decoded = read_image(folder / found[generator.randrange(min(len(found), 3))])
        pixels = decoded.pixels
        assert pixels.dtype == np.float32
        assert np.isfinite(pixels).all()
        assert pixels.min() >= 0
        assert pixels.max() <= 1
        return None

    return once


def map_round(generator: random.Random, folder: Path) -> object:
    """Score maps of other programs."""
    bad_files = load_bad_files()
    path = folder / f"a.{generator.choice(('tiff', 'npy', 'npz'))}"
    values = np.random.default_rng(0).random((9, 7), np.float32)
    if path.suffix == ".tiff":
        content = bad_files.tiff(values)
    else:
        buffer = io.BytesIO()
        np.save(buffer, values) if path.suffix == ".npy" else np.savez(buffer, values)
        content = buffer.getvalue()
    path.write_bytes(damaged(content, generator))
    return read_map(path)


def weights_round(generator: random.Random, folder: Path) -> object:
    """Weights: .npz, .safetensors, .pth of both layouts, and pickles made of random operations."""
    kind = generator.choice(("npz", "safetensors", "pth", "pickle"))
    path = folder / f"a.{'pth' if kind == 'pickle' else kind}"
    if kind == "npz":
        weights = random_vgg19_weights(0, channels=(1, 1, 1, 1))
        arrays = {f"{n}/weight": w["kernel"] for n, w in weights.items()}
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        path.write_bytes(damaged(buffer.getvalue(), generator))
        return load_vgg19_weights(path)
    if kind == "safetensors":
        header = {"x": {"dtype": "F32", "shape": [3, 2], "data_offsets": [0, 24]}}
        is_odd = generator.random() < 0.5
        encoded = damaged_json(header, generator) if is_odd else json.dumps(header).encode()
        content = len(encoded).to_bytes(8, "little") + encoded + bytes(24)
        path.write_bytes(content if is_odd else damaged(content, generator))
        return read_safetensors(path, ["x"])
    data = (
        b"\x80\x02}q\x00X\x01\x00\x00\x00xq\x01ctorch._utils\n_rebuild_tensor_v2\nq\x02((X\x07\x00"
    )
    data += b"\x00\x00storageq\x03ctorch\nFloatStorage\nq\x04X\x01\x00\x00\x000q\x05X\x03\x00\x00"
    data += b"\x00cpuq\x06K\x04tq\x07QK\x00K\x04\x85q\x08K\x01\x85q\t\x89}q\ntq\x0bRq\x0cs."
    if kind == "pickle":
        pieces = (b"(", b")", b"]", b"}", b"\x85", b"\x86", b"\x87", b"t", b"l", b"d", b"u", b"s")
        pieces += (b"a", b"e", b"0", b"1", b"2", b"h\x00", b"q\x00", b"K\x01", b"N", b"\x88", b"R")
        pieces += (b"b", b"\x94", b"Q", b"ctorch\nSize\n", b"ccollections\nOrderedDict\n", b"\x93")
        pieces += (
            b"ctorch._utils\n_rebuild_tensor_v2\n",
            b"U\x01x",
            b"G\x7f\xf0\0\0\0\0\0\0",
            b"\x81",
        )
        data = b"\x80\x02" + b"".join(generator.choices(pieces, k=generator.randrange(60))) + b"."
    elif generator.random() < 0.5:
        data = damaged(data, generator)
    if generator.random() < 0.5:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a/data.pkl", data)
            archive.writestr("a/data/0", bytes(16))
        content = path.read_bytes()
    else:
        parts = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
        content = b"".join(pickle.dumps(part, protocol=2) for part in parts) + data
        content += pickle.dumps(["0"], protocol=2) + struct.pack("<q", 4) + bytes(16)
    path.write_bytes(damaged(content, generator) if generator.random() < 0.7 else content)
    return read_torch_checkpoint(path, ["x"])


def config_round(generator: random.Random, folder: Path) -> object:
    """Configurations as mappings and as files, and command lines."""
    values = to_config_dict(AUTO).to_dict()
    for _ in range(generator.randrange(1, 4)):
        *groups, field = generator.choice(field_names()).split(".")
        group = values
        for name in groups:
            group = group[name]
        if not isinstance(group, dict):
            continue
        odd = (0, 1, -1, 10**19, 16**5000, 1e308, 5e-324, float("nan"), None, (), (1,), (0, -1))
        odd += ("auto", {}, [1.0], b"", True)
        value = generator.choice((*odd, *[group.get(field)] * 2 * len(odd)))
        group[generator.choice((*[field] * 12, "x", 3, ""))] = value
    if generator.random() < 0.5:
        return from_config_dict(values)
    flags = [
        f"--{generator.choice(('', 'config.'))}{generator.choice(FLAGS)}"
        f"{generator.choice(('=', '=', '=', ' ', ''))}{generator.choice(_WORDS)}"
        for _ in range(generator.randrange(1, 4))
    ]
    if generator.random() < 0.2:
        (folder / "flags").write_bytes(generator.randbytes(200))
        flags.append(f"--flagfile={folder / 'flags'}")
    if generator.random() < 0.2:
        (folder / "c.py").write_bytes(
            damaged(b"def get_config():\n    return {'seed': 1}", generator)
        )
        flags.append(f"--config={folder / 'c.py'}")
    command = generator.choice((ssdnet, evaluate, rescore))
    return command.parse([command.__name__, *flags])


FLAGS = (
    *field_names(),
    *("image_size", "input", "workdir", "lanes", "devices", "method", "config", "seeds"),
    *("categories", "methods", "noise", "missing", "executor", "run", "dataset", "flagfile", "x"),
)


def results_round(generator: random.Random, folder: Path) -> object:
    """results.csv, run.json, fits and decisions of a work folder."""
    kind = generator.choice(("rows", "run", "fits", "decisions"))
    row = "a.png,ok,1.5,0.5,0.1,10,0.01,2.5," + "," * max(0, len(COLUMNS) - 9)
    table = "\n".join([",".join(COLUMNS), row, row, ""]).encode()
    if kind == "rows":
        if generator.random() < 0.5:
            word = generator.choice(_WORDS).encode("utf-8", "surrogateescape")
            table = table.replace(generator.choice((b"1.5", b"10", b"ok", b"a.png")), word)
        (folder / "results.csv").write_bytes(damaged(table, generator))
        return read_rows(folder / "results.csv")
    if kind == "run":
        note = {"method": "ssdnet", "root": None, "config": to_config_dict(AUTO).to_dict()}
        (folder / "run.json").write_bytes(damaged_json(note, generator))
        (folder / "results.csv").write_bytes(table)
        return read_run(folder)
    if kind == "decisions":
        (folder / "results.csv").write_bytes(table)
        (folder / "decisions").mkdir()
        path = folder / "decisions" / "a.png.json"
        path.write_bytes(damaged_json(_DECISION, generator))
        return write_defects(Workdir(folder, {}))
    fits = StoredFits(
        image=np.zeros((8, 8, 1), np.float32),
        reconstructions=np.zeros((1, 8, 8, 1), np.float32),
        losses=np.zeros((1, 3), np.float32),
        stop=np.array([2]),
        restorations=np.array([0]),
        size=np.array([8, 8]),
    )
    path = folder / "fits.npz"
    write_fits(path, fits)
    path.write_bytes(damaged(path.read_bytes(), generator))
    return read_fits(path)


_DEFECT = {
    **{"number": 1, "x": 2, "y": 1, "width": 2, "height": 1, "area": 2, "centroid_x": 2.5},
    **{"centroid_y": 1.0, "peak": 9.0, "mean": 8.5, "p_value": 1e-6},
    **{"runs": "91710n0", "polygon": [[[2, 1], [4, 1], [4, 2], [2, 2], [2, 1]]]},
}
_DECISION = {
    **{"width": 6, "height": 8, "score": 9.0, "p_value": 1e-6, "verdict": "anomalous"},
    **{"false_alarms": 0.01, "threshold": 5.0, "calibrated_threshold": 4.0, "defects": [_DEFECT]},
}
_COCO = {
    "images": [
        {"id": 1, "file_name": "a.png", "width": 6, "height": 8},
        {"id": 2, "file_name": "b.png"},
    ],
    "categories": [{"id": 1, "name": "scratch"}],
    "annotations": [
        {"image_id": 1, "category_id": 1, "segmentation": [[1, 1, 4, 1, 4, 5]]},
        {
            **{"image_id": 1, "category_id": 1},
            "segmentation": {"size": [8, 6], "counts": [9, 3, 36]},
        },
    ],
}

_RING = [[0, 0], [4, 0], [4, 3], [0, 0]]
_GEOJSON = {
    "type": "FeatureCollection",
    "features": [
        {
            "type": "Feature",
            "properties": {"image": "a.png"},
            "geometry": {"type": "Polygon", "coordinates": [_RING, _RING[:3]]},
        },
        {"type": "Feature", "geometry": {"type": "MultiPolygon", "coordinates": [[_RING]]}},
    ],
}


def damaged_json(content: object, generator: random.Random) -> bytes:
    """JSON of which the text is damaged, or one of the values is another, or something else."""
    if generator.random() < 0.1:
        odd = (b"[" * 100_000, b'{"a":' * 5000, b"null", b"[]", b"9" * 5000, b"\xff", b"", b"1e999")
        return generator.choice(odd)
    if generator.random() < 0.4:
        return damaged(json.dumps(content).encode(), generator)
    changed = json.loads(json.dumps(content))
    for _ in range(generator.choice((1, 1, 2))):
        inside, keys = changed, list[Any]()
        while isinstance(inside, dict | list) and inside and generator.random() < 0.85:
            keys = list(inside) if isinstance(inside, dict) else list(range(len(inside)))
            outside, key = inside, generator.choice(keys)
            inside = inside[key]
        if not keys:
            continue
        if generator.random() < 0.2:
            del outside[key]
            continue
        words = ("", "../..", "/etc", "a" * 300, "\ud800", "\0", "=1", "ok", "b.png", "a\nb")
        numbers = (0, -1, 1, 2**31, 10**19, 10**4000, 1e308, float("nan"), float("inf"), 0.5)
        odd = (*words, *numbers, None, True, [], {}, [[]], [1] * 7, {"size": [8, 6]})
        outside[key] = generator.choice(odd)
    try:
        return json.dumps(changed).encode()
    except ValueError:  # an integer of too many digits, which is text to a file
        return json.dumps(content).replace("1", "1" * 4000).encode()


def labels_round(generator: random.Random, folder: Path) -> object:
    """Labelled sets: tables, COCO's and VisA's files, masks, regions; calibrations."""
    kind = generator.choice(("calibration", "csv", "visa", "coco", "mask", "ignored"))
    if kind == "calibration":
        peaks = np.full((POSITIONS, POSITIONS), 2.0, np.float32)
        about: dict[str, Any] = {"settings": {}, "contents": {"a": "1"}, "note": {}}
        write_calibration(folder / "c.json", {"a": peaks}, method="m", **about)
        content = json.loads((folder / "c.json").read_bytes())
        (folder / "c.json").write_bytes(damaged_json(content, generator))
        return known_contents(folder / "c.json")
    if kind == "ignored":
        (folder / "i.geojson").write_bytes(damaged_json(_GEOJSON, generator))
        regions = ignored_regions(folder / "i.geojson", [Path("a.png"), Path("b.png")])
        return [region((8, 6)) for region in regions.values()]
    bad_files = load_bad_files()
    for name in ("a.png", "b.png", "m.png"):
        pixels = np.zeros((8, 6, 1), np.uint8)
        pixels[2, 3:5] = generator.choice((0, 1, 128, 255))
        content = bad_files.png_of(pixels, 8)
        (folder / name).write_bytes(
            damaged(content, generator) if kind == "mask" and name == "m.png" else content
        )
    root, content = (
        folder / "set.csv",
        b"image,mask,category,defect\na.png,m.png,c,bent\nb.png,,,\n",
    )
    if kind == "coco":
        root, content = folder / "set.json", damaged_json(_COCO, generator)
    elif kind == "visa":
        (folder / "split_csv").mkdir()
        root = folder / "split_csv" / "1cls.csv"
        content = b"object,split,label,image,mask\nc,test,anomaly,a.png,m.png\n"
        content += b"c,train,normal,b.png,\nc,test,normal,b.png,\n"
    if kind in ("csv", "visa"):
        if generator.random() < 0.5:
            word = generator.choice(_WORDS).encode("utf-8", "surrogateescape")
            whole = (b"a.png", b"m.png", b"c,", b"test", b"bent", b"anomaly", b"image", b"mask")
            content = content.replace(generator.choice(whole), word)
        else:
            content = damaged(content, generator)
    root.write_bytes(content)
    found = read_dataset(root)
    return [read_label(sample, image_shape(sample.path)) for sample in found]


@contextlib.contextmanager
def time_limit() -> Iterator[None]:
    """Raises TimeoutError where a round takes too long."""

    def out_of_time(*_: object) -> None:
        raise TimeoutError(f"more than {SECONDS:g} s")

    before = signal.signal(signal.SIGALRM, out_of_time)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def run_round(once: Round, seed: int) -> str:
    """How a round ended: "value", "error", or what is wrong."""
    with tempfile.TemporaryDirectory(prefix="ssdnet-fuzz-") as name:
        try:
            with time_limit():
                once(random.Random(seed), Path(name))
        except SSDnetError:
            return "error"
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            return f"{type(error).__name__}: {error!s:.200}"
    return "value"


def rounds() -> dict[str, Round]:
    """What is fuzzed, by name."""
    named = {"maps": map_round, "weights": weights_round, "configuration": config_round}
    named |= {"results": results_round, "labels": labels_round}
    return {"images": image_round(), **named}


def fuzz(seconds: float, first: int, *, only: str | None = None) -> tuple[Counter[str], list[str]]:
    """Goes round the kinds of input for some seconds; how rounds ended, and what is wrong."""
    kinds = {name: once for name, once in rounds().items() if only in (None, name)}
    counts: Counter[str] = Counter()
    wrong: list[str] = []
    end, seed = time.monotonic() + seconds, first
    while time.monotonic() < end:
        for name, once in kinds.items():
            ended = run_round(once, seed)
            counts[f"{name}: {ended if ended in ('value', 'error') else 'wrong'}"] += 1
            if ended not in ("value", "error"):
                wrong.append(f"{name}, seed {seed}: {ended}")
        seed += 1
    return counts, wrong


def main() -> None:
    """Reads the flags, fuzzes, prints what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0, help="of the first round")
    parser.add_argument("--only", choices=tuple(rounds()))
    given: Any = parser.parse_args()
    counts, wrong = fuzz(60 * given.minutes, given.seed, only=given.only)
    print("\n".join(f"{count:9d}  {name}" for name, count in sorted(counts.items())))
    print("\n".join(wrong) or "nothing was found")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
