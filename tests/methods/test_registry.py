import pickle

import jax
import numpy as np
import pytest

from ssdnet_jax.baselines.registry import NAMES
from ssdnet_jax.config import AUTO, PAPER, Config
from ssdnet_jax.data.weights import random_vgg19_weights
from ssdnet_jax.errors import ConfigError
from ssdnet_jax.methods.baseline import BaselineMethod
from ssdnet_jax.methods.registry import (
    METHODS,
    has_configuration,
    is_random,
    make_method,
    run_folder,
    split_method,
)
from ssdnet_jax.methods.ssdnet import SSDnet


def test_every_name_makes_its_method():
    assert list(METHODS) == ["ssdnet", *NAMES]
    for name in METHODS:
        method = make_method(name, AUTO)
        assert method.name == name and method.config == AUTO
        assert isinstance(method, SSDnet if name == "ssdnet" else BaselineMethod)
        assert has_configuration(name) == method.keeps_fits == (name == "ssdnet")


def test_a_name_is_followed_by_a_configuration_or_options():
    assert split_method("ssdnet") == ("ssdnet", "")
    assert split_method("ssdnet:grid") == ("ssdnet", "grid")
    assert split_method("fca:border=corrected:blur=2") == ("fca", "border=corrected:blur=2")
    assert has_configuration("ssdnet:grid") and not has_configuration("fca:border=corrected")


@pytest.mark.parametrize(
    ("text", "folder"),
    [
        ("ssdnet", "ssdnet"),
        ("ssdnet:grid", "ssdnet-grid"),
        ("ssdnet:configs/grid.py", "ssdnet-grid"),
        ("fca:border=corrected", "fca-border=corrected"),
        ("winclip:class_name=a/b c", "winclip-class_name=a_b_c"),
    ],
)
def test_runs_of_a_method_have_a_folder_of_its_name(text, folder):
    assert run_folder(text) == folder


def test_options_are_numbers_tuples_or_words():
    method = make_method("glcm:window=7:angles=(0.0, 45.0):statistic=contrast", Config())
    assert method.options == {"window": 7, "angles": (0.0, 45.0), "statistic": "contrast"}
    assert make_method("fca:border=corrected", Config()).options == {"border": "corrected"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("padim", ["'padim'", "expected one of ssdnet, spectral_residual"]),
        ("", ["''"]),
        ("FCA", ["'FCA'"]),
        ("fca:edge=corrected", ["fca:edge=corrected", "'edge' of fca", "border"]),
        ("fca:vgg19=3", ["'vgg19'"]),
        ("fca:corrected", ["'corrected'; expected OPTION=VALUE"]),
    ],
)
def test_what_is_no_method_or_option_is_named(text, words):
    with pytest.raises(ConfigError) as caught:
        make_method(text, Config())
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_methods_whose_map_depends_on_the_seed():
    assert {name for name in METHODS if is_random(name)} == {"ssdnet", "dip"}


def test_methods_are_sent_to_other_processes_with_their_weights():
    vgg19 = random_vgg19_weights(0, channels=(2, 2, 2, 2))
    for text in ("ssdnet", "fca:border=corrected", "winclip:windows=(2,)"):
        method = make_method(text, PAPER).with_weights(vgg19=vgg19)
        again = pickle.loads(pickle.dumps(method))
        assert (again.name, again.config, again.settings) == (
            method.name,
            method.config,
            method.settings,
        )
        jax.tree.map(np.testing.assert_array_equal, again.vgg19, method.vgg19)
