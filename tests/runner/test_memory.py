import dataclasses
import os

import jax
import pytest

from ssdnet_jax.config import AUTO
from ssdnet_jax.errors import InputError
from ssdnet_jax.runner import devices
from ssdnet_jax.runner.devices import check_memory
from ssdnet_jax.runner.memory import memory_limit

MACHINE = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def limit(tmp_path, lines, files):
    for name, text in files.items():
        (tmp_path / "cgroup" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "cgroup" / name).write_text(text)
    (tmp_path / "self").write_text(lines)
    return memory_limit(tmp_path / "cgroup", tmp_path / "self")


@pytest.mark.parametrize(
    ("lines", "files", "expected"),
    [
        ("0::/\n", {}, MACHINE),
        ("0::/\n", {"memory.max": "max\n"}, MACHINE),
        ("0::/\n", {"memory.max": "1000000\n"}, 1_000_000),
        ("0::/a/b\n", {"a/b/memory.max": "max\n", "a/memory.max": "2000000\n"}, 2_000_000),
        ("0::/a/b\n", {"a/b/memory.max": "3000000\n", "a/memory.max": "9000000\n"}, 3_000_000),
        ("0::/outside/x\n", {"memory.max": "4000000\n"}, 4_000_000),  # a container's own root
        ("4:memory:/a\n0::/\n", {"memory/a/memory.limit_in_bytes": "5000000\n"}, 5_000_000),
        ("4:cpu,memory:/a\n", {"memory/memory.limit_in_bytes": "6000000\n"}, 6_000_000),
        ("4:memory:/a\n", {"memory/a/memory.limit_in_bytes": f"{2**63 - 4096}\n"}, MACHINE),
        ("3:cpu:/a\n", {"memory/a/memory.limit_in_bytes": "1\n"}, MACHINE),
        ("nonsense\n\xff", {"memory.max": "7\n"}, MACHINE),
    ],
)
def test_the_least_limit_of_the_machine_and_its_control_groups_counts(
    tmp_path, lines, files, expected
):
    assert limit(tmp_path, lines, files) == expected


def test_a_machine_that_does_not_say_its_memory_is_taken_for_small(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "sysconf")
    assert memory_limit(tmp_path, tmp_path / "absent") == 4 * 2**30


def test_no_control_groups_leave_the_machine(tmp_path):
    assert memory_limit(tmp_path, tmp_path / "absent") == MACHINE
    assert 0 < memory_limit() <= MACHINE


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="other devices say so themselves")
def test_a_fit_that_memory_cannot_hold_is_refused_before_it_begins(monkeypatch):
    settings = AUTO.fit_settings
    monkeypatch.setattr(devices, "memory_limit", lambda: 8 * 2**30)
    check_memory((256, 256, 24), settings)
    with pytest.raises(InputError, match=r"6000 x 4000 takes at least \d+\.\d GiB.*8\.0 GiB"):
        check_memory((6000, 4000, 24), settings)
    network = dataclasses.replace(settings.network, channels_down=(4096,), channels_up=(4096,))
    wide = dataclasses.replace(settings, network=dataclasses.replace(network, channels_skip=(4,)))
    with pytest.raises(InputError, match=r"256 x 256 takes at least \d+\.\d GiB.*narrower network"):
        check_memory((256, 256, 24), wide)
    monkeypatch.setattr(devices, "memory_limit", lambda: 4 * 2**30)
    with pytest.raises(InputError, match="32 x 32"):  # the parameters alone
        check_memory((32, 32, 24), wide)
