"""What several baselines ask of an image first."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from ssdnet_jax.errors import InputError

_LUMINANCE = (0.2989, 0.587, 0.114)  # ITU-R BT.601, MATLAB's rgb2gray


def luminance(image: Float[Array, "h w c"]) -> Float[Array, "h w"]:
    """Grey pixels as they are, RGB by ITU-R BT.601."""
    return image[..., 0] if image.shape[-1] == 1 else image @ jnp.asarray(_LUMINANCE)


def check_channels(image: Array) -> None:
    """Raises InputError if an image is neither (H, W, 1) nor (H, W, 3)."""
    if jnp.ndim(image) != 3 or image.shape[-1] not in (1, 3):
        raise InputError(f"image has shape {jnp.shape(image)}; expected (H, W, 1) or (H, W, 3)")
