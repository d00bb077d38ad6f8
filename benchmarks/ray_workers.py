"""Images a second of two workers of one core each against one, over Ray and as plain processes.

Command:
  python benchmarks/ray_workers.py --json=benchmarks/results/ray_workers.json

Protocol: --images synthetic textures of 256 pixels through whole runs with the default setting's
filter bank, in a process of its own for each of: one worker over Ray, two workers, one plain
process, two plain processes side by side, half of the images each. All take turns. Programs are
compiled, and workers started, by a run before the one that is timed. Each worker has one thread for
its products (NPROC). Beside images a second by the clock there are processor seconds an image: two
workers on cores of their own give 2 x (those of one) / (those of two) times the images of one,
which also says something on a machine that does other work.
"""

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

# Of all processes that this one starts: XLA's threads, and no lower priority for Ray's.
os.environ |= {"NPROC": "1", "RAY_worker_niceness": "0"}

from ssdnet_jax.config import AUTO
from ssdnet_jax.data.files import write_atomically
from ssdnet_jax.data.images import DecodedImage
from ssdnet_jax.data.synthetic import grid_texture
from ssdnet_jax.methods.ssdnet import make_ssdnet
from ssdnet_jax.runner import ray_executor
from ssdnet_jax.runner.run import Options, run
from ssdnet_jax.runner.startup import cores, use_compilation_cache
from ssdnet_jax.runner.terminal import Terminal
from ssdnet_jax.runner.workdir import open_workdir, versions

KINDS = ("ray", "plain")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=12, help="even")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--measure", help="internal: KIND:WORKERS, printed as JSON")
    arguments = parser.parse_args()
    if arguments.measure:
        kind, workers = arguments.measure.split(":")
        measure = {"ray": over_ray, "plain": plain}[kind]
        print(json.dumps(measure(int(workers), arguments.images)), flush=True)
        return
    found: dict[str, list[dict[str, float]]] = {f"{k}:{n}": [] for k in KINDS for n in (1, 2)}
    for _ in range(arguments.turns):
        for what, turns in found.items():
            turns.append(turn(what, arguments.images))
            print(what, turns[-1], flush=True)
    report: dict[str, Any] = {"cores": cores(), "images": arguments.images, "versions": versions()}
    report |= {"turns": found}
    for kind in KINDS:
        clock, processors = (
            [statistics.median(t[field] for t in found[f"{kind}:{n}"]) for n in (1, 2)]
            for field in ("clock_s", "processor_s")
        )
        report[kind] = {
            "speedup_by_clock": round(clock[0] / clock[1], 2),
            "speedup_on_own_cores": round(2 * processors[0] / processors[1], 2),
        }
        print(kind, report[kind])
    if arguments.json:
        text = json.dumps(report, indent=1) + "\n"
        write_atomically(arguments.json, lambda file: file.write(text.encode()))


def turn(what: str, images: int) -> dict[str, float]:
    """Seconds by the clock and of processors."""
    kind, workers = what.split(":")
    if kind == "ray":
        return json.loads(started(what, images).communicate()[0].splitlines()[-1])
    processes = [started(f"plain:{workers}", images // int(workers)) for _ in range(int(workers))]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    outputs = []
    began = time.monotonic()
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        outputs.append(json.loads(process.communicate()[0].splitlines()[-1]))
    return {
        "clock_s": round(time.monotonic() - began, 2),
        "processor_s": round(sum(output["processor_s"] for output in outputs), 2),
    }


def started(what: str, images: int) -> subprocess.Popen[str]:
    command = [sys.executable, __file__, f"--measure={what}", f"--images={images}"]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True)


def plain(workers: int, images: int) -> dict[str, float]:
    use_compilation_cache()
    score(run, 1, "warm")
    print("ready", flush=True)
    sys.stdin.readline()
    before = time.process_time()
    clock = score(run, images, "timed")
    return {"clock_s": clock, "processor_s": time.process_time() - before}


def over_ray(workers: int, images: int) -> dict[str, float]:
    import ray

    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # a short path, for Ray's sockets
        ray.init(num_cpus=workers, _temp_dir=folder, include_dashboard=False, log_to_driver=False)
        try:
            with ray_executor.joined(None):
                score(ray_executor.run, 2 * workers, "warm")
                before = of_workers()
                clock = score(ray_executor.run, images, "timed")
                processors = of_workers() - before
        finally:
            ray.shutdown()
    return {"clock_s": round(clock, 2), "processor_s": round(processors, 2)}


def of_workers() -> float:
    """Processor seconds of all of Ray's workers that this process has started."""
    parents, seconds = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            named = (folder / "cmdline").read_bytes().startswith(b"ray::")
        except OSError:  # it has ended
            continue
        pid = int(folder.name)
        parents[pid] = int(fields[1])
        if named:
            ticks = int(fields[11]) + int(fields[12])
            seconds[pid] = ticks / os.sysconf("SC_CLK_TCK")

    def ours(pid: int) -> bool:
        while pid > 1 and pid != os.getpid():
            pid = parents.get(pid, 0)
        return pid == os.getpid()

    return sum(value for pid, value in seconds.items() if ours(pid))


def score(execute: Any, images: int, name: str) -> float:
    """Seconds of a run over so many textures."""
    method = make_ssdnet(AUTO, None)
    sources = {f"{seed}.png": reader(seed) for seed in range(images)}
    with tempfile.TemporaryDirectory() as folder:
        workdir = open_workdir(Path(folder) / name, method, root=None)
        silent = Terminal(io.StringIO(), io.StringIO())
        options = Options(lanes=1, devices=1)
        began = time.monotonic()
        summary = execute(method, sources, workdir, silent, options=options)
        assert summary.finished == images, summary
        return time.monotonic() - began


def reader(seed: int) -> Any:
    def read() -> DecodedImage:
        return DecodedImage(grid_texture((256, 256), period=16, seed=seed), None, ())

    return read


if __name__ == "__main__":
    main()
