"""Seconds from starting `ssdnet` on its embedded example to the first step and to the result.

Command:
  python benchmarks/startup.py --runs=3
  python benchmarks/startup.py --runs=4 --before=CHECKOUT --json=benchmarks/results/startup.json

The first run of a checkout has an empty cache folder, the others find what it kept; checkouts take
turns. The command runs on a pseudo-terminal, so that its progress line can be watched. Beside the
seconds by the clock those that the process spent on cores, the ones to look at on a machine that
does other work as well. Linux only.
"""

import argparse
import fcntl
import json
import os
import pty
import struct
import sys
import tempfile
import termios
import time
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--before", type=Path, help="a checkout to compare with")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    checkouts = {"after": HERE}
    if arguments.before:
        checkouts["before"] = arguments.before.resolve()
    report = {name: [] for name in checkouts}
    with tempfile.TemporaryDirectory() as caches:
        for number in range(arguments.runs):
            for name, path in checkouts.items():
                found = measure(path, f"{caches}/{name}")
                report[name].append(found)
                kind = "cached" if number else "empty cache"
                text = ", ".join(f"{what} {value:.1f}" for what, value in found.items())
                print(f"{name}, {kind}: {text}", flush=True)
    if arguments.json:
        rounded = {
            name: [{what: round(value, 2) for what, value in run.items()} for run in runs]
            for name, runs in report.items()
        }
        arguments.json.write_text(json.dumps(rounded, indent=1) + "\n")


def measure(checkout: Path, cache: str) -> dict[str, float]:
    """Seconds of one run by the clock and on cores, to its first step and to its result."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as workdir:
        process, terminal = pty.fork()
        if process == 0:
            os.environ |= {"SSDNET_CACHE": cache, "PYTHONPATH": str(checkout)}
            for name in ("JAX_COMPILATION_CACHE_DIR", "PYTHONDONTWRITEBYTECODE"):
                os.environ.pop(name, None)  # modules are kept compiled, as those of an installation
            os.chdir(checkout)  # which `python -m` looks into before all else
            command = [sys.executable, "-m", "ssdnet_jax", f"--workdir={workdir}/out"]
            os.execv(command[0], command)
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 150, 0, 0))
        found: dict[str, float] = {}
        seen = b""
        while True:
            try:
                received = os.read(terminal, 4096)
            except OSError:  # the other end is closed
                break
            seen += received
            if not found and b"fitting step" in seen:
                found["first_step_s"] = time.monotonic() - started
                fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
                on_cores = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
                found["first_step_on_cores_s"] = on_cores
        _, status, used = os.wait4(process, 0)
        if status:
            raise SystemExit(seen.decode(errors="replace"))
    found["result_s"] = time.monotonic() - started
    found["result_on_cores_s"] = used.ru_utime + used.ru_stime
    return found


if __name__ == "__main__":
    main()
