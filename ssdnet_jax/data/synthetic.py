"""Textures and defects made here, and one real texture that every installation has.

Everything is drawn from `numpy.random.default_rng(seed)`: the same arguments give the same pixels.
"""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.random import Generator


def grid_texture(
    size: tuple[int, int],
    *,
    period: float = 16.0,
    angle: float = 0.0,
    line_fraction: float = 0.3,
    noise: float = 0.02,
    channels: int = 1,
    seed: int = 0,
) -> np.ndarray:
    """Draws a regular mesh of bright lines on a dark ground.

    Args:
      size: (height, width) in pixels.
      period: distance between neighbouring lines, in pixels.
      angle: rotation of the mesh, in degrees.
      line_fraction: width of a line over the period, in (0, 1).
      noise: standard deviation of the independent noise of each pixel.
      channels: 1 or 3; colour meshes have a fixed tint.
      seed: draws the phase of the mesh and the noise.

    Returns:
      float32 (height, width, channels) in [0, 1].
    """
    if channels not in (1, 3):
        raise ValueError(f"channels is {channels}; expected 1 or 3")
    generator = np.random.default_rng(seed)
    row, column = np.indices(size, dtype=np.float64)
    turn = np.deg2rad(angle)
    across = column * np.cos(turn) + row * np.sin(turn)
    along = row * np.cos(turn) - column * np.sin(turn)

    def lines(position: np.ndarray) -> np.ndarray:
        phase = position / period + generator.uniform()
        distance = np.abs(phase - np.round(phase)) * period  # to the middle of the nearest line
        return 1.0 / (1.0 + np.exp((distance - line_fraction * period / 2) / 0.7))

    brightness = 0.2 + 0.55 * np.maximum(lines(across), lines(along))
    image = brightness[..., None] * np.array([1.0, 0.9, 0.75])[:channels]
    image += noise * generator.standard_normal(image.shape)
    return np.clip(image, 0.0, 1.0).astype(np.float32)


def plant_defect(
    image: np.ndarray,
    *,
    kind: str,
    center: tuple[float, float],
    size: float,
    contrast: float = 0.25,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Plants one defect with soft edges into a copy of an image.

    Kinds: "scratch", a thin bent line that brightens; "blob", a stain with an uneven outline that
    darkens and lets the texture through; "bend", a smooth local shift of the texture; "swap", a
    square replaced by another part of the image. The last two keep the local grey values.

    Args:
      image: float32 (H, W, C) in [0, 1].
      kind: one of `DEFECT_KINDS`.
      center: (row, column) of the middle of the defect.
      size: length of the scratch, diameter of the blob or bend, side of the square, in pixels.
      contrast: change of brightness by scratch and blob (by a blob, where the image is 0.5),
        in (0, 1].
      seed: draws shape and direction.

    Returns:
      The image with the defect, and its mask, bool (H, W).

    Raises:
      ValueError: an unknown kind, or a defect that touches no pixel of the image.
    """
    if kind not in _PLANTERS:
        raise ValueError(f"kind is {kind!r}; expected one of {', '.join(DEFECT_KINDS)}")
    generator = np.random.default_rng(seed)
    row, column = np.indices(image.shape[:2], dtype=np.float64)
    offsets = np.stack([row - center[0], column - center[1]])
    defective, mask = _PLANTERS[kind](image, offsets, size, contrast, generator)
    if not mask.any():
        raise ValueError(f"a defect at {center} touches no pixel of an image of {image.shape[:2]}")
    return np.clip(defective, 0.0, 1.0).astype(np.float32), mask


def _scratch(
    image: np.ndarray, offsets: np.ndarray, size: float, contrast: float, generator: Generator
) -> tuple[np.ndarray, np.ndarray]:
    direction = generator.uniform(0, np.pi)
    along = offsets[0] * np.sin(direction) + offsets[1] * np.cos(direction)
    across = offsets[0] * np.cos(direction) - offsets[1] * np.sin(direction)
    position = 2 * along / size  # -1 to 1 from end to end
    bend = generator.uniform(0.05, 0.12) * size * generator.choice([-1, 1])
    half_width = max(1.0, size / 50)
    profile = np.exp(-0.5 * ((across - bend * (1 - position**2)) / half_width) ** 2)
    taper = 1 / (1 + np.exp((np.abs(position) - 1) * 15))
    strength = profile * taper * (1 + 0.25 * np.sin(7 * position + generator.uniform(0, 6)))
    return image + contrast * strength[..., None], profile * taper > 0.35


def _blob(
    image: np.ndarray, offsets: np.ndarray, size: float, contrast: float, generator: Generator
) -> tuple[np.ndarray, np.ndarray]:
    angle = np.arctan2(offsets[0], offsets[1])
    radius = np.full(angle.shape, size / 2)
    for wave in (2, 3, 5):
        height = size * generator.uniform(0.02, 0.06)
        radius += height * np.sin(wave * angle + generator.uniform(0, 2 * np.pi))
    edge = max(0.7, size / 25)
    stain = 1 / (1 + np.exp(np.minimum((np.hypot(*offsets) - radius) / edge, 700)))
    return image * (1 - min(1.0, 2 * contrast) * stain[..., None]), stain > 0.5


def _bend(
    image: np.ndarray, offsets: np.ndarray, size: float, contrast: float, generator: Generator
) -> tuple[np.ndarray, np.ndarray]:
    from scipy.ndimage import map_coordinates

    window = np.exp(-0.5 * (np.hypot(*offsets) / (size / 4)) ** 2)
    direction = generator.uniform(0, 2 * np.pi)
    shift = size / 6 * window
    rows, columns = np.indices(image.shape[:2], dtype=np.float64)
    source = [rows + shift * np.sin(direction), columns + shift * np.cos(direction)]
    bent = [
        map_coordinates(image[..., c], source, order=1, mode="reflect")
        for c in range(image.shape[2])
    ]
    return np.stack(bent, axis=-1), shift > 1.0


def _swap(
    image: np.ndarray, offsets: np.ndarray, size: float, contrast: float, generator: Generator
) -> tuple[np.ndarray, np.ndarray]:
    from scipy.ndimage import gaussian_filter

    mask = np.abs(offsets).max(axis=0) <= size / 2
    # No multiple of the side, so that a texture as regular as the square does not hide the swap.
    distance = size * generator.uniform(1.2, 1.8, 2) * generator.choice([-1, 1], 2)
    displaced = np.roll(image, distance.astype(int), axis=(0, 1))
    alpha = gaussian_filter(mask.astype(np.float64), 0.7)[..., None]
    return image * (1 - alpha) + displaced * alpha, mask


_PLANTERS: dict[str, Callable[..., tuple[np.ndarray, np.ndarray]]] = {
    "scratch": _scratch,
    "blob": _blob,
    "bend": _bend,
    "swap": _swap,
}
DEFECT_KINDS = tuple(_PLANTERS)


def embedded_example() -> tuple[np.ndarray, np.ndarray, str]:
    """A real brick pavement with three crossed scratches planted in it; needs no download.

    The photograph is `skimage.data.brick()` (CC0, part of the scikit-image wheel), halved.

    Returns:
      The image, float32 (256, 256, 1) in [0, 1]; the mask of the defect, bool (256, 256); and
      one sentence that says what it shows.
    """
    from ssdnet_jax.data.images import read_image, resize_image

    # Not by skimage.data.brick(), for importing what it needs takes half a second.
    package = importlib.util.find_spec("skimage")
    assert package and package.origin, "scikit-image is one of this package's dependencies"
    brick = read_image(Path(package.origin).parent / "data" / "brick.png").pixels
    image = resize_image(brick, (256, 256))
    mask = np.zeros(image.shape[:2], bool)
    for seed in (3, 5, 7):  # three directions
        image, scratch = plant_defect(
            image, kind="scratch", center=(150, 118), size=70, contrast=0.6, seed=seed
        )
        mask |= scratch
    return image, mask, "brick pavement (scikit-image's brick, CC0) with three planted scratches"
