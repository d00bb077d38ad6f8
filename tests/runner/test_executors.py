import csv
import io
import signal

import jax
import numpy as np
import pytest
import tifffile

from ssdnet_jax.baselines.spectral_residual import spectral_residual
from ssdnet_jax.config import Config
from ssdnet_jax.data.images import DecodedImage, resize_image, resize_map
from ssdnet_jax.data.synthetic import grid_texture
from ssdnet_jax.errors import ConfigError, InputError
from ssdnet_jax.methods.registry import make_method
from ssdnet_jax.runner import startup
from ssdnet_jax.runner.executors import Execution, executing
from ssdnet_jax.runner.run import run
from ssdnet_jax.runner.terminal import Terminal
from ssdnet_jax.runner.workdir import open_workdir

pytestmark = pytest.mark.usefixtures("quick_figures")
PICTURE = grid_texture((60, 80), period=8, seed=0)
CONFIG = Config(image_size=64)


def score(path, sources):
    method = make_method("spectral_residual", CONFIG)
    workdir = open_workdir(path, method, root=None)
    return run(method, sources, workdir, Terminal(io.StringIO(), io.StringIO()))


def source(pixels=PICTURE, missing=None):
    return lambda: DecodedImage(pixels, missing, ())


def test_a_baseline_fills_a_work_folder(tmp_path):
    assert score(tmp_path, {"s/a.png": source()}).finished == 1
    actual = tifffile.imread(tmp_path / "maps" / "s" / "a.png.tiff")
    raw = np.asarray(spectral_residual(resize_image(PICTURE, (64, 88))))
    np.testing.assert_allclose(actual, resize_map(raw, (60, 80)), rtol=1e-5, atol=1e-7)
    with (tmp_path / "results.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["path"], row["status"], row["steps"], row["loss"]) == ("s/a.png", "ok", "", "")
    assert float(row["score"]) == pytest.approx(actual.max())
    assert (tmp_path / "heatmaps" / "s" / "a.png.png").is_file()
    assert not (tmp_path / "fits").exists()


def test_finished_images_are_not_scored_again(tmp_path):
    score(tmp_path, {"a.png": source()})

    def fail():
        raise AssertionError("read again")

    again = score(tmp_path, {"a.png": fail, "b.png": source()})
    assert (again.finished, again.finished_before) == (1, 1)


def test_commands_compute_in_float32_whatever_jax_was_told(tmp_path, chosen_cache):
    score(tmp_path / "plain", {"a.png": source()})
    jax.config.update("jax_enable_x64", True)
    try:
        with executing(Execution(1, 1, "local", None, "none")):
            score(tmp_path / "again", {"a.png": source()})
    finally:
        jax.config.update("jax_enable_x64", False)
    maps = [(tmp_path / name / "maps" / "a.png.tiff").read_bytes() for name in ("plain", "again")]
    assert maps[0] == maps[1]


def test_one_bad_image_spares_the_others(tmp_path):
    def damaged():
        raise InputError("b.png: damaged")

    assert score(tmp_path, {"b.png": damaged, "a.png": source()}).failed == 1
    assert (tmp_path / "maps" / "a.png.tiff").is_file()


def test_missing_pixels_take_the_nearest_known_value(tmp_path):
    missing = np.zeros((60, 80), bool)
    missing[20:26, 20:26] = True  # less than a tile
    holed = np.where(missing[..., None], np.nan, PICTURE)
    assert score(tmp_path, {"a.png": source(holed, missing)}).finished == 1
    assert np.isfinite(tifffile.imread(tmp_path / "maps" / "a.png.tiff")).all()


@pytest.fixture
def chosen_cache(monkeypatch):
    """A compilation cache that the user has chosen: this process keeps its settings."""
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "elsewhere")


def test_a_local_execution_has_the_options_of_the_command_line(chosen_cache):
    with executing(Execution(3, 1, "local", None, "none"), save_params=True) as executor:
        assert executor.run is run and executor.device == startup.device_name()
        options = executor.options
        assert (options.lanes, options.devices, options.save_params) == (3, 1, True)
        assert not options.stop()
        signal.raise_signal(signal.SIGTERM)
        assert options.stop()


def test_more_devices_than_there_are_is_a_clear_error(chosen_cache):
    asked = Execution(0, jax.local_device_count() + 1, "local", None, "all")
    expected = r"--devices: found \d+; expected at most \d+, as many as this machine has"
    with pytest.raises(ConfigError, match=expected), executing(asked):
        pass
