"""Seconds and average precision of `auto` against what a user would pick instead, interleaved.

Command:
  python benchmarks/contenders.py --dataset=DATASETS --every=4 --json=FILE

Protocol: one process, restricted to one core (`--cores`, by the affinity of the process), in which
each method takes each picture in turn, in an order that changes from picture to picture; so a
machine that does other work slows all of them alike. Time is what the process spends on cores from
the decoded picture to its map, at the size of its file; a method that meets a size and number of
channels for the first time does the picture twice and its first time is left out, for there
programs are traced and compiled. A picture's average precision is
that of its pixels, compared at 256 x 256; sets weigh the same in the mean. Methods are named as
`ssdnet-evaluate --methods` takes them; what this checkout does not have is left out and named.
`torch_loop`, the paper's setting for periodic patterns as a plain loop (`torch_loop.py`), needs
torch.
"""

import argparse
import importlib.util
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "1")

METHODS = (
    *("ssdnet:auto", "ssdnet:auto_thorough", "fca:border=corrected", "qfca"),
    *("spectral_residual", "torch_loop"),
)
SIDE = 256  # pixels, of the square at which maps are compared


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", type=Path, required=True, help="a labelled set, or several")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--every", type=int, default=1, help="which of a set's defective pictures")
    parser.add_argument("--cores", type=int, default=1)
    parser.add_argument("--torch_steps", type=int, default=240, help="of torch_loop, at most")
    parser.add_argument("--vgg19_weights")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.cores])

    from ssdnet_jax.data.datasets import find_sets, read_dataset
    from ssdnet_jax.experiments.scoring import defective
    from ssdnet_jax.runner.startup import use_compilation_cache

    use_compilation_cache()
    sets = {
        root.relative_to(arguments.dataset).as_posix(): defective(read_dataset(root))[
            :: arguments.every
        ]
        for root in find_sets(arguments.dataset)
    }
    methods, left_out = {}, []
    for name in arguments.methods.split(","):
        found = contender(name, arguments)
        if found is None:
            left_out.append(name)
        else:
            methods[name] = found
    print(f"{sum(map(len, sets.values()))} pictures of {len(sets)} sets; not here: {left_out}")
    rows, number = [], 0
    seen: set[tuple[Any, ...]] = set()  # method and shape of what it has scored
    for of_set, samples in sets.items():
        for sample in samples:
            names = [*methods][number % len(methods) :] + [*methods][: number % len(methods)]
            number += 1
            for name in names:
                rows.append({"set": of_set, **measured(name, methods[name], sample, seen)})
                text = "{set} {picture} {method} {seconds:.2f} s {auprc:.3f}"
                print(text.format(**rows[-1]), flush=True)
    report = {"machine": machine(arguments), "left_out": left_out, "methods": summary(rows)}
    print_table(report["methods"])
    if arguments.json:
        from ssdnet_jax.data.files import write_atomically

        text = json.dumps({**report, "rows": rows}, indent=1) + "\n"
        write_atomically(arguments.json, lambda file: file.write(text.encode()))


Scoring = Callable[[Any], Any]  # a decoded image -> its map


def contender(name: str, arguments: argparse.Namespace) -> Scoring | None:
    """A method by name, ready to score; None if it is not to be had here."""
    from ssdnet_jax.config_files import load_config
    from ssdnet_jax.errors import SSDnetError
    from ssdnet_jax.methods.registry import make_method, split_method
    from ssdnet_jax.runner import startup

    if name == "torch_loop":
        if importlib.util.find_spec("torch") is None:
            return None
        return lambda image: torch_map(image.pixels, arguments)
    kind, rest = split_method(name)
    try:
        config = load_config(rest if kind == "ssdnet" and rest else "auto")
        method = startup.with_weights(
            make_method(name, config), vgg19_path=arguments.vgg19_weights, report=print
        )
    except SSDnetError as error:
        print(f"{name}: {error}")
        return None
    return lambda image: map_of(method, image)


def map_of(method: Any, image: Any) -> Any:
    """The map of an image by a method of the run loop, alone."""
    import jax

    from ssdnet_jax.runner.stream import Failure, Incoming, Stream, localizations

    prepared = method.prepare(image, jax.random.key(method.config.seed))
    stream = Stream(method, iter([Incoming("picture", prepared)]))
    for group in stream.results(lanes=lambda bucket: (1, 1)):
        if isinstance(group, Failure):
            raise group.error
        for _, _, found in localizations(method, group):
            if isinstance(found, Exception):
                raise found
            return found().score_map
    raise AssertionError("no result")


def torch_map(pixels: Any, arguments: argparse.Namespace) -> Any:
    """The map of the plain loop, at 256 x 256."""
    import torch
    from torch_loop import THRESHOLD, Fit

    from ssdnet_jax.data.images import resize_image

    torch.set_num_threads(arguments.cores)
    small = resize_image(pixels, (SIDE, SIDE))
    fit = Fit(torch.from_numpy(small.transpose(2, 0, 1)[None].copy()), 0)
    for _ in range(arguments.torch_steps):
        if fit.step() < THRESHOLD:
            break
    return fit.score_map().numpy()


def measured(name: str, score: Scoring, sample: Any, seen: set[tuple[Any, ...]]) -> dict[str, Any]:
    from ssdnet_jax.data.images import read_image, resize_map
    from ssdnet_jax.data.labels import read_label
    from ssdnet_jax.evaluation.metrics import auprc

    image = read_image(sample.path)
    shape = image.pixels.shape[:2]
    if (name, *image.pixels.shape) not in seen:
        score(image)
    seen.add((name, *image.pixels.shape))
    on_cores, clock = time.process_time(), time.perf_counter()
    score_map = score(image)
    seconds, by_clock = time.process_time() - on_cores, time.perf_counter() - clock
    mask = read_label(sample, shape).mask
    small, mask = (resize_map(x.astype("float32"), (SIDE, SIDE)) for x in (score_map, mask))
    return {
        "picture": sample.relative,
        "method": name,
        "seconds": round(seconds, 3),
        "by_clock": round(by_clock, 3),
        "auprc": round(auprc(mask >= 0.5, small), 4),
    }


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Of each method: seconds a picture, and average precision by set and over sets."""
    report: dict[str, Any] = {}
    for name in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == name]
        by_set = {
            of_set: statistics.fmean(row["auprc"] for row in own if row["set"] == of_set)
            for of_set in dict.fromkeys(row["set"] for row in own)
        }
        report[name] = {
            "pictures": len(own),
            "seconds_median": statistics.median(row["seconds"] for row in own),
            "by_clock_median": statistics.median(row["by_clock"] for row in own),
            "auprc": round(statistics.fmean(by_set.values()), 4),
            "auprc_by_set": {key: round(value, 4) for key, value in by_set.items()},
        }
    for found in report.values():
        found["on_the_front"] = not any(
            other["seconds_median"] < found["seconds_median"] and other["auprc"] > found["auprc"]
            for other in report.values()
        )
    return report


def print_table(report: dict[str, Any]) -> None:
    print(f"{'method':32} {'seconds':>8} {'AUPRC':>7}  on the front")
    for name, found in sorted(report.items(), key=lambda item: item[1]["seconds_median"]):
        text = f"{name:32} {found['seconds_median']:8.2f} {found['auprc']:7.3f}"
        print(f"{text}  {'yes' if found['on_the_front'] else 'no'}")


def machine(arguments: argparse.Namespace) -> dict[str, Any]:
    from ssdnet_jax.runner.startup import device_name
    from ssdnet_jax.runner.workdir import versions

    return {"device": device_name(), "cores_used": arguments.cores, "versions": versions()}


if __name__ == "__main__":
    main()
