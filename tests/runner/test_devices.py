import os
import subprocess
import sys

SCRIPT = """
import sys
import jax
import numpy as np
from ssdnet_jax import stages
from ssdnet_jax.config import from_config_dict
from ssdnet_jax.data.synthetic import grid_texture
from ssdnet_jax.runner.lanes import fit_stream

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
print("same")
"""


def test_four_devices_give_the_maps_of_one():
    environment = {
        **os.environ,
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "JAX_PLATFORMS": "cpu",
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, env=environment, timeout=300
    )
    assert done.stdout.strip() == "same", done.stderr[-3000:]
