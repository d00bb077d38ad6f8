"""What is done to images before they are scored, and at which size their maps are compared."""

import dataclasses
import hashlib
from typing import Literal

import numpy as np

from ssdnet_jax.data.images import DecodedImage, read_image, resize_missing
from ssdnet_jax.data.layouts.sample import Sample
from ssdnet_jax.methods.base import Method
from ssdnet_jax.methods.images import analysed_size, resize_known
from ssdnet_jax.methods.registry import has_configuration

CORRUPTIONS = ("noise", "missing")
MissingValues = Literal["nearest", "zero"]


@dataclasses.dataclass(frozen=True)
class Condition:
    """Under which images are scored; without arguments they stay as they are.

    Noise is Gaussian and clipped to [0, 1]. Noise and missing pixels are put on the image at the
    size at which it is scored: corrupted before it is shrunk, it would lose most of the noise to
    averaging, and most of its pixels to a few missing ones.
    """

    evaluate_at: int = 0  # side of the square to which image and mask are brought before anything
    # else, in pixels; maps are compared at this size. 0: at the image's own size
    noise: float = 0.0  # standard deviation, in units of the image
    missing: float = 0.0  # share of pixels that have no value, in [0, 1)
    missing_values: MissingValues = "nearest"  # what methods that do not inpaint see of a missing
    # pixel: the nearest known value, or 0
    noise_of_original: float = 0.0  # as `noise`, but before the image is resized, as cameras do
    uneven_light: float = 0.0  # in [0, 1]: how much light falls from end to end; see `shaded`

    @property
    def words(self) -> str:
        """The condition in words, as "at 256 px, noise 0.05"; empty for images as they are."""
        values = {
            f"at {self.evaluate_at} px": self.evaluate_at,
            f"uneven light {self.uneven_light:g}": self.uneven_light,
            f"noise {self.noise_of_original:g} of the original": self.noise_of_original,
            f"noise {self.noise:g}": self.noise,
            f"missing {self.missing:g}{' as 0' * self._zeros}": self.missing,
        }
        return ", ".join(text for text, value in values.items() if value)

    @property
    def folder(self) -> str:
        """Name of its runs' folder, such as "at256-noise0.05"; empty for images as they are."""
        values = {
            f"at{self.evaluate_at}": self.evaluate_at,
            f"uneven_light{self.uneven_light:g}": self.uneven_light,
            f"original_noise{self.noise_of_original:g}": self.noise_of_original,
            f"noise{self.noise:g}": self.noise,
            f"missing{self.missing:g}{'-zero' * self._zeros}": self.missing,
        }
        return "-".join(text for text, value in values.items() if value)

    @property
    def resizes_maps(self) -> bool:
        """Whether maps have the size of the method, not the one at which they are compared."""
        return not self.evaluate_at and bool(self.noise or self.missing)

    @property
    def _zeros(self) -> bool:
        return self.missing_values == "zero"

    def seen_by(self, method: str) -> "Condition":
        """The condition for a method, named as in `methods.registry`: SSDnet always inpaints."""
        inpaints = has_configuration(method)
        return dataclasses.replace(self, missing_values="nearest") if inpaints else self

    def read(self, sample: Sample, method: Method) -> DecodedImage:
        """The image of a sample, as the method is given it."""
        image = read_image(sample.path)
        if self.uneven_light:
            image = shaded(image, self.uneven_light, sample.relative)
        if self.noise_of_original:
            image = corrupt(image, "noise", self.noise_of_original, sample.relative)
        if self.evaluate_at or self.resizes_maps:
            shape = (self.evaluate_at, self.evaluate_at)
            if not self.evaluate_at:
                shape = analysed_size(image.pixels.shape[:2], method.config)
            whole = np.zeros(image.pixels.shape[:2], bool)
            lost = whole if image.missing is None else image.missing
            pixels, lost = resize_known(image.pixels, lost, shape)
            ignored = None if image.ignored is None else resize_missing(image.ignored, shape)
            image = dataclasses.replace(
                image, pixels=pixels, missing=lost if lost.any() else None, ignored=ignored
            )
        for kind in CORRUPTIONS:
            if level := getattr(self, kind):
                image = corrupt(image, kind, level, sample.relative)
        return dataclasses.replace(image, missing=None) if self.missing and self._zeros else image


PLAIN = Condition()


def shaded(image: DecodedImage, level: float, relative: str) -> DecodedImage:
    """The image in light from one side, with a highlight at the bright end, clipped to [0, 1].

    Brightness is multiplied by 1 - level at the dark end and rises linearly to 1 at the bright one,
    where it is multiplied by 1 + level as well: by 1 + level exp(-d^2 / 2) at d tenths of the way
    from it. The direction depends on the image's path alone.

    Args:
      image: at any size.
      level: in [0, 1]; 0 leaves the image as it is.
      relative: path of the image within the dataset.
    """
    angle = 2 * np.pi * _generator(len(CORRUPTIONS), relative).random()
    rows, columns = ((np.arange(n, dtype=np.float32) + 0.5) / n for n in image.pixels.shape[:2])
    way = np.sin(angle) * rows[:, None] + np.cos(angle) * columns[None, :]
    way = (way - way.min()) / max(np.ptp(way), 1e-6)
    light = (1 - level + level * way) * (1 + level * np.exp(-50 * (1 - way) ** 2))
    pixels = np.clip(image.pixels * light[..., None], 0, 1).astype(np.float32)
    return dataclasses.replace(image, pixels=pixels)


def _generator(stream: int, relative: str) -> np.random.Generator:
    """Random numbers that depend on an image's path and the kind of corruption alone."""
    digest = hashlib.sha256(relative.encode("utf-8", "surrogateescape")).digest()
    return np.random.default_rng([stream, *digest[:8]])


def corrupt(image: DecodedImage, kind: str, level: float, relative: str) -> DecodedImage:
    """Adds noise, clipped to [0, 1], or takes pixels away.

    What is drawn depends on the image's path and the kind of corruption alone: all methods and
    seeds see the same image, noise of two levels differs by a factor, and what is missing at one
    level is missing at all higher ones.

    Args:
      image: at the size at which it is corrupted.
      kind: "noise" or "missing".
      level: standard deviation of the noise in units of the image, or share of pixels.
      relative: path of the image within the dataset.
    """
    pixels = image.pixels
    missing = np.zeros(pixels.shape[:2], bool) if image.missing is None else image.missing
    generator = _generator(CORRUPTIONS.index(kind), relative)
    if kind == "noise":
        noise = generator.standard_normal(pixels.shape, np.float32)
        pixels = np.clip(pixels + np.float32(level) * noise, 0, 1)
    else:
        missing = missing | (generator.random(missing.shape) < level)
    pixels = np.where(missing[..., None], np.float32(0), pixels)
    return dataclasses.replace(image, pixels=pixels, missing=missing if missing.any() else None)
