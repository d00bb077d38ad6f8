import gzip
import json

import numpy as np
import pytest

from ssdnet_jax.baselines.clip_tokens import (
    find_vocabulary,
    make_vocabulary,
    read_vocabulary,
    tokenize,
)
from ssdnet_jax.errors import ConfigError, InputError

# Tokens 0-255 are bytes from "!", 256-511 the same at the end of a word, 512 on the merges.
MERGES = [("l", "o"), ("lo", "w"), ("e", "r</w>"), ("lo", "w</w>"), ("w", "er</w>")]
VOCABULARY = make_vocabulary(MERGES)
LOW_END, ER_END, LOW, LO, WER_END = 515, 514, 513, 512, 516
START, END = 517, 518


def letter(character, *, last=False):
    return ord(character) - ord("!") + 256 * last


def tokens(text):
    (row,) = tokenize(VOCABULARY, [text], context=20)
    assert row[0] == START and (row != 0).sum() == list(row).index(END) + 1
    return list(row[1 : list(row).index(END)])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("low", [LOW_END]),
        # "lo" (rank 0), then "low" (rank 1) before "er" (rank 2); "w" is gone before "wer".
        ("lower", [LOW, ER_END]),
        ("wer", [WER_END]),
        ("lowlow", [LOW, LOW_END]),
        ("lol", [LO, letter("l", last=True)]),
        ("LoW  lower", [LOW_END, LOW, ER_END]),
        ("a", [letter("a", last=True)]),
        ("low.", [LOW_END, letter(".", last=True)]),
        ("low-ow", [LOW_END, letter("-", last=True), letter("o"), letter("w", last=True)]),
        ("12", [letter("1", last=True), letter("2", last=True)]),
        ("it's", [letter("i"), letter("t", last=True), letter("'"), letter("s", last=True)]),
        ("a'b", [letter("a", last=True), letter("'", last=True), letter("b", last=True)]),
        ("?!", [letter("?"), letter("!", last=True)]),
        ("", []),
    ],
)
def test_words_are_merged_by_rank(text, expected):
    assert tokens(text) == expected


def test_symbols_are_numbered_as_clip_does():
    assert VOCABULARY.size == 519 and len(set(VOCABULARY.ids.values())) == 517
    # The bytes of printable characters first, byte 0 after them.
    assert [VOCABULARY.ids[s] for s in ("!", "~", "¡", "ÿ", "Ā", "!</w>")] == [
        0,
        93,
        94,
        187,
        188,
        256,
    ]


def test_the_real_size_of_clip_has_48894_merges():
    assert make_vocabulary([]).size == 49408 - 48894


def test_a_text_too_long_or_not_ascii_is_refused():
    with pytest.raises(ConfigError, match=r"'low low low': 5 tokens; expected <= 4"):
        tokenize(VOCABULARY, ["low", "low low low"], context=4)
    for text in ("naïve", "a\x00b"):
        with pytest.raises(ConfigError, match="expected printable ASCII"):
            tokenize(VOCABULARY, [text], context=20)


LINES = [" ".join(merge) for merge in MERGES]


def write(path, kind):
    lines = "\n".join(LINES) + "\n"
    if kind == "open_clip":  # as OpenCLIP has it, with more merges than are used
        path = path / "bpe_simple_vocab_16e6.txt.gz"
        text = f'"bpe_simple_vocab_16e6.txt#version: 0.2\n{lines}x y\nz z\n'
        path.write_bytes(gzip.compress(text.encode()))
    elif kind == "text":
        path = path / "merges.txt"
        path.write_text(f"#version: 0.2\n{lines}", encoding="utf-8")
    else:
        path = path / "tokenizer.json"
        merges = LINES if kind == "json words" else [list(merge) for merge in MERGES]
        path.write_text(json.dumps({"model": {"type": "BPE", "merges": merges}}))
    return path


@pytest.mark.parametrize("kind", ["open_clip", "text", "json words", "json pairs"])
def test_every_file_holds_the_same_vocabulary(tmp_path, kind):
    path = write(tmp_path, kind)
    assert find_vocabulary(tmp_path) == path
    vocabulary = read_vocabulary(path, size=519)
    assert vocabulary == VOCABULARY
    np.testing.assert_array_equal(
        tokenize(vocabulary, ["lower"], context=5), [[START, LOW, ER_END, END, 0]]
    )


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("merges.txt", b"#version: 0.2\na b\n", ["found 1 merges", "expected 5, for 519 tokens"]),
        ("merges.txt", b"a b\n" * 5, ["repeated"]),
        ("merges.txt", b"a b c\n" * 5, ["merge 0 is ('a', 'b', 'c')", "two symbols"]),
        ("merges.txt", b"\xff\xfe", ["cannot be read"]),
        ("v.txt.gz", b"no gzip", ["cannot be read"]),
        ("v.txt.gz", gzip.compress(b"a b\n" * 9, mtime=0)[:-9], ["cannot be read"]),
        ("tokenizer.json", b"{}", ["model.merges"]),
        ("tokenizer.json", b"[", ["model.merges"]),
        ("tokenizer.json", b'{"model": {"merges": [1]}}', ["model.merges"]),
        ("tokenizer.json", b'{"model": {"merges": [[1,2],[],[],[],[]]}}', ["two symbols"]),
    ],
)
def test_a_file_that_is_no_vocabulary_is_named(tmp_path, name, content, words):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_vocabulary(path, size=519)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    for word in words:
        assert word in message


def test_an_absent_vocabulary_is_named(tmp_path):
    with pytest.raises(InputError, match=r"no CLIP vocabulary; expected bpe_simple.*merges.txt"):
        find_vocabulary(tmp_path)
    with pytest.raises(InputError, match="No such file"):
        read_vocabulary(tmp_path / "merges.txt", size=519)
