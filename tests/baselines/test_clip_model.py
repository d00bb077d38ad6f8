"""The oracle is the towers written out in numpy, one token, head and layer after another."""

import math

import numpy as np
import pytest

from ssdnet_jax.baselines import clip_model


def normalize(x, state, name):
    centred = x - x.mean()
    return (
        centred / np.sqrt((centred**2).mean() + 1e-5) * state[f"{name}.weight"]
        + (state[f"{name}.bias"])
    )


def attend(x, state, name, heads, causal):
    width = x.shape[1]
    size = width // heads
    rows = x @ state[f"{name}.in_proj_weight"].T + state[f"{name}.in_proj_bias"]
    out = np.zeros_like(x)
    for head in range(heads):
        of_head = slice(head * size, (head + 1) * size)
        query, key, value = (rows[:, k * width : (k + 1) * width][:, of_head] for k in range(3))
        for i in range(len(x)):
            seen = i + 1 if causal else len(x)
            weights = np.exp([query[i] @ key[j] / np.sqrt(size) for j in range(seen)])
            out[i, of_head] = weights / weights.sum() @ value[:seen]
    return out @ state[f"{name}.out_proj.weight"].T + state[f"{name}.out_proj.bias"]


def transform(x, state, prefix, layers, heads, causal=False):
    for layer in range(layers):
        block = f"{prefix}.resblocks.{layer}"
        rows = np.stack([normalize(row, state, f"{block}.ln_1") for row in x])
        x = x + attend(rows, state, f"{block}.attn", heads, causal)
        rows = np.stack([normalize(row, state, f"{block}.ln_2") for row in x])
        rows = rows @ state[f"{block}.mlp.c_fc.weight"].T + state[f"{block}.mlp.c_fc.bias"]
        rows = np.vectorize(lambda v: v * (1 + math.erf(v / math.sqrt(2))) / 2)(rows)
        x = x + rows @ state[f"{block}.mlp.c_proj.weight"].T + state[f"{block}.mlp.c_proj.bias"]
    return x


def embed(image, state, sizes, kept):
    """The class token and the tokens of some patches, each from its own square of pixels."""
    pixels = (image - np.array(clip_model.CLIP_MEAN)) / np.array(clip_model.CLIP_DEVIATION)
    tokens = [state["visual.class_embedding"] + state["visual.positional_embedding"][0]]
    for i in kept:
        top, left = (sizes.patch_size * place for place in divmod(i, sizes.grid))
        square = pixels[top : top + sizes.patch_size, left : left + sizes.patch_size]
        values = np.einsum("ocpq,pqc->o", state["visual.conv1.weight"], square)
        tokens.append(values + state["visual.positional_embedding"][1 + i])
    return np.stack([normalize(token, state, "visual.ln_pre") for token in tokens])


def image_oracle(image, state, sizes, kept):
    tokens = embed(image, state, sizes, kept)
    x = transform(tokens, state, "visual.transformer", sizes.image_layers, sizes.image_heads)
    x = np.stack([normalize(row, state, "visual.ln_post") for row in x])
    return x[0] @ state["visual.proj"], x[1:]


@pytest.fixture(scope="module")
def state(clip_state):
    return {name: tensor.astype(np.float64) for name, tensor in clip_state.items()}


@pytest.fixture(scope="module")
def images(clip_sizes):
    shape = (2, clip_sizes.image_size, clip_sizes.image_size, 3)
    return np.random.default_rng(1).random(shape, np.float32)


@pytest.fixture(scope="module")
def tokens(clip, images):
    return clip_model.embed_patches(clip.image, images, sizes=clip.sizes)


def test_images_are_embedded_as_by_the_literal_tower(clip, state, images, tokens):
    features, patches = clip_model.image_features(clip.image, tokens, sizes=clip.sizes)
    for image, feature, rest in zip(images, features, patches, strict=True):
        expected, expected_rest = image_oracle(image, state, clip.sizes, range(clip.sizes.grid**2))
        np.testing.assert_allclose(feature, expected, atol=2e-5)
        np.testing.assert_allclose(rest, expected_rest, atol=2e-5)


@pytest.mark.parametrize("window", [1, 2, 3, 5])
def test_a_window_is_the_tower_on_its_patches_alone(clip, state, images, tokens, window):
    sizes = clip.sizes
    found = clip_model.window_features(clip.image, tokens, sizes=sizes, window=window)
    places = sizes.grid - window + 1
    assert found.shape == (2, places, places, sizes.embedding)
    corners = {(0, 0), (places - 1, 0), (0, places - 1), (places // 2, places - 1)}
    for row, column in corners:
        patches = [
            (row + i) * sizes.grid + column + j for i in range(window) for j in range(window)
        ]
        expected, _ = image_oracle(images[1], state, sizes, patches)
        np.testing.assert_allclose(found[1, row, column], expected, atol=2e-5)


def test_a_window_does_not_see_what_is_beside_it(clip, images, tokens):
    changed = images.copy()
    changed[:, 12:] = 0.5  # patches are 6 pixels wide
    other = clip_model.embed_patches(clip.image, changed, sizes=clip.sizes)
    before, after = (
        clip_model.window_features(clip.image, t, sizes=clip.sizes, window=2)
        for t in (tokens, other)
    )
    np.testing.assert_array_equal(before[:, 0], after[:, 0])
    assert (np.abs(before - after)[:, 1:].max(axis=-1) > 1e-3).all()


def test_texts_are_embedded_as_by_the_literal_tower(clip, state):
    sizes = clip.sizes
    end = clip.vocabulary.end
    tokens = np.array([[end - 1, 5, 70, 300, end, 0], [end - 1, 520, end, 0, 0, 0]])
    found = clip_model.text_features(clip.text, tokens, sizes=sizes)
    for row, length, feature in zip(tokens, (5, 3), found, strict=True):
        x = state["token_embedding.weight"][row] + state["positional_embedding"][: len(row)]
        x = transform(x, state, "transformer", sizes.text_layers, sizes.text_heads, causal=True)
        expected = normalize(x[length - 1], state, "ln_final") @ state["text_projection"]
        np.testing.assert_allclose(feature, expected, atol=2e-5)


def test_columns_of_zeros_change_nothing(clip):
    end = clip.vocabulary.end
    short = np.array([[end - 1, 9, 80, end]])
    long = np.pad(short, ((0, 0), (0, clip.sizes.context - 4)))
    short, long = (clip_model.text_features(clip.text, t, sizes=clip.sizes) for t in (short, long))
    np.testing.assert_allclose(short, long, atol=1e-5)


def test_grey_is_repeated(clip, images):
    grey = images[..., :1]
    one, three = (
        clip_model.embed_patches(clip.image, x, sizes=clip.sizes)
        for x in (grey, np.repeat(grey, 3, -1))
    )
    np.testing.assert_allclose(one, three, atol=1e-6)


def test_a_batch_gives_what_single_images_do(clip, tokens):
    both, _ = clip_model.image_features(clip.image, tokens, sizes=clip.sizes)
    alone, _ = clip_model.image_features(clip.image, tokens[1:], sizes=clip.sizes)
    np.testing.assert_allclose(alone[0], both[1], atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 24, 30, 3), (1, 30, 30, 2)])
def test_images_of_another_shape_are_refused(clip, shape):
    with pytest.raises(ValueError, match=r"expected \(30, 30, 1 or 3\)"):
        clip_model.embed_patches(clip.image, np.zeros(shape, np.float32), sizes=clip.sizes)
