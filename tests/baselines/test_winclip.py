import dataclasses
import functools
import io

import numpy as np
import pytest
import tifffile

from ssdnet_jax.baselines import clip_model, clip_weights
from ssdnet_jax.baselines.clip_prompts import state_embeddings
from ssdnet_jax.baselines.winclip import harmonic_mean, spread_windows, winclip
from ssdnet_jax.config import Config
from ssdnet_jax.data.images import DecodedImage
from ssdnet_jax.data.synthetic import grid_texture
from ssdnet_jax.errors import ConfigError, InputError, NoWeightsError
from ssdnet_jax.methods.registry import make_method
from ssdnet_jax.runner import run as runs
from ssdnet_jax.runner.startup import with_weights
from ssdnet_jax.runner.terminal import Terminal
from ssdnet_jax.runner.workdir import open_workdir


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(2).random((30, 30, 3), np.float32)


@pytest.mark.parametrize("window", [1, 2, 3, 5])
def test_a_patch_has_the_harmonic_mean_of_the_windows_around_it(window):
    grid = 5
    places = grid - window + 1
    scores = np.random.default_rng(0).uniform(0.01, 1, (places, places))
    expected = np.zeros((grid, grid))
    for row in range(grid):
        for column in range(grid):
            around = [
                scores[i, j]
                for i in range(places)
                for j in range(places)
                if i <= row < i + window and j <= column < j + window
            ]
            expected[row, column] = len(around) / sum(1 / s for s in around)
    actual = spread_windows(scores.astype(np.float32), window=window)
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_scales_are_averaged_harmonically():
    scores = np.array([0.5, 0.25, 0.2], np.float32)[:, None, None]
    np.testing.assert_allclose(harmonic_mean(scores), [[3 / (2 + 4 + 5)]], rtol=1e-6)


def test_the_map_is_that_of_a_literal_loop(clip, image):
    """At the model's size nothing is resized: windows one by one, then sums of reciprocals."""
    sizes, temperature = clip.sizes, 0.02
    normal, anomalous = np.asarray(state_embeddings(clip, "object"), np.float64)
    tokens = np.asarray(clip_model.embed_patches(clip.image, image[None], sizes=sizes))

    def probability(kept):
        seen = tokens[:, [0, *(1 + i for i in kept)]]
        embedding = np.asarray(clip_model.image_features(clip.image, seen, sizes=sizes)[0][0])
        embedding = embedding / np.linalg.norm(embedding)
        words = np.exp(np.array([embedding @ normal, embedding @ anomalous]) / temperature)
        return words[1] / words.sum()

    grid = sizes.grid
    expected = np.full((grid, grid), 1 / probability(range(grid**2)))
    for window in (2, 3):
        total, count = np.zeros((2, grid, grid))
        for row in range(grid - window + 1):
            for column in range(grid - window + 1):
                kept = [(row + i) * grid + column + j for i in range(window) for j in range(window)]
                part = np.s_[row : row + window, column : column + window]
                total[part] += 1 / probability(kept)
                count[part] += 1
        expected += total / count
    expected = 3 / expected
    assert np.ptp(expected) > 0.05
    # Bilinear between the centres of patches, constant beyond the outer ones.
    pixels = (np.arange(30) + 0.5) / 6 - 0.5
    for axis in (0, 1):
        expected = np.apply_along_axis(lambda v: np.interp(pixels, range(grid), v), axis, expected)
    actual = winclip(image, clip=clip, class_name="object", temperature=temperature)
    np.testing.assert_allclose(actual, expected, rtol=2e-4)


@pytest.mark.parametrize("shape", [(8, 8, 1), (30, 47, 3), (64, 20, 1), (1, 9, 3)])
def test_the_map_has_the_size_of_the_image_and_is_a_probability(clip, shape):
    image = np.random.default_rng(0).random(shape, np.float32)
    score_map = np.asarray(winclip(image, clip=clip))
    assert score_map.shape == shape[:2] and score_map.dtype == np.float32
    assert np.isfinite(score_map).all() and 0 < score_map.min() <= score_map.max() < 1


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_a_constant_image_has_a_finite_map(clip, value):
    score_map = winclip(np.full((40, 32, 1), value, np.float32), clip=clip)
    assert np.isfinite(score_map).all()


def test_a_grey_image_is_as_its_repetition(clip, image):
    grey = image[..., :1]
    actual, expected = (winclip(x, clip=clip) for x in (grey, np.repeat(grey, 3, -1)))
    np.testing.assert_allclose(actual, expected, rtol=1e-4)


def test_the_coldest_softmax_stays_finite(clip, image):
    score_map = np.asarray(winclip(image, clip=clip, temperature=0.01))
    assert np.isfinite(score_map).all() and (score_map >= 0).all()


def test_words_are_embedded_once_a_model_and_name(clip, image, monkeypatch):
    calls = []

    def embed(*arguments):
        calls.append(arguments)
        return state_embeddings(*arguments)

    monkeypatch.setattr("ssdnet_jax.baselines.winclip.state_embeddings", embed)
    copy = dataclasses.replace(clip)
    for model, name in ((copy, "wood"), (copy, "wood"), (copy, "tile"), (copy, "wood")):
        winclip(image, clip=model, class_name=name)
    assert [name for _, name in calls] == ["wood", "tile"]


@pytest.mark.parametrize(
    ("options", "error", "word"),
    [
        ({"clip": None}, ConfigError, "load_clip_weights"),
        ({"temperature": 0.0}, ConfigError, "temperature is 0.0; expected above 0"),
        ({"temperature": float("nan")}, ConfigError, "temperature is nan"),
        ({"windows": ()}, ConfigError, r"windows are \(\)"),
        ({"windows": (2, 6)}, ConfigError, "from 1 to 5 patches"),
        ({"class_name": ""}, ConfigError, "class_name is ''"),
    ],
)
def test_options_that_cannot_be_used_are_refused(clip, image, options, error, word):
    with pytest.raises(error, match=word):
        winclip(image, **{"clip": clip, **options})


@pytest.mark.parametrize("shape", [(30, 30), (30, 30, 2)])
def test_other_images_are_refused(clip, shape):
    with pytest.raises(InputError, match=r"expected \(H, W, 1\) or \(H, W, 3\)"):
        winclip(np.zeros(shape, np.float32), clip=clip)


def run(folder, **options):
    method = make_method("winclip:class_name=cloth", Config(image_size=64))
    method = with_weights(method, report=print, **options)
    workdir = open_workdir(folder, method, root=None)
    sources = {"a.png": lambda: DecodedImage(grid_texture((40, 56), period=8, seed=0), None, ())}
    return runs.run(method, sources, workdir, Terminal(io.StringIO(), io.StringIO()))


@pytest.mark.usefixtures("quick_figures")
def test_a_run_takes_the_weights_by_path(tmp_path, clip_folder, clip_sizes, monkeypatch):
    load = functools.partial(clip_weights.load_clip_weights, sizes=clip_sizes)
    monkeypatch.setattr(clip_weights, "load_clip_weights", load)
    summary = run(tmp_path, clip_path=str(clip_folder / "clip.safetensors"))
    assert summary.finished == 1
    assert tifffile.imread(tmp_path / "maps" / "a.png.tiff").shape == (40, 56)


def test_a_run_without_weights_is_refused(tmp_path, monkeypatch):
    monkeypatch.delenv("SSDNET_CLIP_WEIGHTS", raising=False)
    with pytest.raises(NoWeightsError, match="--clip_weights=PATH"):
        run(tmp_path)
