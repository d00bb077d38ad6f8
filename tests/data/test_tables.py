import csv

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssdnet_jax.data.tables import csv_line, read_lines, write_table

cells = st.text(st.characters(exclude_categories=("Cs",)), max_size=9) | st.sampled_from(
    [
        "=1+1.png",
        "'=x",
        "''-a",
        "a\rb.png",
        "a\r\nb",
        "\tx",
        "@SUM(A1)",
        "-1",
        "a,b",
        'a"b',
        "'",
        "",
    ]
)


@given(st.lists(cells, min_size=1, max_size=4))
def test_every_text_comes_back_and_none_can_become_a_formula(tmp_path_factory, texts):
    path = tmp_path_factory.getbasetemp() / "table.csv"
    path.write_bytes(csv_line(texts))
    assert list(read_lines(path)) == [texts]
    with path.open(newline="", encoding="utf-8") as file:
        (seen,) = csv.reader(file)  # as any other program does
    for cell, text in zip(seen, texts, strict=True):
        assert not cell.startswith(tuple("=+-@\t\r\n"))
        assert cell in (text, f"'{text}")


@pytest.mark.parametrize(
    ("value", "cell"),
    [(None, b""), (-0.5, b"-0.5"), (-3, b"-3"), (True, b"true"), (0.1234567891234, b"0.123456789")],
)
def test_numbers_stay_numbers(value, cell):
    assert csv_line(["a", value]) == b"a," + cell + b"\n"


def test_names_that_are_no_utf8_keep_their_bytes(tmp_path):
    name = b"caf\xe9.png".decode("utf-8", "surrogateescape")
    write_table(tmp_path / "t.csv", ["path"], [[name]])
    assert (tmp_path / "t.csv").read_bytes() == b"path\ncaf\xe9.png\n"
    assert list(read_lines(tmp_path / "t.csv")) == [["path"], [name]]
