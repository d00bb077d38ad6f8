"""Maps of fixed inputs, kept so that a change of what the method computes is seen.

Command, which renews the file after a change that is meant:
  python tests/golden/make_maps.py

The score of a given reconstruction decides nothing by chance, so it has to come out again to
TOLERANCE of its range. A fit carries rounding on from step to step: only how well two maps
correlate is asked of it (CORRELATION). Made with the versions of constraints.txt.
"""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from scipy.ndimage import uniform_filter

from ssdnet_jax import encode, load_config, localize, noise_deviation, random_vgg19_weights, score
from ssdnet_jax.data.synthetic import grid_texture, plant_defect

FILE = Path(__file__).with_name("maps.npz")
# Of a map's range. Without XLA's optimizations, or with jax 0.12 instead of 0.10, it differs by up
# to 1.5e-3; where the image is noisy by 0.01: of noise all directions of patches have nearly the
# same variance, so that rounding decides which of them are the main ones.
TOLERANCE = 3e-3
TOLERANCE_OF_NOISY = 0.03
CORRELATION = 0.98
SIDE = 80  # pixels
VGG19 = random_vgg19_weights(0, channels=(3, 4, 5, 6))
# Configuration, kind of features, standard deviation of the noise in the image.
CASES = {
    "auto_vgg19": ("auto", "vgg19", 0.0),
    "auto_filters": ("auto", "filters", 0.0),
    "auto_noisy": ("auto", "filters", 0.15),
    "grid": ("grid", "pixels", 0.0),
    "grid_literal": ("grid_literal", "pixels", 0.0),
}
STEPS = 30


def image_and_config(name: str):
    """A texture with a planted defect, and the setting it is analysed with."""
    config_name, kind, noise = CASES[name]
    texture = grid_texture((SIDE, SIDE), period=8, seed=3)
    image, _ = plant_defect(texture, kind="blob", center=(46, 30), size=11, seed=1)
    image = image + noise * np.random.default_rng(0).standard_normal(image.shape)
    config = load_config(config_name)
    features = dataclasses.replace(config.features, kind=kind)
    fit = dataclasses.replace(config.fit, max_steps=STEPS)
    network = dataclasses.replace(
        config.network, channels_down=(8, 8, 8), channels_up=(8, 8, 8), channels_skip=(2, 2, 2)
    )
    config = dataclasses.replace(config, image_size=0, features=features, fit=fit, network=network)
    return np.clip(image, 0, 1).astype(np.float32), config


def map_of_a_given_fit(name: str) -> np.ndarray:
    """The score where the reconstruction is the target, smoothed."""
    image, config = image_and_config(name)
    plan = config.plan((SIDE, SIDE), noise=float(noise_deviation(jnp.asarray(image))))
    target = jax.jit(encode, static_argnames="plan")(image[None], VGG19, plan=plan)
    mu = uniform_filter(np.asarray(target.values), (0, 5, 5, 0))
    maps = jax.jit(score, static_argnames="plan")(target, mu, VGG19, plan=plan)
    return np.asarray(maps.raw[0])


def map_of_a_fit(name: str) -> np.ndarray:
    """The map from end to end, with few steps of a small network."""
    image, config = image_and_config(name)
    return localize(image, config, vgg19=VGG19).score_map


def main() -> None:
    """Writes every fourth pixel of each map, every second of the fits'."""
    arrays = {f"given_{name}": map_of_a_given_fit(name)[::4, ::4] for name in CASES}
    arrays |= {f"fit_{name}": map_of_a_fit(name)[::2, ::2] for name in CASES}
    np.savez_compressed(FILE, **arrays)
    print(f"{FILE}: {FILE.stat().st_size} bytes")


if __name__ == "__main__":
    main()
