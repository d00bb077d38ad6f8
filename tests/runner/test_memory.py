import os

import pytest

from ssdnet_jax.runner.memory import usable_memory

MACHINE = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(
    ("cgroup", "files", "expected"),
    [
        ("0::/a/b\n", {"a/b/memory.max": "max", "a/memory.max": "1048576"}, 2**20),
        ("0::/a/b\n", {"a/b/memory.max": "4096", "a/memory.max": "1048576"}, 4096),
        ("0::/host/path\n", {"memory.max": "8192"}, 8192),
        ("0::/\n", {"memory.max": "max"}, MACHINE),
        ("5:cpu:/x\n3:cpu,memory:/a\n", {"memory/a/memory.limit_in_bytes": "12288"}, 12288),
        ("3:memory:/\n", {"memory/memory.limit_in_bytes": "9223372036854771712"}, MACHINE),
        ("nonsense\n", {}, MACHINE),
        ("", {}, MACHINE),
    ],
)
def test_the_least_limit_of_machine_and_groups_counts(tmp_path, cgroup, files, expected):
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "self" / "cgroup").write_text(cgroup)
    for name, content in files.items():
        path = tmp_path / "sys" / "fs" / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")
    assert usable_memory(tmp_path) == expected


def test_without_either_file_system_it_is_the_machines(tmp_path):
    assert usable_memory(tmp_path) == MACHINE
    assert 0 < usable_memory() <= MACHINE


def test_a_limit_of_the_process_counts(tmp_path, monkeypatch):
    monkeypatch.setattr("resource.getrlimit", lambda which: (2**21, 2**22))
    assert usable_memory(tmp_path) == 2**21
