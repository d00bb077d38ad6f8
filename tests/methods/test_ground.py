import numpy as np
import pytest

from ssdnet_jax.data.images import read_image
from ssdnet_jax.data.synthetic import grid_texture, plant_defect
from ssdnet_jax.methods.ground import find_ground

SIDE = 96
ROWS, COLUMNS = np.indices((SIDE, SIDE)) - (SIDE - 1) / 2
TEXTURE = grid_texture((SIDE, SIDE), period=7, seed=0)
EVERYWHERE = np.ones((SIDE, SIDE), bool)


def on_ground(part, *, value=0.0, noise=0.0, seed=0):
    noisy = value + noise * np.random.default_rng(seed).standard_normal(TEXTURE.shape)
    return np.where(part[..., None], TEXTURE, np.clip(noisy, 0, 1)).astype(np.float32)


def disc(radius):
    return np.hypot(ROWS, COLUMNS) < radius


def assert_found(image, part):
    """All of the ground, and of the part no more than its edge."""
    found = find_ground(image, EVERYWHERE)
    assert found is not None
    assert found[~part].mean() > 0.97
    assert found[part].mean() < 0.1


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_ground_around_a_part_is_found(value, noise):
    for part in (disc(36), np.abs(COLUMNS) < 32, np.maximum(abs(ROWS), abs(COLUMNS)) < 40):
        assert_found(on_ground(part, value=value, noise=noise), part)


def test_a_round_part_that_touches_all_sides_is_found_by_its_four_corners():
    part = disc(SIDE / 2)
    assert all(side.any() for side in (part[0], part[-1], part[:, 0], part[:, -1]))
    assert_found(on_ground(part), part)


def test_a_piece_broken_out_of_the_part_is_judged():
    part = disc(40)
    chip = np.hypot(ROWS, COLUMNS - 40) < 8
    found = find_ground(on_ground(part & ~chip), EVERYWHERE)
    inside = chip & disc(36)
    assert not found[inside].any()
    bar = COLUMNS < -30
    notch = (COLUMNS < -20) & (np.abs(ROWS) < 6)
    found = find_ground(on_ground(~bar & ~notch), EVERYWHERE)
    assert found[bar].all() and found[notch & (COLUMNS > -26)].mean() < 0.1


def test_only_known_pixels_are_looked_at_and_are_ground():
    known = EVERYWHERE.copy()
    known[:20] = False
    found = find_ground(on_ground(np.abs(COLUMNS) < 32), known)
    assert found is not None and not found[:20].any() and found[30:, :10].all()
    assert find_ground(TEXTURE, np.zeros_like(known)) is None


def images_without_ground():
    yield "a texture", TEXTURE
    blob, _ = plant_defect(TEXTURE, kind="blob", center=(48, 2), size=40, contrast=0.5, seed=1)
    yield "a dark stain at the border", blob
    dark = TEXTURE.copy()
    dark[30:70, :25] = 0
    yield "a black piece of the border", dark
    plain = np.full_like(TEXTURE, 0.8)
    plain[40:52, 40:52] = 0.1
    yield "a plain surface with a spot", plain
    stripes = np.where((COLUMNS // 12 % 2 == 0)[..., None], np.float32(0.2), np.float32(0.7))
    yield "stripes as flat as a ground", stripes
    dots = np.where(((ROWS % 16 - 8) ** 2 + (COLUMNS % 16 - 8) ** 2 < 30)[..., None], 0.9, 0.1)
    yield "dots on a flat cloth", dots.astype(np.float32)
    light = np.clip((COLUMNS + SIDE / 2) / 40, 0, 1)[..., None]
    yield "a side without light", (TEXTURE * light).astype(np.float32)
    yield "a flat picture", np.full_like(TEXTURE, 0.5)


@pytest.mark.parametrize(("what", "image"), list(images_without_ground()))
def test_what_is_no_ground_is_kept(what, image):
    assert find_ground(image, EVERYWHERE) is None, what


@pytest.mark.slow
def test_of_real_textures_only_those_beside_which_one_sees_the_ground_have_one(shared):
    """A selvedge before white, and a magnetic tile that ends before the picture does."""
    found = set()
    for path in sorted((shared / "data").glob("**/test/*/*")):
        pixels = read_image(path).pixels
        if find_ground(pixels, np.ones(pixels.shape[:2], bool)) is not None:
            found.add(f"{path.parent.name}/{path.name}")
    assert found == {"c022/0064.png", "good/exp2_num_304861.jpg"}
