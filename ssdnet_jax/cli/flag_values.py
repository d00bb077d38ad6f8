"""Values of flags: counts, and lists with commas between."""

from collections.abc import Callable
from typing import TypeVar

from ssdnet_jax.errors import ConfigError

_T = TypeVar("_T")


def whole_number(name: str, text: str | None) -> int:
    """The value of a flag that counts something; 0 if it was not given.

    Raises:
      ConfigError: it is no whole number from 1.
    """
    if text is None:
        return 0
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise ConfigError(f"{name}: found {text!r}; expected a whole number from 1")
    return int(text)


def listed(
    name: str, text: str | None, convert: Callable[[str], _T], expected: str
) -> tuple[_T, ...] | None:
    """The entries of a list with commas between, each once; None if the flag was not given.

    Args:
      name: of the flag, with its dashes.
      text: what was given.
      convert: makes a value of an entry without blanks around it; raises ValueError.
      expected: what is legal, in words.

    Raises:
      ConfigError: an entry that is not legal.
    """
    if text is None:
        return None
    try:
        return tuple(dict.fromkeys(convert(word.strip()) for word in text.split(",")))
    except ValueError:
        raise ConfigError(f"{name}: found {text!r}; expected {expected}") from None


def listed_words(name: str, text: str | None) -> tuple[str, ...] | None:
    """`listed`, of any words."""
    return listed(name, text, _word, "words with commas between")


def listed_seeds(name: str, text: str | None) -> tuple[int, ...] | None:
    """`listed`, of seeds."""
    return listed(name, text, _whole, "integers, as 0,1,2")


def _word(word: str) -> str:
    if not word:
        raise ValueError(word)
    return word


def _whole(word: str) -> int:
    if not (word.isascii() and word.isdigit()):
        raise ValueError(word)
    return int(word)
