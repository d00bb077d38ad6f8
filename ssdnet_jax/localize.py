"""`localize` and `localize_batch`: images in, frozen results out."""

import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from ssdnet_jax.config import AUTO, Config
from ssdnet_jax.core.vgg19 import VGG19Weights
from ssdnet_jax.data.images import DecodedImage
from ssdnet_jax.errors import ConfigError, InputError, SSDnetError
from ssdnet_jax.methods.base import (
    Bucket,
    FittedLocalization,
    Prepared,
    Progress,
    TiledLocalization,
)
from ssdnet_jax.methods.ssdnet import make_ssdnet
from ssdnet_jax.runner.devices import lanes_that_fit
from ssdnet_jax.runner.stream import (
    Failure,
    Incoming,
    Stream,
    load_programs,
    localizations,
)
from ssdnet_jax.runner.threads import in_advance


def localize(
    image: Any,
    config: Config | None = None,
    key: PRNGKeyArray | None = None,
    *,
    missing: np.ndarray | None = None,
    ignored: np.ndarray | None = None,
    vgg19: VGG19Weights | None = None,
    report: Callable[[Progress], None] = lambda progress: None,
) -> FittedLocalization | TiledLocalization:
    """Localizes anomalies in one image by fitting a network to it (SSDnet, arXiv 2509.18354).

    Args:
      image: (H, W) or (H, W, C) with C in {1, 3}; float in [0, 1], or uint8 or uint16. NaN means
        that a pixel is missing. Three equal channels are taken for one.
      config: by default `AUTO`, the setting of `configs/auto.py`.
      key: source of randomness; by default made from `config.seed`.
      missing: bool (H, W), True where a pixel is not known. Such pixels are first inpainted and
        the result is then scored (paper section 5.2); where they are more than a tile together,
        they are ignored.
      ignored: bool (H, W), True where a pixel is not to be judged and must not count: it takes no
        part in anything, and is NaN in the maps.
      vgg19: weights of phi, from `load_vgg19_weights`; needed if `config.needs_vgg19`. Features
        "auto" are VGG19's with them and filter responses without.
      report: called with the progress between compiled blocks of steps.

    Raises:
      InputError: the image has a wrong shape, type or range, is constant, or could not be fitted.
      ConfigError: a field or a combination of fields cannot work.
    """
    keys = None if key is None else [key]
    (result,) = localize_batch(
        [image],
        config,
        keys,
        missing=[missing],
        ignored=[ignored],
        vgg19=vgg19,
        lanes=1,
        report=report,
    )
    return result


def localize_batch(
    images: Sequence[Any],
    config: Config | None = None,
    keys: Sequence[PRNGKeyArray] | None = None,
    *,
    missing: Sequence[np.ndarray | None] | None = None,
    ignored: Sequence[np.ndarray | None] | None = None,
    vgg19: VGG19Weights | None = None,
    lanes: int = 0,
    report: Callable[[Progress], None] = lambda progress: None,
) -> list[FittedLocalization | TiledLocalization]:
    """`localize` for several images, of any sizes, many at once on a device.

    Each result is that of `localize`; with the same number of lanes bit for bit.

    Args:
      images: as for `localize`.
      config: the same for all images.
      keys: one an image; by default each has the key of `localize`.
      missing: one mask or None an image.
      ignored: likewise.
      vgg19: as for `localize`.
      lanes: images that the device fits side by side; 0: as many as its memory holds, on a CPU one.
      report: called with the progress of the images that are fitted side by side.

    Raises:
      InputError, ConfigError: as for `localize`, for the first image that fails.
    """
    config = AUTO if config is None else config
    if not isinstance(config, Config):
        raise ConfigError(
            f"config: found a value of type {type(config).__name__}; expected a Config, for "
            f"example ssdnet_jax.load_config('grid')"
        )
    if isinstance(vgg19, str | os.PathLike):
        raise ConfigError(
            f"vgg19: found the path {os.fspath(vgg19)!r}; expected weights, for example "
            f"vgg19=ssdnet_jax.load_vgg19_weights({os.fspath(vgg19)!r})"
        )
    method = make_ssdnet(config, vgg19)
    if method.needs_vgg19 and vgg19 is None:
        raise ConfigError(
            "config.features.kind is vgg19, or config.loss.w_perc or config.score.alpha_perc is "
            "above 0, and vgg19 is None; "
            "expected weights, for example vgg19=ssdnet_jax.load_vgg19_weights()"
        )
    key = jax.random.key(method.config.seed)
    keys = [key] * len(images) if keys is None else keys
    nothing = [None] * len(images)
    masks = zip(missing or nothing, ignored or nothing, strict=True)

    def named(error: Exception, index: str) -> Exception:
        """The error with which of several images it is of."""
        if len(images) == 1 or not isinstance(error, SSDnetError):
            return error
        return type(error)(f"images[{index}]: {error}")

    def prepared() -> Any:
        for index, (image, of_image, own_key) in enumerate(zip(images, masks, keys, strict=True)):
            try:
                decoded = DecodedImage(_array(image), of_image[0], (), of_image[1])
                found = method.prepare(decoded, own_key)
            except SSDnetError as error:
                raise named(error, str(index)) from error
            yield Incoming(str(index), found)

    most = max(1, len(images) * method.config.fit.seeds)

    def lanes_of(bucket: Bucket) -> tuple[int, int]:
        return min(most, lanes) or lanes_that_fit(bucket.shape, bucket.settings, most), 1

    results: dict[str, Any] = {}
    with in_advance() as before_use:
        # A device that was chosen for a while is that of the thread which chose it.
        settings: Any = jax.config  # whose fields are not in its type
        device = settings.jax_default_device

        def load(bucket: Bucket, prepared: Prepared) -> None:
            def task() -> None:
                with jax.default_device(device):
                    load_programs(method, bucket, prepared, lanes_of)

            before_use(task)

        stream = Stream(method, prepared())
        for found in stream.results(lanes=lanes_of, report=report, load=load):
            if isinstance(found, Failure):
                raise named(found.error, found.name) from found.error
            if found.done[0].fits:
                losses = found.done[0].fits[0].losses
                report(Progress("score", len(losses), len(losses), float(losses[-1])))
            for done, _, result in localizations(method, found, report):
                if isinstance(result, Exception):
                    raise named(result, done.name) from result
                results[done.name] = result()
    return [results[str(index)] for index in range(len(images))]


def _array(image: Any) -> np.ndarray:
    """An image as an array; what would be one by mistake is refused."""
    if np.ma.is_masked(image):  # an array would show what its mask hides
        raise InputError("image is a masked array; expected an array, NaN where nothing is known")
    if isinstance(image, str | os.PathLike):
        path = os.fspath(image)
        raise InputError(
            f"image is the path {path!r}; expected an array, for example "
            f"ssdnet_jax.read_image({path!r}).pixels"
        )
    return np.asarray(image)
