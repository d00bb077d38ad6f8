"""Ours against `open_clip` itself, with random weights: the same state_dict, the same features."""

import gzip

import numpy as np
import pytest

from ssdnet_jax.baselines import clip_model
from ssdnet_jax.baselines.clip_prompts import prompts
from ssdnet_jax.baselines.clip_tokens import read_vocabulary, tokenize
from ssdnet_jax.baselines.clip_weights import (
    VIT_B_16_PLUS_240,
    CLIPSizes,
    load_clip_weights,
)

torch = pytest.importorskip("torch", reason="needs pip install '.[clip-oracle]'")
open_clip = pytest.importorskip("open_clip", reason="needs pip install '.[clip-oracle]'")

TINY = CLIPSizes(
    image_size=32,
    patch_size=8,
    image_width=24,
    image_layers=2,
    image_heads=3,
    text_width=16,
    text_layers=2,
    text_heads=2,
    context=12,
    embedding=10,
)


def build(sizes):
    """A model of open_clip of those sizes whose parameters are all drawn at random."""
    torch.manual_seed(0)
    model = open_clip.CLIP(
        embed_dim=sizes.embedding,
        vision_cfg={
            "image_size": sizes.image_size,
            "layers": sizes.image_layers,
            "width": sizes.image_width,
            "head_width": sizes.image_width // sizes.image_heads,
            "patch_size": sizes.patch_size,
        },
        text_cfg={
            "context_length": sizes.context,
            "vocab_size": sizes.vocabulary,
            "width": sizes.text_width,
            "heads": sizes.text_heads,
            "layers": sizes.text_layers,
        },
    )
    return randomize(model)


def randomize(model):
    """Biases start at 0 and scales at 1, which would hide a mix-up."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1 and name != "visual.class_embedding":
                parameter += 0.1 * torch.randn_like(parameter)
    return model.eval()


def masked(model, pixels, kept):
    """The class embedding of the image of which only some patches are left, by open_clip."""
    visual = model.visual
    x = visual.conv1(pixels).flatten(2).transpose(1, 2)
    x = torch.cat([visual.class_embedding.expand(len(x), 1, -1), x], 1)
    x = visual.ln_pre(x + visual.positional_embedding)[:, [0, *(1 + i for i in kept)]]
    return visual.ln_post(visual.transformer(x))[:, 0] @ visual.proj


def write_vocabulary(folder):
    # The file belongs to open_clip and is read where it lies; ours needs it beside the weights.
    from open_clip.tokenizer import default_bpe

    with gzip.open(default_bpe()) as file:
        (folder / "merges.txt").write_bytes(file.read())


def compare(model, sizes, folder, windows, check):
    """Loads the model's own state_dict and compares images, windows and texts."""
    torch.save(model.state_dict(), folder / "model.pt")
    write_vocabulary(folder)
    clip = load_clip_weights(folder / "model.pt", sizes=sizes)
    images = np.random.default_rng(0).random((2, sizes.image_size, sizes.image_size, 3), np.float32)
    mean, deviation = (np.float32(v) for v in (clip_model.CLIP_MEAN, clip_model.CLIP_DEVIATION))
    pixels = torch.from_numpy((images - mean) / deviation).permute(0, 3, 1, 2)
    with torch.no_grad():
        tokens = clip_model.embed_patches(clip.image, images, sizes=sizes)
        features, patches = clip_model.image_features(clip.image, tokens, sizes=sizes)
        check("image", features, model.encode_image(pixels))
        model.visual.output_tokens = True
        check("patches", patches, model.visual(pixels)[1])
        for window, places in windows.items():
            found = clip_model.window_features(clip.image, tokens, sizes=sizes, window=window)
            for row, column in places:
                kept = [
                    (row + i) * sizes.grid + column + j
                    for i in range(window)
                    for j in range(window)
                ]
                expected = masked(model, pixels, kept)
                check(f"window {window}", found[:, row, column], expected)
        texts = prompts("texture")[1][::9]
        words = tokenize(clip.vocabulary, texts, context=77)
        np.testing.assert_array_equal(words, open_clip.SimpleTokenizer()(texts).numpy())
        if sizes.context < 77:
            words = words[:, : sizes.context].copy()
            words[:, -1] = clip.vocabulary.end
        found = clip_model.text_features(clip.text, words, sizes=sizes)
        check("text", found, model.encode_text(torch.from_numpy(words).long()))


def agree(what, found, expected):
    difference = np.abs(np.asarray(found) - expected.numpy()).max()
    print(f"{what}: differs by {difference:.1e} of {expected.abs().max():.2f}")
    assert difference < 1e-4, what


def test_a_tiny_model_gives_the_features_of_open_clip(tmp_path):
    windows = {k: [(i, j) for i in range(5 - k) for j in range(5 - k)] for k in (1, 2, 3)}
    compare(build(TINY), TINY, tmp_path, windows, agree)


@pytest.mark.slow
def test_the_published_model_gives_the_features_of_open_clip(tmp_path):
    torch.manual_seed(0)
    model = randomize(open_clip.create_model("ViT-B-16-plus-240"))
    windows = {2: [(0, 0), (13, 13), (4, 9)], 3: [(0, 0), (12, 12), (7, 2)]}
    compare(model, VIT_B_16_PLUS_240, tmp_path, windows, agree)


def test_prompts_and_odd_words_are_cut_as_open_clip_does(tmp_path):
    write_vocabulary(tmp_path)
    vocabulary = read_vocabulary(tmp_path / "merges.txt", size=49408)
    texts = [*prompts("texture")[0], *prompts("metal nut")[1], "it's 3.5 mm!", "A-b_c??  x'LL 100%"]
    expected = open_clip.SimpleTokenizer()(texts).numpy()
    np.testing.assert_array_equal(tokenize(vocabulary, texts, context=77), expected)
