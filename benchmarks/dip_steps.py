"""When to stop Deep Image Prior, and what to compare with the image: AUROC and AUPRC by step.

Command:
  python benchmarks/dip_steps.py --dataset=DATASET --json=FILE

Protocol: image and mask at 256 x 256 pixels as in `ssdnet-evaluate --evaluate_at=256`, seed 0; one
fit an image with the defaults of `ssdnet_jax.baselines.dip`, looked at after so many steps, with
running averages of several memories; the map is the mean over channels of the squared residual. Of
the defective images of the dataset each second, fourth, ... is of half "choice", the others of half
"report"; --every=N takes each N-th of either.
"""

import argparse
import functools
import json
import os
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from ssdnet_jax.baselines.dip import init_generator
from ssdnet_jax.config import PAPER
from ssdnet_jax.core.skip_module import SkipNetwork
from ssdnet_jax.core.skip_network import flatten_parameters, unflatten_parameters
from ssdnet_jax.data.files import write_atomically
from ssdnet_jax.data.images import read_image, read_mask, resize_image
from ssdnet_jax.data.layouts.mvtec import read_mvtec_layout
from ssdnet_jax.evaluation.metrics import auprc, auroc
from ssdnet_jax.runner.run import image_key
from ssdnet_jax.runner.startup import device_name, use_compilation_cache
from ssdnet_jax.runner.workdir import versions

STEPS = (25, 50, 75, 100, 150, 200, 250, 300)
DECAYS = (0.0, 0.9, 0.97, 0.99)
SIZE = (PAPER.image_size,) * 2
NETWORK = PAPER.network


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--json", type=Path, required=True)
    arguments = parser.parse_args()
    use_compilation_cache()
    samples = [s for s in read_mvtec_layout(arguments.dataset) if s.mask_path]
    halves = {"choice": samples[::2], "report": samples[1::2]}
    protocol = {"dataset": arguments.dataset.name, "every": arguments.every, "seed": 0}
    report = {
        "protocol": protocol,
        "machine": {"device": device_name(), "versions": versions()},
        "summary": {},
        "images": [],
    }
    for half, chosen in halves.items():
        for sample in chosen[:: arguments.every]:
            image = resize_image(read_image(sample.path).pixels, SIZE)
            mask = read_mask(sample.mask_path)[..., None].astype(np.float32)
            mask = resize_image(mask, SIZE)[..., 0] > 0.5
            started = time.monotonic()
            rows = follow(image, mask, image_key(0, sample.relative))
            entry = {"path": sample.relative, "half": half, "rows": rows}
            entry["seconds"] = round(time.monotonic() - started, 1)
            report["images"].append(entry)
            report["summary"] = summarize(report["images"])
            text = json.dumps(report, indent=1)
            write_atomically(arguments.json, lambda file, text=text: file.write(text.encode()))
            print(sample.relative, entry["seconds"], flush=True)
    print(json.dumps(report["summary"], indent=1))


def follow(image: np.ndarray, mask: np.ndarray, key: jax.Array) -> list[dict]:
    """The metrics of one fit as it goes on: the loop of `baselines.dip`, in pieces."""
    height, width, channels = image.shape
    parameter_key, z_key, noise_key = jax.random.split(key, 3)
    params = init_generator(parameter_key, NETWORK, channels=channels)
    vector = flatten_parameters(params)
    z = 0.1 * jax.random.uniform(z_key, (1, height, width, 32))
    averages = jnp.zeros((len(DECAYS), *image.shape))
    state = (vector, optax.adam(0.01).init(vector), averages, jnp.zeros(len(DECAYS)), 0, jnp.inf)
    structure = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), params)
    advance = jax.jit(functools.partial(_advance, structure))
    rows = []
    for steps in STEPS:
        state = advance(state, jnp.asarray(image), z, noise_key, steps)
        outputs = state[2] / state[3][:, None, None, None]
        for decay, output in zip(DECAYS, outputs, strict=True):
            residual = np.asarray(jnp.square(image - output).mean(-1))
            row = {"steps": steps, "decay": decay, "loss": float(state[5])}
            row["auroc"] = round(auroc(mask, residual), 4)
            rows.append(row | {"auprc": round(auprc(mask, residual), 4)})
    return rows


def _advance(structure, state, image, z, noise_key, steps):
    optimizer = optax.adam(0.01)
    decays = jnp.asarray(DECAYS)

    def objective(vector, noisy):
        params = unflatten_parameters(vector, structure)
        output = SkipNetwork(NETWORK, image.shape[-1]).apply({"params": params}, noisy)[0]
        return jnp.mean(lax.square(output - image)), output

    def step(state):
        vector, moments, averages, weights, number, _ = state
        noise = jax.random.normal(jax.random.fold_in(noise_key, number), z.shape)
        (loss, output), gradient = jax.value_and_grad(objective, has_aux=True)(
            vector, z + noise / 30
        )
        updates, moments = optimizer.update(gradient, moments)
        old = decays[:, None, None, None]
        return (
            optax.apply_updates(vector, updates),
            moments,
            old * averages + (1 - old) * output,
            decays * weights + (1 - decays),
            number + 1,
            loss,
        )

    return lax.while_loop(lambda state: state[4] < steps, step, state)


def summarize(images: list[dict]) -> dict:
    """Means over the images of a half, AUROC / AUPRC, by memory of the average and step."""
    summary: dict = {}
    for half in dict.fromkeys(image["half"] for image in images):
        rows = [row for image in images if image["half"] == half for row in image["rows"]]
        summary[half] = {"images": sum(image["half"] == half for image in images)}
        for decay in DECAYS:
            summary[half][f"average {decay:g}"] = {
                steps: [
                    round(float(np.mean([r[m] for r in rows if _is(r, steps, decay)])), 3)
                    for m in ("auroc", "auprc")
                ]
                for steps in STEPS
            }
    return summary


def _is(row: dict, steps: int, decay: float) -> bool:
    return row["steps"] == steps and row["decay"] == decay


if __name__ == "__main__":
    main()
