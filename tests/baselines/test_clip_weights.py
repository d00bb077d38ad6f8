import io
import json
import pickle
import shutil
import struct
import zipfile

import numpy as np
import pytest
from safetensors.numpy import save_file

from ssdnet_jax.baselines.clip_weights import (
    VIT_B_16_PLUS_240,
    image_entries,
    load_clip_weights,
    text_entries,
)
from ssdnet_jax.errors import InputError, NoWeightsError


def refused(path, sizes, *words, error=InputError, **options):
    with pytest.raises(error) as caught:
        load_clip_weights(path, sizes=sizes, **options)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert str(word) in message


@pytest.fixture
def folder(tmp_path, clip_folder):
    shutil.copy(clip_folder / "merges.txt", tmp_path)
    return tmp_path


def test_tensors_keep_their_values_and_layers_are_stacked(clip, clip_state):
    names = "visual.transformer.resblocks.{}.mlp.c_fc.weight"
    expected = np.stack([clip_state[names.format(i)] for i in range(2)])
    np.testing.assert_array_equal(clip.image["layers"]["expand"]["kernel"], expected)
    np.testing.assert_array_equal(clip.text["projection"], clip_state["text_projection"])
    assert clip.vocabulary.size == clip.sizes.vocabulary


def test_weights_travel_to_other_processes(clip):
    copy = pickle.loads(pickle.dumps(clip))
    assert (copy.sizes, copy.vocabulary) == (clip.sizes, clip.vocabulary)
    np.testing.assert_array_equal(copy.image["projection"], clip.image["projection"])


def test_the_published_model_has_its_published_sizes():
    entries = [*image_entries(VIT_B_16_PLUS_240), *text_entries(VIT_B_16_PLUS_240)]
    values = sum(np.prod(e.shape) * (e.layers or 1) for e in entries)
    # OpenCLIP's table of models: 208.38 million parameters, of which one is the logit scale.
    assert round(values / 1e6, 2) == 208.38
    assert VIT_B_16_PLUS_240.grid == 15


def test_half_precision_becomes_float32(folder, clip_state, clip_sizes):
    half = {name: tensor.astype(np.float16) for name, tensor in clip_state.items()}
    save_file(half, folder / "half.safetensors")
    clip = load_clip_weights(folder / "half.safetensors", sizes=clip_sizes)
    found = clip.image["projection"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, half["visual.proj"].astype(np.float32))


def test_bfloat16_becomes_float32(folder, clip_state, clip_sizes):
    header, data, at = {}, [], 0
    for name, tensor in clip_state.items():
        upper = (tensor.view("<u4") >> 16).astype("<u2").tobytes()
        place = [at, at := at + len(upper)]
        header[name] = {"dtype": "BF16", "shape": tensor.shape, "data_offsets": place}
        data.append(upper)
    text = json.dumps(header).encode()
    content = struct.pack("<Q", len(text)) + text + b"".join(data)
    (folder / "b.safetensors").write_bytes(content)
    clip = load_clip_weights(folder / "b.safetensors", sizes=clip_sizes)
    np.testing.assert_allclose(clip.image["projection"], clip_state["visual.proj"], rtol=2**-7)


def test_the_environment_names_the_file(clip_folder, clip_sizes, monkeypatch, clip):
    monkeypatch.setenv("SSDNET_CLIP_WEIGHTS", str(clip_folder / "clip.safetensors"))
    found = load_clip_weights(sizes=clip_sizes)
    np.testing.assert_array_equal(found.image["positions"], clip.image["positions"])


def test_the_vocabulary_may_lie_elsewhere(tmp_path, clip_folder, clip_sizes):
    path = shutil.copy(clip_folder / "clip.safetensors", tmp_path)
    refused(path, clip_sizes, tmp_path, "no CLIP vocabulary", "tokenizer.json")
    load_clip_weights(path, vocabulary=clip_folder / "merges.txt", sizes=clip_sizes)


def test_without_a_file_the_ways_to_name_one_are_given(clip_sizes, monkeypatch, tmp_path):
    monkeypatch.delenv("SSDNET_CLIP_WEIGHTS", raising=False)
    words = ("--clip_weights=PATH", "SSDNET_CLIP_WEIGHTS", "ViT-B-16-plus-240")
    refused(None, clip_sizes, "no CLIP weights", *words, error=NoWeightsError)
    refused(tmp_path / "no.pt", clip_sizes, tmp_path / "no.pt", "no such file", *words)


def test_another_model_is_refused_by_its_shapes(folder, clip_state):
    (folder / "merges.txt").write_text(
        "".join(
            f"{chr(97 + i % 26)} {chr(97 + i // 26 % 26) * (1 + i // 676)}\n" for i in range(48894)
        )
    )
    wrong = "visual.class_embedding is float32 (12,); expected float32 (896,)"
    names = {n.replace(".1.", f".{i}."): t for n, t in clip_state.items() for i in range(1, 12)}
    save_file({**clip_state, **names}, folder / "small.safetensors")
    refused(folder / "small.safetensors", VIT_B_16_PLUS_240, wrong, "ViT-B-16-plus-240")


def test_integers_are_no_weights(folder, clip_state, clip_sizes):
    state = {**clip_state, "visual.proj": np.ones(clip_state["visual.proj"].shape, np.int32)}
    save_file(state, folder / "i.safetensors")
    refused(
        folder / "i.safetensors", clip_sizes, "visual.proj is int32", "expected float32 (12, 7)"
    )


def test_what_is_no_file_of_weights_is_named(folder, clip_state, clip_sizes):
    (folder / "w.txt").write_text("no")
    refused(folder / "w.txt", clip_sizes, "'.txt'", "expected .safetensors, .bin, .pt, .pth")
    for name in ("w.bin", "w.pt", "w.safetensors"):
        (folder / name).write_bytes(b"no weights at all")
        refused(folder / name, clip_sizes, folder / name)
    del (state := dict(clip_state))["text_projection"]
    save_file(state, folder / "less.safetensors")
    refused(folder / "less.safetensors", clip_sizes, "no tensor text_projection")


def test_a_checkpoint_cannot_run_code(folder, clip_sizes):
    class Evil:
        def __reduce__(self):
            return print, ("ran",)

    buffer = io.BytesIO()
    pickle.dump({"visual.proj": Evil()}, buffer, protocol=2)
    with zipfile.ZipFile(folder / "evil.bin", "w") as archive:
        archive.writestr("archive/data.pkl", buffer.getvalue())
    refused(folder / "evil.bin", clip_sizes, "evil.bin", "refused to load", "print")
