"""Baselines beside each other on labelled sets: AUROC, AUPRC and seconds, image by image.

    python benchmarks/rivals.py --data=../shared/data --json=rivals.json \
      --methods=qfca,aota,grnr,fca:border=corrected

Every defective image is brought to 256 x 256 pixels and scored by one method after another, so that
all of them meet the same load of the machine; seconds are those of the processor (user and system)
of this one process, without the first image of each method, which compiles. Metrics are means over
images of those of single images (docs/comparison.md).
"""

import argparse
import json
import time
from pathlib import Path

import jax
import numpy as np

from ssdnet_jax.config import Config
from ssdnet_jax.data.datasets import read_dataset
from ssdnet_jax.data.images import read_image, read_mask, resize_image
from ssdnet_jax.data.weights import load_vgg19_weights
from ssdnet_jax.evaluation.metrics import auprc, auroc
from ssdnet_jax.methods.baseline import BaselineMethod
from ssdnet_jax.methods.registry import make_method

SETS = ("textures", "mvtec_grid_128", "fabric", "unseen/mvtec512_leather", "unseen/mvtec512_tile")
SETS += ("unseen/mvtec512_wood", "unseen/crackforest", "unseen/magnetic_tile")
SIDE = 256


def main() -> None:
    """Scores, measures, and writes after every set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--methods", required=True)
    parser.add_argument("--sets", default=",".join(SETS))
    arguments = parser.parse_args()
    vgg19 = load_vgg19_weights()
    key = jax.random.key(0)
    methods = {}
    for text in arguments.methods.split(","):
        method = make_method(text, Config())
        if not isinstance(method, BaselineMethod):
            parser.error(f"--methods: found {text}; expected baselines")
        methods[text] = method
    results = {}
    for name in arguments.sets.split(","):
        rows: dict[str, list[tuple[float, float, float]]] = {text: [] for text in methods}
        for sample in read_dataset(arguments.data / name):
            if sample.mask_path is None:
                continue
            image = np.asarray(resize_image(read_image(sample.path).pixels, (SIDE, SIDE)))
            mask = read_mask(sample.mask_path)[..., None].astype(np.float32)
            mask = np.asarray(resize_image(mask, (SIDE, SIDE)))[..., 0] > 0.5
            if not mask.any():
                continue
            for text, method in methods.items():
                start = time.process_time()
                found = method.baseline(image, key=key, vgg19=vgg19, **method.options)
                score_map = np.asarray(found)
                seconds = time.process_time() - start
                rows[text].append((auroc(mask, score_map), auprc(mask, score_map), seconds))
        results[name] = {
            text: {
                "images": len(of_method),
                "auroc": float(np.mean([row[0] for row in of_method])),
                "auprc": float(np.mean([row[1] for row in of_method])),
                "seconds": float(np.mean([row[2] for row in of_method[1:]])),
            }
            for text, of_method in rows.items()
        }
        for text, of_method in results[name].items():
            print(name, text, json.dumps(of_method), flush=True)
        arguments.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
