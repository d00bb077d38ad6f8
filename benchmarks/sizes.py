"""Which size to look at: average precision of the default at several sizes, alone and merged.

Command:
  python benchmarks/sizes.py --dataset=textures --vgg19_weights=FILE --json=FILE \
    [--sizes=256,512,0] [--tiles=9,17] [--steps=30] [--every=4] [--planted]

Each picture is fitted once at each size of its shorter side (0: its own), and the fit is scored
with each side of tiles. AP is the average precision of a picture's pixels at the size of its file.
"256 and 512" are maps of two sizes, merged by their shifted geometric mean. With --planted, stains
of 3 to 100 pixels are planted into the good pictures instead, a picture with one of each, and the
AP of one is that of all pixels but the other stains. Pictures that are in the JSON already are
kept; the table of what is there is printed at the end.
"""

import argparse
import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np

import ssdnet_jax
from ssdnet_jax.core.calibration import in_units
from ssdnet_jax.data.datasets import read_dataset
from ssdnet_jax.data.files import write_atomically
from ssdnet_jax.data.images import read_image, read_mask, resize_map
from ssdnet_jax.data.synthetic import plant_defect
from ssdnet_jax.evaluation.metrics import auprc
from ssdnet_jax.methods.finished import FinishedSSDnet
from ssdnet_jax.runner.stream import Incoming, Stream, localizations

STAINS = (3, 6, 12, 25, 50, 100)  # pixels of the file, diameter
CONTRAST = 0.2
MERGED = 256, 512
SCALE = 4.0  # calibrated units, of the shifted geometric mean


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--vgg19_weights", type=Path, required=True)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--sizes", default="256,512,0")
    parser.add_argument("--tiles", default="9,17")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--planted", action="store_true")
    given = parser.parse_args()
    found = json.loads(given.json.read_text()) if given.json.exists() else {}
    vgg19 = ssdnet_jax.load_vgg19_weights(given.vgg19_weights)
    sizes, tiles = ([int(n) for n in text.split(",")] for text in (given.sizes, given.tiles))
    chosen = [sample for sample in read_dataset(given.dataset) if sample.good == given.planted]
    for sample in chosen[:: given.every]:
        name = sample.path.relative_to(given.dataset).as_posix()
        pixels = read_image(sample.path).pixels
        if given.planted:
            pixels, masks = planted(pixels)
        else:
            masks = {"": read_mask(sample.mask_path)}
        of_picture = found.setdefault(name, {})
        maps = {}
        for size in sizes:
            wanted = [f"{label(size)}, tile {tile}" for tile in tiles]
            if size not in MERGED and all(name in of_picture for name in wanted):
                continue
            scored = scores(pixels, size, tiles, given.steps, vgg19)
            maps |= dict(zip(wanted, scored, strict=True))
        maps |= merged(maps)
        of_picture |= {name: precisions(score, masks) for name, score in maps.items()}
        text = json.dumps(found, indent=1) + "\n"
        write_atomically(given.json, lambda file, text=text: file.write(text.encode()))
        print(name, json.dumps(of_picture), flush=True)
    table(found)


def label(size: int) -> str:
    return str(size or "own")


def scores(
    pixels: np.ndarray, size: int, tiles: list[int], steps: int, vgg19: Any
) -> list[np.ndarray]:
    """Maps of one fit at a size, with tiles of each side."""
    config = ssdnet_jax.load_config("auto")
    config = dataclasses.replace(
        config,
        image_size=size,
        fit=dataclasses.replace(config.fit, max_steps=steps),
        tiling=dataclasses.replace(config.tiling, above=0),
    )
    result = ssdnet_jax.localize(pixels, config, vgg19=vgg19)
    return [rescored(result.fits, config, tile, vgg19) for tile in tiles]


def rescored(fits: Any, config: Any, tile: int, vgg19: Any) -> np.ndarray:
    import jax

    config = dataclasses.replace(config, score=dataclasses.replace(config.score, tile_size=tile))
    method = FinishedSSDnet(config).with_weights(vgg19=vgg19)
    prepared = method.prepare(fits, jax.random.key(0))
    stream = Stream(method, iter([Incoming("", prepared)]))
    (group,) = stream.results(lanes=lambda bucket: (1, 1))
    ((_, _, finish),) = localizations(method, group)
    if isinstance(finish, Exception):
        raise finish
    return finish().score_map


def merged(maps: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Maps of two sizes by their agreement; of each pair of tiles at them."""
    first, second = (
        {name: score for name, score in maps.items() if name.startswith(f"{size},")}
        for size in MERGED
    )
    found = {}
    for (name, score), (other_name, other) in itertools.product(first.items(), second.items()):
        both = np.stack([in_units(score), in_units(resize_map(other, score.shape))])
        logarithms = np.log1p(np.maximum(both, 0) / SCALE)
        found[f"{name} and {other_name}"] = SCALE * np.expm1(logarithms.mean(0))
    return found


def planted(pixels: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """A picture with a stain of each size, and their masks."""
    height, width = pixels.shape[:2]
    masks = {}
    for number, size in enumerate(STAINS):
        row, column = divmod(number, 3)
        center = (height * (0.25 + 0.5 * row), width * (1 + 2 * column) / 6)
        pixels, mask = plant_defect(
            pixels, kind="blob", center=center, size=size, contrast=CONTRAST, seed=number
        )
        masks[f"{size}"] = mask
    return pixels, masks


def precisions(score: np.ndarray, masks: dict[str, np.ndarray]) -> dict[str, float]:
    """Of each defect, on all pixels but those of others."""
    every = np.logical_or.reduce(list(masks.values()))
    found = {}
    for name, mask in masks.items():
        counted = np.isfinite(score) & (mask | ~grown(every & ~mask))
        found[name] = float(auprc(mask[counted], score[counted]))
    return found


def grown(mask: np.ndarray) -> np.ndarray:
    """A mask with what scores spread to around it."""
    from scipy.ndimage import maximum_filter

    return maximum_filter(mask, 61)


def table(found: dict[str, Any]) -> None:
    """Means over the pictures of a category, and over all."""
    of_kind: dict[str, dict[str, list[float]]] = {}
    for picture, variants in found.items():
        for variant, values in variants.items():
            for defect, value in values.items():
                for kind in (picture.split("/")[0], "all"):
                    name = f"{kind} {defect}".strip()
                    of_kind.setdefault(variant, {}).setdefault(name, []).append(value)
    for variant, values in of_kind.items():
        means = {name: (round(float(np.mean(v)), 3), len(v)) for name, v in values.items()}
        print(variant, json.dumps(means))


if __name__ == "__main__":
    main()
