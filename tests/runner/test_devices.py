import dataclasses
import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from ssdnet_jax.cli.ssdnet import main
from ssdnet_jax.config import AUTO, PAPER, from_config_dict
from ssdnet_jax.core.lanes import fit_lanes, init_lanes
from ssdnet_jax.core.patch_statistics import WORKING_BYTES
from ssdnet_jax.data.synthetic import grid_texture
from ssdnet_jax.data.weights import random_vgg19_weights
from ssdnet_jax.runner import devices
from ssdnet_jax.runner.devices import devices_that_fit, lane_bytes, lanes_that_fit

AUTO_CHANNELS = 27  # of the features that the default setting fits, with VGG19 and colour

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
from ssdnet_jax.programs import forget_programs

settings = from_config_dict({
    "image_size": 32,
    "features": {"kind": "pixels"},
    "network": {"channels_down": (2,), "channels_up": (2,), "channels_skip": (1,),
                "sigmoid": True},
    "loss": {"patch_sizes": 8, "patch_strides": 4},
    "score": {"method": "patches", "patch_sizes": 8},
    "fit": {"max_steps": 9, "block_steps": 4, "stop_threshold": 0.03, "learning_rate": 0.01,
            "input_noise": 0.01, "mask_ratio": 0.0, "average_decay": 0.9,
            "schedule": "constant", "warmup_steps": 0},
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


def test_other_devices_take_what_their_memory_holds(tiny, monkeypatch):
    settings = from_config_dict(tiny).fit_settings
    for shape in ((32, 32, 1), (1024, 1024, 3)):  # where scoring takes most memory, and fitting
        lane = max(lane_bytes(shape, settings), WORKING_BYTES)
        for held, expected in ((1, 1), (7, 4), (8, 8), (0.5, 1), (1000, 64)):
            device = Accelerator(held * lane / 0.8 + 1)
            monkeypatch.setattr(jax, "local_devices", lambda device=device: [device])
            assert lanes_that_fit(shape, settings) == expected
            # A run of 5 to 8 images has the programs of 8, if there is memory for them.
            assert lanes_that_fit(shape, settings, 5) == min(expected, 8)
            assert lanes_that_fit(shape, settings, 1) == 1


@pytest.mark.parametrize("view", ["image", "patch"])
def test_the_memory_of_a_lane_is_no_less_than_xla_finds_and_not_much_more(view, tiny):
    vgg19 = random_vgg19_weights(0)
    perceptual = {"w_perc": 1.0, "perceptual_size": 16, "patches_per_step": 8}
    loss = {**tiny["loss"], **perceptual, "perceptual_view": view}
    settings = from_config_dict({**tiny, "loss": loss}).fit_settings
    key, image = jax.random.split(jax.random.key(0), 1), jnp.zeros((1, 64, 64, 3))
    start = functools.partial(init_lanes, settings=settings)
    lanes = jax.eval_shape(start, key, image, image[..., 0], jnp.ones(1, bool))
    block = jax.jit(functools.partial(fit_lanes, settings=settings))
    found = block.lower(lanes, vgg19, jnp.int32(1)).compile().memory_analysis()
    said = lane_bytes((64, 64, 3), settings)
    assert 1 / 3 < found.temp_size_in_bytes / said < 1


def test_the_memory_of_a_lane_is_that_of_the_committed_figures():
    results = Path(__file__).parents[2] / "benchmarks" / "results" / "scaling.json"
    figures = json.loads(results.read_text())
    for name, config, halved, channels in (
        ("side_grid", PAPER, 1, 1),
        ("side_auto", AUTO, 2, AUTO_CHANNELS),
    ):
        for side, figure in figures[name].items():
            shape = (int(side) // halved, int(side) // halved, channels)
            said = lane_bytes(shape, config.fit_settings) / 2**30
            assert 1 / 3 < figure["step_temporary_gib"] / said < 1, (name, side)
