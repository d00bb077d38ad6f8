import numpy as np
import pytest

from ssdnet_jax.baselines import clip_model
from ssdnet_jax.baselines.clip_prompts import normalize, prompts, state_embeddings
from ssdnet_jax.baselines.clip_tokens import tokenize
from ssdnet_jax.errors import ConfigError


def test_every_state_stands_in_every_template():
    normal, anomalous = prompts("carpet")
    assert (len(normal), len(anomalous)) == (7 * 22, 4 * 22)
    assert len({*normal, *anomalous}) == 11 * 22
    assert all("carpet" in text and "{" not in text for text in [*normal, *anomalous])
    assert {"a photo of a carpet.", "a dark photo of the flawless carpet."} <= set(normal)
    expected = "a close-up photo of a carpet with flaw."
    assert expected in anomalous and expected not in normal
    assert "a photo of the damaged carpet for anomaly detection." in anomalous


def test_a_state_is_the_mean_of_its_prompts_of_equal_weight(clip):
    found = np.asarray(state_embeddings(clip, "texture"))
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    for texts, embedding in zip(prompts("texture"), found, strict=True):
        tokens = tokenize(clip.vocabulary, texts, context=clip.sizes.context)
        features = clip_model.text_features(clip.text, tokens, sizes=clip.sizes)
        each = [f / np.linalg.norm(f) for f in np.asarray(features, np.float64)]
        mean = np.mean(each, axis=0)
        np.testing.assert_allclose(embedding, mean / np.linalg.norm(mean), atol=2e-5)


def test_another_name_gives_other_embeddings(clip):
    one, other = (np.asarray(state_embeddings(clip, name)) for name in ("texture", "object"))
    assert np.abs(one - other).max() > 1e-3


@pytest.mark.parametrize("name", ["", " ", "{}", "a{0}", "naïve", "x " * 80])
def test_a_name_that_cannot_be_used_is_refused(clip, name):
    with pytest.raises(ConfigError, match=r"class_name|prompt"):
        state_embeddings(clip, name)


def test_normalized_embeddings_have_norm_one():
    np.testing.assert_allclose(normalize(np.array([[3.0, 4.0]])), [[0.6, 0.8]])
