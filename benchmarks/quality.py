"""Per-image AUROC and AUPRC of methods on a dataset in MVTec AD's layout.

Command:
  python benchmarks/quality.py --dataset=DATASET --config=grid --seeds=0,1,2 --json=FILE
  python benchmarks/quality.py --dataset=DATASET --methods=ssdnet,fca:border=corrected --json=FILE
  python benchmarks/quality.py --dataset=DATASET --missing=0.01 --missing_values=zero \
    --methods=spectral_residual:width=50:sigma=2 --json=FILE

Protocol: image and mask are resized to --size x --size pixels (bilinear with antialiasing, mask
above one half), the method runs on that image, and its raw map is compared with that mask. Each
defective image gives one AUROC and one AUPRC (average precision); a seed's figure is their mean
over images (the paper's protocol), and the spread is the standard deviation over seeds. Methods
without randomness run once. Noise and missing pixels, if asked for, are put on the image of --size
(`ssdnet_jax.experiments.reproduce.corrupt`); SSDnet inpaints missing pixels, other methods get the
nearest known value, or 0 with --missing_values=zero. --noise_of_original is noise of the picture
in its file, before that is resized, as a camera makes it. The JSON is written after every image,
and a rerun goes on where it stopped.
"""

import argparse
import ast
import dataclasses
import functools
import itertools
import json
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

import ssdnet_jax
from ssdnet_jax.baselines.registry import load_baseline
from ssdnet_jax.config import from_config_dict
from ssdnet_jax.data.datasets import Sample, read_mvtec_layout
from ssdnet_jax.data.files import write_atomically
from ssdnet_jax.data.images import DecodedImage, read_image, read_mask, resize_image
from ssdnet_jax.evaluation.metrics import auprc, auroc
from ssdnet_jax.experiments.reproduce import Corruption, corrupt, is_random
from ssdnet_jax.runner.executors import fill_nearest
from ssdnet_jax.runner.run import image_key
from ssdnet_jax.runner.startup import device_name, use_compilation_cache
from ssdnet_jax.runner.workdir import versions


def main() -> None:
    arguments = parse_arguments()
    config = ssdnet_jax.load_config(arguments.config)
    for override in arguments.set:
        config = overridden(config, *override.split("=", 1))
    use_compilation_cache()
    config = config.settled(has_vgg19=True)
    methods = arguments.methods.split(",")
    weights = None
    if config.needs_vgg19 or any(method.startswith("fca") for method in methods):
        weights = ssdnet_jax.load_vgg19_weights(arguments.vgg19_weights)
    corruptions = [Corruption("noise", arguments.noise), Corruption("missing", arguments.missing)]
    corruptions = [corruption for corruption in corruptions if corruption.level]
    camera = Corruption("noise", arguments.noise_of_original)
    categories = arguments.categories.split(",") if arguments.categories else None
    samples = [
        s for s in read_mvtec_layout(arguments.dataset, categories=categories) if s.mask_path
    ]
    samples = samples[:: arguments.every]

    report = load_report(arguments, config)
    done = {(row["path"], row["method"], row["seed"]) for row in report["images"]}
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    fill = arguments.missing_values == "nearest"
    score = {method: scorer(method, config, weights, fill=fill) for method in methods}
    for seed, sample, method in itertools.product(seeds, samples, methods):
        if (sample.relative, method, seed) in done or (seed != seeds[0] and not is_random(method)):
            continue
        image, mask = prepared(sample, arguments.size, camera, corruptions)
        row = {"path": sample.relative, "category": sample.category, "defect": sample.defect}
        row |= {"method": method, "seed": seed}
        report["images"].append(row | measured(score[method], image, mask, seed, sample))
        report["summary"] = summarize(report["images"])
        text = json.dumps(report, indent=1)
        write_atomically(arguments.json, lambda file, text=text: file.write(text.encode()))
        print(json.dumps(report["images"][-1]), flush=True)
    print(json.dumps(report["summary"], indent=1))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", type=Path, required=True, help="folder with category/test")
    parser.add_argument("--categories", default="", help="comma-separated; default all")
    parser.add_argument("--methods", default="ssdnet", help="ssdnet, or NAME:OPTION=VALUE:...")
    parser.add_argument("--config", default="auto", help="of ssdnet, such as auto or grid")
    parser.add_argument("--set", action="append", default=[], help="fit.max_steps=100; repeatable")
    parser.add_argument(
        "--size", type=int, default=256, help="pixels, side of the evaluated square"
    )
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--noise", type=float, default=0.0, help="deviation, of values in [0, 1]")
    parser.add_argument("--noise_of_original", type=float, default=0.0, help="before resizing")
    parser.add_argument("--missing", type=float, default=0.0, help="share of pixels")
    parser.add_argument("--missing_values", choices=("nearest", "zero"), default="nearest")
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
        "noise": arguments.noise,
        "missing": arguments.missing,
        "config": json.loads(json.dumps(dataclasses.asdict(config))),
    }
    if arguments.missing:
        protocol["missing_values"] = arguments.missing_values
    if arguments.noise_of_original:
        protocol["noise_of_original"] = arguments.noise_of_original
    if arguments.json.exists():
        report = json.loads(arguments.json.read_text())
        if report["protocol"] != protocol:
            raise SystemExit(f"{arguments.json}: of another protocol; expected another --json")
        return report
    machine = {"device": device_name(), "versions": versions()}
    return {"protocol": protocol, "machine": machine, "summary": {}, "images": []}


def prepared(
    sample: Sample, size: int, camera: Corruption, corruptions: list[Corruption]
) -> tuple[DecodedImage, np.ndarray]:
    """The image and the mask at the size of the evaluation."""
    decoded = read_image(sample.path)
    if camera.level:
        decoded = corrupt(decoded, camera, relative=sample.relative)
    mask = read_mask(sample.mask_path, shape=decoded.pixels.shape[:2])
    mask = resize_image(mask[..., None].astype(np.float32), (size, size))[..., 0] > 0.5
    image = dataclasses.replace(decoded, pixels=resize_image(decoded.pixels, (size, size)))
    for corruption in corruptions:
        image = corrupt(image, corruption, relative=sample.relative)
    return image, mask


def scorer(method: str, config: ssdnet_jax.Config, vgg19, *, fill: bool) -> Callable:
    """Gives the raw map and what else is known, of an image and a key.

    Baselines see the nearest known value of a missing pixel if `fill`, else 0.
    """
    if method == "ssdnet":

        def of_ssdnet(image: DecodedImage, key):
            result = ssdnet_jax.localize(
                image.pixels, config, key, missing=image.missing, vgg19=vgg19
            )
            return result.score_map, {
                "steps": result.steps,
                "stop": result.stop_reason,
                "restorations": result.restorations,
                "loss": float(result.losses[-1]),
            }

        return of_ssdnet
    options = dict(option.split("=", 1) for option in method.split(":")[1:])
    options = {name: literal(text) for name, text in options.items()}
    baseline = load_baseline(name_of(method))
    function = functools.partial(baseline.function, **options)
    baseline = dataclasses.replace(baseline, function=function)

    def of_baseline(image: DecodedImage, key):
        pixels = image.pixels
        if fill and image.missing is not None:
            pixels = fill_nearest(pixels, image.missing)
        return np.asarray(baseline(pixels, key=key, vgg19=vgg19)), {}

    return of_baseline


def literal(text: str):
    """A number or None if the text is one, else the text."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def name_of(method: str) -> str:
    return method.split(":")[0]


def measured(score: Callable, image: DecodedImage, mask: np.ndarray, seed: int, sample: Sample):
    started = time.monotonic()
    score_map, more = score(image, image_key(seed, sample.relative))
    return {
        "auroc": round(auroc(mask, score_map), 4),
        "auprc": round(auprc(mask, score_map), 4),
        **more,
        "seconds": round(time.monotonic() - started, 1),
        "peak_memory_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }


def summarize(rows: list[dict]) -> dict:
    """Mean over images for each seed, then mean and spread over seeds; by category and defect."""
    groups: dict[str, dict[str, list[dict]]] = {}
    for row in rows:
        for name in ("all", row["category"], f"{row['category']}/{row['defect']}"):
            groups.setdefault(row["method"], {}).setdefault(name, []).append(row)
    return {
        method: {name: _group_summary(group) for name, group in by_name.items()}
        for method, by_name in groups.items()
    }


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
