"""Files that are read part by part: the same pixels as at once, in less memory."""

import tracemalloc

import numpy as np
import pytest
import tifffile

from ssdnet_jax.data import _decode, _tiff
from ssdnet_jax.data.images import read_image
from ssdnet_jax.errors import InputError

SHAPE = (70, 50)  # no multiple of a tile


def samples_of(dtype, channels):
    generator = np.random.default_rng(0)
    shape = (*SHAPE, channels) if channels > 1 else SHAPE
    if np.issubdtype(dtype, np.floating):
        values = generator.random(shape).astype(dtype)
        values[3:5, 40] = np.nan
        return values
    return generator.integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)


@pytest.fixture
def small_parts(monkeypatch):
    for module in (_decode, _tiff):
        monkeypatch.setattr(module, "PART_BYTES", 1000)


STORED = [
    {},
    {"byteorder": ">"},
    {"rowsperstrip": 9},
    {"rowsperstrip": 9, "compression": "zlib"},
    {"tile": (32, 16)},
    {"tile": (32, 16), "compression": "zlib"},
]
IN_PLANES = [
    {"planarconfig": "separate"},
    {"planarconfig": "separate", "rowsperstrip": 9, "compression": "zlib"},
    {"planarconfig": "separate", "tile": (16, 32)},
]


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize(
    ("channels", "options"),
    [*((1, each) for each in STORED), *((3, each) for each in STORED + IN_PLANES)],
)
def test_parts_of_a_tiff_are_the_whole_bit_for_bit(tmp_path, dtype, channels, options):
    samples = samples_of(dtype, channels)
    stored = np.moveaxis(samples, -1, 0) if "planarconfig" in options else samples
    photometric = "rgb" if channels == 3 else "minisblack"
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric=photometric, **options)
    decoded = read_image(tmp_path / "a.tif")
    missing = np.isnan(np.atleast_3d(samples)).any(axis=-1)
    scale = np.float32(np.iinfo(dtype).max if np.issubdtype(dtype, np.integer) else 1)
    expected = np.nan_to_num(np.atleast_3d(samples)).astype(np.float32) / scale
    expected[missing] = 0
    np.testing.assert_array_equal(decoded.pixels, expected)
    found = np.zeros(SHAPE, bool) if decoded.missing is None else decoded.missing
    np.testing.assert_array_equal(found, missing)


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("options", [{}, {"rowsperstrip": 9}, {"tile": (16, 16)}], ids=str)
def test_what_transparency_and_white_mean_holds_in_parts(tmp_path, options):
    samples = samples_of(np.uint8, 4)
    samples[..., 3] = 255
    samples[2, 3, 3], samples[60, 40, 3] = 0, 100
    extra = {"photometric": "rgb", "extrasamples": ["unassalpha"]}
    tifffile.imwrite(tmp_path / "a.tif", samples, **extra, **options)
    decoded = read_image(tmp_path / "a.tif")
    assert np.argwhere(decoded.ignored).tolist() == [[2, 3]]
    assert any("1 partially transparent pixels" in line for line in decoded.warnings)
    expected = samples[..., :3] / np.float32(255)
    expected[2, 3] = 0
    np.testing.assert_array_equal(decoded.pixels, expected)
    grey = samples[..., 0]
    tifffile.imwrite(tmp_path / "w.tif", grey, photometric="miniswhite", **options)
    white = read_image(tmp_path / "w.tif").pixels[..., 0]
    np.testing.assert_array_equal(white, (255 - grey) / np.float32(255))


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, bool])
def test_rows_of_an_array_are_the_whole_bit_for_bit(tmp_path, dtype):
    samples = np.random.default_rng(0).random((*SHAPE, 3)) > 0.5
    if dtype is not bool:
        samples = np.nan_to_num(samples_of(dtype, 3))
    np.save(tmp_path / "a.npy", samples)
    scale = {np.uint8: 255, np.uint16: 65535}.get(dtype, 1)
    expected = samples.astype(np.float32) / np.float32(scale)
    np.testing.assert_array_equal(read_image(tmp_path / "a.npy").pixels, expected)


def test_a_file_that_ends_within_a_part_is_one_error_line(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, samples_of(np.uint16, 3), photometric="rgb")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"a\.tif: .*expected"):
        read_image(path)


@pytest.mark.parametrize("name", ["rows.tif", "tiles.tif", "strips.tif", "a.npy"])
def test_no_second_copy_of_a_large_file_is_held(tmp_path, monkeypatch, name):
    for module in (_decode, _tiff):
        monkeypatch.setattr(module, "PART_BYTES", 2**16)
    samples = np.random.default_rng(0).integers(0, 65536, (1000, 800, 3)).astype(np.uint16)
    options = {
        "tiles.tif": {"tile": (64, 64)},
        "strips.tif": {"rowsperstrip": 16, "compression": "zlib"},
    }
    if name == "a.npy":
        np.save(tmp_path / name, samples)
    else:
        tifffile.imwrite(tmp_path / name, samples, photometric="rgb", **options.get(name, {}))
    read_image(tmp_path / name)  # imports
    tracemalloc.start()
    decoded = read_image(tmp_path / name)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # Beside the pixels: masks and comparisons of one byte a pixel, and parts.
    assert peak < decoded.pixels.nbytes + 4 * decoded.pixels[..., 0].size + 2**20
    assert peak < decoded.pixels.nbytes + samples.nbytes
