import io

import jax
import pytest

from ssdnet_jax.config import from_config_dict
from ssdnet_jax.data.images import DecodedImage
from ssdnet_jax.data.synthetic import grid_texture
from ssdnet_jax.methods.ssdnet import SSDnet
from ssdnet_jax.runner.devices import load_fits
from ssdnet_jax.runner.run import Options, run
from ssdnet_jax.runner.terminal import Terminal
from ssdnet_jax.runner.workdir import open_workdir

pytestmark = pytest.mark.usefixtures("quick_figures")

COMPILED = "/jax/core/compile/backend_compile_duration"


@pytest.fixture
def compiled():
    """Names of the programs that XLA compiles while a test runs."""
    names = []

    def listen(event, duration, **details):
        if event == COMPILED:
            names.append(details.get("fun_name", "?"))

    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", None)  # programs then bear their names
    jax.monitoring.register_event_duration_secs_listener(listen)
    yield names
    jax.monitoring.unregister_event_duration_listener(listen)
    jax.config.update("jax_compilation_cache_dir", before)


def pictures(sides, seed):
    return {
        f"{seed}_{side}_{n}.png": lambda side=side, n=n: DecodedImage(
            grid_texture((side, side), period=6, seed=seed + n), None, ()
        )
        for side in sides
        for n in range(2)
    }


def test_a_bucket_compiles_its_fit_once_and_more_pictures_compile_nothing(tiny, compiled, tmp_path):
    # Seven steps, unlike other tests: programs of this setting have not been compiled yet.
    values = {**tiny, "image_size": 0, "fit": {**tiny["fit"], "max_steps": 7}}
    method = SSDnet(from_config_dict(values))

    def score(name, sides, seed):
        workdir = open_workdir(tmp_path / name, method, root=None)
        terminal = Terminal(io.StringIO(), io.StringIO())
        summary = run(method, pictures(sides, seed), workdir, terminal)
        assert (summary.finished, summary.failed) == (2 * len(sides), 0)
        found = list(compiled)
        compiled.clear()
        return found

    first = score("first", [32, 40], seed=0)
    assert sum("fit_lanes" in name for name in first) == 2, first  # one for each size
    assert score("again", [32, 40], seed=10) == []
    third = score("third", [48], seed=20)
    assert sum("fit_lanes" in name for name in third) == 1, third
    assert "?" not in first


@pytest.mark.parametrize("devices", [1, 2])
def test_programs_that_are_loaded_ahead_are_those_that_run(tiny, compiled, tmp_path, devices):
    values = {**tiny, "image_size": 0, "fit": {**tiny["fit"], "max_steps": 8 + devices}}
    method = SSDnet(from_config_dict(values))
    sources = pictures([32], seed=0)
    prepared = method.prepare(next(iter(sources.values()))(), jax.random.key(0))

    def of_fits(shape):
        settings, keys = prepared.plan.fit, prepared.key.dtype
        load_fits(shape, lanes=1, devices=devices, settings=settings, keys=keys, vgg19=None)

    def named():
        stages = (
            "encode",
            "init_lanes",
            "fit_lanes",
            "lane_results",
            "score_seeds",
            "decode_seeds",
        )
        return [stage for stage in stages for name in compiled if stage in name]

    method.load(prepared, 1, of_fits)
    loaded = named()
    assert len(loaded) == len(set(loaded)) == 5
    workdir = open_workdir(tmp_path, method, root=None)
    terminal = Terminal(io.StringIO(), io.StringIO())
    run(method, sources, workdir, terminal, options=Options(devices=devices))
    assert named() == ["encode", *loaded]
