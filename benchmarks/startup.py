"""Seconds from starting `ssdnet` on its embedded example to the first step and to the result.

Command:
  python benchmarks/startup.py --runs=3

The first run has an empty cache folder, the others find what it kept. The command runs on a
pseudo-terminal, so that its progress line can be watched. Unix only.
"""

import argparse
import fcntl
import os
import pty
import struct
import sys
import tempfile
import termios
import time


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=3)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as cache:
        for number in range(runs):
            first, whole = measure(cache)
            kind = "cached" if number else "empty cache"
            print(f"{kind}: first step {first:.1f} s, result {whole:.1f} s", flush=True)


def measure(cache: str) -> tuple[float, float]:
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as workdir:
        process, terminal = pty.fork()
        if process == 0:
            os.environ["SSDNET_CACHE"] = cache
            command = [sys.executable, "-m", "ssdnet_jax", f"--workdir={workdir}/out"]
            os.execv(command[0], command)
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 150, 0, 0))
        first, seen = float("nan"), b""
        while True:
            try:
                received = os.read(terminal, 4096)
            except OSError:  # the other end is closed
                break
            seen += received
            if first != first and b"fitting step" in seen:
                first = time.monotonic() - started
        _, status = os.waitpid(process, 0)
        if status:
            raise SystemExit(seen.decode(errors="replace"))
    return first, time.monotonic() - started


if __name__ == "__main__":
    main()
