import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssdnet_jax.baselines import fca_features
from ssdnet_jax.baselines.fca import fca
from ssdnet_jax.core.vgg19 import vgg19_features
from ssdnet_jax.data.images import read_image, read_mask, resize_image
from ssdnet_jax.data.layouts.mvtec import read_mvtec_layout
from ssdnet_jax.data.synthetic import grid_texture, plant_defect
from ssdnet_jax.data.weights import load_vgg19_weights, random_vgg19_weights
from ssdnet_jax.errors import ConfigError, InputError
from ssdnet_jax.evaluation.metrics import auprc, auroc

TINY = random_vgg19_weights(0, channels=(3, 4, 5, 6))


def defective(shape=(48, 44)):
    return plant_defect(
        grid_texture(shape, period=8), kind="blob", center=(30, 20), size=9, contrast=0.5
    )


@pytest.mark.parametrize("border", ["published", "corrected"])
@pytest.mark.parametrize("features", ["vgg19", "random", "colour", "laws"])
def test_a_planted_defect_stands_out(features, border):
    image, mask = defective()
    score_map = np.asarray(
        fca(image, features=features, vgg19=TINY, tile_size=5, spread=2.0, border=border)
    )
    assert score_map.shape == mask.shape
    assert (score_map >= 0).all()
    assert auroc(mask, score_map) > 0.9


def test_images_go_through_vmap_and_jit_as_one_by_one():
    images = jnp.stack([defective((32, 32))[0], grid_texture((32, 32), period=7)])
    one = lambda image: fca(image, features="colour", tile_size=3)  # noqa: E731
    both = jax.jit(jax.vmap(one))(images)
    for image, result in zip(images, both, strict=True):
        np.testing.assert_allclose(result, one(image), rtol=1e-4, atol=1e-6)


def test_equal_keys_draw_equal_kernels():
    image = grid_texture((24, 24), period=6)
    maps = [fca(image, features="random", key=jax.random.key(k), tile_size=3) for k in (0, 0, 1)]
    np.testing.assert_array_equal(maps[0], maps[1])
    assert not np.allclose(maps[0], maps[2])


def test_mirrored_vgg19_features_equal_those_of_a_larger_picture_inside_of_it():
    image = jax.random.uniform(jax.random.key(0), (36, 30, 3))
    larger = jnp.pad(image, ((16, 16), (16, 16), (0, 0)), mode="reflect")
    expected = vgg19_features(TINY, larger[None])[0, 8:-8, 8:-8]
    actual = fca_features.vgg19_feature_map(TINY, image, border="corrected")
    np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_laws_features_equal_scipy_correlations():
    from scipy.ndimage import correlate, uniform_filter

    image = np.random.default_rng(0).random((20, 22, 3), np.float32)
    grey = image.mean(-1)
    grey = grey - uniform_filter(grey, 15, mode="mirror")
    level, edge, spot, ripple = (
        [1, 4, 6, 4, 1],
        [-1, -2, 0, 2, 1],
        [-1, 0, 2, 0, -1],
        [1, -4, 6, -4, 1],
    )
    pairs = list(itertools.combinations_with_replacement((level, edge, spot, ripple), 2))[1:]
    masks = [(np.outer(one, two) + np.outer(two, one)) / 2 for one, two in pairs]
    expected = np.stack([correlate(grey, mask, mode="mirror") for mask in masks], axis=-1)
    features = fca_features.laws_features(jnp.asarray(image))
    np.testing.assert_allclose(features, expected, atol=1e-4)


def test_random_kernels_have_norm_one():
    impulse = jnp.zeros((15, 15, 1)).at[7, 7].set(1.0)
    responses = fca_features.random_kernel_features(jax.random.key(3), impulse, count=4)
    np.testing.assert_allclose(jnp.sum(responses**2, axis=(0, 1)), 1.0, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({}, ConfigError, "load_vgg19_weights"),
        ({"features": "gabor"}, ConfigError, "expected vgg19 or random"),
        ({"features": "laws", "border": "zero"}, ConfigError, "published or corrected"),
        ({"features": "laws", "tile_size": 4}, ConfigError, "tile_size is 4"),
        ({"features": "laws", "blur_size": 19}, ConfigError, "below 2 tile_size"),
        ({"features": "laws", "spread": 0.0}, ConfigError, "spread is 0"),
        ({"features": "laws", "tile_size": 17}, InputError, "at least 34 a side"),
        ({"features": "vgg19", "vgg19": TINY, "tile_size": 9}, InputError, "at least 36 a side"),
    ],
)
def test_wrong_options_are_refused(options, error, words):
    with pytest.raises(error, match=words):
        fca(jnp.zeros((32, 40, 1)), **options)


def test_wrong_image_shape_is_refused():
    with pytest.raises(InputError, match=r"\(32, 40\)"):
        fca(jnp.zeros((32, 40)), features="laws")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("category", "published", "corrected"),
    [
        ("grid", (0.990, 0.703), (0.995, 0.766)),
        ("tile", (0.979, 0.784), (0.983, 0.800)),
        ("carpet", (0.978, 0.717), (0.993, 0.818)),
        ("wood", (0.983, 0.711), (0.987, 0.752)),
        ("leather", (0.995, 0.817), (0.998, 0.838)),
    ],
)
def test_figures_of_the_authors_program_are_met(shared, category, published, corrected):
    weights = load_vgg19_weights(shared / "weights" / "vgg19_imagenet_conv1_1-conv2_2.npz")
    samples = read_mvtec_layout(shared / "data" / "textures", categories=[category])
    figures = {"published": [], "corrected": []}
    for sample in samples:
        if sample.mask_path:
            image = resize_image(read_image(sample.path).pixels, (256, 256))
            mask = read_mask(sample.mask_path)[..., None].astype(np.float32)
            mask = resize_image(mask, (256, 256))[..., 0] > 0.5
            for border, rows in figures.items():
                score_map = fca(image, vgg19=weights, border=border)
                rows.append((auroc(mask, score_map), auprc(mask, score_map)))
    np.testing.assert_allclose(np.mean(figures["published"], axis=0), published, atol=0.015)
    np.testing.assert_allclose(np.mean(figures["corrected"], axis=0), corrected, atol=0.005)
