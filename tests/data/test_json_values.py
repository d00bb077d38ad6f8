import json

import pytest

from ssdnet_jax.data.json_values import parse_json


def nested(depth):
    return "[" * depth + "1" + "]" * depth


@pytest.mark.parametrize("value", [{}, [], None, 0.5, "a", {"a": [{"b": []}, 1, "x"]}])
def test_a_value_is_that_of_the_text(value):
    assert parse_json(json.dumps(value)) == value
    assert parse_json(json.dumps(value).encode()) == value


@pytest.mark.parametrize("depth", [66, 500, 5000, 200_000])  # of the last no parser is left
def test_what_is_nested_without_end_is_an_ordinary_error(depth):
    assert parse_json(nested(64)) == json.loads(nested(64))
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_json(nested(depth))
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_json(nested(depth).replace("[", '{"a":').replace("]", "}"))


@pytest.mark.parametrize("text", ["", "[", b"\xff", "9" * 5000])
def test_what_is_no_json_is_an_ordinary_error(text):
    with pytest.raises(ValueError, match=r"Expecting|decode|digits"):
        parse_json(text)
