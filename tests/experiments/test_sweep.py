import pytest

from ssdnet_jax.errors import ConfigError
from ssdnet_jax.experiments.sweep import folder_name, load_sweep, product, sweep_names


@pytest.mark.parametrize("name", sweep_names())
def test_shipped_sweeps_are_legal(name):
    sweep, configs = load_sweep(name)
    assert list(configs) == list(sweep.variants)
    assert len(set(configs.values())) >= len(configs) - 3  # "as shipped" may be one of a series
    assert configs[next(iter(configs))] is not None


def test_a_product_is_all_combinations():
    variants = product({"fit.mask_ratio": [0.0, 0.5], "loss.patch_sizes": [(8,), (8, 16)]})
    assert len(variants) == 4
    assert variants["mask_ratio=0.5, patch_sizes=8+16"] == {
        "fit.mask_ratio": 0.5,
        "loss.patch_sizes": (8, 16),
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1 / 0", ["ZeroDivisionError", "get_sweep"]),
        ("x = 1", ["found no function get_sweep"]),
        ("def get_sweep(): return {}", ["get_sweep that returns {}", "expected a Sweep"]),
        ("VARIANTS = {}", ["get_sweep"]),
        ("VARIANTS = {'v': {'fit.mask_ratio': 2.0}}", ["variant 'v'", "config.fit.mask_ratio"]),
        ("VARIANTS = {'v': {'fit.mask_rat': 0.1}}", ["variant 'v'", "mask_rat"]),
        ("VARIANTS = {'a b': {}, 'a/b': {}}", ["'a b'", "'a/b'", "share"]),
    ],
)
def test_a_sweep_that_cannot_be_used_is_refused_by_name(tmp_path, text, words):
    if text.startswith("VARIANTS"):
        text += (
            "\nfrom ssdnet_jax.experiments.sweep import Sweep\n"
            "def get_sweep(): return Sweep(base='grid', variants=VARIANTS)"
        )
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_sweep(str(tmp_path / "mine.py"))
    message = str(caught.value)
    assert "\n" not in message
    for word in ["mine.py", *words]:
        assert word in message


def test_an_unknown_sweep_is_refused_with_those_that_there_are():
    with pytest.raises(ConfigError, match=r"no sweep 'nothing'.*auto_preset"):
        load_sweep("nothing")


def test_folders_are_named_after_variants():
    assert folder_name("mask_ratio=0.5, 3/4") == "mask_ratio=0.5__3_4"
    assert folder_name("..") == "_"
