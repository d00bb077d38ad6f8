"""Pictures as they come: what parts that do not count, ground, and small ranges do to a result.

Command (the shared folder as in the tests; two minutes a core for a row of one picture):
  SSDNET_SHARED=../shared python benchmarks/pictures.py --rows=all [--out=pictures.json]

Each row makes a picture of real ones, of `data/textures`, and scores it. Of defective pictures it
prints the average precision of the pixels that are judged, of all the calibrated score and whether
they are called bad. `--ground=keep` and `--range=full` are as before there was either.
"""

import argparse
import dataclasses
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

import ssdnet_jax
from ssdnet_jax.data.datasets import read_dataset
from ssdnet_jax.data.images import read_image, read_mask, resize_image
from ssdnet_jax.evaluation.metrics import auprc
from ssdnet_jax.methods.images import fill_nearest

LITERAL = "grid_literal"  # the paper's setting
SIDE = 512  # pixels of the pictures that rows are made of


class Picture(NamedTuple):
    """A picture of a row, with what is known of it."""

    pixels: np.ndarray
    defect: np.ndarray | None = None
    ignored: np.ndarray | None = None
    missing: np.ndarray | None = None


def pictures(shared: Path, category: str, *, good: bool, side: int = SIDE) -> list[Picture]:
    """The pictures of a category, good or defective, at so many pixels."""
    samples = read_dataset(shared / "data" / "textures", categories=[category])
    found = []
    for sample in samples:
        if sample.good != good:
            continue
        pixels = resize_image(read_image(sample.path).pixels, (side, side))
        defect = None
        if sample.mask_path:
            mask = read_mask(sample.mask_path)[..., None].astype(np.float32)
            defect = resize_image(mask, (side, side))[..., 0] > 0.5
        found.append(Picture(pixels, defect))
    return found


def with_label(picture: Picture, *, masked: bool, kind: str = "ignored") -> Picture:
    """A white label of 226 x 52 pixels, and whether a mask covers it."""
    pixels, mask = picture.pixels.copy(), np.zeros((SIDE, SIDE), bool)
    mask[300:352, 100:326] = True
    pixels[mask] = 0.95
    pixels[310:340:6, 120:300] = 0.1
    return picture._replace(pixels=pixels, **({kind: mask} if masked else {}))


def with_bars(picture: Picture, *, value: float = 0.0, masked: bool = False) -> Picture:
    """Bars of 80 pixels at both sides."""
    pixels, mask = picture.pixels.copy(), np.zeros((SIDE, SIDE), bool)
    mask[:, :80] = mask[:, -80:] = True
    pixels[mask] = value
    defect = None if picture.defect is None else picture.defect & ~mask
    return Picture(pixels, defect, mask if masked else None)


def with_hole(picture: Picture, side: int) -> Picture:
    """A missing block of so many pixels at 256."""
    mask = np.zeros((SIDE, SIDE), bool)
    mask[200 : 200 + 2 * side, 280 : 280 + 2 * side] = True
    return picture._replace(missing=mask)


def round_part(
    picture: Picture, *, radius: float, value: float = 0.0, noise: float = 0.0
) -> Picture:
    """A disc of the texture on a flat ground; a radius of half of the side touches all sides."""
    rows, columns = np.indices((SIDE, SIDE)) - (SIDE - 1) / 2
    part = np.hypot(rows, columns) < radius
    generator = np.random.default_rng(0)
    ground = value + noise * generator.standard_normal(picture.pixels.shape)
    pixels = np.where(part[..., None], picture.pixels, np.clip(ground, 0, 1))
    defect = None if picture.defect is None else picture.defect & part
    return Picture(pixels.astype(np.float32), defect)


def as_line_scan(picture: Picture) -> Picture:
    """The picture's strips of 256 rows one behind the other, as a line camera has them."""
    count = picture.pixels.shape[0] // 256
    arrays = (picture.pixels, picture.defect)
    pixels, defect = (np.concatenate(np.split(x.swapaxes(0, 1), count, axis=1)) for x in arrays)
    return Picture(pixels, defect)


def with_scattered(picture: Picture, share: float) -> Picture:
    """The picture with this share of its pixels missing, each by chance."""
    missing = np.random.default_rng(0).random(picture.pixels.shape[:2]) < share
    return picture._replace(missing=missing)


def with_nearest(picture: Picture) -> Picture:
    """What is missing has the value of the nearest pixel, as in large images."""
    missing = picture.missing
    return picture._replace(pixels=fill_nearest(picture.pixels, missing), missing=None)


def of_bits(picture: Picture, bits: int) -> Picture:
    """The picture as a camera of so many bits writes it to a file of 16 bits."""
    levels = np.round(picture.pixels * (2**bits - 1))
    return picture._replace(pixels=(levels / 65535).astype(np.float32))


ROWS: dict[str, tuple[str, bool, str, Callable[[Picture], Picture]]] = {
    # name: category, good ones, configuration, what is done to each
    "good carpet": ("carpet", True, "auto", lambda p: p),
    "good carpet, label": ("carpet", True, "auto", lambda p: with_label(p, masked=False)),
    "good carpet, label ignored": ("carpet", True, "auto", lambda p: with_label(p, masked=True)),
    "good carpet, label as --missing": (
        *("carpet", True, "auto"),
        lambda p: with_label(p, masked=True, kind="missing"),
    ),
    "good carpet, 16 x 16 missing": ("carpet", True, "auto", lambda p: with_hole(p, 16)),
    "good carpet, 8 x 8 missing": ("carpet", True, "auto", lambda p: with_hole(p, 8)),
    "carpet": ("carpet", False, "auto", lambda p: p),
    "carpet, transparent bars": ("carpet", False, "auto", lambda p: with_bars(p, masked=True)),
    "carpet, black bars": ("carpet", False, "auto", with_bars),
    "carpet, round on black": ("carpet", False, "auto", lambda p: round_part(p, radius=230)),
    "carpet, round on noisy white": (
        *("carpet", False, "auto"),
        lambda p: round_part(p, radius=230, value=1.0, noise=0.01),
    ),
    "carpet, round, touching all sides": (
        *("carpet", False, "auto"),
        lambda p: round_part(p, radius=SIDE / 2),
    ),
    "good carpet, round on black": ("carpet", True, "auto", lambda p: round_part(p, radius=230)),
    "carpet, 12 bit in 16": ("carpet", False, "auto", lambda p: of_bits(p, 12)),
    "carpet, 10 bit in 16": ("carpet", False, "auto", lambda p: of_bits(p, 10)),
    "grid, literal preset": ("grid", False, LITERAL, lambda p: p),
    "grid, 12 bit in 16, literal preset": ("grid", False, LITERAL, lambda p: of_bits(p, 12)),
    "grid, 10 bit in 16, literal preset": ("grid", False, LITERAL, lambda p: of_bits(p, 10)),
}

AT_256 = ("carpet", "wood", "leather", "tile", "grid")
for _category in AT_256:
    for _name, _change in (
        ("10 % missing at 256", lambda p: with_scattered(p, 0.1)),
        ("10 % nearest at 256", lambda p: with_nearest(with_scattered(p, 0.1))),
    ):
        ROWS[f"{_category}, {_name}"] = (_category, False, "auto", _change)
for _name, _change in (("stacked", lambda p: p), ("as a line scan of 4096 x 256", as_line_scan)):
    ROWS[f"carpet, 1024 pixels {_name}"] = ("carpet", False, "auto", _change)


def side_of(name: str) -> int:
    """Pixels of the pictures that a row is made of."""
    return 256 if "at 256" in name else 1024 if "1024 pixels" in name else SIDE


def measure(
    name: str, shared: Path, most: int, steps: int, changes: dict[str, str]
) -> Iterator[dict]:
    """Scores the pictures of a row."""
    category, good, config_name, change = ROWS[name]
    weights = shared / "weights" / "vgg19_imagenet_conv1_1-conv2_2.npz"
    vgg19 = ssdnet_jax.load_vgg19_weights(weights)
    config = dataclasses.replace(ssdnet_jax.load_config(config_name), **changes)
    if steps:
        fit = dataclasses.replace(config.fit, max_steps=steps)
        config = dataclasses.replace(config, fit=fit)
    found = pictures(shared, category, good=good, side=side_of(name))
    for picture in map(change, found[:most]):
        result = ssdnet_jax.localize(
            picture.pixels,
            config,
            vgg19=vgg19,
            missing=picture.missing,
            ignored=picture.ignored,
        )
        judged = np.isfinite(result.score_map)
        found = {"calibrated": result.calibrated_score, "bad": result.is_anomalous}
        found |= {"judged": float(judged.mean()), "steps": result.steps}
        if picture.defect is not None and picture.defect[judged].any():
            found["ap"] = auprc(picture.defect[judged], result.score_map[judged])
        yield found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", default="all", help=f"all, or some of: {'; '.join(ROWS)}")
    parser.add_argument("--most", type=int, default=4, help="pictures a row")
    parser.add_argument("--steps", type=int, default=0, help="0: as many as the setting has")
    parser.add_argument("--ground", default="auto")
    parser.add_argument("--range", default="auto")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    shared = Path(os.environ["SSDNET_SHARED"])
    changes = {"ground": given.ground, "range": given.range}
    table = {}
    for name in ROWS if given.rows == "all" else given.rows.split(";"):
        found = list(measure(name.strip(), shared, given.most, given.steps, changes))
        mean = {
            key: float(np.mean([each[key] for each in found if key in each]))
            for key in sorted({key for each in found for key in each})
        }
        table[name] = {"mean": mean, "pictures": found}
        print(name, json.dumps({key: round(value, 3) for key, value in mean.items()}), flush=True)
    if given.out:
        given.out.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
