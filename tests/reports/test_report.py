import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import tifffile
from PIL import Image

from ssdnet_jax.data.layouts.sample import Sample
from ssdnet_jax.evaluation.evaluate import ImageMetrics, MapSet, evaluate
from ssdnet_jax.evaluation.summary import summarize
from ssdnet_jax.reports.report import write_report
from ssdnet_jax.reports.report_cases import CASES, SIDE, best_and_worst
from ssdnet_jax.reports.report_plots import box_plots, curves

NASTY = "<b>$x^2$ & \"'\x1b[31m.png"
VOID = {"meta", "img", "br", "hr"}


class Page(HTMLParser):
    """Checks that tags close in order; collects text, attributes and pictures."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.text = [], [], [], ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def make(tmp_path, *, methods=("ours",), seeds=(0,), names=("0.png", "1.png"), side=24):
    """A set of grid/bent images named `names` and a good one; its samples, map sets and page."""
    generator = np.random.default_rng(0)
    samples = []
    mask = np.zeros((side, 2 * side), np.uint8)
    mask[3:9, 5:12] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    for name in (*names, "good.png"):
        path = tmp_path / name
        Image.fromarray(generator.integers(0, 255, mask.shape, dtype=np.uint8)).save(path)
        defective = name != "good.png"
        mask_path = tmp_path / "mask.png" if defective else None
        samples.append(Sample(path, name, "grid", "bent" if defective else "good", mask_path))
    sets = []
    for method in methods:
        for seed in seeds:
            files = {}
            for number, sample in enumerate(samples):
                files[sample.relative] = tmp_path / f"{method}-{seed}-{number}.tiff"
                scores = generator.normal(size=mask.shape) + number * mask / 255
                tifffile.imwrite(files[sample.relative], scores.astype(np.float32))
            sets.append(MapSet(method, seed, lambda s, files=files: files[s.relative]))
    return samples, sets


def page(tmp_path, samples, sets, **options):
    evaluation = evaluate(samples, sets)
    write_report(
        tmp_path / "report.html",
        name=options.get("name", "set"),
        samples=samples,
        map_sets=[m for m in sets if m.seed == sets[0].seed],
        evaluation=evaluation,
        summary=summarize(evaluation),
        notes={"Command": options.get("command", "ssdnet-evaluate")},
        stated=0.01,
    )
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    return text, Page(text), summarize(evaluation)


def test_the_page_is_whole_and_needs_nothing_from_elsewhere(tmp_path):
    text, parsed, _ = page(tmp_path, *make(tmp_path, seeds=(0, 1)))
    assert "http" not in text and "<script" not in text and "@import" not in text
    assert "link" not in parsed.tags
    for tag, name, value in parsed.attributes:
        if name in ("src", "href", "xlink:href", "srcset", "data"):
            assert value.startswith(("data:image/", "#")), (tag, name, value[:40])
    assert all(u.startswith(("(#", "('#", '("#')) for u in re.findall(r"url(\(.{3})", text))
    assert "prefers-color-scheme: dark" in text
    assert not re.findall(r"\$[a-z_]+", text)


def test_the_page_says_what_was_measured(tmp_path):
    _, parsed, summary = page(tmp_path, *make(tmp_path, seeds=(0, 1)), command="as typed")
    entry = summary["ours"]["grid"]
    for name in ("auroc_mean", "auprc_mean", "aupro_pooled", "image_auroc", "f1_max_pooled"):
        assert f"{entry[name]:.3f}" in parsed.text
    assert f"± {entry['auprc_std_over_seeds']:.3f}" in parsed.text
    for words in ("3 images (2 defective, 1 good)", "48 × 24 pixels", "seeds 0, 1", "as typed"):
        assert words in parsed.text
    assert "bent (2)" in parsed.text  # a row of the box plots
    assert "All images" not in [t.strip() for t in parsed.text.splitlines()]
    assert parsed.tags.count("svg") == 4  # with the calibration curve


def test_every_defective_image_of_a_small_set_is_shown_with_its_maps(tmp_path):
    samples, sets = make(tmp_path, methods=("ours", "theirs"))
    _, parsed, _ = page(tmp_path, samples, sets)
    pictures = [v for tag, name, v in parsed.attributes if (tag, name) == ("img", "src")]
    assert len(pictures) == 2 * (2 + 2)  # images x (input, mask, two maps)
    for picture in pictures:
        data = base64.b64decode(picture.removeprefix("data:image/jpeg;base64,"))
        assert Image.open(io.BytesIO(data)).size == (48, 24)
    assert "ordered by the AUPRC of ours" in parsed.text


def test_pictures_are_small_and_few_however_many_images(tmp_path):
    names = [f"{number:02}.png" for number in range(2 * CASES + 3)]
    samples, sets = make(tmp_path, names=names, side=200)
    text, parsed, _ = page(tmp_path, samples, sets)
    pictures = [v for tag, name, v in parsed.attributes if (tag, name) == ("img", "src")]
    assert len(pictures) == 2 * CASES * 3
    sides = [int(v) for tag, n, v in parsed.attributes if tag == "img" and n in ("width", "height")]
    assert max(sides) == SIDE
    assert len(text) < 3e6


def test_names_cannot_become_markup_or_formulas(tmp_path):
    samples, sets = make(tmp_path, names=(NASTY, "1.png"), methods=("<i>$a$",))
    samples = [
        Sample(s.path, s.relative, "<u>$c$", "good" if s.defect == "good" else "<s>$d", s.mask_path)
        for s in samples
    ]
    text, parsed, _ = page(tmp_path, samples, sets, name="<h6>", command="a <em> b")
    assert not {"i", "u", "s", "h6", "em"} & set(parsed.tags)
    assert "<b>$x" not in text and "\x1b" not in text
    for word in (NASTY.replace("\x1b", r"\x1b"), "<i>$a$", "<u>$c$", "<s>$d (2)", "<h6>", "<em>"):
        assert word in parsed.text


def test_an_image_that_has_gone_leaves_a_note_in_its_place(tmp_path):
    samples, sets = make(tmp_path)
    samples[0].path.unlink()
    _, parsed, _ = page(tmp_path, samples, sets)
    assert "0.png: no such file" in parsed.text
    assert parsed.tags.count("img") == 3


def test_what_failed_is_listed_and_nothing_breaks_when_all_did(tmp_path):
    samples, sets = make(tmp_path, names=(NASTY, "1.png"))
    for path in tmp_path.glob("ours-0-*.tiff"):
        path.unlink()
    text, parsed, _ = page(tmp_path, samples, sets)
    assert "3 maps could not be evaluated" in parsed.text
    assert "no such file" in parsed.text
    assert "svg" not in parsed.tags and "img" not in parsed.tags
    assert "<b>$x" not in text


def test_only_good_images_make_a_page_too(tmp_path):
    samples, sets = make(tmp_path)
    _, parsed, _ = page(tmp_path, samples[-1:], sets)
    assert "1 image (0 defective, 1 good)" in parsed.text


def row(path, auprc):
    return ImageMetrics("m", "c", "d", path, auprc=auprc)


@pytest.mark.parametrize(
    ("values", "best", "worst"),
    [
        ([0.5], ["0"], []),
        ([0.5, 0.7], ["1"], ["0"]),
        ([0.5, 0.7, 0.6], ["1", "2"], ["0"]),
        ([0.1, None, 0.9, 0.3, 0.7, 0.5], ["2", "4"], ["0", "3"]),
        ([None], [], []),
    ],
)
def test_best_and_worst_are_never_the_same(values, best, worst):
    found = best_and_worst([row(str(i), v) for i, v in enumerate(values)], 2)
    assert tuple([r.path for r in part] for part in found) == (best, worst)


def test_plots_take_colours_and_fonts_from_the_page():
    values = {"m": {"auroc": [0.9, 0.8], "auprc": [0.5]}, "n": {"auroc": [1.0], "auprc": [1.0]}}
    line = (np.array([0.0, 1.0]), np.array([0.0, 1.0]))
    for svg in (
        box_plots({"all": values, "one": {"n": values["n"]}}, ["m", "n"]),
        curves({"ROC": ("x", "y", {"m": [line], "n": [line, line]})}),
    ):
        Page(svg)
        for variable in ("method-0", "method-1", "muted", "line"):
            assert f"var(--{variable})" in svg
        assert not re.search(r"#0[0-9a-f]0[0-9a-f]{3}\b", svg)
        assert "font-family" not in svg and "http" not in svg and 'id="figure' not in svg


def test_box_plots_of_values_near_one_use_their_width_and_have_few_labels():
    near, wide = {"auroc": [0.991, 0.999], "auprc": [0.35, 0.8]}, {"auroc": [0.2], "auprc": [0.9]}
    for values, lowest in (({"m": near}, 0.98), ({"m": near, "n": wide}, 0.0)):
        svg = box_plots({"all": values}, list(values))
        labels = [float(text) for text in re.findall(r">(\d\.\d+)<", svg)]
        first = labels[: labels.index(1.0) + 1]  # of AUROC, which comes first
        assert lowest <= first[0] <= lowest + 0.2 and first == sorted(first)
        assert 2 < len(first) <= 7 and len(labels) <= 14
