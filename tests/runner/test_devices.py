import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image

from ssdnet_jax.config import from_config_dict
from ssdnet_jax.data.synthetic import grid_texture
from ssdnet_jax.runner import devices

SCRIPT = """
import sys
from pathlib import Path
import jax
import numpy as np
from ssdnet_jax import stages
from ssdnet_jax.runner import programs
from ssdnet_jax.config import from_config_dict
from ssdnet_jax.data.synthetic import grid_texture
from ssdnet_jax.runner.batching import fit_stream

config = from_config_dict({
    "image_size": 32,
    "network": {"channels_down": (2,), "channels_up": (2,), "channels_skip": (1,)},
    "loss": {"patch_sizes": 8, "patch_strides": 4}, "score": {"patch_sizes": 8},
    "fit": {"max_steps": 9, "block_steps": 4, "stop_threshold": 0.03},
})

def jobs():
    for seed in range(6):
        prepared = stages.prepare(grid_texture((32, 32), period=5 + seed, seed=seed), config)
        yield stages.fit_jobs(prepared, config, jax.random.key(seed), [seed])[0]

assert jax.local_device_count() == 4
maps = []
for lanes, devices in ((1, 1), (1, 4), (2, 4)):
    waiting = jobs()
    results = fit_stream(lambda: next(waiting, None), lanes=lanes, devices=devices)
    maps.append({r.name: r for r in results})
    assert set(maps[-1]) == set(range(6)), set(maps[-1])
for several in maps[1:]:
    for name, alone in maps[0].items():
        assert len(alone.losses) == len(several[name].losses)
        np.testing.assert_allclose(
            several[name].reconstruction, alone.reconstruction, rtol=1e-4, atol=1e-5
        )
for name, alone in maps[0].items():
    # One lane a device is the same program as one lane on one device.
    np.testing.assert_array_equal(maps[1][name].reconstruction, alone.reconstruction)

# Traced programs are kept for several devices too.
jax.config.update("jax_compilation_cache_dir", sys.argv[1])
for kept in (0, 4):
    assert len(list(Path(sys.argv[1]).glob("*.stablehlo"))) == kept
    programs._program.cache_clear()
    waiting = jobs()
    results = fit_stream(lambda: next(waiting, None), lanes=1, devices=4)
    for result in results:
        alone = maps[0][result.name]
        np.testing.assert_array_equal(result.reconstruction, alone.reconstruction)
print("same")
"""


def test_four_devices_give_the_maps_of_one(tmp_path):
    environment = {
        **os.environ,
        "JAX_NUM_CPU_DEVICES": "4",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "JAX_PLATFORMS": "cpu",
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
    )
    assert done.stdout.strip() == "same", done.stderr[-3000:]


def test_on_a_processor_pictures_share_its_cores_and_come_out_the_same(tmp_path, tiny):
    for seed in range(3):
        pixels = np.round(255 * grid_texture((32, 32), period=5 + seed, seed=seed))
        (tmp_path / "in").mkdir(exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8).squeeze()).save(tmp_path / "in" / f"{seed}.png")
    config = tmp_path / "tiny.py"
    config.write_text(
        f"def get_config():\n    return {tiny | {'features': {'kind': 'pixels'}}!r}\n"
    )
    maps = []
    for count in ("1", "3", None):
        environment = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
        environment.pop("JAX_NUM_CPU_DEVICES", None)
        environment |= {"JAX_NUM_CPU_DEVICES": count} if count else {}
        workdir = tmp_path / f"out{count}"
        command = ["--input", tmp_path / "in", "--workdir", workdir, "--config", config]
        done = subprocess.run(
            [sys.executable, "-m", "ssdnet_jax", *map(str, command)],
            capture_output=True,
            text=True,
            env=environment,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        maps.append([(workdir / "maps" / f"{seed}.png.tiff").read_bytes() for seed in range(3)])
    assert maps[0] == maps[1] == maps[2]


PATCHES_ALONE = {"fit": {"forward": "patch"}, "loss": {"patch_sizes": (64,)}}


class _Core:
    platform = "cpu"


@pytest.mark.parametrize(
    ("side", "gibibytes", "fields", "expected"),
    [
        (256, 24, {}, 8),  # little for each: all cores
        (1024, 24, {}, 3),  # of a quarter of the memory, a step of each takes 1.8 GiB
        (1024, 1, {}, 1),  # one at least
        (256, 24, {"loss": {"w_perc": 1.0}}, 1),  # keeps all cores busy alone
        (256, 24, PATCHES_ALONE, 1),
    ],
)
def test_devices_of_a_processor_are_as_many_as_its_memory_holds(
    monkeypatch, side, gibibytes, fields, expected
):
    monkeypatch.setattr(jax, "local_devices", lambda: [_Core()] * 8)
    monkeypatch.setattr(devices, "_physical_memory", lambda: gibibytes * 2**30)
    settings = from_config_dict({"features": {"kind": "pixels"}, **fields}).fit_settings
    assert devices.devices_that_fit((side, side, 3), settings) == expected


def test_memory_of_a_machine_is_known_or_taken_for_small(monkeypatch):
    assert 2**28 < devices._physical_memory() < 2**50
    monkeypatch.delattr(os, "sysconf")
    assert devices._physical_memory() == 4 * 2**30
