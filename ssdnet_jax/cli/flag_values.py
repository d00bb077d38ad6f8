"""Values of flags: counts, lists with commas between, and where results may go."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from ssdnet_jax.data.files import real_path
from ssdnet_jax.errors import ConfigError

_T = TypeVar("_T")
_LARGEST = 2**31 - 1  # of counts
_DIGITS = 18  # of a whole number: of thousands Python makes no number


def whole_number(name: str, text: str | None) -> int:
    """The value of a flag that counts from 1; 0 if it was not given. Raises ConfigError."""
    if text is None:
        return 0
    try:
        number = _whole(text)
    except ValueError:
        number = 0
    if not 0 < number <= _LARGEST:
        raise ConfigError(f"{name}: found {text!r}; expected a whole number from 1 to {_LARGEST}")
    return number


def listed(
    name: str, text: str | None, convert: Callable[[str], _T], expected: str
) -> tuple[_T, ...] | None:
    """The entries of a list with commas between, each once; None if the flag was not given.

    `convert` makes a value of an entry without blanks around it, or raises ValueError: then a
    ConfigError says what was expected. `name` is that of the flag, with its dashes.
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


def listed_levels(name: str, text: str | None, *, top: str) -> tuple[float, ...] | None:
    """`listed`, of numbers from 0 to `top`, as folders are named: two never share a name."""

    def level(word: str) -> float:
        number = float(f"{float(word):g}")
        if not 0 <= number <= float(top):
            raise ValueError(word)
        return abs(number)

    return listed(name, text, level, f"numbers from 0 to {top}, as 0,0.05,0.1")


def level(name: str, text: str | None, *, top: str) -> float:
    """A number from 0 to `top`; 0 if the flag was not given."""
    found = listed_levels(name, text, top=top) or (0.0,)
    if len(found) > 1:
        raise ConfigError(f"{name}: found {text!r}; expected one number from 0 to {top}")
    return found[0]


def one_of(name: str, text: str, legal: Sequence[_T]) -> _T:
    """The one of these words that the value of a flag is; raises ConfigError if it is none."""
    for word in legal:
        if word == text:
            return word
    raise ConfigError(f"{name}: found {text!r}; expected {' or '.join(map(str, legal))}")


def check_results_folder(name: str, text: str) -> None:
    """Raises ConfigError where a flag names the home folder, or one that holds it, as `/` does.

    Results in there would lie among files of everything else.
    """
    folder = real_path(Path(text))
    try:
        home = real_path(Path.home())
    except RuntimeError:  # there is none
        home = Path(folder.anchor)
    if not home.is_relative_to(folder):
        return
    if folder == Path(folder.anchor):
        what = "the root of the file system"
    elif folder == home:
        what = "the home folder"
    else:
        what = "a folder that holds the home folder"
    raise ConfigError(
        f"{name}: found {text!r}, {what}; expected a folder for the results, "
        f"for example {str(Path(text) / 'out')!r}"
    )


def _word(word: str) -> str:
    if not word:
        raise ValueError(word)
    return word


def _whole(word: str) -> int:
    if not (word.isascii() and word.isdigit()) or len(word) > _DIGITS:
        raise ValueError(word)
    return int(word)
