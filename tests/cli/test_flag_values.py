import pytest

from ssdnet_jax import ConfigError
from ssdnet_jax.cli.flag_values import listed, listed_seeds, listed_words, whole_number


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
