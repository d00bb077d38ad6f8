"""Runs that are interrupted, killed or robbed of what they need; each is a process of its own.

A baseline that fits nothing keeps them short; what is tried is the same for every method.
"""

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssdnet_jax.data.synthetic import grid_texture
from ssdnet_jax.runner.lock import LOCK_FILE

QUICK = ["--method=spectral_residual", "--image_size=48"]
ENVIRONMENT = {**os.environ, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
# As the command, but reading an image never ends: what a network drive that has gone does.
HANGING = """
import sys, time
from ssdnet_jax.runner import sources
sources.read_image = lambda *path, **options: time.sleep(1000)
from ssdnet_jax.cli.ssdnet import console
print("started", flush=True)
console()
"""


STARTED = []


@pytest.fixture(autouse=True)
def none_left():
    """A test that fails leaves no process behind."""
    yield
    for process in STARTED:
        process.kill()
        process.wait()
    STARTED.clear()


def put(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.round(255 * grid_texture((40, 56), period=8, seed=seed)[..., 0])
    Image.fromarray(pixels.astype(np.uint8)).save(path)


@pytest.fixture
def pictures(tmp_path):
    for number in range(6):
        put(tmp_path / "in" / f"{number}.png", number)
    return tmp_path


# A shell lets what it runs in the background ignore Ctrl-C, tests included.
LAUNCH = """
import os, resource, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
{before}
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def begin(folder, *flags, program=("-m", "ssdnet_jax"), before="", **options):
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
    launch = [sys.executable, "-S", "-c", LAUNCH.format(before=before)]
    workdir = [] if any(flag.startswith("--workdir=") for flag in flags) else ["--workdir=out"]
    command = [*launch, *program, *QUICK, "--input=in", *workdir, *flags]
    STARTED.append(subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, **streams))
    return STARTED[-1]


def ended(process, timeout=100):
    out, err = process.communicate(timeout=timeout)
    return process.returncode, out, err


def run(folder, *flags, **options):
    return ended(begin(folder, *flags, **options))


def rows(folder, name="results.csv"):
    with (folder / "out" / name).open(newline="", encoding="utf-8") as file:
        return {row["path"]: row for row in csv.DictReader(file)}


def wait_for(process, condition):
    deadline = time.monotonic() + 100
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)


def finished(folder):
    table = folder / "out" / "results.csv"
    return table.read_bytes().count(b",ok,") if table.exists() else 0


@pytest.mark.parametrize(
    ("number", "status", "words"),
    [
        (signal.SIGINT, 130, "\nssdnet: interrupted; finished images are kept\n"),
        (signal.SIGTERM, 143, ""),
    ],
)
def test_one_signal_ends_a_run_whose_reading_hangs(pictures, number, status, words):
    process = begin(pictures, program=("-c", HANGING))
    wait_for(process, lambda: (pictures / "out" / "results.csv").exists())
    time.sleep(0.2)
    process.send_signal(number)
    began = time.monotonic()
    found, _, err = ended(process, timeout=30)
    assert (found, err) == (status, words)
    assert time.monotonic() - began < 15


def test_ctrl_c_in_the_first_second_leaves_no_trace(pictures):
    process = begin(pictures)
    # The package is being imported; before that Ctrl-C is Python's own matter.
    wait_for(process, lambda: "jaxlib" in Path(f"/proc/{process.pid}/maps").read_text())
    process.send_signal(signal.SIGINT)
    status, out, err = ended(process)
    assert status in (130, -signal.SIGINT)
    assert (out, err.replace("\nssdnet: interrupted; finished images are kept\n", "")) == ("", "")


def test_pictures_that_come_are_scored_until_ctrl_c(pictures):
    (pictures / "in").rename(pictures / "more")
    (pictures / "in").mkdir()
    process = begin(pictures, "--watch")
    wait_for(process, lambda: (pictures / "out" / "results.csv").exists())
    shutil.copy(pictures / "more" / "0.png", pictures / "in")
    whole = (pictures / "more" / "1.png").read_bytes()
    (pictures / "in" / "1.png").write_bytes(whole[:500])  # a copy that has stopped half way
    wait_for(process, lambda: finished(pictures) == 1 and b"error" in table(pictures))
    (pictures / "in" / "1.png").write_bytes(whole)
    wait_for(process, lambda: finished(pictures) == 2)
    put(pictures / "in" / "0.png", 7)  # another picture under the same name
    wait_for(process, lambda: table(pictures).count(b"0.png,ok") and sha256_of(pictures, "0.png"))
    wait_for(process, lambda: (pictures / "out" / "verdicts.csv").exists())
    process.send_signal(signal.SIGINT)
    status, out, err = ended(process)
    assert (status, out[:21]) == (0, "3 finished, 1 failed "), err
    assert "of 2 anomalous" in out
    assert err.splitlines()[0].startswith("ssdnet: in/1.png: ")
    assert "0.png: its file or its mask has changed since it was scored" in err
    assert set(rows(pictures)) == set(rows(pictures, "verdicts.csv")) == {"0.png", "1.png"}
    assert not (pictures / "out" / LOCK_FILE).exists()


def table(folder):
    return (folder / "out" / "results.csv").read_bytes()


def sha256_of(folder, name):
    """Whether the row of an image has the hash of what its file holds now."""
    import hashlib

    row = rows(folder).get(name)
    digest = hashlib.sha256((folder / "in" / name).read_bytes()).hexdigest()
    return row is not None and row["sha256"] == digest


@pytest.mark.slow
def test_output_that_cannot_be_written_costs_no_result(pictures):
    with Path("/dev/full").open("w") as full:
        status, _, err = run(pictures, stdout=full)
    assert status == 1 and finished(pictures) == 6
    assert err.startswith("ssdnet: standard output cannot be written (No space left on device)")
    assert err.count("\n") == 1 and "6 finished in" in err
    # Neither stream is there at all: files must not be opened under their numbers.
    closed = f"exec {sys.executable} -m ssdnet_jax {' '.join(QUICK)} --input=in --workdir=out"
    done = subprocess.run(f"{closed} <&- >&- 2>&-", shell=True, cwd=pictures, env=ENVIRONMENT)
    assert done.returncode == 0


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_and_leaves_nothing_unfinished(pictures):
    for count in (1, 3):
        process = begin(pictures)
        wait_for(process, lambda count=count: finished(pictures) >= count)
        process.kill()
        ended(process)
    kept = {path: row for path, row in rows(pictures).items() if row["error"] is not None}
    (pictures / "out" / "maps" / f".{'0' * 32}.tmp").write_bytes(b"half")
    status, out, err = run(pictures)
    assert (status, err) == (0, "") and "finished before" in out
    after = rows(pictures)
    assert len(after) == 6 and all(after[path] == row for path, row in kept.items())
    assert not [p for p in (pictures / "out").rglob(".*")]


@pytest.mark.slow
def test_a_second_run_in_the_folder_is_refused_and_changes_nothing(pictures):
    process = begin(pictures, program=("-c", HANGING))
    wait_for(process, lambda: (pictures / "out" / "results.csv").exists())
    before = table(pictures)
    status, _, err = run(pictures)
    assert status == 2 and table(pictures) == before
    assert f"another run is at work in it (host {os.uname().nodename}, process {process.pid}" in err
    process.kill()
    ended(process)
    assert run(pictures)[0] == 0


@pytest.mark.slow
@pytest.mark.parametrize("how", ["removed", "read-only"])
def test_a_work_folder_that_is_taken_away_ends_the_run_without_a_new_table(pictures, how):
    for number in range(6, 200):
        shutil.copy(pictures / "in" / "0.png", pictures / "in" / f"{number}.png")
    process = begin(pictures)
    wait_for(process, lambda: finished(pictures) >= 2)
    if how == "removed":
        (pictures / "out").rename(pictures / "elsewhere")
    else:
        (pictures / "out" / "results.csv").rename(pictures / "out" / "mine.csv")
    status, out, err = ended(process)
    assert (status, out) == (2, "")
    assert "out: the work folder has gone while the run was at work in it" in err.splitlines()[-1]
    # What was being written when it went may have made its folders again, but no table.
    assert not (pictures / "out" / "results.csv").exists()
    if how == "removed":
        names = {p.name.partition(".")[0] for p in (pictures / "out").rglob("*") if p.is_file()}
        assert len(names) <= 4


@pytest.mark.slow
def test_a_full_disk_ends_a_run_in_one_line_and_costs_no_finished_image(pictures):
    run(pictures)
    limit = 200  # bytes that a file may have: as on a full disk every larger write fails
    (pictures / "out" / "maps" / "3.png.tiff").unlink()

    full = (
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))"
    )
    status, out, err = run(pictures, before=full)
    assert status == 2 and out == ""
    (line,) = err.splitlines()
    assert line.startswith("ssdnet: out: cannot be used as a work folder (File too large)")
    assert len(rows(pictures)) == 6
    status, out, _ = run(pictures)
    assert status == 0 and out.startswith("1 finished, 5 finished before in ")


@pytest.mark.slow
def test_a_small_disk_that_fills_up_ends_a_run_in_order(pictures):
    disk = pictures / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(disk)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no right to mount a small disk")
    try:
        status, _, err = run(pictures, f"--workdir={disk}")
        assert status in (1, 2)
        for line in err.splitlines():
            assert line.startswith("ssdnet: ") and "No space left on device" in line
        whole = (disk / "results.csv").read_bytes()
        assert whole.startswith(b"path,status,")
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["results.csv", "run.json"])
@pytest.mark.parametrize("content", [b"", b"\0" * 99, b"[" * 100_000, b"a,b\n" * 9, b"\xff\xfe"])
def test_a_damaged_table_or_note_is_refused_and_left_alone(pictures, name, content):
    (pictures / "out").mkdir()
    (pictures / "out" / "run.json").write_text('{"method": "x", "root": null, "config": {}}')
    (pictures / "out" / "results.csv").write_text("path,status,error\n")
    (pictures / "out" / name).write_bytes(content)
    status, _, err = run(pictures)
    assert status == 2 and err.count("\n") == 1 and len(err) < 800
    assert (pictures / "out" / name).read_bytes() == content


@pytest.mark.slow
def test_a_map_that_was_cut_off_is_made_again(pictures):
    run(pictures)
    path = pictures / "out" / "maps" / "2.png.tiff"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    status, out, _ = run(pictures)
    assert status == 0 and out.startswith("1 finished, 5 finished before in ")
    assert path.read_bytes() == whole


@pytest.mark.slow
def test_pictures_that_go_or_change_before_their_turn(pictures):
    process = begin(
        pictures,
        program=(
            "-c",
            HANGING.replace("time.sleep(1000)", "slow(*path)").replace(
                "from ssdnet_jax.cli",
                "real = __import__('ssdnet_jax').read_image\n"
                "def slow(*p, **o):\n    time.sleep(1)\n    return real(*p, **o)\n"
                "sources.read_image = slow\nfrom ssdnet_jax.cli",
                1,
            ),
        ),
    )
    wait_for(process, lambda: (pictures / "out" / "results.csv").exists())
    (pictures / "in" / "5.png").unlink()
    put(pictures / "in" / "4.png", 40)
    status, _, err = ended(process)
    assert status == 1 and "5.png: no such file" in err and err.count("\n") == 1
    assert rows(pictures)["5.png"]["status"] == "error"
    assert sha256_of(pictures, "4.png")


@pytest.mark.slow
def test_an_overwritten_picture_is_scored_again_and_one_that_goes_has_no_verdict(pictures):
    run(pictures)
    before = rows(pictures)
    put(pictures / "in" / "0.png", 9)
    (pictures / "in" / "1.png").unlink()
    status, out, err = run(pictures)
    assert status == 0 and out.startswith("1 finished, 4 finished before in ")
    assert "of 5 anomalous" in out and len(rows(pictures, "verdicts.csv")) == 5
    assert len(err.splitlines()) == 2
    assert rows(pictures)["0.png"]["score"] != before["0.png"]["score"]
    assert rows(pictures)["1.png"]["status"] == "gone"
    assert "of 6 anomalous" in run(pictures, "--keep_gone")[1]
