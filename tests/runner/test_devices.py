import dataclasses
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image

from ssdnet_jax.cli.ssdnet import main
from ssdnet_jax.config import PAPER, from_config_dict
from ssdnet_jax.data.synthetic import grid_texture
from ssdnet_jax.data.weights import random_vgg19_weights
from ssdnet_jax.runner import devices
from ssdnet_jax.runner.devices import devices_that_fit, lane_bytes, lanes_that_fit

SCRIPT = """
import sys
from pathlib import Path
import itertools
import jax
import numpy as np
from ssdnet_jax.config import from_config_dict
from ssdnet_jax.data.synthetic import grid_texture
from ssdnet_jax.methods.base import Job, alone
from ssdnet_jax.runner.batching import fit_stream
from ssdnet_jax.runner.programs import forget_programs

settings = from_config_dict({
    "image_size": 32,
    "features": {"kind": "pixels"},
    "network": {"channels_down": (2,), "channels_up": (2,), "channels_skip": (1,),
                "sigmoid": True},
    "loss": {"patch_sizes": 8, "patch_strides": 4},
    "score": {"method": "patches", "patch_sizes": 8},
    "fit": {"max_steps": 9, "block_steps": 4, "stop_threshold": 0.03, "learning_rate": 0.01,
            "input_noise": 0.01, "mask_ratio": 0.0, "average_decay": 0.9},
}).fit_settings

def jobs():
    known = np.ones((32, 32), np.float32)
    for seed in range(6):
        image = np.asarray(grid_texture((32, 32), period=5 + seed, seed=seed))
        yield Job(seed, "fit", jax.random.key(seed), alone(image), known, settings)

def fitted(lanes, devices):
    waiting = jobs()
    take = lambda most: list(itertools.islice(waiting, most))
    results = {r.name: r for r in fit_stream(take, lanes=lanes, devices=devices)}
    assert set(results) == set(range(6)), set(results)
    return results

def mu(fit):
    return np.asarray(fit.reconstruction.value)

assert jax.local_device_count() == 4
first, two_each = fitted(1, 1), fitted(2, 4)
for name, by_itself in first.items():
    assert len(by_itself.losses) == len(two_each[name].losses)
    np.testing.assert_allclose(mu(two_each[name]), mu(by_itself), rtol=1e-4, atol=1e-4)

# One lane a device is the same program as one lane on one device. Traced programs are kept for
# several devices too.
jax.config.update("jax_compilation_cache_dir", sys.argv[1])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
for kept in (0, 4):
    assert len(list(Path(sys.argv[1]).glob("*.stablehlo"))) == kept
    forget_programs()
    for name, fit in fitted(1, 4).items():
        np.testing.assert_array_equal(mu(fit), mu(first[name]))
print("same")
"""


def test_four_devices_give_the_maps_of_one(tmp_path):
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "4", "JAX_PLATFORMS": "cpu"}
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
    config.write_text(f"def get_config():\n    return {tiny!r}\n")

    def arguments(workdir):
        flags = {"--input": tmp_path / "in", "--workdir": workdir, "--config": config}
        return [f"{flag}={value}" for flag, value in flags.items()]

    one, all_cores = tmp_path / "one", tmp_path / "all"
    assert jax.local_device_count() == 1  # of this process
    assert main(["ssdnet", *arguments(one)]) == 0
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    del environment["JAX_NUM_CPU_DEVICES"]
    done = subprocess.run(
        [sys.executable, "-m", "ssdnet_jax", *arguments(all_cores)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    for seed in range(3):
        found, expected = (out / "maps" / f"{seed}.png.tiff" for out in (all_cores, one))
        assert found.read_bytes() == expected.read_bytes()


class Core:
    platform = "cpu"


def memory_of(monkeypatch, size):
    """A machine with so many bytes of memory."""
    monkeypatch.setattr(devices, "memory_limit", lambda: size)


@pytest.mark.parametrize(
    ("side", "gibibytes", "fields", "expected"),
    [
        (256, 24, {}, 8),  # little for each: all cores
        (1024, 24, {}, 3),  # of a quarter of the memory, a step of each takes 1.8 GiB
        (1024, 1, {}, 1),  # one at least
        (256, 24, {"loss": {"w_perc": 1.0}}, 1),  # keeps all cores busy alone
    ],
)
def test_devices_of_a_processor_are_as_many_as_its_memory_holds(
    monkeypatch, side, gibibytes, fields, expected
):
    monkeypatch.setattr(jax, "local_devices", lambda: [Core()] * 8)
    memory_of(monkeypatch, gibibytes * 2**30)
    loss = {**dataclasses.asdict(PAPER.loss), **fields.get("loss", {})}
    settings = from_config_dict({**dataclasses.asdict(PAPER), "loss": loss}).fit_settings
    assert devices_that_fit((side, side, 3), settings) == expected


class Accelerator:
    """A device with so many bytes of memory."""

    platform = "gpu"

    def __init__(self, memory):
        self.memory = memory

    def memory_stats(self):
        return {"bytes_limit": self.memory}


def test_a_cpu_takes_one_lane(tiny):
    assert lanes_that_fit((32, 32, 1), from_config_dict(tiny).fit_settings) == 1


@pytest.mark.usefixtures("fast_compilation")
def test_other_devices_take_what_their_memory_holds(tiny, monkeypatch):
    settings = from_config_dict(tiny).fit_settings
    lane = lane_bytes((32, 32, 1), settings)
    assert lane > 32 * 32 * 4
    monkeypatch.setattr(devices, "lane_bytes", lambda *_: lane)  # which compiles
    for held, expected in ((1, 1), (7, 4), (8, 8), (0.5, 1), (1000, 64)):
        device = Accelerator(held * lane / 0.8 + 1)
        monkeypatch.setattr(jax, "local_devices", lambda device=device: [device])
        assert lanes_that_fit((32, 32, 1), settings) == expected


@pytest.mark.usefixtures("fast_compilation")
def test_lanes_are_counted_for_a_perceptual_loss_too(tiny, monkeypatch):
    # The program cannot even be traced without weights.
    vgg19 = random_vgg19_weights(0, channels=(2, 2, 2, 2))
    loss = {**tiny["loss"], "w_perc": 1.0, "perceptual_size": 8, "patches_per_step": 2}
    config = from_config_dict({**tiny, "loss": loss})
    monkeypatch.setattr(jax, "local_devices", lambda: [Accelerator(2**40)])
    assert lanes_that_fit((32, 32, 1), config.fit_settings, vgg19) == 64
