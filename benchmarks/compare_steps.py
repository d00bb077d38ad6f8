"""A step, or a score, of this checkout against one of another: what a change of the core gains.

Command:
  git worktree add ../before COMMIT
  python benchmarks/compare_steps.py --before=../before --json=benchmarks/results/steps.json

Protocol: a process for each checkout, which take blocks of steps in turn; medians over blocks, and
medians of the ratios of neighbouring blocks, of wall time and of the time that the process spent on
cores. The settings are those of benchmarks/roofline.py, and "score": what `auto` does with a fit of
a picture of 256 x 256 pixels whose file has detail, with VGG19's features, here by random weights:
five maps of tiles, marks, and the map that follows the picture. On a machine that does other work
as well, the ratio of times on cores is the one to look at.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

HERE = Path(__file__).resolve().parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", type=Path)
    parser.add_argument("--settings", default="grid,auto,score")
    parser.add_argument("--turns", type=int, default=8)
    parser.add_argument("--steps", type=int, default=3, help="of a block")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--serve", help="internal: a setting; steps on standard input")
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve)
        return
    checkouts = {"before": arguments.before.resolve(), "after": HERE.parent}
    report: dict[str, Any] = {"machine": machine(), "commits": {}}
    for name, path in checkouts.items():
        command = ["git", "-C", str(path), "rev-parse", "HEAD"]
        found = subprocess.run(command, check=True, capture_output=True, text=True)
        report["commits"][name] = found.stdout.strip()
    for setting in arguments.settings.split(","):
        report[setting] = compare(setting, checkouts, arguments)
        print(setting, json.dumps(report[setting], indent=1), flush=True)
    if arguments.json:
        from ssdnet_jax.data.files import write_atomically

        text = json.dumps(report, indent=1) + "\n"
        write_atomically(arguments.json, lambda file: file.write(text.encode()))


def machine() -> dict[str, Any]:
    from ssdnet_jax.runner.startup import cores, device_name
    from ssdnet_jax.runner.workdir import versions

    return {"device": device_name(), "cores_used": cores(), "versions": versions()}


def compare(
    setting: str, checkouts: dict[str, Path], arguments: argparse.Namespace
) -> dict[str, Any]:
    workers = {}
    for name, path in checkouts.items():
        command = [sys.executable, __file__, f"--serve={setting}"]
        environment = {**os.environ, "PYTHONPATH": str(path)}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
        workers[name] = subprocess.Popen(command, env=environment, **pipes)
        assert workers[name].stdout.readline().strip() == "ready"
    found = {name: {"wall": [], "on_cores": []} for name in workers}
    for turn in range(arguments.turns):
        for name in list(workers)[:: 1 if turn % 2 else -1]:
            workers[name].stdin.write(f"{arguments.steps}\n")
            times = workers[name].stdout.readline().split()
            for kind, text in zip(("wall", "on_cores"), times, strict=True):
                found[name][kind].append(float(text) / arguments.steps)
    for worker in workers.values():
        worker.stdin.close()
        worker.wait()
    report = {}
    for kind in ("wall", "on_cores"):
        before, after = found["before"][kind], found["after"][kind]
        ratios = [a / b for a, b in zip(after, before, strict=True)]
        report[f"{kind}_s"] = {n: round(statistics.median(found[n][kind]), 4) for n in found}
        report[f"{kind}_ratio"] = round(statistics.median(ratios), 3)
    return report


def serve(setting: str) -> None:
    """For each number of steps on standard input, their seconds by the clock and on cores."""
    from ssdnet_jax.runner.startup import use_compilation_cache

    use_compilation_cache()
    run = scoring() if setting == "score" else fitting(setting)
    run(1)
    print("ready", flush=True)
    for line in sys.stdin:
        started, on_cores = time.perf_counter(), time.process_time()
        run(int(line))
        print(time.perf_counter() - started, time.process_time() - on_cores, flush=True)


def fitting(setting: str) -> Callable[[int], None]:
    """So many steps of a fit."""
    import functools

    import jax
    import jax.numpy as jnp
    from roofline import example

    from ssdnet_jax.core.fit import fit_block, init_fit

    settings, image = example(setting)
    known = jnp.ones(image.shape[:2])
    image = jnp.asarray(image)
    state = jax.jit(functools.partial(init_fit, settings=settings))(jax.random.key(0), image)
    block = jax.jit(functools.partial(fit_block, settings=settings), donate_argnums=0)

    def run(steps: int) -> None:
        nonlocal state
        state = jax.block_until_ready(block(state, image, known, None, jnp.int32(steps)))

    return run


def scoring() -> Callable[[int], None]:
    """So many scores of one fit."""
    import jax

    from ssdnet_jax.config import AUTO
    from ssdnet_jax.core.score import score
    from ssdnet_jax.core.target import encode
    from ssdnet_jax.data.weights import random_vgg19_weights

    plan = AUTO.resolve_features(has_vgg19=True).plan((256, 256), detailed=True)
    weights = random_vgg19_weights(0)
    images, details = (
        jax.random.uniform(jax.random.key(i), (1, side, side, 3))
        for i, side in ((1, 256), (2, 512))
    )
    target = jax.jit(lambda y, detail: encode(y, weights, plan, details=detail))(images, details)
    program = jax.jit(lambda target, mu: score(target, mu, None, plan).raw)

    def run(times: int) -> None:
        for _ in range(times):
            jax.block_until_ready(program(target, 0 * target.values))

    return run


if __name__ == "__main__":
    main()
