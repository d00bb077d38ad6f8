"""README and docs/: short, linked, each figure in one place, code that runs."""

import dataclasses
import itertools
import re
from pathlib import Path

import jax
import numpy as np
import pytest

import ssdnet_jax
from ssdnet_jax.data.synthetic import grid_texture

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = [
    README,
    ROOT / "CONTRIBUTING.md",
    ROOT / "WORKSPACE.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").glob("*.md")),
]

NUMBER = r"\d+\.\d+"
SPREAD = rf"(?: ± {NUMBER})?"
PAIR = re.compile(rf"({NUMBER}){SPREAD} / ({NUMBER}){SPREAD}")  # AUROC / AUPRC
UNCERTAIN = re.compile(rf"({NUMBER}) ± ({NUMBER})")
QUANTITY = re.compile(rf"({NUMBER}) (s|ms|GiB|MiB|GB|GFLOP/s|images/s)\b")


def measured_figures(text):
    """Figures that somebody measured: pairs of metrics, numbers with a spread or with a unit."""
    text = text.replace("*", "")
    return {
        *(" / ".join(pair) for pair in PAIR.findall(text)),
        *(" ± ".join(number) for number in UNCERTAIN.findall(text) if float(number[0]) > 0),
        *(" ".join(quantity) for quantity in QUANTITY.findall(text)),
    }


def headings(page):
    """The anchors of a page's headings, as forges make them."""
    lines = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S).splitlines()
    titles = [line.lstrip("#").strip() for line in lines if line.startswith("#")]
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def links(page):
    """Relative links of a page, those of its examples in code left out."""
    text = re.sub(r"```.*?```|`[^`]*`", "", page.read_text(encoding="utf-8"), flags=re.S)
    return [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]


def python_blocks(page):
    return re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.S)


def test_the_readme_is_one_page():
    assert len(README.read_text(encoding="utf-8").split()) <= 900


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_lead_somewhere(page):
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        assert not anchor or anchor in headings(target), link


def test_measured_figures_are_recognized():
    text = "**0.995 ± 0.000 / 0.848 ± 0.001** after 0.5 s; threshold 0.04, arXiv 2509.18354"
    assert measured_figures(text) == {"0.995 / 0.848", "0.995 ± 0.000", "0.848 ± 0.001", "0.5 s"}
    assert measured_figures("0.995 / 0.848") & measured_figures(text)


@pytest.mark.parametrize(
    ("one", "other"),
    list(itertools.combinations(PAGES, 2)),
    ids=lambda page: page.name,
)
def test_no_measured_figure_stands_in_two_documents(one, other):
    one, other = (measured_figures(page.read_text(encoding="utf-8")) for page in (one, other))
    assert not one & other


def test_the_readme_has_figures_to_look_for():
    assert len(measured_figures(README.read_text(encoding="utf-8"))) >= 8


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples_use_public_names(page):
    if page.name == "api.md":
        return
    for block in python_blocks(page):
        imported = re.findall(r"^from ssdnet_jax import (.+)$", block, flags=re.M)
        names = {name.strip() for line in imported for name in line.split(",")}
        names |= set(re.findall(r"\bssdnet_jax\.(\w+)\(", block))
        assert names <= set(ssdnet_jax.__all__)


def pure_api(side):
    """The README's lines on the pure API, with images of another side."""
    text = README.read_text(encoding="utf-8")
    block = re.search(r"<!-- pure-api -->\n```python\n(.*?)```", text, flags=re.S)[1]
    assert "(256, 256)" in block
    return block.replace("256", str(side))


@pytest.mark.parametrize(
    ("side", "steps"), [(64, 2), pytest.param(256, None, marks=pytest.mark.slow)]
)
def test_the_pure_api_runs_as_the_readme_has_it(side, steps, monkeypatch):
    weights = ssdnet_jax.random_vgg19_weights(0)
    if steps:  # of a small network to few features
        auto = ssdnet_jax.AUTO
        two = {"channels_down": (4, 4), "channels_up": (4, 4), "channels_skip": (2, 2)}
        small = dataclasses.replace(
            auto,
            fit=dataclasses.replace(auto.fit, max_steps=steps),
            network=dataclasses.replace(auto.network, **two),
        )
        monkeypatch.setattr(ssdnet_jax, "AUTO", small)
        weights = ssdnet_jax.random_vgg19_weights(0, channels=(8, 8, 16, 32))
    monkeypatch.setattr(ssdnet_jax, "load_vgg19_weights", lambda: weights)
    names = {}
    exec(compile(pure_api(side), "README.md", "exec"), names)

    images = np.stack([grid_texture((side, side), period=8, seed=seed) for seed in range(2)])
    maps, reconstructions = names["localize_all"](images, jax.random.split(jax.random.key(0), 2))

    assert maps.shape == (2, side, side)
    assert reconstructions.shape == (2, side // 2, side // 2, images.shape[-1])
    assert np.isfinite(maps).all()
    assert np.isfinite(reconstructions).all()
    # Each image is scored by itself.
    assert not np.allclose(maps[0], maps[1])
