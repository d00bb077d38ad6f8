import os
import subprocess
import sys

import pytest

from ssdnet_jax.errors import InputError
from ssdnet_jax.runner import lock
from ssdnet_jax.runner.lock import LOCK_FILE, only_run_in

HOLDER = """
import sys, time
from pathlib import Path
from ssdnet_jax.runner.lock import only_run_in
with only_run_in(Path(sys.argv[1]), print):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_run_is_told_who_holds_the_folder_and_a_kill_releases_it(tmp_path):
    folder = tmp_path / "out"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, folder], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(InputError) as caught, only_run_in(folder, pytest.fail):
        pass
    assert f"another run is at work in it (host {os.uname().nodename}, process {holder.pid}, " in (
        str(caught.value)
    )
    holder.kill()
    holder.wait()
    assert (folder / LOCK_FILE).exists()
    with only_run_in(folder, pytest.fail):
        pass
    assert list(folder.iterdir()) == []


def test_runs_in_one_folder_follow_each_other(tmp_path):
    for _ in range(2):
        refused = pytest.raises(InputError, match="at work in it")
        with only_run_in(tmp_path, pytest.fail), refused, only_run_in(tmp_path, pytest.fail):
            pass


@pytest.mark.parametrize("content", [b"", b"[" * 9999, b"\xff", b'{"host": 1}'])
def test_a_lock_file_of_any_contents_is_no_lock(tmp_path, content):
    (tmp_path / LOCK_FILE).write_bytes(content)
    with only_run_in(tmp_path, pytest.fail):
        assert (tmp_path / LOCK_FILE).stat().st_size > 0


def test_a_lock_file_that_its_owner_just_removed_is_not_taken_for_the_lock(tmp_path, monkeypatch):
    flock, calls = lock.fcntl.flock, []

    def removed_first(descriptor, how):
        if not calls:
            (tmp_path / LOCK_FILE).unlink()
        calls.append(how)
        flock(descriptor, how)

    monkeypatch.setattr(lock.fcntl, "flock", removed_first)
    with only_run_in(tmp_path, pytest.fail):
        assert (tmp_path / LOCK_FILE).exists() and len(calls) == 2


def test_a_file_system_without_locks_is_said_and_used(tmp_path, monkeypatch):
    def none(descriptor, how):
        raise OSError(lock.errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock.fcntl, "flock", none)
    said = []
    with only_run_in(tmp_path, said.append):
        pass
    (line,) = said
    assert "no lock on this file system" in line


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    refused = pytest.raises(InputError, match="expected a folder that can be created")
    with refused, only_run_in(tmp_path / "file", pytest.fail):
        pass
