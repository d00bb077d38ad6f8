import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

import ssdnet_jax
from ssdnet_jax.data.synthetic import DEFECT_KINDS, embedded_example, grid_texture, plant_defect


def assert_image(image, shape):
    assert image.shape == shape
    assert image.dtype == np.float32
    assert 0 <= image.min() < image.max() <= 1


@pytest.mark.parametrize("channels", [1, 3])
def test_textures_keep_the_image_contract_and_follow_the_seed(channels):
    image = grid_texture((40, 56), channels=channels, seed=1)
    assert_image(image, (40, 56, channels))
    np.testing.assert_array_equal(image, grid_texture((40, 56), channels=channels, seed=1))
    assert (image != grid_texture((40, 56), channels=channels, seed=2)).any()


def test_textures_of_two_channels_are_errors():
    with pytest.raises(ValueError, match="1 or 3"):
        grid_texture((8, 8), channels=2)


def test_grid_repeats_with_its_period():
    image = grid_texture((96, 96), period=12, noise=0.0)
    np.testing.assert_allclose(image[12:], image[:-12], atol=1e-5)
    np.testing.assert_allclose(image[:, 12:], image[:, :-12], atol=1e-5)
    assert np.abs(image[6:] - image[:-6]).max() > 0.3


def test_grid_noise_has_the_standard_deviation_asked_for():
    clean = grid_texture((96, 96), noise=0.0)
    noisy = grid_texture((96, 96), noise=0.03)
    assert np.std(noisy - clean) == pytest.approx(0.03, rel=0.05)


@pytest.mark.parametrize("kind", DEFECT_KINDS)
@pytest.mark.parametrize("channels", [1, 3])
def test_defects_change_the_image_where_the_mask_says(kind, channels):
    clean = grid_texture((128, 128), angle=15, channels=channels)
    before = clean.copy()
    image, mask = plant_defect(clean, kind=kind, center=(70, 60), size=40)
    assert_image(image, clean.shape)
    assert mask.dtype == bool
    np.testing.assert_array_equal(clean, before)

    change = np.abs(image - clean).mean(axis=-1)
    assert change[mask].mean() > 0.04
    assert change[mask].mean() > 10 * change[~mask].mean()
    rows, columns = np.nonzero(mask)
    assert np.hypot(rows - 70, columns - 60).max() < 40
    assert abs(rows.mean() - 70) < 8
    assert abs(columns.mean() - 60) < 8


@pytest.mark.parametrize("kind", DEFECT_KINDS)
def test_defects_follow_the_seed(kind):
    clean = grid_texture((64, 64))
    options = {"kind": kind, "center": (30, 30), "size": 24}
    first, _ = plant_defect(clean, **options, seed=1)
    np.testing.assert_array_equal(first, plant_defect(clean, **options, seed=1)[0])
    assert (first != plant_defect(clean, **options, seed=2)[0]).any()


@pytest.mark.parametrize("kind", ["bend", "swap"])
def test_structural_defects_keep_the_grey_values(kind):
    grains = gaussian_filter(np.random.default_rng(0).standard_normal((128, 128, 1)), (3, 3, 0))
    clean = np.clip(0.5 + 0.12 * grains / grains.std(), 0, 1).astype(np.float32)
    image, mask = plant_defect(clean, kind=kind, center=(64, 64), size=60)
    assert image[mask].mean() == pytest.approx(clean[mask].mean(), abs=0.05)
    assert image[mask].std() == pytest.approx(clean[mask].std(), rel=0.35)


@pytest.mark.filterwarnings("error")
def test_a_small_defect_of_a_large_image_is_planted_without_a_warning():
    image = np.full((1200, 16, 3), 0.5, np.float32)
    _, mask = plant_defect(image, kind="blob", size=3, center=(4, 8))
    assert 3 <= mask.sum() <= 15


def test_scratch_is_thin_and_follows_its_contrast():
    clean = np.full((96, 96, 1), 0.4, np.float32)
    image, mask = plant_defect(clean, kind="scratch", center=(48, 48), size=60, contrast=0.2)
    assert mask.sum() < 60 * 6
    assert (image - clean).max() == pytest.approx(0.2 * 1.25, rel=0.15)
    assert (image >= clean).all()


def test_unknown_kinds_and_defects_off_the_image_are_errors():
    clean = grid_texture((32, 32))
    with pytest.raises(ValueError, match=r"dent.*scratch"):
        plant_defect(clean, kind="dent", center=(5, 5), size=5)
    with pytest.raises(ValueError, match="touches no pixel"):
        plant_defect(clean, kind="swap", center=(500, 5), size=5)


def test_embedded_example_is_a_photograph_with_a_visible_small_defect():
    image, mask, description = embedded_example()
    assert_image(image, (256, 256, 1))
    assert 0.001 < mask.mean() < 0.05
    assert "brick" in description
    again, mask_again, _ = embedded_example()
    np.testing.assert_array_equal(image, again)
    np.testing.assert_array_equal(mask, mask_again)
    # Plain to the eye, not trivial: bright, in part no brighter than joints.
    around = image[110:190, 75:165][~mask[110:190, 75:165]]
    assert image[mask].mean() > around.mean() + 0.3
    assert np.percentile(image[mask], 10) < np.percentile(image[~mask], 99.9)


def test_embedded_example_needs_neither_network_nor_pooch():
    program = (
        "import sys, socket\n"
        "sys.modules['pooch'] = None\n"
        "def refuse(*a, **k): raise AssertionError('network')\n"
        "socket.socket.connect = refuse\n"
        "from ssdnet_jax.data.synthetic import embedded_example\n"
        "print(embedded_example()[0].shape)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(ssdnet_jax.__file__).parents[1],
    )
    assert result.stdout.strip() == "(256, 256, 1)", result.stderr
