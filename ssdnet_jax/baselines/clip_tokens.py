"""CLIP's byte-pair tokenizer for ASCII text; the vocabulary is a file that the user has.

A vocabulary is its merges: tokens are 256 bytes, the same at the end of a word, one a merge, and
the start and the end of a text. Source: Radford et al., Learning Transferable Visual Models From
Natural Language Supervision, ICML 2021 (arXiv 2103.00020); Sennrich et al., Neural Machine
Translation of Rare Words with Subword Units, ACL 2016 (arXiv 1508.07909).
"""

import gzip
import itertools
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ssdnet_jax.data.json_values import parse_json
from ssdnet_jax.errors import ConfigError, InputError

Merge = tuple[str, str]

FILE_NAMES = ("bpe_simple_vocab_16e6.txt.gz", "merges.txt", "tokenizer.json")
"""OpenCLIP's file, and two of the Hugging Face hub; each holds the same merges."""

_LIMIT_BYTES = 32 * 2**20  # of text; OpenCLIP's file unpacks to 3 MB
_WORD_END = "</w>"
_WORDS = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d|[a-z]+|[0-9]|[^\sa-z0-9]+")


@dataclass(frozen=True)
class Vocabulary:
    """What text is cut into."""

    ranks: Mapping[Merge, int]  # pair of symbols -> its place among the merges; lowest first
    ids: Mapping[str, int]  # symbol -> token, from 0

    @property
    def start(self) -> int:
        """The token before a text."""
        return len(self.ids)

    @property
    def end(self) -> int:
        """The token behind a text, the largest."""
        return len(self.ids) + 1

    @property
    def size(self) -> int:
        """How many tokens there are."""
        return len(self.ids) + 2


def make_vocabulary(merges: Sequence[Merge]) -> Vocabulary:
    """Numbers the symbols as CLIP does."""
    symbols = _byte_symbols()
    symbols += [symbol + _WORD_END for symbol in symbols]
    symbols += ["".join(merge) for merge in merges]
    return Vocabulary(
        ranks={merge: rank for rank, merge in enumerate(merges)},
        ids={symbol: token for token, symbol in enumerate(symbols)},
    )


def tokenize(vocabulary: Vocabulary, texts: Sequence[str], *, context: int) -> np.ndarray:
    """Tokens of texts in lower case, with start and end, followed by zeros: int32 (texts, context).

    A text with more tokens than `context`, or with other than printable ASCII characters, is a
    ConfigError.
    """
    tokens = np.zeros((len(texts), context), np.int32)
    for row, text in zip(tokens, texts, strict=True):
        if not (text.isascii() and text.isprintable()):
            raise ConfigError(f"prompt {text!r:.80}: expected printable ASCII characters")
        words = _WORDS.findall(text.lower())
        found = [vocabulary.ids[symbol] for word in words for symbol in _merge(vocabulary, word)]
        found = [vocabulary.start, *found, vocabulary.end]
        if len(found) > context:
            raise ConfigError(f"prompt {text!r:.80}: {len(found)} tokens; expected <= {context}")
        row[: len(found)] = found
    return tokens


def _merge(vocabulary: Vocabulary, word: str) -> list[str]:
    """Merges the neighbours that stand first among the merges until none stand there."""
    symbols = [*word[:-1], word[-1] + _WORD_END]  # printable ASCII stands for its own bytes
    while len(symbols) > 1:
        pairs = itertools.pairwise(symbols)
        best = min(pairs, key=lambda pair: vocabulary.ranks.get(pair, len(vocabulary.ranks)))
        if best not in vocabulary.ranks:
            break
        merged, i = [], 0
        while i < len(symbols):
            step = 2 if tuple(symbols[i : i + 2]) == best else 1
            merged.append("".join(symbols[i : i + step]))
            i += step
        symbols = merged
    return symbols


def _byte_symbols() -> list[str]:
    """The characters that stand for bytes: the printable ones first, then the others as 256 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = 256 - len(printable)
    return [chr(code) for code in printable] + [chr(256 + i) for i in range(others)]


# --- files ---------------------------------------------------------------------------------------


def find_vocabulary(folder: Path) -> Path:
    """The vocabulary that lies in a folder; raises InputError if there is none."""
    for name in FILE_NAMES:
        if (folder / name).is_file():
            return folder / name
    raise InputError(f"{folder}: found no CLIP vocabulary; expected {' or '.join(FILE_NAMES)}")


def read_vocabulary(path: str | Path, *, size: int) -> Vocabulary:
    """Reads the merges of a vocabulary.

    Args:
      path: `bpe_simple_vocab_16e6.txt.gz`, `merges.txt` or `tokenizer.json`.
      size: tokens of the vocabulary; merges beyond it are not used.

    Raises:
      InputError: the file cannot be read, holds no merges or too few.
    """
    path = Path(path)
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
            text = file.read(_LIMIT_BYTES + 1).decode("utf-8")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise InputError(f"{path}: cannot be read ({reason}); expected a vocabulary") from error
    if len(text) > _LIMIT_BYTES:
        raise InputError(f"{path}: more than {_LIMIT_BYTES} bytes; expected a CLIP vocabulary")
    merges = _json_merges(path, text) if path.suffix == ".json" else _lines(text)
    needed = size - len(make_vocabulary([]).ids) - 2
    if len(merges) < needed:
        raise InputError(
            f"{path}: found {len(merges)} merges; expected {needed}, for {size} tokens"
        )
    pairs: list[Merge] = []
    for number, merge in enumerate(merges[:needed]):
        if len(merge) != 2 or not all(isinstance(symbol, str) for symbol in merge):
            raise InputError(f"{path}: merge {number} is {merge!r:.60}; expected two symbols")
        pairs.append(merge)
    vocabulary = make_vocabulary(pairs)
    if vocabulary.size != size:
        raise InputError(
            f"{path}: found {vocabulary.size} different tokens; expected {size} (repeated merges?)"
        )
    return vocabulary


def _lines(text: str) -> list[tuple[str, ...]]:
    lines = text.removesuffix("\n").split("\n")
    if "#version" in lines[0]:
        lines = lines[1:]
    return [tuple(line.split()) for line in lines]


def _json_merges(path: Path, text: str) -> list[tuple[str, ...]]:
    try:
        merges = parse_json(text)["model"]["merges"]
        # Older files have "a b", newer ones ["a", "b"].
        return [tuple(merge.split() if isinstance(merge, str) else merge) for merge in merges]
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{path}: no merges found; expected model.merges in JSON") from None
