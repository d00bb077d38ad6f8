"""The two towers of an OpenCLIP vision transformer, as pure functions of their parameters.

Source: Radford et al., Learning Transferable Visual Models From Natural Language Supervision, ICML
2021 (arXiv 2103.00020); Ilharco et al., OpenCLIP (10.5281/zenodo.5143773), whose kernels keep
their layout (out, in). Parameters come from `clip_weights.load_clip_weights`; images are NHWC in
[0, 1].
"""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from ssdnet_jax.baselines.clip_weights import CLIPSizes

Parameters = Mapping[str, Any]

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_DEVIATION = (0.26862954, 0.26130258, 0.27577711)
_EPSILON = 1e-5  # of layer normalization


@functools.partial(jax.jit, static_argnames="sizes")
def embed_patches(
    parameters: Parameters, images: Float[Array, "b h w c"], *, sizes: CLIPSizes
) -> Float[Array, "b tokens width"]:
    """Tokens that enter the image tower's transformer: the class token, then the patches by rows.

    Images are of side `sizes.image_size`, grey (repeated) or RGB; those of another size are a
    ValueError. CLIP's normalization is done here.
    """
    side, patch, grid = sizes.image_size, sizes.patch_size, sizes.grid
    if images.shape[1:3] != (side, side) or images.shape[3] not in (1, 3):
        raise ValueError(f"images are {images.shape[1:]}; expected ({side}, {side}, 1 or 3)")
    x = jnp.broadcast_to(images, (*images.shape[:3], 3))
    x = (x - jnp.array(CLIP_MEAN)) / jnp.array(CLIP_DEVIATION)
    x = x.reshape(-1, grid, patch, grid, patch, 3)
    x = jnp.einsum("bipjqc,ocpq->bijo", x, parameters["patch_kernel"])
    x = x.reshape(x.shape[0], grid * grid, -1)
    first = jnp.broadcast_to(parameters["class_embedding"], (x.shape[0], 1, x.shape[-1]))
    x = jnp.concatenate([first, x], axis=1) + parameters["positions"]
    return _normalize(parameters["pre_norm"], x)


@functools.partial(jax.jit, static_argnames="sizes")
def image_features(
    parameters: Parameters, tokens: Float[Array, "b tokens width"], *, sizes: CLIPSizes
) -> tuple[Float[Array, "b embedding"], Float[Array, "b tokens-1 width"]]:
    """The embedding of what the tokens show, and the patch tokens that the tower ends with.

    Tokens are the class token and any of the patches, from `embed_patches`.
    """
    x = _transformer(parameters["layers"], tokens, heads=sizes.image_heads)
    x = _normalize(parameters["post_norm"], x)
    return x[:, 0] @ parameters["projection"], x[:, 1:]


@functools.partial(jax.jit, static_argnames=("sizes", "window"))
def window_features(
    parameters: Parameters, tokens: Float[Array, "b tokens width"], *, sizes: CLIPSizes, window: int
) -> Float[Array, "b places places embedding"]:
    """Embeddings of all square windows of the image, stride one patch.

    Of each window the class token and the window's own patches alone, of `embed_patches`, go
    through the tower: the rest of the image is masked (WinCLIP, arXiv 2303.14814, section 4.2).
    `window` is its side in patches; `places` = grid - window + 1.
    """
    batch, _, width = tokens.shape
    places = sizes.grid - window + 1
    corners = jnp.arange(places)[:, None] * sizes.grid + jnp.arange(places)
    inside = jnp.arange(window)[:, None] * sizes.grid + jnp.arange(window)
    patches = 1 + corners.reshape(-1, 1) + inside.reshape(1, -1)
    kept = jnp.concatenate([jnp.zeros_like(patches[:, :1]), patches], axis=1)
    windows = tokens[:, kept].reshape(batch * places * places, 1 + window * window, width)
    embeddings, _ = image_features(parameters, windows, sizes=sizes)
    return embeddings.reshape(batch, places, places, -1)


@functools.partial(jax.jit, static_argnames="sizes")
def text_features(
    parameters: Parameters, tokens: Int[Array, "texts length"], *, sizes: CLIPSizes
) -> Float[Array, "texts embedding"]:
    """Embeddings of texts, from the tokens of `clip_tokens.tokenize`.

    Columns of zeros at the end may be left out: a token sees only those before it, and the end of
    the text is what is read.
    """
    x = parameters["token_embedding"][tokens] + parameters["positions"][: tokens.shape[1]]
    x = _transformer(parameters["layers"], x, heads=sizes.text_heads, is_causal=True)
    last = jnp.argmax(tokens, axis=1)  # the end token is the largest
    x = jnp.take_along_axis(x, last[:, None, None], axis=1)[:, 0]
    return _normalize(parameters["post_norm"], x) @ parameters["projection"]


def _transformer(
    layers: Parameters, x: Float[Array, "b n width"], *, heads: int, is_causal: bool = False
) -> Float[Array, "b n width"]:
    def layer(x: Array, p: Parameters) -> tuple[Array, None]:
        x = x + _attend(p, _normalize(p["norm1"], x), heads=heads, is_causal=is_causal)
        hidden = jax.nn.gelu(_linear(p["expand"], _normalize(p["norm2"], x)), approximate=False)
        return x + _linear(p["contract"], hidden), None

    return lax.scan(layer, x, layers)[0]


def _attend(
    p: Parameters, x: Float[Array, "b n width"], *, heads: int, is_causal: bool
) -> Float[Array, "b n width"]:
    batch, length, width = x.shape
    qkv = _linear(p["qkv"], x).reshape(batch, length, 3, heads, width // heads)
    query, key, value = qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]
    attended = jax.nn.dot_product_attention(query, key, value, is_causal=is_causal)
    return _linear(p["out"], attended.reshape(batch, length, width))


def _linear(p: Parameters, x: Float[Array, "*b i"]) -> Float[Array, "*b o"]:
    return x @ p["kernel"].T + p["bias"]


def _normalize(p: Parameters, x: Float[Array, "*b width"]) -> Float[Array, "*b width"]:
    """Layer normalization."""
    centred = x - x.mean(-1, keepdims=True)
    deviation = jnp.sqrt(jnp.mean(lax.square(centred), -1, keepdims=True) + _EPSILON)
    return centred / deviation * p["scale"] + p["bias"]
