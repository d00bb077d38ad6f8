import dataclasses
import functools

import jax
import numpy as np
import pytest

from ssdnet_jax.baselines.registry import NAMES, RANDOM, load_baseline
from ssdnet_jax.data.synthetic import grid_texture
from ssdnet_jax.data.weights import random_vgg19_weights

pytestmark = pytest.mark.usefixtures("fast_compilation")


@pytest.mark.parametrize("name", [name for name in NAMES if name != "winclip"])
def test_only_the_random_methods_depend_on_the_key(name):
    baseline = load_baseline(name)
    if name == "dip":  # two steps are enough to tell keys apart
        baseline = dataclasses.replace(
            baseline, function=functools.partial(baseline.function, steps=2)
        )
    vgg19 = random_vgg19_weights(0, channels=(3, 4, 5, 6))
    image = np.asarray(grid_texture((40, 48), period=8))
    maps = [baseline(image, key=jax.random.key(seed), vgg19=vgg19) for seed in (0, 1)]
    assert np.array_equal(*maps) == (name not in RANDOM)
