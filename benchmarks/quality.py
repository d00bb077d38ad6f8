"""Per-image AUROC and AUPRC of a configuration on a dataset in MVTec AD's layout.

Command:
  python benchmarks/quality.py --dataset=DATASET --config=grid --seeds=0,1,2 --json=FILE

Protocol: image and mask are resized to --size x --size pixels (bilinear with antialiasing, mask
above one half), the method runs on that image, and its raw map is compared with that mask. Each
defective image gives one AUROC and one AUPRC (average precision); a seed's figure is their mean
over images (the paper's protocol), and the spread is the standard deviation over seeds. The JSON is
written after every image, and a rerun goes on where it stopped.
"""

import argparse
import dataclasses
import json
import os
import resource
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

import ssdnet_jax
from ssdnet_jax.config import from_config_dict
from ssdnet_jax.data.datasets import Sample, read_mvtec_layout
from ssdnet_jax.data.files import write_atomically
from ssdnet_jax.data.images import read_image, read_mask, resize_image
from ssdnet_jax.evaluation.metrics import auprc, auroc
from ssdnet_jax.runner.processes import device_name, use_compilation_cache
from ssdnet_jax.runner.run import image_key
from ssdnet_jax.runner.workdir import versions


def main() -> None:
    arguments = parse_arguments()
    config = ssdnet_jax.load_config(arguments.config)
    for override in arguments.set:
        config = overridden(config, *override.split("=", 1))
    use_compilation_cache()
    vgg19 = ssdnet_jax.load_vgg19_weights(arguments.vgg19_weights) if config.needs_vgg19 else None
    categories = arguments.categories.split(",") if arguments.categories else None
    samples = [
        s for s in read_mvtec_layout(arguments.dataset, categories=categories) if s.mask_path
    ]
    samples = samples[:: arguments.every]

    report = load_report(arguments, config)
    done = {(row["path"], row["seed"]) for row in report["images"]}
    for seed in map(int, arguments.seeds.split(",")):
        for sample in samples:
            if (sample.relative, seed) in done:
                continue
            row = score_sample(sample, config, seed, arguments.size, vgg19)
            report["images"].append(row)
            report["summary"] = summarize(report["images"])
            text = json.dumps(report, indent=1)
            write_atomically(arguments.json, lambda file, text=text: file.write(text.encode()))
            print(json.dumps(row), flush=True)
    print(json.dumps(report["summary"], indent=1))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", type=Path, required=True, help="folder with category/test")
    parser.add_argument("--categories", default="", help="comma-separated; default all")
    parser.add_argument("--config", default="grid")
    parser.add_argument("--set", action="append", default=[], help="fit.max_steps=100; repeatable")
    parser.add_argument(
        "--size", type=int, default=256, help="pixels, side of the evaluated square"
    )
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--every", type=int, default=1, help="take every n-th defective image")
    parser.add_argument("--vgg19_weights", default=None)
    parser.add_argument("--json", type=Path, required=True)
    return parser.parse_args()


def overridden(config: ssdnet_jax.Config, name: str, text: str) -> ssdnet_jax.Config:
    values = dataclasses.asdict(config)
    *groups, field = name.split(".")
    target = values
    for group in groups:
        target = target[group]
    target[field] = json.loads(text) if text[0] in "-0123456789[" else text
    return from_config_dict(values)


def load_report(arguments: argparse.Namespace, config: ssdnet_jax.Config) -> dict:
    protocol = {
        "dataset": arguments.dataset.name,
        "categories": arguments.categories,
        "every": arguments.every,
        "size": arguments.size,
        "config": json.loads(json.dumps(dataclasses.asdict(config))),
    }
    if arguments.json.exists():
        report = json.loads(arguments.json.read_text())
        if report["protocol"] != protocol:
            raise SystemExit(f"{arguments.json}: of another protocol; expected another --json")
        return report
    machine = {"device": device_name(), "versions": versions()}
    return {"protocol": protocol, "machine": machine, "summary": {}, "images": []}


def score_sample(sample: Sample, config: ssdnet_jax.Config, seed: int, size: int, vgg19) -> dict:
    decoded = read_image(sample.path)
    mask = read_mask(sample.mask_path, shape=decoded.pixels.shape[:2])
    image = resize_image(decoded.pixels, (size, size))
    mask = resize_image(mask[..., None].astype(np.float32), (size, size))[..., 0] > 0.5
    started = time.monotonic()
    result = ssdnet_jax.localize(image, config, image_key(seed, sample.relative), vgg19=vgg19)
    return {
        "path": sample.relative,
        "category": sample.category,
        "defect": sample.defect,
        "seed": seed,
        "auroc": round(auroc(mask, result.score_map), 4),
        "auprc": round(auprc(mask, result.score_map), 4),
        "steps": result.steps,
        "stop": result.stop_reason,
        "restorations": result.restorations,
        "loss": float(result.losses[-1]),
        "seconds": round(time.monotonic() - started, 1),
        "peak_memory_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }


def summarize(rows: list[dict]) -> dict:
    """Mean over images for each seed, then mean and spread over seeds; likewise by defect type."""
    groups = {"all": rows}
    for row in rows:
        groups.setdefault(f"{row['category']}/{row['defect']}", []).append(row)
    return {name: _group_summary(group) for name, group in groups.items()}


def _group_summary(rows: list[dict]) -> dict:
    seeds = sorted({row["seed"] for row in rows})
    result = {"images": len({row["path"] for row in rows}), "seeds": len(seeds)}
    for metric in ("auroc", "auprc"):
        means = [np.mean([r[metric] for r in rows if r["seed"] == seed]) for seed in seeds]
        result[f"{metric}_mean"] = round(float(np.mean(means)), 4)
        result[f"{metric}_spread"] = round(float(np.std(means, ddof=1)), 4) if seeds[1:] else None
    result["seconds_median"] = float(np.median([row["seconds"] for row in rows]))
    return result


if __name__ == "__main__":
    main()
