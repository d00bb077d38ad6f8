"""Which image formats are read, and which of them a file is in: by its content, not its name.

Read is what Pillow and tifffile decode themselves into one ordinary picture. Left out are formats
that Pillow hands to another program (EPS, WMF), that need a handler (GRIB, HDF5, BUFR), whose scale
it does not read (FITS), and collections of icons or textures (ICO, ICNS, DDS).
"""

import dataclasses
import stat
from pathlib import Path, PurePath


@dataclasses.dataclass(frozen=True)
class Format:
    """A file format."""

    name: str  # in words
    suffixes: tuple[str, ...]  # lower case; the usual one first
    pillow: tuple[str, ...] = ()  # what Pillow calls it; none where another library reads it
    signatures: tuple[bytes, ...] = ()  # how a file begins; "?" stands for any byte
    by_name: bool = False  # whether its beginning says too little: the suffix must fit as well


def _box(brands: str) -> tuple[bytes, ...]:
    """How a file of ISO boxes begins, by its major brand."""
    return tuple(b"????ftyp" + brand.encode() for brand in brands.split())


TIFF = Format(
    "TIFF", (".tif", ".tiff", ".btf", ".tf8"), (), (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
)
NPY = Format(".npy", (".npy",), (), (b"\x93NUMPY",))
HEIF = Format(
    "HEIF",
    (".heic", ".heif", ".hif"),
    ("HEIF", "AVIF"),
    _box("heic heix heim heis hevc hevx mif1 msf1"),
)
FORMATS = (
    Format("PNG", (".png", ".apng"), ("PNG",), (b"\x89PNG\r\n\x1a\n",)),
    # MPO: a JPEG with further pictures behind the first, as telephones write it.
    Format("JPEG", (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"), ("JPEG", "MPO"), (b"\xff\xd8\xff",)),
    TIFF,
    Format("BMP", (".bmp",), ("BMP",), (b"BM????\0\0\0\0",)),
    Format("GIF", (".gif",), ("GIF",), (b"GIF87a", b"GIF89a")),
    Format("WebP", (".webp",), ("WEBP",), (b"RIFF????WEBP",)),
    Format(
        "PNM", (".pgm", ".ppm", ".pbm", ".pnm", ".pfm"), ("PPM",),
        tuple(b"P" + kind + blank for kind in (b"1", b"2", b"3", b"4", b"5", b"6", b"f", b"F")
              for blank in (b"\n", b" ", b"\r", b"\t")),
    ),
    NPY,
    Format(
        "JPEG 2000", (".jp2", ".j2k", ".jpf", ".jpx", ".j2c", ".jpc"), ("JPEG2000",),
        (b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51"),
    ),
    Format("AVIF", (".avif",), ("AVIF",), _box("avif avis")),
    HEIF,
    Format("PSD", (".psd",), ("PSD",), (b"8BPS\0\x01",)),
    Format("QOI", (".qoi",), ("QOI",), (b"qoif",)),
    Format("SGI", (".sgi", ".rgb", ".bw"), ("SGI",), (b"\x01\xda",)),
    Format("Sun raster", (".ras", ".sun"), ("SUN",), (b"\x59\xa6\x6a\x95",)),
    Format("DIB", (".dib",), ("DIB",), (b"\x28\0\0\0", b"\x0c\0\0\0", b"\x6c\0\0\0", b"\x7c\0\0\0"),
           by_name=True),
    Format("PCX", (".pcx",), ("PCX",), (b"\x0a",), by_name=True),
    Format("TGA", (".tga", ".icb", ".vda", ".vst"), ("TGA",), (b"",), by_name=True),
)  # fmt: skip
EXPECTED = "an image (PNG, JPEG, TIFF, .npy, ...; docs/usage.md lists the formats)"
_HEAD = 16  # bytes that tell formats apart


def format_of(head: bytes, name: str) -> Format | None:
    """The format of a file by its first 16 bytes; its name counts where these do not suffice."""
    suffix = PurePath(name.lower()).suffix
    for each in FORMATS:
        if each.by_name and suffix not in each.suffixes:
            continue
        if any(_begins(head, signature) for signature in each.signatures):
            return each
    return None


def file_format(path: Path) -> Format | None:
    """The format of a file on disk; None if it is in no known one, or is no regular file.

    Raises:
      OSError: it cannot be read.
    """
    if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for somebody to write
        return None
    with path.open("rb") as file:
        return format_of(file.read(_HEAD), path.name)


def _begins(head: bytes, signature: bytes) -> bool:
    pairs = zip(head, signature, strict=False)
    return len(head) >= len(signature) and all(h == s or s == ord("?") for h, s in pairs)
