import dataclasses
import functools
import inspect

import jax
import numpy as np
import pytest

from ssdnet_jax.baselines.registry import NAMES, load_baseline
from ssdnet_jax.core.config import NetworkConfig
from ssdnet_jax.data.synthetic import grid_texture
from ssdnet_jax.data.weights import random_vgg19_weights


@pytest.mark.parametrize("name", [name for name in NAMES if name != "winclip"])
def test_only_the_random_methods_depend_on_the_key(name):
    baseline = load_baseline(name)
    if name == "dip":  # two steps of a small network are enough to tell keys apart
        small = NetworkConfig(channels_down=(2,), channels_up=(2,), channels_skip=(1,))
        function = functools.partial(baseline.function, steps=2, network=small)
        baseline = dataclasses.replace(baseline, function=function)
    vgg19 = random_vgg19_weights(0, channels=(3, 4, 5, 6))
    image = np.asarray(grid_texture((48, 48), period=8))
    maps = [baseline(image, key=jax.random.key(seed), vgg19=vgg19) for seed in (0, 1)]
    assert np.array_equal(*maps) == (not baseline.is_random)


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_a_function_of_an_image_whose_other_arguments_are_options(name):
    baseline = load_baseline(name)
    assert baseline.name == baseline.function.__name__ == name
    assert not {"image", "key", "vgg19", "clip"} & set(baseline.options)
    assert set(baseline.options) < set(inspect.signature(baseline.function).parameters)


def test_what_each_needs_is_what_it_takes():
    baselines = [load_baseline(name) for name in NAMES]
    assert {each.name for each in baselines if each.needs_vgg19} == {"fca", "qfca", "aota", "grnr"}
    assert {each.name for each in baselines if each.needs_clip} == {"winclip"}
    assert {each.name for each in baselines if each.is_random} == {"dip"}
