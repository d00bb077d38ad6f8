import importlib.util
from pathlib import Path

import pytest

import ssdnet_jax

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def make_api():
    spec = importlib.util.spec_from_file_location("make_api", DOCS / "make_api.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_the_docstrings_say(make_api):
    page = (DOCS / "api.md").read_text(encoding="utf-8")
    assert page == make_api.page(), "out of date: run `python docs/make_api.py`"


def test_every_public_name_has_one_entry(make_api):
    headings = [line for line in make_api.page().splitlines() if line.startswith("### ")]
    assert sorted(headings) == sorted(f"### {name}" for name in ssdnet_jax.__all__)


def test_a_short_signature_is_one_line_and_a_long_one_has_a_line_a_parameter(make_api):
    def signature(source):
        return make_api.function_signature("f", make_api.ast.parse(source).body[0])

    assert signature("def f(a, /, b: int = 1, *c, d=2, **e) -> int: ...") == (
        "f(a, /, b: int=1, *c, d=2, **e) -> int"
    )
    long = "a_name_that_is_rather_long_for_a_parameter_of_a_function"
    assert signature(f"def f({long}: int, /, *, {long}_too: int = 1): ...") == (
        f"f(\n    {long}: int,\n    /,\n    *,\n    {long}_too: int = 1,\n)"
    )


def test_fields_keep_their_comments_and_private_ones_stay_out(make_api):
    outline = make_api.class_outline(ssdnet_jax.FitConfig)
    assert outline.startswith("class FitConfig:\n    ")
    assert (
        "    learning_rate: float = 2e-2  # Adam, in [1e-12, 100]; with a schedule the largest\n"
        in outline
    )
    assert '"""' not in outline


def test_sections_of_a_docstring_become_lists(make_api):
    doc = "What.\n\nArgs:\n  a: first,\n    on two lines.\n  b: second.\n\nReturns:\n  A number."
    assert make_api.markdown(doc) == (
        "What.\n\n**Args**\n\n- `a`: first,\n  on two lines.\n- `b`: second.\n\n"
        "**Returns**\n\nA number.\n"
    )
