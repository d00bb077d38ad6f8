import struct
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageOps

from ssdnet_jax.data import _raw_image, images
from ssdnet_jax.data.images import (
    find_images,
    image_file,
    read_image,
    read_mask,
    resize_image,
    resize_map,
    resize_missing,
    with_pages,
    write_mask_png,
    write_tiff_map,
)
from ssdnet_jax.errors import InputError

GREY = np.arange(6 * 4, dtype=np.uint8).reshape(6, 4) * 10
COLOUR = np.stack([GREY, GREY[::-1], GREY[:, ::-1]], axis=-1)


def assert_one_line_error(path, call, *words):
    with pytest.raises(InputError) as caught:
        call(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    for word in (*words, "expected"):
        assert word in message


def png_bytes(samples, *, transparency=None):
    """A PNG written by hand from uint16 (H, W, C), with Up and no filtering in turn."""
    height, width, channels = samples.shape
    rows = samples.astype(">u2").reshape(height, -1).view(np.uint8).astype(int)
    above = np.zeros_like(rows[0])
    lines = b""
    for i, row in enumerate(rows):
        up = i % 2
        lines += bytes([2 * up]) + ((row - up * above) % 256).astype(np.uint8).tobytes()
        above = row

    def chunk(name, data):
        check = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + check

    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0))
    key = b"" if transparency is None else chunk(b"tRNS", struct.pack(">3H", *transparency))
    body = chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + key + body


# Sample types


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "webp", "gif", "pgm"])
def test_eight_bit_grey_is_divided_by_255_and_has_one_channel(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(GREY).save(path, **({"lossless": True} if suffix == "webp" else {}))
    decoded = read_image(path)
    np.testing.assert_array_equal(decoded.pixels, (GREY / np.float32(255))[..., None])
    assert decoded.pixels.dtype == np.float32
    assert decoded.missing is None
    assert decoded.warnings == ()


def test_colour_keeps_three_channels_in_rgb_order(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(COLOUR).save(path)
    np.testing.assert_array_equal(read_image(path).pixels, COLOUR / np.float32(255))


def test_colour_file_of_equal_channels_becomes_one_channel(tmp_path):
    path = tmp_path / "a.png"
    almost = np.repeat(GREY[..., None], 3, axis=-1)
    Image.fromarray(almost).save(path)
    assert read_image(path).pixels.shape == (6, 4, 1)
    almost[5, 3, 2] += 1
    Image.fromarray(almost).save(path)
    assert read_image(path).pixels.shape == (6, 4, 3)


def test_palette_is_read_by_its_colours(tmp_path):
    path = tmp_path / "a.png"
    image = Image.new("P", (2, 2))
    image.putdata([0, 1, 2, 0])
    image.putpalette([255, 0, 0, 0, 255, 0, 10, 20, 30])
    image.save(path)
    pixels = read_image(path).pixels * 255
    np.testing.assert_allclose(
        pixels, [[[255, 0, 0], [0, 255, 0]], [[10, 20, 30], [255, 0, 0]]], atol=1e-4
    )


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.bmp"])
def test_one_bit_is_zero_and_one(tmp_path, name):
    bits = GREY % 20 == 0
    Image.fromarray(bits).save(tmp_path / name)
    np.testing.assert_array_equal(read_image(tmp_path / name).pixels[..., 0], bits)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pgm"])
def test_sixteen_bit_grey_is_divided_by_65535(tmp_path, name):
    samples = GREY.astype(np.uint16) * 257 + 3
    Image.fromarray(samples).save(tmp_path / name)
    np.testing.assert_allclose(
        read_image(tmp_path / name).pixels[..., 0], samples / 65535, atol=1e-7
    )


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_sixteen_bit_png_with_several_channels_keeps_all_bits(tmp_path, channels):
    samples = np.random.default_rng(0).integers(1, 65536, (7, 5, channels)).astype(np.uint16)
    samples[..., 3:] = 65535
    path = tmp_path / "a.png"
    path.write_bytes(png_bytes(samples))
    colours = 1 if channels == 2 else 3
    np.testing.assert_allclose(
        read_image(path).pixels, samples[..., :colours] / 65535.0, rtol=0, atol=1e-7
    )


def test_a_mask_image_adds_to_what_is_missing(tmp_path):
    samples = GREY.astype(np.float32) / 255
    samples[0, 0] = np.nan
    tifffile.imwrite(tmp_path / "a.tif", samples)
    mask = np.zeros_like(GREY)
    mask[3, 2] = 1
    Image.fromarray(mask).save(tmp_path / "mask.png")
    decoded = read_image(tmp_path / "a.tif", missing_mask=tmp_path / "mask.png")
    assert np.argwhere(decoded.missing).tolist() == [[0, 0], [3, 2]]
    assert decoded.pixels[3, 2] == 0
    Image.fromarray(mask[:5]).save(tmp_path / "mask.png")
    with pytest.raises(InputError, match=r"mask\.png: found a mask of 5 x 4 .* expected 6 x 4"):
        read_image(tmp_path / "a.tif", missing_mask=tmp_path / "mask.png")
    Image.fromarray(np.ones_like(GREY)).save(tmp_path / "mask.png")
    with pytest.raises(InputError, match=r"a\.tif: every pixel is missing"):
        read_image(tmp_path / "a.tif", missing_mask=tmp_path / "mask.png")


def test_sixteen_bit_png_with_a_transparent_colour_marks_it_ignored(tmp_path):
    samples = np.random.default_rng(0).integers(0, 65536, (7, 5, 3)).astype(np.uint16)
    path = tmp_path / "a.png"
    path.write_bytes(png_bytes(samples, transparency=samples[2, 3]))
    ignored = read_image(path).ignored
    assert np.argwhere(ignored).tolist() == [[2, 3]]


@pytest.mark.parametrize("options", [{}, {"planarconfig": "separate"}, {"byteorder": ">"}])
def test_sixteen_bit_colour_tiff(tmp_path, options):
    samples = COLOUR.astype(np.uint16) * 257
    if "planarconfig" in options:
        tifffile.imwrite(
            tmp_path / "a.tif", np.moveaxis(samples, -1, 0), photometric="rgb", **options
        )
    else:
        tifffile.imwrite(tmp_path / "a.tif", samples, photometric="rgb", **options)
    np.testing.assert_allclose(
        read_image(tmp_path / "a.tif").pixels, COLOUR / 255.0, rtol=0, atol=1e-7
    )


def test_white_is_zero_tiff_is_inverted(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", GREY, photometric="miniswhite")
    np.testing.assert_allclose(
        read_image(tmp_path / "a.tif").pixels[..., 0], (255 - GREY) / 255.0, atol=1e-7
    )


@pytest.mark.parametrize("compression", ["tiff_lzw", "packbits", "jpeg", "tiff_adobe_deflate"])
def test_compressed_tiffs_are_read(tmp_path, compression):
    grey = np.full((16, 16), 90, np.uint8)
    Image.fromarray(grey).save(tmp_path / "a.tif", compression=compression)
    np.testing.assert_allclose(read_image(tmp_path / "a.tif").pixels * 255, 90, atol=1)


def test_palette_and_cmyk_tiffs_are_read_by_their_colours(tmp_path):
    Image.fromarray(COLOUR).quantize(64).save(tmp_path / "p.tif")
    np.testing.assert_allclose(read_image(tmp_path / "p.tif").pixels, COLOUR / 255.0, atol=1e-6)
    Image.fromarray(COLOUR).convert("CMYK").save(tmp_path / "c.tif")
    decoded = read_image(tmp_path / "c.tif")
    np.testing.assert_allclose(decoded.pixels, COLOUR / 255.0, atol=0.02)
    assert "CMYK" in decoded.warnings[0]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("suffix", ["tif", "npy"])
def test_float_values_are_taken_as_they_are(tmp_path, dtype, suffix):
    values = np.random.default_rng(0).random((5, 7)).astype(dtype)
    path = tmp_path / f"a.{suffix}"
    tifffile.imwrite(path, values) if suffix == "tif" else np.save(path, values)
    np.testing.assert_array_equal(read_image(path).pixels[..., 0], values.astype(np.float32))


@pytest.mark.parametrize(
    ("array", "scale"),
    [(GREY, 255), (COLOUR, 255), (COLOUR.astype(np.uint16), 65535), (GREY > 50, 1)],
)
def test_npy_of_integers_and_bools(tmp_path, array, scale):
    np.save(tmp_path / "a.npy", array)
    expected = (array if array.ndim == 3 else array[..., None]) / np.float32(scale)
    np.testing.assert_allclose(read_image(tmp_path / "a.npy").pixels, expected, atol=1e-7)


@settings(max_examples=25)
@given(
    hnp.arrays(
        st.sampled_from([np.uint8, np.uint16]),
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=9),
    ),
    st.sampled_from(["png", "tif", "npy"]),
)
def test_stored_grey_integers_come_back_exactly(tmp_path_factory, samples, suffix):
    path = tmp_path_factory.mktemp("round") / f"a.{suffix}"
    np.save(path, samples) if suffix == "npy" else Image.fromarray(samples).save(path)
    full = np.iinfo(samples.dtype).max
    restored = np.round(read_image(path).pixels[..., 0].astype(np.float64) * full)
    np.testing.assert_array_equal(restored, samples)


# Missing pixels, alpha, orientation, frames


def test_nan_pixels_are_missing_and_filled_with_zero(tmp_path):
    values = np.full((4, 5, 3), 0.5, np.float32)
    values[0, 0, 0] += 0.1
    values[1, 2, 1] = np.nan
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb")
    decoded = read_image(tmp_path / "a.tif")
    assert np.argwhere(decoded.missing).tolist() == [[1, 2]]
    assert decoded.pixels[1, 2].tolist() == [0, 0, 0]
    assert decoded.pixels[0, 1].tolist() == [0.5, 0.5, 0.5]


@pytest.mark.parametrize(
    ("name", "colours"),
    [("a.png", 1), ("a.png", 3), ("a.tif", 1), ("a.tif", 3), ("a.webp", 3)],
)
def test_transparent_pixels_are_ignored_and_partial_ones_keep_their_colour(tmp_path, name, colours):
    colour = COLOUR if colours == 3 else GREY[..., None]
    alpha = np.full((6, 4, 1), 255, np.uint8)
    alpha[1, 1], alpha[2, 2] = 0, 100
    options = {"lossless": True} if name == "a.webp" else {}
    Image.fromarray(np.concatenate([colour, alpha], axis=-1)).save(tmp_path / name, **options)
    decoded = read_image(tmp_path / name)
    assert np.argwhere(decoded.ignored).tolist() == [[1, 1]] and decoded.missing is None
    expected = colour / np.float32(255)
    expected[1, 1] = 0
    np.testing.assert_allclose(decoded.pixels, expected, atol=1e-7)
    assert decoded.warnings == ("1 partially transparent pixels are read as opaque",)


def test_opaque_alpha_changes_nothing(tmp_path):
    Image.fromarray(COLOUR).convert("RGBA").save(tmp_path / "a.png")
    decoded = read_image(tmp_path / "a.png")
    assert decoded.missing is None
    assert decoded.warnings == ()
    np.testing.assert_array_equal(decoded.pixels, COLOUR / np.float32(255))


@pytest.mark.parametrize("mode", ["P", "L", "RGB"])
def test_a_transparent_palette_entry_or_colour_is_ignored(tmp_path, mode):
    image = Image.fromarray(COLOUR if mode == "RGB" else GREY)
    if mode == "P":
        image = Image.new("P", (4, 6), 1)
        image.putpalette([9, 9, 9, 200, 100, 0])
        image.putpixel((3, 2), 0)
    key = {"P": 0, "L": int(GREY[2, 3]), "RGB": tuple(COLOUR[2, 3].tolist())}[mode]
    image.save(tmp_path / "a.png", transparency=key)
    assert [2, 3] in np.argwhere(read_image(tmp_path / "a.png").ignored).tolist()


def test_associated_alpha_is_divided_out(tmp_path):
    data = np.zeros((2, 3, 4), np.uint8)
    data[...] = (50, 25, 100, 128)
    data[0, 0] = 0
    tifffile.imwrite(tmp_path / "a.tif", data, photometric="rgb", extrasamples=["assocalpha"])
    decoded = read_image(tmp_path / "a.tif")
    np.testing.assert_allclose(decoded.pixels[1, 1], np.array([50, 25, 100]) / 128, atol=1e-6)
    assert np.argwhere(decoded.ignored).tolist() == [[0, 0]]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "lzw.tif"])
def test_orientation_is_applied_to_images_and_masks(tmp_path, orientation, name):
    path = tmp_path / name
    coarse = np.kron(GREY, np.ones((8, 8), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    if name == "a.tif":
        tifffile.imwrite(path, coarse, extratags=[(274, 3, 1, orientation, True)])
    else:
        options = {"compression": "tiff_lzw"} if name == "lzw.tif" else {"quality": 98}
        Image.fromarray(coarse).save(path, exif=exif, **options)
    reference = Image.fromarray(coarse)
    reference.getexif()[0x0112] = orientation
    upright = np.asarray(ImageOps.exif_transpose(reference))
    np.testing.assert_allclose(read_image(path).pixels[..., 0], upright / 255.0, atol=0.03)
    if name != "a.jpg":
        np.testing.assert_array_equal(read_mask(path, shape=upright.shape), upright != 0)


@pytest.mark.parametrize(
    ("name", "note"),
    [
        ("a.tif", "only the first of 3 pages is used"),
        ("a.gif", "only the first of several frames is used"),
        ("a.webp", "only the first of several frames is used"),
        ("a.apng", "only the first of several frames is used"),
    ],
)
def test_first_of_several_frames_is_read_with_a_warning(tmp_path, name, note):
    frames = [Image.fromarray(np.full((5, 5), value, np.uint8)) for value in (10, 200, 90)]
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    decoded = read_image(tmp_path / name)
    np.testing.assert_allclose(decoded.pixels * 255, 10, atol=1)
    assert decoded.warnings == (note,)


def test_every_page_of_a_tiff_is_a_picture_but_thumbnails_and_masks(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for value, kind in ((10, 0), (99, 1), (20, 0), (1, 4), (30, 0)):  # 1: reduced, 4: a mask
            page = GREY > 90 if kind == 4 else GREY // 20 + np.uint8(value)
            file.write(page, subfiletype=kind, metadata=None, contiguous=False)
    Image.fromarray(GREY).save(tmp_path / "b.tif")
    found = with_pages(tmp_path, find_images(tmp_path)[1])
    assert [path.as_posix() for path in found] == ["a.tif#1", "a.tif#3", "a.tif#5", "b.tif"]
    for page, value in zip(found, (10, 20, 30), strict=False):
        decoded = read_image(tmp_path / page)
        assert decoded.warnings == ()
        assert round(float(decoded.pixels[0, 0, 0]) * 255) == value
        assert image_file(tmp_path / page) == tmp_path / "a.tif"
    assert read_image(tmp_path / "a.tif").warnings == ("only the first of 5 pages is used",)
    assert find_images(tmp_path / "a.tif#3") == (tmp_path, [Path("a.tif#3")])
    with pytest.raises(InputError, match=r"a\.tif: found 5 pages; expected a page 6"):
        read_image(tmp_path / "a.tif#6")
    Image.fromarray(GREY).save(tmp_path / "c.png")
    assert_one_line_error(tmp_path / "c.png#1", read_image, "found PNG", "TIFF, which has pages")
    Image.fromarray(GREY).save(tmp_path / "d#2", "TIFF")
    assert with_pages(tmp_path, [Path("d#2")]) == [Path("d#2")]
    np.testing.assert_array_equal(read_image(tmp_path / "d#2").pixels[..., 0] * 255, GREY)


def test_cmyk_jpeg_is_converted_with_a_warning(tmp_path):
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=95)
    decoded = read_image(tmp_path / "a.jpg")
    np.testing.assert_allclose(decoded.pixels[8, 8], [1, 0, 0], atol=0.03)
    assert "CMYK" in decoded.warnings[0]


def test_the_content_counts_and_not_the_suffix(tmp_path):
    tifffile.imwrite(tmp_path / "a.png", GREY)
    np.testing.assert_array_equal(
        read_image(tmp_path / "a.png").pixels[..., 0], GREY / np.float32(255)
    )


# Errors


def test_missing_file_folder_and_empty_file(tmp_path):
    assert_one_line_error(tmp_path / "no.png", read_image, "no such file")
    assert_one_line_error(tmp_path, read_image, "folder")
    (tmp_path / "a.png").touch()
    assert_one_line_error(tmp_path / "a.png", read_image, "0 bytes")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    assert_one_line_error(tmp_path / "loop.png", read_image, "a link that leads nowhere")


@pytest.mark.parametrize("content", [b"x", b"hello, world" * 30, b"%PDF-1.4\n", b"\0" * 400])
def test_not_an_image(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    assert_one_line_error(tmp_path / "a.png", read_image, "not an image")


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "gif", "webp", "tif", "ppm", "npy"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_truncated_files_are_errors(tmp_path, suffix, share):
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3)).astype(np.uint8)
    path = tmp_path / f"a.{suffix}"
    if suffix == "npy":
        np.save(path, noise)
    elif suffix == "tif":
        tifffile.imwrite(path, noise, photometric="rgb", compression="zlib")
    else:
        Image.fromarray(noise).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert_one_line_error(path, read_image)


@settings(max_examples=60)
@given(st.data())
def test_damaged_files_give_an_input_error_or_an_image(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("damage") / "a"
    suffix = data.draw(st.sampled_from(["PNG", "TIFF", "GIF", "BMP", "JPEG"]))
    Image.fromarray(COLOUR).save(path, suffix)
    content = bytearray(path.read_bytes())
    for _ in range(3):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        decoded = read_image(path)
    except InputError:
        return
    assert 0 <= decoded.pixels.min() <= decoded.pixels.max() <= 1


def test_bomb_sized_images_are_refused_before_decoding(tmp_path):
    content = bytearray(png_bytes(np.zeros((2, 2, 1), np.uint16)))
    content[16:24] = struct.pack(">II", 13_000, 13_000)  # Pillow only warns at this size
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    (tmp_path / "a.png").write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert_one_line_error(tmp_path / "a.png", read_image, "13000 x 13000", "150000000")
    assert Image.MAX_IMAGE_PIXELS == 89_478_485

    np.lib.format.open_memmap(tmp_path / "a.npy", "w+", np.uint8, (13_000, 13_000))  # sparse
    assert_one_line_error(tmp_path / "a.npy", read_image, "13000 x 13000", "150000000")
    tifffile.memmap(tmp_path / "a.tif", shape=(13_000, 13_000), dtype=np.uint8)
    assert_one_line_error(tmp_path / "a.tif", read_image, "13000 x 13000", "150000000")


def test_the_pixel_limit_holds_where_pillow_has_none(tmp_path, monkeypatch):
    Image.fromarray(GREY).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    monkeypatch.setattr(_raw_image, "MAX_PIXELS", 20)
    assert_one_line_error(tmp_path / "a.png", read_image, "6 x 4")


@pytest.mark.parametrize("suffix", ["tif", "npy"])
def test_float_values_outside_zero_to_one_name_the_range(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    save = tifffile.imwrite if suffix == "tif" else np.save
    save(path, np.array([[0.0, 255.0], [np.nan, 3.0]], np.float32))
    assert_one_line_error(path, read_image, "0 to 255", "[0, 1]")
    save(path, np.array([[0.0, -0.5]], np.float32))
    assert_one_line_error(path, read_image, "-0.5")
    save(path, np.array([[0.0, np.inf], [0.0, 0.0]], np.float32))
    assert_one_line_error(path, read_image, "infinite")
    save(path, np.full((3, 3), np.nan, np.float32))
    assert_one_line_error(path, read_image, "every pixel is missing")


def test_fully_transparent_image_is_an_error(tmp_path):
    Image.new("RGBA", (3, 3), (10, 20, 30, 0)).save(tmp_path / "a.png")
    assert_one_line_error(tmp_path / "a.png", read_image, "every pixel is missing")


@pytest.mark.parametrize("dtype", [np.int16, np.uint32, np.complex64])
def test_sample_types_without_a_scale_are_errors(tmp_path, dtype):
    np.save(tmp_path / "a.npy", np.zeros((3, 3), dtype))
    assert_one_line_error(tmp_path / "a.npy", read_image, np.dtype(dtype).name)


@pytest.mark.parametrize("shape", [(3,), (3, 3, 2), (2, 3, 3, 3)])
def test_npy_of_another_shape_is_an_error(tmp_path, shape):
    np.save(tmp_path / "a.npy", np.zeros(shape, np.uint8))
    assert_one_line_error(tmp_path / "a.npy", read_image, str(shape))


def test_an_array_without_pixels_is_an_error(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((0, 4), np.uint8))
    assert_one_line_error(tmp_path / "a.npy", read_image, "0 x 4 pixels")


def test_npy_with_pickled_objects_is_not_loaded(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[{}]], object), allow_pickle=True)
    assert_one_line_error(tmp_path / "a.npy", read_image)


def test_tiff_with_too_many_channels_names_them(tmp_path):
    tifffile.imwrite(
        tmp_path / "a.tif",
        np.zeros((5, 5, 9), np.uint8),
        photometric="minisblack",
        planarconfig="contig",
    )
    assert_one_line_error(tmp_path / "a.tif", read_image, "(5, 5, 9)")


def test_reading_from_several_threads_gives_the_same_pixels(tmp_path):
    Image.fromarray(COLOUR).save(tmp_path / "a.png")
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(read_image(tmp_path / "a.png").pixels))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8
    for pixels in results:
        np.testing.assert_array_equal(pixels, COLOUR / np.float32(255))


# Masks


@pytest.mark.parametrize("value", [1, 128, 255])
def test_any_nonzero_value_is_in_the_mask(tmp_path, value):
    Image.fromarray((GREY > 90) * np.uint8(value)).save(tmp_path / "m.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png"), GREY > 90)


@pytest.mark.parametrize("dtype", [bool, np.int32, np.uint16, np.float32])
def test_masks_of_other_types(tmp_path, dtype):
    np.save(tmp_path / "m.npy", ((GREY > 90) * 200).astype(dtype))
    np.testing.assert_array_equal(read_mask(tmp_path / "m.npy"), GREY > 90)


def test_opaque_alpha_does_not_fill_the_mask(tmp_path):
    Image.fromarray((GREY > 90) * np.uint8(255)).convert("RGBA").save(tmp_path / "m.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png"), GREY > 90)


def test_mask_of_another_size_names_both_sizes(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "m.png")
    assert_one_line_error(
        tmp_path / "m.png", lambda path: read_mask(path, shape=(4, 6)), "6 x 4", "4 x 6"
    )


def test_mask_with_nan_is_an_error(tmp_path):
    np.save(tmp_path / "m.npy", np.array([[0, np.nan]]))
    assert_one_line_error(tmp_path / "m.npy", read_mask, "NaN")


# Finding


@pytest.fixture
def tree(tmp_path):
    names = "b.png a.JPG sub/c.Tiff sub/deep/ü_ñ.png sub/notes.txt .hidden.png .git/d.png z.npy"
    for name in names.split():
        path = tmp_path / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "root"


def as_text(result):
    return [path.as_posix() for path in result[1]]


def test_folder_is_searched_recursively_and_sorted(tree):
    root, _ = result = find_images(tree)
    assert root == tree
    assert as_text(result) == ["a.JPG", "b.png", "sub/c.Tiff", "sub/deep/ü_ñ.png", "z.npy"]


def test_file_stands_for_itself_whatever_its_suffix(tree):
    assert find_images(tree / "sub" / "notes.txt") == (tree / "sub", [Path("notes.txt")])


@pytest.mark.parametrize(
    ("pattern", "root", "expected"),
    [
        ("*.png", "", ["b.png"]),
        ("**/*.png", "", ["b.png", "sub/deep/ü_ñ.png"]),
        ("sub/*", "sub", ["c.Tiff"]),
        ("sub/**", "sub", ["c.Tiff", "deep/ü_ñ.png"]),
        ("s*/*/*.png", "", ["sub/deep/ü_ñ.png"]),
        ("[ab].*", "", ["a.JPG", "b.png"]),
        ("?.npy", "", ["z.npy"]),
    ],
)
def test_glob_root_is_the_longest_literal_parent(tree, pattern, root, expected):
    result = find_images(f"{tree}/{pattern}")
    assert result[0] == tree / root
    assert as_text(result) == expected


def test_relative_patterns_start_at_the_working_folder(tree, monkeypatch):
    monkeypatch.chdir(tree)
    assert as_text(find_images("*.png")) == ["b.png"]
    assert as_text(find_images("b.png")) == ["b.png"]


def test_a_file_name_with_brackets_is_no_glob(tree):
    (tree / "x[1].png").touch()
    assert as_text(find_images(tree / "x[1].png")) == ["x[1].png"]


def test_links_are_followed_once_and_never_in_circles(tree):
    (tree / "sub" / "up").symlink_to(tree, target_is_directory=True)
    (tree / "sub" / "self").symlink_to(tree / "sub", target_is_directory=True)
    outside = tree.parent / "outside"
    outside.mkdir()
    (outside / "e.png").touch()
    (tree / "link").symlink_to(outside, target_is_directory=True)
    expected = ["a.JPG", "b.png", "link/e.png", "sub/c.Tiff", "sub/deep/ü_ñ.png", "z.npy"]
    assert as_text(find_images(tree)) == expected
    assert as_text(find_images(f"{tree}/**")) == expected


def test_nothing_found_says_what_was_looked_for(tree):
    assert_one_line_error(tree / "no.png", find_images, "no such file")
    assert_one_line_error(tree / "*.bmp", find_images, "matches no image", ".tiff")
    assert_one_line_error(tree / "none" / "*.png", find_images, "matches no image")
    (tree / "empty").mkdir()
    assert_one_line_error(tree / "empty", find_images, "no images", ".png", ".npy")


# Resizing


unit_images = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 12), st.integers(1, 12), st.sampled_from([1, 3])),
    elements=st.floats(0, 1, width=32),
)
sizes = st.tuples(st.integers(1, 20), st.integers(1, 20))


@settings(max_examples=40)
@given(unit_images, sizes)
def test_resized_images_keep_the_contract(pixels, size):
    resized = resize_image(pixels, size)
    assert resized.shape == (*size, pixels.shape[2])
    assert resized.dtype == np.float32
    assert pixels.min() - 1e-6 <= resized.min() <= resized.max() <= pixels.max() + 1e-6


def test_same_size_is_a_copy():
    pixels = np.random.default_rng(0).random((5, 6, 3), np.float32)
    same = resize_image(pixels, (5, 6))
    np.testing.assert_array_equal(same, pixels)
    assert not np.shares_memory(same, pixels)


def test_growing_a_ramp_is_bilinear_about_pixel_centres():
    ramp = np.linspace(0, 0.7, 8, dtype=np.float32)[None, :, None].repeat(4, axis=0)
    grown = resize_image(ramp, (4, 16))[0, :, 0]
    expected = np.interp((np.arange(16) + 0.5) / 2 - 0.5, np.arange(8), ramp[0, :, 0])
    np.testing.assert_allclose(grown[1:-1], expected[1:-1], atol=1e-6)


def test_shrinking_is_anti_aliased():
    stripes = np.tile(np.array([0, 1], np.float32), 64)[None, :, None].repeat(32, axis=0)
    shrunk = resize_image(stripes, (8, 32))
    np.testing.assert_allclose(shrunk[:, 4:-4], 0.5, atol=0.05)


@settings(max_examples=40)
@given(
    hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=12),
        elements=st.floats(-1e6, 1e6, width=32),
    ),
    sizes,
)
def test_resized_maps_stay_within_the_range_of_the_map(score_map, size):
    resized = resize_map(score_map, size)
    assert resized.shape == size
    assert score_map.min() <= resized.min() <= resized.max() <= score_map.max()


@settings(max_examples=60)
@given(hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12)), sizes)
def test_resized_missing_is_the_overlap_with_missing_pixels(missing, size):
    rows, columns = missing.shape
    expected = np.zeros(size, bool)
    for r, c in np.argwhere(missing):
        for i in range(size[0]):
            for j in range(size[1]):
                expected[i, j] |= max(i * rows, r * size[0]) < min(
                    (i + 1) * rows, (r + 1) * size[0]
                ) and max(j * columns, c * size[1]) < min((j + 1) * columns, (c + 1) * size[1])
    np.testing.assert_array_equal(resize_missing(missing, size), expected)


def test_sizes_below_one_are_errors():
    for resize in (resize_map, resize_missing):
        with pytest.raises(ValueError, match="at least 1"):
            resize(np.zeros((3, 3)), (0, 3))


# Writing


@settings(max_examples=25)
@given(
    hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=9),
        elements=st.floats(width=32),
    )
)
def test_maps_come_back_bit_for_bit(tmp_path_factory, score_map):
    path = tmp_path_factory.mktemp("map") / "new" / "folder" / "m.tiff"
    write_tiff_map(path, score_map)
    stored = tifffile.imread(path).reshape(score_map.shape)
    assert stored.dtype == np.float32
    np.testing.assert_array_equal(stored, score_map)


def test_maps_are_readable_by_pillow(tmp_path):
    write_tiff_map(tmp_path / "m.tiff", np.zeros((256, 256)))
    assert Image.open(tmp_path / "m.tiff").mode == "F"


@settings(max_examples=25)
@given(hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9)))
def test_masks_come_back(tmp_path_factory, mask):
    path = tmp_path_factory.mktemp("mask") / "m.png"
    write_mask_png(path, mask)
    np.testing.assert_array_equal(read_mask(path, shape=mask.shape), mask)
    assert Image.open(path).mode == "L"
    assert set(np.unique(np.asarray(Image.open(path)))) <= {0, 255}


def test_written_files_have_the_usual_permissions(tmp_path):
    (tmp_path / "usual").touch()
    write_mask_png(tmp_path / "m.png", np.ones((2, 2), bool))
    assert (tmp_path / "m.png").stat().st_mode == (tmp_path / "usual").stat().st_mode


@pytest.mark.parametrize("write", [write_tiff_map, write_mask_png])
def test_writing_something_else_than_two_axes_is_an_error(tmp_path, write):
    with pytest.raises(ValueError, match=r"\(H, W\)"):
        write(tmp_path / "m", np.zeros((3, 3, 1)))


def test_every_listed_suffix_is_lower_case():
    assert all(s.startswith(".") and s == s.lower() for s in images.IMAGE_SUFFIXES)
