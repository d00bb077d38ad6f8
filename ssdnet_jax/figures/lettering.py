"""Text on pictures: measured, shortened and drawn by Pillow, in fonts that have its letters."""

import functools
import importlib.util
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from PIL import ImageDraw, ImageFont

from ssdnet_jax.text import one_line

# Fonts of the operating system that have Chinese, Japanese and Korean letters. Pillow finds them
# by name where they are installed.
_SYSTEM_FONTS = (
    "NotoSansCJK-Regular.ttc",
    "NotoSansCJKsc-Regular.otf",
    "wqy-microhei.ttc",
    "DroidSansFallbackFull.ttf",
    "msyh.ttc",
    "YuGothR.ttc",
    "PingFang.ttc",
    "Hiragino Sans GB.ttc",
    "Arial Unicode.ttf",
)
_UNKNOWN = "\ufffd"  # stands for a letter that no font has
_NO_LETTER = "\U0010ffff"  # which no font has: what it draws is what it draws for unknown letters


def text_width(text: str, size: int) -> float:
    """Pixels that a line of text takes."""
    return sum(_font(name, size).getlength(part) for name, part in _runs(one_line(text)))


def draw_text(
    draw: ImageDraw.ImageDraw, x: float, y: float, text: str, size: int, color: str
) -> None:
    """Writes a line of text whose baseline starts at (x, y), in pixels."""
    for name, part in _runs(one_line(text)):
        font = _font(name, size)
        draw.text((x, y), part, fill=color, font=font, anchor="ls")
        x += font.getlength(part)


def shorten(text: str, size: int, width: float) -> str:
    """The end of a line of text, after an ellipsis, where all of it takes more than `width` pixels.

    The end of a path says more than its start.
    """
    text = one_line(text)
    if text_width(text, size) <= width:
        return text
    low, high = 0, len(text)  # letters of the end: as many as fit
    while low < high:
        middle = (low + high + 1) // 2
        fits = text_width(f"…{text[len(text) - middle :]}", size) <= width
        low, high = (middle, high) if fits else (low, middle - 1)
    return f"…{text[len(text) - low :]}"


@functools.lru_cache(maxsize=256)
def _runs(text: str) -> tuple[tuple[str, str], ...]:
    """Pieces of the text and the font of each; letters that no font has are replaced."""
    runs: list[tuple[str, str]] = []
    for letter in text:
        joins = bool(runs) and bool(unicodedata.combining(letter))
        name = runs[-1][0] if joins else _font_with(letter)
        if name is None:
            letter, name = _UNKNOWN, _font_with(_UNKNOWN) or ""
        if runs and runs[-1][0] == name:
            runs[-1] = (name, runs[-1][1] + letter)
        else:
            runs.append((name, letter))
    return tuple(runs)


@functools.lru_cache(maxsize=4096)
def _font_with(letter: str) -> str | None:
    """The first font that has a letter."""
    return next((name for name in _fonts() if _has(name, letter)), None)


def _fonts() -> Iterator[str]:
    """Fonts by preference; "" is Pillow's own, which has the Latin alphabet alone."""
    yield ""
    # Matplotlib is installed with this package; its files are read without importing it.
    found = importlib.util.find_spec("matplotlib")
    for folder in (found.submodule_search_locations or []) if found else []:
        dejavu = Path(folder) / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
        if dejavu.is_file():
            yield str(dejavu)
    yield from _system_fonts()


@functools.cache
def _system_fonts() -> tuple[str, ...]:
    found = []
    for name in _SYSTEM_FONTS:
        try:
            ImageFont.truetype(name, 12)
        except OSError:
            continue
        found.append(name)
    return tuple(found)


def _has(name: str, letter: str) -> bool:
    font = _font(name, 16)
    if letter.isspace() and not name:
        return True
    return bytes(font.getmask(letter)) != bytes(font.getmask(_NO_LETTER))


@functools.lru_cache(maxsize=64)
def _font(name: str, size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.truetype(name, size) if name else ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)  # else Pillow lacks FreeType
    return font
