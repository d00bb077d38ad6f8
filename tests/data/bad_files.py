"""Makes some hundred odd, damaged and hostile image files, and says what each must come to.

Code only: nothing of this kind is kept in the repository. `GROUPS` has the files; each is made
where it is wanted. A file that is whole must come to the picture it was made from, upright and
in scale. A file that was cut must come to that picture or to an error. A file in which bytes were
changed may come to another picture, which must be sane.
"""

import contextlib
import dataclasses
import io
import itertools
import lzma
import os
import pickle
import random
import socket
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import tifffile
from PIL import Image, TiffImagePlugin

HEIGHT, WIDTH = 9, 14
ORIENTATION = 0x0112
Outcome = Literal["picture", "picture or error", "sane or error", "error"]


@dataclasses.dataclass(frozen=True)
class OddFile:
    """One file and what reading it must come to."""

    name: str  # of the file, as bytes of its name for names that are no UTF-8
    put: Callable[[Path], object]  # makes the file at a path
    outcome: Outcome
    pixels: np.ndarray | None = None  # (H, W, C) in [0, 1], what a picture must be
    tolerance: float = 1e-6
    missing: np.ndarray | None = None  # bool (H, W), pixels that must count as missing


def grey(dtype: type = np.uint8) -> np.ndarray:
    """A picture (H, W) without any symmetry, of the whole range of its type."""
    ramp = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) ** 1.5
    unit = ramp / ramp.max()
    if np.issubdtype(dtype, np.floating):
        return unit.astype(dtype)
    return np.round(unit * np.iinfo(dtype).max).astype(dtype)


def colour(dtype: type = np.uint8) -> np.ndarray:
    """The same in colour, (H, W, 3)."""
    one = grey(dtype)
    return np.stack([one, one[::-1], one[:, ::-1]], axis=-1)


def smooth() -> np.ndarray:
    """A picture (32, 48, 3) that lossy formats keep to a few grey values; without symmetry."""
    y, x = np.mgrid[0:32, 0:48] / 48.0
    return np.round(255 * np.stack([x, y, 0.3 + x * y], axis=-1)).astype(np.uint8)


def unit(samples: np.ndarray) -> np.ndarray:
    """Samples as `read_image` gives them: (H, W, C) in [0, 1]."""
    if samples.dtype.kind == "u":
        samples = samples / np.iinfo(samples.dtype).max
    return np.atleast_3d(np.asarray(samples, np.float64))


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """What a viewer shows of pixels with an EXIF orientation (by its definition, a step each)."""
    stored = {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.swapaxes(0, 1),
        6: np.rot90(pixels, 3),
        7: np.rot90(pixels.swapaxes(0, 1), 2),
        8: np.rot90(pixels, 1),
    }
    return stored[orientation]


def saved(array: np.ndarray | Image.Image, form: str, **options: object) -> bytes:
    """A file of Pillow's, in memory."""
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def tiff(array: np.ndarray, **options: object) -> bytes:
    """A file of tifffile's, in memory."""
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **{"metadata": None, **options})
    return buffer.getvalue()


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG with its checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(rows: bytes, *, size: tuple[int, int], bits: int, kind: int, extra: bytes = b"") -> bytes:
    """A PNG by hand; `rows` with their filter bytes, `size` as (width, height)."""
    header = struct.pack(">IIBBBBB", *size, bits, kind, 0, 0, 0)
    body = png_chunk(b"IHDR", header) + extra + png_chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + body + png_chunk(b"IEND", b"")


def png_of(samples: np.ndarray, bits: int, extra: bytes = b"") -> bytes:
    """A PNG by hand of integer samples (H, W, C) of 1, 2, 4, 8 or 16 bits."""
    height, width, channels = samples.shape
    rows = b""
    for row in samples.reshape(height, -1):
        digits = "".join(format(int(value), f"0{bits}b") for value in row)
        digits += "0" * (-len(digits) % 8)
        rows += b"\0" + int(digits, 2).to_bytes(len(digits) // 8, "big")
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    return png(rows, size=(width, height), bits=bits, kind=kind, extra=extra)


def lzw(data: bytes) -> bytes:
    """TIFF's LZW, literal codes only: a clear code before they grow longer than nine bits."""
    codes: list[int] = []
    for start in range(0, len(data), 200):
        codes += [256, *data[start : start + 200]]
    digits = "".join(format(code, "09b") for code in [*codes, 257])
    digits += "0" * (-len(digits) % 8)
    return int(digits, 2).to_bytes(len(digits) // 8, "big")


def tiff_by_hand(
    data: bytes,
    *,
    size: tuple[int, int],
    bits: Sequence[int] = (8,),
    photometric: int = 1,
    compression: int = 1,
    order: str = "<",
    tile: tuple[int, int] | None = None,
    more: Sequence[tuple[int, int]] = (),
    following: int | None = None,
) -> bytes:
    """A TIFF of one strip or tile with any tags, true or not; `size` as (width, height).

    `following` is where the next page is said to be.
    """
    width, height = size
    start = 8
    place = start + len(data) + len(data) % 2
    tags: list[tuple[int, int]] = [
        *((256, width), (257, height), (259, compression), (262, photometric)),
        *((277, len(bits)), *more),
    ]
    if tile:
        tags += [(322, tile[0]), (323, tile[1]), (324, start), (325, len(data))]
    else:
        tags += [(273, start), (278, height), (279, len(data))]
    given = dict(tags)
    out = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", place + 2 * len(bits))
    out += data.ljust(place - start, b"\0") + struct.pack(f"{order}{len(bits)}H", *bits)
    out += struct.pack(f"{order}H", len(given) + 1)
    for tag in sorted([*given, 258]):
        if tag == 258 and len(bits) > 2:
            out += struct.pack(f"{order}HHII", tag, 3, len(bits), place)
        elif tag == 258:
            packed = struct.pack(f"{order}{len(bits)}H", *bits).ljust(4, b"\0")
            out += struct.pack(f"{order}HHI", tag, 3, len(bits)) + packed
        else:
            out += struct.pack(f"{order}HHII", tag, 4, 1, given[tag])
    return out + struct.pack(f"{order}I", following or 0)


def written(content: bytes) -> Callable[[Path], object]:
    """Puts bytes into a file."""
    return lambda path: path.write_bytes(content)


def whole(name: str, content: bytes, pixels: np.ndarray, tolerance: float = 1e-6) -> OddFile:
    """A file that must come to a known picture."""
    return OddFile(name, written(content), "picture", pixels, tolerance)


def wrong(name: str, content: bytes) -> OddFile:
    """A file that must come to an error."""
    return OddFile(name, written(content), "error")


# Pixel types


def pixel_types() -> Iterator[OddFile]:
    """Every kind of samples in every format that has it."""
    yield from _png_types()
    yield from _tiff_types()
    yield from _compressed_tiffs()
    yield from _other_types()
    yield from _arrays()


def _png_types() -> Iterator[OddFile]:
    for bits in (1, 2, 4, 8, 16):
        top = 2**bits - 1
        for channels in (1, 2, 3, 4) if bits >= 8 else (1,):
            samples = np.round(np.resize(grey(np.float64), (HEIGHT, WIDTH, channels)) * top)
            samples[1, ::2, 0], samples[..., 3:] = top, top
            if channels == 2:
                samples[..., 1] = top
            shown = samples[..., : 1 if channels < 3 else 3] / top
            yield whole(f"png-{bits}-bit-{channels}.png", png_of(samples, bits), shown)
    key = struct.pack(">H", 5)
    samples = (grey() % 7)[..., None].astype(np.uint16) + 3
    missing = samples[..., 0] == 5
    yield OddFile(
        "png-transparent-grey.png",
        written(png_of(samples, 16, png_chunk(b"tRNS", key))),
        "picture",
        np.where(missing[..., None], 0, samples / 65535),
        missing=missing,
    )
    for colours in (2, 4, 16, 256):
        indexed = (grey().astype(int) % colours).astype(np.uint8)
        palette = Image.new("P", (WIDTH, HEIGHT))
        palette.putdata(indexed.ravel().tolist())
        table = np.random.default_rng(colours).integers(0, 256, (colours, 3)).astype(np.uint8)
        palette.putpalette(table.ravel().tolist())
        shown = unit(table[indexed])
        for form, suffix in (("PNG", "png"), ("GIF", "gif"), ("TIFF", "tif"), ("BMP", "bmp")):
            content = saved(palette, form)
            yield whole(f"palette-{colours}.{suffix}", content, shown)
    profile = b"\0" * 128
    yield whole("icc.png", saved(colour(), "PNG", icc_profile=profile), unit(colour()))
    yield whole("icc.tif", saved(colour(), "TIFF", icc_profile=profile), unit(colour()))
    yield whole("icc.jpg", saved(smooth(), "JPEG", quality=98, icc_profile=profile),
                unit(smooth()), 0.03)  # fmt: skip
    text = png_chunk(b"tEXt", b"Comment\0nothing") + png_chunk(b"gAMA", struct.pack(">I", 45455))
    yield whole("chunks.png", png_of(colour(), 8, text), unit(colour()))


def _tiff_types() -> Iterator[OddFile]:
    types = (np.uint8, np.uint16, np.float16, np.float32, np.float64)
    compressions = (None, "zlib", "lzma")
    for dtype, compression, order in itertools.product(types, compressions, "<>"):
        for what, array in (("grey", grey(dtype)), ("rgb", colour(dtype))):
            photometric = "rgb" if what == "rgb" else "minisblack"
            content = tiff(array, photometric=photometric, compression=compression, byteorder=order)
            name = f"{what}-{np.dtype(dtype).name}-{compression}-{'be' if order == '>' else 'le'}"
            pixels = unit(array).astype(np.float32)
            yield whole(f"{name}.tif", content, pixels)
    for dtype in (np.uint8, np.uint16):
        array = colour(dtype)
        apart = tiff(np.moveaxis(array, -1, 0), photometric="rgb", planarconfig="separate")
        yield whole(f"planes-{np.dtype(dtype).name}.tif", apart, unit(array))
        big = np.tile(array, (4, 4, 1))
        tiled = tiff(big, photometric="rgb", tile=(16, 16), compression="zlib")
        yield whole(f"tiles-{np.dtype(dtype).name}.tif", tiled, unit(big))
        strips = tiff(big, photometric="rgb", rowsperstrip=5, compression="zlib")
        yield whole(f"strips-{np.dtype(dtype).name}.tif", strips, unit(big))
        yield whole(f"bigtiff-{np.dtype(dtype).name}.tif",
                    tiff(array, photometric="rgb", bigtiff=True), unit(array))  # fmt: skip
        white = tiff(grey(dtype), photometric="miniswhite")
        yield whole(f"white-{np.dtype(dtype).name}.tif", white, 1 - unit(grey(dtype)))
        full = np.iinfo(dtype).max
        opaque = np.full((HEIGHT, WIDTH, 1), full, dtype)
        for kind in ("unassalpha", "assocalpha"):
            with_alpha = np.concatenate([array, opaque], axis=-1)
            content = tiff(with_alpha, photometric="rgb", extrasamples=[kind])
            yield whole(f"{kind}-{np.dtype(dtype).name}.tif", content, unit(array))
        two = np.concatenate([grey(dtype)[..., None], opaque], axis=-1)
        content = tiff(two, photometric="minisblack", planarconfig="contig",
                       extrasamples=["unassalpha"])  # fmt: skip
        yield whole(f"la-{np.dtype(dtype).name}.tif", content, unit(grey(dtype)))
    bits = grey() % 3 == 0
    yield whole("bits.tif", tiff(bits, photometric="minisblack"), bits[..., None])
    yield whole("bits-white.tif", tiff(bits, photometric="miniswhite"), ~bits[..., None])


def _compressed_tiffs() -> Iterator[OddFile]:
    size = (WIDTH, HEIGHT)
    for order, dtype in itertools.product("<>", (np.uint8, np.uint16)):
        kind = np.dtype(dtype).newbyteorder(order)
        ends = "be" if order == ">" else "le"
        for what, array, photometric in (
            ("grey", grey(dtype), 1),
            ("white", grey(dtype), 0),
            ("rgb", colour(dtype), 2),
            ("rgba", np.concatenate([colour(dtype), colour(dtype)[..., :1] | 1], axis=-1), 2),
        ):
            if what == "white" and dtype is np.uint16 and order == ">":
                continue  # Pillow knows no such file: it comes to an error
            channels = 1 if array.ndim == 2 else array.shape[2]
            pixels = unit(array)[..., :3]
            content = tiff_by_hand(
                lzw(array.astype(kind).tobytes()),
                size=size,
                bits=[8 * kind.itemsize] * channels,
                photometric=photometric,
                compression=5,
                order=order,
                more=[(338, 2)] if what == "rgba" else [],
            )
            shown = 1 - pixels if what == "white" else pixels
            yield whole(f"lzw-{what}-{np.dtype(dtype).name}-{ends}.tif", content, shown)
    for name in ("tiff_lzw", "packbits", "tiff_adobe_deflate", "tiff_deflate"):
        for mode in ("1", "L", "RGB", "RGBA", "LA", "P", "CMYK", "F", "I;16"):
            array = colour()
            image = Image.fromarray(array).convert("L" if mode in ("F", "I;16", "LA") else mode)
            pixels = unit(array)
            if mode == "F":
                image, pixels = Image.fromarray(grey(np.float32)), unit(grey(np.float32))
            elif mode == "I;16":
                image, pixels = Image.fromarray(grey(np.uint16)), unit(grey(np.uint16))
            elif mode in ("1", "L", "LA", "P"):
                pixels = unit(np.asarray(image.convert("RGB" if mode == "P" else "L")))
                image = image.convert(mode)
            content = saved(image, "TIFF", compression=name)
            yield whole(f"{name}-{mode.replace(';', '')}.tif", content, pixels, 2e-6)
    yield whole("jpeg.tif", saved(smooth(), "TIFF", compression="jpeg", quality=98),
                unit(smooth()), 0.04)  # fmt: skip
    for method in ("group3", "group4", "tiff_ccitt"):
        bits = Image.fromarray(grey() % 3 == 0)
        content = saved(bits, "TIFF", compression=method)
        yield whole(f"{method}.tif", content, np.asarray(bits)[..., None])


def _other_types() -> Iterator[OddFile]:
    one, three = grey(), colour()
    for form, suffix in (
        *(("BMP", "bmp"), ("GIF", "gif"), ("PPM", "pgm"), ("TGA", "tga"), ("DIB", "dib")),
        *(("PCX", "pcx"), ("SGI", "sgi"), ("JPEG2000", "jp2")),
    ):
        yield whole(f"grey.{suffix}", saved(one, form), unit(one))
        if form != "GIF":
            yield whole(f"rgb.{suffix}", saved(three, form), unit(three))
    for suffix in ("j2k", "jpx", "jpc"):
        yield whole(f"rgb.{suffix}", saved(three, "JPEG2000"), unit(three))
    yield whole("grey-16.jp2", saved(grey(np.uint16), "JPEG2000"), unit(grey(np.uint16)))
    yield whole("rle.tga", saved(three, "TGA", compression="tga_rle"), unit(three))
    yield whole("up.tga", saved(three, "TGA", orientation=1), unit(three))
    yield whole("lossless.webp", saved(three, "WEBP", lossless=True), unit(three))
    yield whole("lossy.webp", saved(smooth(), "WEBP", quality=95), unit(smooth()), 0.06)
    yield whole("rgb.avif", saved(smooth(), "AVIF", quality=95), unit(smooth()), 0.06)
    if _has_heif():
        yield whole("rgb.heic", saved(smooth(), "HEIF", quality=95), unit(smooth()), 0.06)
        yield whole("heic-named.png", saved(smooth(), "HEIF", quality=95), unit(smooth()), 0.06)
    yield whole("rgb.ppm", saved(three, "PPM"), unit(three))
    yield whole("bits.pbm", saved(Image.fromarray(one > 99), "PPM"), (one > 99)[..., None])
    rows = "\n".join(" ".join(map(str, row)) for row in one)
    yield whole("ascii.pgm", f"P2\n# made by hand\n{WIDTH} {HEIGHT}\n255\n{rows}".encode(),
                unit(one))  # fmt: skip
    sixteen = grey(np.uint16)
    raw = f"P5 {WIDTH} {HEIGHT} 65535\n".encode() + sixteen.astype(">u2").tobytes()
    yield whole("16-bit.pgm", raw, unit(sixteen))
    twelve = sixteen >> 4
    raw = f"P5 {WIDTH} {HEIGHT} 4095\n".encode() + twelve.astype(">u2").tobytes()
    yield whole("12-bit.pgm", raw, twelve[..., None] / 4095, 1e-5)
    floats = grey(np.float32)
    raw = f"Pf\n{WIDTH} {HEIGHT}\n-1.0\n".encode() + floats[::-1].astype("<f4").tobytes()
    yield whole("float.pfm", raw, unit(floats))
    body = b"".join(b"\xfe" + bytes(pixel) for pixel in three.reshape(-1, 3).tolist())
    qoi = b"qoif" + struct.pack(">IIBB", WIDTH, HEIGHT, 3, 0) + body + bytes(7) + b"\1"
    yield whole("rgb.qoi", qoi, unit(three))
    psd = b"8BPS" + struct.pack(">H6xHIIHH", 1, 3, HEIGHT, WIDTH, 8, 3) + bytes(12)
    psd += struct.pack(">H", 0) + np.moveaxis(three, -1, 0).tobytes()
    yield whole("rgb.psd", psd, unit(three))
    length = 3 * WIDTH * HEIGHT
    sun = struct.pack(">8I", 0x59A66A95, WIDTH, HEIGHT, 24, length, 1, 0, 0)
    yield whole("rgb.ras", sun + three[..., ::-1].tobytes(), unit(three))
    for mode, quality in (("L", 98), ("RGB", 98), ("CMYK", 98)):
        image = Image.fromarray(smooth()).convert(mode)
        shown = unit(np.asarray(image if mode == "L" else image.convert("RGB")))
        for progressive in (False, True):
            content = saved(image, "JPEG", quality=quality, progressive=progressive, subsampling=0)
            yield whole(f"{mode}-{progressive}.jpg", content, shown, 0.05)
    second = Image.fromarray(smooth()[::-1])
    mpo = saved(smooth(), "MPO", quality=98, save_all=True, append_images=[second])
    yield whole("two.mpo", mpo, unit(smooth()), 0.04)
    for suffix in ("jfif", "jpe", "JPEG"):
        yield whole(f"a.{suffix}", saved(smooth(), "JPEG", quality=98), unit(smooth()), 0.04)


def _arrays() -> Iterator[OddFile]:
    def npy(array: np.ndarray) -> bytes:
        buffer = io.BytesIO()
        np.save(buffer, array, allow_pickle=True)
        return buffer.getvalue()

    for dtype in (np.uint8, np.uint16, np.float16, np.float32, np.float64):
        for order in "<>":
            for what, array in (("grey", grey(dtype)), ("rgb", colour(dtype))):
                kind = array.astype(np.dtype(dtype).newbyteorder(order))
                content = npy(np.asfortranarray(kind) if order == ">" else kind)
                ends = "be" if order == ">" else "le"
                yield whole(f"{what}-{np.dtype(dtype).name}-{ends}.npy", content, unit(array))
    yield whole("bool.npy", npy(grey() > 99), (grey() > 99)[..., None])
    for dtype in (np.int8, np.int16, np.int32, np.uint32, np.uint64, np.complex64, "U3", "M8[s]"):
        yield wrong(f"{np.dtype(dtype).name}.npy", npy(np.zeros((9, 9), dtype)))
    for shape in ((), (9,), (9, 9, 2), (9, 9, 4), (2, 9, 9, 3), (0, 9), (9, 0, 3)):
        yield wrong(f"shape-{len(shape)}-{sum(shape)}.npy", npy(np.zeros(shape, np.uint8)))
    values = {"nan": np.nan, "inf": np.inf, "minus-inf": -np.inf, "big": 255.0, "low": -0.5}
    for name, value in values.items():
        array = np.full((9, 9), 0.5, np.float32)
        array[2:] = value
        if name == "nan":
            array[:] = value
        yield wrong(f"{name}.npy", npy(array))
        yield wrong(f"{name}.tif", tiff(array))
        yield wrong(f"{name}-64.npy", npy(np.where(array == 255, 1e300, array.astype(np.float64))))
    some = np.full((9, 9, 1), 0.5)
    some[3, 4] = np.nan
    some[0, 0] = 0.25
    shown = np.nan_to_num(some)
    missing = np.isnan(some[..., 0])
    yield OddFile("some-nan.npy", written(npy(some)), "picture", shown, missing=missing)
    odd = some.copy()
    odd.view(np.uint64)[3, 4] = 0x7FF0_0000_0000_0001  # a NaN that processors signal
    yield OddFile("signalling-nan.npy", written(npy(odd)), "picture", shown, missing=missing)
    yield wrong("objects.npy", npy(np.array([[{}]], object)))
    yield wrong("records.npy", npy(np.zeros((9, 9), [("a", "u1")])))
    evil = b"\x93NUMPY\x01\0" + struct.pack("<H", 54)
    header = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,)}"
    yield wrong("pickle.npy", evil + header.ljust(54) + pickle.dumps([print]))
    for header in ("{", "[" * 60, "{'descr': '|u1'}", "__import__('os')", "\0" * 54, "(" * 54):
        content = b"\x93NUMPY\x01\0" + struct.pack("<H", 60) + header.encode().ljust(60)
        yield wrong(f"header-{zlib.crc32(header.encode())}.npy", content)


def _has_heif() -> bool:
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


# Orientations


def exif_of(orientation: int) -> bytes:
    """An EXIF block with nothing but an orientation."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif.tobytes()


def orientations() -> Iterator[OddFile]:
    """Each of the eight orientations in each format that has one, and some that are none."""
    pixels = unit(smooth())
    for orientation in range(1, 9):
        shown = turned(pixels, orientation)
        forms = [("JPEG", "jpg", {"quality": 98}), ("PNG", "png", {}), ("AVIF", "avif", {})]
        forms += [("WEBP", "webp", {"lossless": True})]
        if _has_heif():
            forms += [("HEIF", "heic", {"quality": 95})]
        for form, suffix, options in forms:
            content = saved(smooth(), form, exif=exif_of(orientation), **options)
            yield whole(f"turned-{orientation}.{suffix}", content, shown, 0.08)
        for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "jpeg"):
            tag = TiffImagePlugin.ImageFileDirectory_v2()
            tag[ORIENTATION] = orientation
            content = saved(smooth(), "TIFF", tiffinfo=tag, compression=compression)
            yield whole(f"turned-{orientation}-{compression}.tif", content, shown, 0.08)
        extra = [(ORIENTATION, 3, 1, orientation, True)]
        sixteen = smooth().astype(np.uint16) * 257
        content = tiff(sixteen, photometric="rgb", extratags=extra, compression="zlib")
        yield whole(f"turned-{orientation}-16.tif", content, shown)
        fields = {"size": (WIDTH, HEIGHT), "bits": [16], "compression": 5, "photometric": 1}
        content = tiff_by_hand(
            lzw(grey(np.uint16).tobytes()), **fields, more=[(ORIENTATION, orientation)]
        )
        yield whole(f"turned-{orientation}-16-lzw.tif", content,
                    turned(unit(grey(np.uint16)), orientation))  # fmt: skip
    for orientation in (0, 9, 255, 65535):
        for form, suffix in (("JPEG", "jpg"), ("PNG", "png"), ("WEBP", "webp")):
            options = {"quality": 98} if form != "PNG" else {}
            content = saved(smooth(), form, exif=exif_of(orientation), **options)
            yield whole(f"turned-{orientation}.{suffix}", content, pixels, 0.04)
    damaged = saved(smooth(), "JPEG", quality=98, exif=b"Exif\0\0II*\0\xff\xff\xff\xff" + b"\7" * 9)
    yield whole("damaged-exif.jpg", damaged, pixels, 0.04)


# Names and places


def names() -> Iterator[OddFile]:
    """Suffixes that are wrong or none, and names that are legal and odd."""
    forms = {"png": "PNG", "jpg": "JPEG", "tif": "TIFF", "bmp": "BMP", "gif": "GIF", "webp": "WEBP"}
    forms |= {"pgm": "PPM", "jp2": "JPEG2000"}
    one = grey()
    for (suffix, form), other in itertools.product(forms.items(), [*forms, "npy", "avif", "tga"]):
        if other != suffix and form != "JPEG":
            options = {"lossless": True} if form == "WEBP" else {}
            yield whole(f"{form}.{other}", saved(one, form, **options), unit(one))
    for form in ("PNG", "TIFF", "GIF", "BMP"):
        yield whole(form, saved(one, form), unit(one))
        yield whole(f"{form}.unknown", saved(one, form), unit(one))
    content = saved(one, "PNG")
    odd = [
        *("a b.png", "ü.png", "画像.png", "😀.png", "-rf.png", "--input=x.png", "=1+1.png"),
        *("+1.png", "@a.png", "a,b.png", 'a"b.png', "a'b.png", "a\nb.png", "a\rb.png", "a\tb.png"),
        *("%s.png", "$HOME.png", "`id`.png", "<b>.png", "&amp;.png", "{0}.png", "a#3.png"),
        *("a[1].png", "a*.png", "a?.png", "..png", "a..png", "a.tar.gz.png", "CON.png", "x" * 250),
        *("\x07bell.png", "\x1b[31mred.png", "\u202egnp.a", "a\\b.png", "~.png", "#1", "a#0.png"),
    ]
    for name in odd:
        yield whole(name, content, unit(one))
    yield whole(os.fsdecode(b"\xff\xfe.png"), content, unit(one))


def places() -> Iterator[OddFile]:
    """What is no regular file."""
    yield OddFile("folder.png", lambda path: path.mkdir(), "error")
    yield OddFile("pipe.png", os.mkfifo, "error")
    yield OddFile("pipe.tif", os.mkfifo, "error")
    yield OddFile("pipe.npy", os.mkfifo, "error")
    yield OddFile("socket.png", _socket, "error")
    yield OddFile("zero.png", lambda path: path.symlink_to("/dev/zero"), "error")
    yield OddFile("random.npy", lambda path: path.symlink_to("/dev/urandom"), "error")
    yield OddFile("null.png", lambda path: path.symlink_to("/dev/null"), "error")
    yield OddFile("loop.png", lambda path: path.symlink_to(path.name), "error")
    yield OddFile("nowhere.png", lambda path: path.symlink_to("absent"), "error")
    yield OddFile("up.png", lambda path: path.symlink_to("."), "error")
    yield OddFile("absent.png", lambda path: None, "error")
    yield OddFile("beneath.png/a.png", lambda path: None, "error")
    yield OddFile("x" * 300 + ".png", lambda path: None, "error")


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening, contextlib.chdir(path.parent):
        listening.bind(path.name)  # names of sockets are short


# Damage


def damaged() -> Iterator[OddFile]:
    """Files that are cut at every boundary of their structure, and files with changed bytes."""
    one, three = grey(), colour()
    sources = {
        "png": (saved(three, "PNG"), unit(three), 1e-6),
        "tif": (saved(three, "TIFF"), unit(three), 1e-6),
        "zip.tif": (tiff(three, photometric="rgb", compression="zlib"), unit(three), 1e-6),
        "lzw.tif": (saved(three, "TIFF", compression="tiff_lzw"), unit(three), 1e-6),
        "lzma.tif": (tiff(three, photometric="rgb", compression="lzma"), unit(three), 1e-6),
        "jpg": (saved(smooth(), "JPEG", quality=98), unit(smooth()), 0.04),
        "gif": (saved(one, "GIF"), unit(one), 1e-6),
        "bmp": (saved(three, "BMP"), unit(three), 1e-6),
        "webp": (saved(three, "WEBP", lossless=True), unit(three), 1e-6),
        "pgm": (saved(one, "PPM"), unit(one), 1e-6),
        "tga": (saved(three, "TGA"), unit(three), 1e-6),
        "jp2": (saved(three, "JPEG2000"), unit(three), 1e-6),
        "avif": (saved(smooth(), "AVIF", quality=95), unit(smooth()), 0.06),
        "sgi": (saved(three, "SGI"), unit(three), 1e-6),
    }
    generator = random.Random(0)
    for suffix, (content, pixels, tolerance) in sources.items():
        for cut in sorted(_boundaries(suffix, content)):
            yield OddFile(
                f"cut-{cut}.{suffix}",
                written(content[:cut]),
                "picture or error",
                pixels,
                tolerance,
            )
        for number in range(12):
            changed = bytearray(content)
            for _ in range(1 + number % 4):
                # Headers are where the harm is done.
                most = len(content) if number % 2 else min(len(content), 64)
                changed[generator.randrange(most)] = generator.choice((0, 1, 127, 128, 254, 255))
            yield OddFile(f"changed-{number}.{suffix}", written(bytes(changed)), "sane or error")


def _boundaries(suffix: str, content: bytes) -> set[int]:
    """Where parts of a file begin and end, and the places one byte before."""
    places = {1, 2, 4, 8, len(content) - 1, len(content) // 2}
    if suffix == "png":
        at = 8
        while at < len(content):
            (length,) = struct.unpack(">I", content[at : at + 4])
            places |= {at, at + 4, at + 8, at + 8 + length, at + 12 + length}
            at += 12 + length
    elif suffix == "jpg":
        places |= {i for i in range(len(content) - 1) if content[i] == 0xFF and content[i + 1] > 1}
    elif suffix.endswith("tif"):
        (ifd,) = struct.unpack("<I", content[4:8])
        places |= {ifd, ifd + 2, *range(ifd + 2, len(content), 24)}
    elif suffix in ("jp2", "avif", "webp"):
        at = 12 if suffix == "webp" else 0
        order = "<" if suffix == "webp" else ">"
        while at + 8 < len(content):
            size = struct.unpack(f"{order}I", content[at + 4 : at + 8] if suffix == "webp"
                                 else content[at : at + 4])[0] + 8 * (suffix == "webp")  # fmt: skip
            places |= {at, at + 8, at + size}
            at += max(size, 8)
    elif suffix == "pgm":
        places |= set(range(1, 14))
    else:
        places |= {10, 14, 18, 26, 54}
    return {place - back for place in places for back in (0, 1) if 0 < place - back < len(content)}


def incomplete() -> Iterator[OddFile]:
    """TIFFs of which strips or tiles are not there, which decoders read as black."""
    big = np.tile(grey(), (4, 4))
    indexed = Image.fromarray(big % 7).convert("P")
    options = {"L": {}, "P": {}, "zlib": {"compression": "zlib"}, "tiles": {"tile": (16, 16)}}
    for kind, more in options.items():
        strips = {} if kind == "tiles" else {"rowsperstrip": 9}
        plain = tiff(big, photometric="minisblack", **strips, **more)
        content = saved(indexed, "TIFF", tiffinfo={278: 9}) if kind == "P" else plain
        places = {"tiles": (("offset", 324), ("count", 325))}.get(
            kind, (("offset", 273), ("count", 279))
        )
        for name, tag, value in (("tall", 257, 2000), ("wide", 256, 2000)):
            yield wrong(f"{name}-{kind}.tif", with_tag(content, tag, value))
        for name, tag in places:
            for index in (0, 1):
                changed = with_tag(content, tag, 0, index)
                yield wrong(f"no-{name}-{index}-{kind}.tif", changed)
    unsaid = with_tag(tiff(grey(), photometric="minisblack"), 279, 0)
    yield whole("no-count-of-one-strip.tif", unsaid, unit(grey()))


def with_tag(content: bytes, tag: int, value: int, index: int = 0) -> bytes:
    """A little-endian TIFF with another number in a tag of its first page."""
    changed = bytearray(content)
    (start,) = struct.unpack("<I", content[4:8])
    (entries,) = struct.unpack("<H", content[start : start + 2])
    for place in range(start + 2, start + 2 + 12 * entries, 12):
        found, kind, count = struct.unpack("<HHI", content[place : place + 8])
        if found == tag:
            letter = {3: "H", 4: "I"}[kind]
            size = struct.calcsize(letter)
            inside = size * count <= 4
            at = place + 8 if inside else struct.unpack("<I", content[place + 8 : place + 12])[0]
            struct.pack_into(f"<{letter}", changed, at + size * index, value)
            return bytes(changed)
    raise KeyError(tag)


# Bombs


def bombs() -> Iterator[OddFile]:
    """Small files that claim, or decompress to, far more than a picture."""
    header = {"size": (64, 64)}
    strip = _zip_of_zeros(1000)
    yield wrong("deflate.tif", tiff_by_hand(strip, **header, compression=8))
    yield wrong("deflate-old.tif", tiff_by_hand(strip, **header, compression=32946))
    streams = lzma.compress(bytes(1_000_000), preset=0) * 900
    yield wrong("lzma-streams.tif", tiff_by_hand(streams, **header, compression=34925))
    for compression in (1, 5, 8, 7, 34925, 50000):
        tile = tiff_by_hand(b"\0" * 99, **header, compression=compression, tile=(60_000, 60_000))
        yield wrong(f"tile-{compression}.tif", tile)
        wide = tiff_by_hand(b"\0" * 99, size=(60_000, 60_000), compression=compression)
        yield wrong(f"large-{compression}.tif", wide)
    yield wrong("deep.tif", tiff_by_hand(b"\0" * 99, **header, more=[(32997, 2**31)]))
    yield wrong("many-samples.tif",
                tiff_by_hand(b"\0" * 99, size=(9000, 9000), more=[(277, 60_000)]))  # fmt: skip
    loop = tiff_by_hand(bytes(64 * 64), **header)
    place = struct.unpack("<I", loop[4:8])[0]
    looped = tiff_by_hand(bytes(64 * 64), **header, following=place)
    yield OddFile("loop.tif", written(looped), "sane or error")
    yield OddFile("next-nowhere.tif", written(tiff_by_hand(bytes(4096), **header,
                  following=2**31)), "sane or error")  # fmt: skip
    for kind, tag in ((2, 270), (3, 273), (4, 279), (12, 65000)):
        entry = struct.pack("<HHII", tag, kind, 2**32 - 1, 8)
        content = bytearray(loop)
        content[place + 2 : place + 14] = entry
        yield OddFile(f"count-{tag}.tif", written(bytes(content)), "sane or error")
    for size in ((13_000, 13_000), (60_000, 60_000), (2**31 - 1, 2**31 - 1), (2**31 - 1, 1)):
        yield wrong(f"large-{size[0]}-{size[1]}.png", png(b"\0", size=size, bits=8, kind=0))
        pnm = f"P5 {size[0]} {size[1]} 255\n".encode()
        yield wrong(f"large-{size[0]}-{size[1]}.pgm", pnm)
    text = png_chunk(b"zTXt", b"a\0\0" + strip)
    yield OddFile("text.png", written(png_of(colour(), 8, text)), "picture or error",
                  unit(colour()))  # fmt: skip
    profile = png_chunk(b"iCCP", b"a\0\0" + strip)
    yield OddFile("profile.png", written(png_of(colour(), 8, profile)), "picture or error",
                  unit(colour()))  # fmt: skip
    header_only = struct.pack(">IIBBBBB", 64, 64, 8, 0, 0, 0, 0)
    inflated = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header_only) + png_chunk(b"IDAT", strip)
    yield OddFile("inflated.png", written(inflated + png_chunk(b"IEND", b"")), "sane or error")
    yield OddFile("exif.png", written(png_of(colour(), 8, png_chunk(b"eXIf", strip))),
                  "picture or error", unit(colour()))  # fmt: skip
    jpeg = bytearray(saved(smooth(), "JPEG"))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = b"\xff\xff\xff\xff"
    yield wrong("large.jpg", bytes(jpeg))
    gif = bytearray(saved(grey(), "GIF"))
    gif[6:10] = b"\xff\xff\xff\xff"
    yield wrong("large.gif", bytes(gif))
    bmp = bytearray(saved(colour(), "BMP"))
    bmp[18:26] = struct.pack("<ii", 60_000, 60_000)
    yield wrong("large.bmp", bytes(bmp))
    yield wrong("large.tga", struct.pack("<BBBHHBHHHHBB", 0, 0, 10, 0, 0, 0, 0, 0, 65535, 65535,
                                         24, 0) + b"\xff\0\0\0")  # fmt: skip
    jp2 = bytearray(saved(colour(), "JPEG2000"))
    for at in (jp2.index(b"ihdr") + 4, jp2.index(b"\xff\x51") + 6):
        jp2[at : at + 8] = struct.pack(">II", 60_000, 60_000)
    yield wrong("large.jp2", bytes(jp2))
    box = jp2.index(b"jp2h")
    jp2[box - 4 : box + 12] = struct.pack(">I4sQ", 1, b"jp2h", 2**62)  # more than any memory
    yield wrong("box.jp2", bytes(jp2))
    for shape in ("(60000, 60000)", f"({10**18}, 3)", f"({'9' * 40}, 9)", "(-1, 9)"):
        text_header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}}}".encode()
        content = b"\x93NUMPY\x01\0" + struct.pack("<H", 118) + text_header.ljust(117) + b"\n"
        yield wrong(f"large-{zlib.crc32(content)}.npy", content)
    frames = [Image.fromarray(grey())] * 99
    yield whole("frames.gif", saved(frames[0], "GIF", save_all=True, append_images=frames[1:]),
                unit(grey()))  # fmt: skip
    with io.BytesIO() as buffer:
        with tifffile.TiffWriter(buffer) as file:
            for _ in range(300):
                file.write(grey(), contiguous=False, metadata=None)
        yield whole("pages.tif", buffer.getvalue(), unit(grey()))


def _zip_of_zeros(megabytes: int) -> bytes:
    """A ZIP stream of so many megabytes of zeros: one megabyte compressed, and repeated."""
    stream = zlib.compressobj(9)
    start = stream.compress(bytes(2**20)) + stream.flush(zlib.Z_FULL_FLUSH)
    again = stream.compress(bytes(2**20)) + stream.flush(zlib.Z_FULL_FLUSH)
    return start + again * megabytes + stream.flush()


# Other kinds of files


def others() -> Iterator[OddFile]:
    """What is no image at all, under the name of one."""
    generator = random.Random(1)
    contents = {
        "empty": b"",
        "byte": b"\0",
        "text": b"hello, world\n" * 40,
        "html": b"<!doctype html><title>404</title>",
        "svg": b"<svg xmlns='http://www.w3.org/2000/svg'><script>1</script></svg>",
        "pdf": b"%PDF-1.7\n%%EOF",
        "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n(x) show",
        "zip": b"PK\x03\x04" + bytes(60),
        "gzip": b"\x1f\x8b\x08" + bytes(60),
        "elf": b"\x7fELF" + bytes(60),
        "zeros": bytes(400),
        "ones": b"\xff" * 400,
        "noise": generator.randbytes(400),
        "pickle": pickle.dumps({"a": [1, 2]}),
        "fits": b"SIMPLE  =                    T".ljust(2880),
        "hdf": b"\x89HDF\r\n\x1a\n" + bytes(60),
        "ico": b"\0\0\1\0\1\0" + bytes(60),
        "mp4": b"\0\0\0\x18ftypmp42" + bytes(60),
        "jxl": b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(60),
    }
    suffixes = ("png", "jpg", "tif", "gif", "bmp", "webp", "npy", "avif", "heic", "jp2", "tga")
    for (kind, content), suffix in itertools.product(contents.items(), suffixes):
        if suffix != "tga":  # such a file has no mark of its own
            yield wrong(f"{kind}.{suffix}", content)
    signatures = (
        *(b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"II*\0", b"MM\0*", b"II+\0", b"GIF89a"),
        *(b"BM\0\0\0\0\0\0\0\0", b"RIFF\x10\0\0\0WEBP", b"P5\n", b"P2 ", b"Pf\n", b"8BPS\0\1"),
        *(b"qoif", b"\x01\xda", b"\x59\xa6\x6a\x95", b"\xff\x4f\xff\x51", b"\x93NUMPY"),
        *(b"\0\0\0\x18ftypavif", b"\0\0\0\x18ftypheic"),
    )
    for number, signature in enumerate(signatures):
        yield wrong(f"only-{number}", signature)
        yield wrong(f"zeros-{number}", signature + bytes(500))
        yield OddFile(f"noise-{number}", written(signature + generator.randbytes(500)),
                      "sane or error")  # fmt: skip


GROUPS: dict[str, Callable[[], Iterator[OddFile]]] = {
    each.__name__: each
    for each in (pixel_types, orientations, names, places, damaged, others, incomplete, bombs)
}
"""All files, in groups; names are unique within a group."""
