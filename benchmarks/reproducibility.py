"""How far results agree between two processes, lane counts, devices, interpreters and JAX versions.

Commands:
  SSDNET_SHARED=../shared python benchmarks/reproducibility.py --save=one.npz
  SSDNET_SHARED=../shared python benchmarks/reproducibility.py --save=two.npz --lanes=2
  python benchmarks/reproducibility.py --compare one.npz two.npz --json=benchmarks/results/X.json

Protocol: four real pictures, a carpet, a grid, a wood and a tile with a defect, by the default
setting at 256 x 256 pixels, seed 0, with as many steps as it takes; and the golden cases of
tests/golden. `--save` keeps their raw maps. `--compare` says, for each, the largest difference in
parts of the map's range, how well the two maps correlate, whether all bits are equal, and what
becomes of the score of the picture and, for real pictures, of the average precision against their
mask.
"""

import argparse
import dataclasses
import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np

import ssdnet_jax
from ssdnet_jax.core.calibration import calibrated_score
from ssdnet_jax.data.files import write_atomically
from ssdnet_jax.data.images import read_mask, resize_map
from ssdnet_jax.evaluation.metrics import auprc
from ssdnet_jax.runner.workdir import versions

KINDS = ("carpet", "grid", "wood", "tile")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--save", type=Path, help="file for the maps of this process")
    parser.add_argument("--lanes", type=int, default=1)
    parser.add_argument("--steps", type=int, default=ssdnet_jax.AUTO.fit.max_steps)
    parser.add_argument("--compare", type=Path, nargs=2, metavar=("A", "B"))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.save:
        save(arguments.save, arguments.lanes, arguments.steps)
    if arguments.compare:
        report = compared(*arguments.compare)
        text = json.dumps(report, indent=1) + "\n"
        print(text, end="")
        if arguments.json:
            write_atomically(arguments.json, lambda file: file.write(text.encode()))


def save(path: Path, lanes: int, steps: int) -> None:
    """Computes the maps of all cases and keeps them."""
    arrays = real_maps(lanes, steps)
    golden = golden_cases()
    for name in golden.CASES:
        arrays[f"golden, given fit/{name}"] = golden.map_of_a_given_fit(name)
        arrays[f"golden, fit/{name}"] = golden.map_of_a_fit(name)
    setting = {
        "device": str(jax.devices()[0].device_kind),
        "lanes": lanes,
        "steps": steps,
        "processor_cores": os.cpu_count(),
        **versions(),
    }
    with path.open("wb") as file:
        np.savez(file, setting=json.dumps(setting), **arrays)


def real_maps(lanes: int, steps: int) -> dict[str, np.ndarray]:
    """Raw maps of the real pictures, and of each its mask; none where the pictures are absent."""
    shared = Path(os.environ.get("SSDNET_SHARED", "no such folder"))
    textures = shared / "data" / "textures"
    if not textures.is_dir():
        print("SSDNET_SHARED has no data/textures: only the golden cases are computed")
        return {}
    weights = shared / "weights" / "vgg19_imagenet_conv1_1-conv2_2.npz"
    vgg19 = ssdnet_jax.load_vgg19_weights(weights)
    fit = dataclasses.replace(ssdnet_jax.AUTO.fit, max_steps=steps)
    config = dataclasses.replace(ssdnet_jax.AUTO, fit=fit)
    pictures, masks = [], {}
    for kind in KINDS:
        mask = sorted((textures / kind / "ground_truth").glob("*/*"))[0]
        name = mask.stem.removesuffix("_mask")
        image = next((textures / kind / "test" / mask.parent.name).glob(f"{name}.*"))
        pictures.append(ssdnet_jax.read_image(image).pixels)
        masks[f"mask/{kind}"] = read_mask(mask)
    found = ssdnet_jax.localize_batch(pictures, config, vgg19=vgg19, lanes=lanes)
    maps = {f"real/{kind}": result.score_map for kind, result in zip(KINDS, found, strict=True)}
    return {**maps, **masks}


def golden_cases() -> Any:
    """The module that makes the golden maps."""
    path = Path(__file__).parents[1] / "tests" / "golden" / "make_maps.py"
    spec = importlib.util.spec_from_file_location("make_maps", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def compared(one: Path, two: Path) -> dict[str, Any]:
    """The two settings, and of each case how far the maps agree."""
    with np.load(one) as file:
        a = dict(file)
    with np.load(two) as file:
        b = dict(file)
    settings = [json.loads(str(arrays.pop("setting"))) for arrays in (a, b)]
    cases = {
        name: agreement(a[name], b[name], a.get(f"mask/{name.removeprefix('real/')}"))
        for name in a
        if name in b and not name.startswith("mask/")
    }
    return {"settings": settings, "cases": cases}


def agreement(one: np.ndarray, two: np.ndarray, mask: np.ndarray | None) -> dict[str, Any]:
    """How far two maps (H, W) of one picture agree; `mask` is that of its defect."""
    known = np.isfinite(one) & np.isfinite(two)
    found: dict[str, Any] = {
        "equal": bool(np.array_equal(one, two, equal_nan=True)),
        "largest_difference": float(f"{np.abs(one - two)[known].max() / np.ptp(one[known]):.3g}"),
        "correlation": round(float(np.corrcoef(one[known], two[known])[0, 1]), 6),
        "calibrated_score": [round(float(calibrated_score(each)), 3) for each in (one, two)],
    }
    if mask is not None and mask.shape == one.shape:
        small = resize_map(mask.astype(np.float32), (256, 256)) > 0.5
        maps = (resize_map(np.nan_to_num(each), (256, 256)) for each in (one, two))
        found["average_precision"] = [round(float(auprc(small, each)), 4) for each in maps]
    return found


if __name__ == "__main__":
    main()
