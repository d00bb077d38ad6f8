"""What the commands that score datasets share: being told to end, and how they execute."""

import csv
import importlib
import os
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from ssdnet_jax.cli import commands
from ssdnet_jax.cli.commands import Command
from ssdnet_jax.errors import ConfigError, Stopped
from ssdnet_jax.runner import executors
from ssdnet_jax.runner.run import Summary

SWEEP = """
from ssdnet_jax.experiments.sweep import Sweep


def get_sweep():
    return Sweep(base="grid_literal", variants={"all": {}, "half": {"fit.mask_ratio": 0.5}})
"""


@pytest.fixture(params=["evaluate", "reproduce", "sweep"])
def command(request, tiny, flags_of, dataset, tmp_path):
    """A command's name with flags for a dataset of two defective images and many seeds."""
    own = flags_of({**tiny, "fit": {**tiny["fit"], "max_steps": 2}})
    flags = [f"--dataset={dataset}", f"--workdir={tmp_path}/out", "--seeds=0,1,2,3,4,5,6,7"]
    if request.param == "reproduce":
        flags += ["--methods=ssdnet", "--parts=table"]
    if request.param == "sweep":
        (tmp_path / "mine.py").write_text(SWEEP)
        flags.append(f"--config={tmp_path}/mine.py")
    return request.param, [*own, *flags]


def rows(folder):
    """Of all runs below a folder, by run and image."""
    found = {}
    for table in folder.glob("runs/*/seed*/results.csv"):
        with table.open(newline="") as file:
            found |= {(table.parent, row["path"]): row for row in csv.DictReader(file)}
    return found


@pytest.mark.slow  # a quarter of a minute: two processes of each command
def test_sigterm_ends_a_command_in_order_and_the_same_one_goes_on(command, tmp_path):
    name, flags = command
    words = ["-c", f"from ssdnet_jax.cli.{name} import console; console()", *flags]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, *words], env=environment, **pipes)
    while process.poll() is None and not rows(tmp_path / "out"):
        time.sleep(0.01)
    process.terminate()
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (143, "")
    assert out == "stopped before the end; the same command again goes on\n"
    kept = rows(tmp_path / "out")
    assert 0 < len(kept) < 16 and {row["status"] for row in kept.values()} == {"ok"}
    again = subprocess.run([sys.executable, *words], env=environment, **pipes, timeout=300)
    assert (again.returncode, again.stderr) == (0, "")
    after = rows(tmp_path / "out")
    assert len(after) >= 16 and all(after[image] == row for image, row in kept.items())


def main_of(name):
    return __import__(f"ssdnet_jax.cli.{name}", fromlist=["main"]).main


def test_lanes_and_devices_reach_the_runs(command, monkeypatch):
    name, flags = command
    seen = []

    def record(method, sources, workdir, terminal, *, options):
        seen.append((options.lanes, options.devices))
        return Summary(0, 0, 0, 0.0)

    monkeypatch.setattr(executors, "run", record)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "elsewhere")
    main_of(name)([f"ssdnet-{name}", *flags, "--lanes=3", "--devices=1"])
    assert len(seen) >= 8 and set(seen) == {(3, 1)}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--lanes=0"], "--lanes: found '0'; expected a whole number from 1"),
        (["--executor=slurm"], "--executor: found 'slurm'; expected local or ray"),
        (["--ray_address=auto"], "--ray_address: found alone; expected --executor=ray too"),
        (["--executor=ray", "--devices=2"], "--devices: found with --executor=ray"),
        (["--layout=mvtec", "--layout=visa"], "--layout: found twice, with 'mvtec' and 'visa'"),
        (["--seeds=0"], "--seeds: found twice, with '0,1,2,3,4,5,6,7' and '0'"),
    ],
)
def test_execution_that_cannot_be_is_refused_in_one_line(command, capsys, flags, message):
    name, given = command
    assert main_of(name)([f"ssdnet-{name}", *given, *flags]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1 and message in captured.err


@pytest.mark.parametrize(
    "name", ["ssdnet", "calibrate", "evaluate", "reproduce", "rescore", "sweep"]
)
def test_no_command_writes_into_the_root_of_the_file_system(name, capsys):
    assert main_of(name)([f"ssdnet-{name}", "--workdir=/"]) == 2
    assert "--workdir: found '/', the root of the file system" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "status", "out", "err"),
    [
        (Stopped(), 143, "stopped before the end; the same command again goes on\n", ""),
        (ConfigError("--x: found y"), 2, "", "ssdnet: --x: found y\n"),
    ],
)
def test_how_a_command_ends_early(capsys, error, status, out, err):
    def run(parsed, terminal, *, command):
        assert (parsed, command) == (["x", "--a b"], "ssdnet '--a b'")
        raise error

    assert Command("ssdnet", "results", str, list, run).main(["x", "--a b"]) == status
    assert capsys.readouterr() == (out, err)


@pytest.mark.parametrize("name", ["evaluate", "reproduce", "sweep"])
def test_an_interrupt_ends_with_its_own_status(name, monkeypatch, capsys):
    def interrupt(command, arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(Command, "main", interrupt)
    monkeypatch.setattr(commands, "leave", sys.exit)
    with pytest.raises(SystemExit) as caught:
        __import__(f"ssdnet_jax.cli.{name}", fromlist=["console"]).console()
    assert caught.value.code == 130
    expected = f"ssdnet-{name}: interrupted; scored images are kept"
    assert capsys.readouterr().err.strip() == expected


LEAVING = """
import atexit, threading, time
from ssdnet_jax.cli.commands import leave
atexit.register(print, "registered")
{before}
print("printed")
leave(3)
"""
WORKING = """
def work():
    time.sleep(0.5)
    print("worked")
threading.Thread(target=work).start()
"""


@pytest.mark.parametrize(
    ("before", "said"), [("", "printed registered"), (WORKING, "printed worked registered")]
)
def test_a_process_leaves_when_all_is_written_and_done(before, said):
    words = ["-c", LEAVING.format(before=before)]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.split(), done.stderr) == (3, said.split(), "")


PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))
SCRIPTS = PROJECT["project"]["scripts"]


def test_every_command_says_its_version(capsys):
    for name in ("ssdnet", "calibrate", "evaluate", "reproduce", "rescore", "sweep"):
        assert main_of(name)([f"ssdnet-{name}", "--version"]) == 0
        out, err = capsys.readouterr()
        assert f"ssdnet-jax {PROJECT['project']['version']}\n" in out and "\njax " in out
        assert err == ""
        assert main_of(name)([f"ssdnet-{name}", "--help"]) == 0
        assert "\n  --version  " in capsys.readouterr().out


@pytest.mark.parametrize("name", SCRIPTS)
def test_what_is_installed_as_a_command_prints_its_help(name, monkeypatch, capsys):
    """In this process; tests/cli/test_ssdnet.py starts an installed program."""
    module, function = SCRIPTS[name].split(":")
    console = getattr(importlib.import_module(module), function)
    assert console.__self__.name == name
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    monkeypatch.setattr(commands, "leave", sys.exit)
    with pytest.raises(SystemExit) as caught:
        console()
    assert caught.value.code == 0
    assert capsys.readouterr() == (console.__self__.help_text(), "")


@pytest.mark.slow  # half a minute: Ray and its workers start
def test_a_cluster_gives_the_numbers_of_this_machine(tiny, flags_of, dataset, tmp_path):
    pytest.importorskip("ray")
    own = flags_of({**tiny, "fit": {**tiny["fit"], "max_steps": 2}})
    words = ["-c", "from ssdnet_jax.cli.evaluate import console; console()", *own]
    words += [f"--dataset={dataset}", "--seeds=0,1", "--methods=ssdnet,spectral_residual"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    environment |= {"JAX_PLATFORMS": "cpu"}
    for name, flags in (("here", []), ("ray", ["--executor=ray", "--ray_address=local"])):
        done = subprocess.run(
            [sys.executable, *words, f"--workdir={tmp_path}/{name}", *flags],
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert (done.returncode, done.stderr) == (0, ""), name
    tables = []
    for name in ("here", "ray"):
        with (tmp_path / name / "metrics.csv").open(newline="", encoding="utf-8") as file:
            tables.append([{**row, "seconds": ""} for row in csv.DictReader(file)])
    assert tables[0] == tables[1]
    assert [row["status"] for row in tables[0]] == ["ok"] * 3 * 3
    assert "at once by Ray" in (tmp_path / "ray" / "report.html").read_text(encoding="utf-8")
