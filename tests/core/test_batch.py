import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssdnet_jax.core.batch import over_batch

RANDOM = np.random.default_rng(0)


def spread(image, offset):
    return {"image": jnp.tanh(image @ image.T) + offset["by"], "mean": image.mean()}


def batch(count):
    images = jnp.asarray(RANDOM.normal(size=(count, 5, 5)), jnp.float32)
    return images, {"by": jnp.arange(float(count))}


together = jax.jit(lambda images, offsets: over_batch(spread, images, offsets))


@pytest.mark.parametrize("count", [1, 3])
def test_each_entry_is_what_the_function_makes_of_it(count):
    images, offsets = batch(count)
    found = together(images, offsets)
    assert found["image"].shape == (count, 5, 5) and found["mean"].shape == (count,)
    for place in range(count):
        expected = spread(images[place], {"by": offsets["by"][place]})
        for name, value in expected.items():
            np.testing.assert_allclose(found[name][place], value, rtol=1e-5, atol=1e-6)


def test_the_bits_of_an_entry_depend_on_neither_its_place_nor_its_neighbours():
    images, offsets = batch(3)
    found = together(images, offsets)["image"]
    spoilt = together(images.at[1].set(jnp.nan), offsets)["image"]
    np.testing.assert_array_equal(spoilt[::2], found[::2])
    assert np.isnan(spoilt[1]).all()
    turned = together(images[::-1], {"by": offsets["by"][::-1]})["image"]
    np.testing.assert_array_equal(turned[::-1], found)
