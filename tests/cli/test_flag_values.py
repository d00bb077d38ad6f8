import re

import pytest

from ssdnet_jax import ConfigError
from ssdnet_jax.cli.flag_values import (
    check_results_folder,
    listed,
    listed_seeds,
    listed_words,
    whole_number,
)


def test_lists_hold_each_entry_once_without_blanks():
    assert listed_words("--categories", "grid, tile,grid") == ("grid", "tile")
    assert listed_seeds("--seeds", "2,0,2") == (2, 0)
    assert listed("--noise", "0.1,1e-1,0", float, "numbers") == (0.1, 0.0)


def test_a_flag_that_was_not_given_has_no_list():
    assert listed_words("--categories", None) is None
    assert whole_number("--every", None) == 0


@pytest.mark.parametrize("text", ["", "grid,", ",", "grid, ,tile"])
def test_an_empty_entry_is_named(text):
    with pytest.raises(ConfigError, match=r"--categories: found .* expected words"):
        listed_words("--categories", text)


@pytest.mark.parametrize("text", ["", "a", "-1", "1.5", "1,", "²"])
def test_seeds_are_whole_numbers(text):
    with pytest.raises(ConfigError, match=r"--seeds: found .* expected integers"):
        listed_seeds("--seeds", text)


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5", "two", "²"])
def test_counts_are_whole_numbers_from_one(text):
    with pytest.raises(ConfigError, match="expected a whole number from 1"):
        whole_number("--every", text)


def test_results_do_not_go_into_a_folder_that_holds_all_that_a_user_has(tmp_path, monkeypatch):
    home = tmp_path / "home" / "me"
    home.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(home)
    (tmp_path / "link").symlink_to(home)
    for text, what in (
        ("/", "the root of the file system"),
        ("/..", "the root of the file system"),
        (str(home), "the home folder"),
        (".", "the home folder"),
        (str(tmp_path / "link"), "the home folder"),
        (str(tmp_path), "a folder that holds the home folder"),
    ):
        hint = f"found {text!r}, {what}; expected a folder for the results, for example"
        with pytest.raises(ConfigError, match=f"--workdir: {re.escape(hint)}"):
            check_results_folder("--workdir", text)
    for text in ("out", str(home / "out"), str(tmp_path / "elsewhere")):
        check_results_folder("--workdir", text)
