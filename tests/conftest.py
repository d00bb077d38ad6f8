import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# As many devices in every test, whichever starts JAX; tests/runner/test_devices.py has more.
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "1")
if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers share the cores: threads of linear algebra in each would only wait for one another.
    for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(_name, "1")

# Programs of tests are compiled with few optimizations: most are run once, and to compile one as
# in production takes up to eight times as long (jaxlib 0.12 has one kind of emitters only: twice).
# SSDNET_TESTS_OPTIMIZED=1 compiles as in production.
# Everything here is a variable of the environment, so that processes that tests start have it too.
_QUICK_FLAGS = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"


def _accepts(flags: str) -> bool:
    """Whether this XLA knows the flags: it ends the process at the first that it does not know."""
    command = "from jaxlib.xla_client import CompileOptions as o; o().executable_build_options"
    environment = {**os.environ, "XLA_FLAGS": flags}
    done = subprocess.run([sys.executable, "-c", command], env=environment, capture_output=True)
    return done.returncode == 0


if os.environ.get("SSDNET_TESTS_OPTIMIZED", "0") == "0":
    os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    # Workers of pytest-xdist have the variables of the process that starts them.
    if "PYTEST_XDIST_WORKER" not in os.environ and _accepts(_QUICK_FLAGS):
        os.environ["XLA_FLAGS"] = f"{_QUICK_FLAGS} {os.environ.get('XLA_FLAGS', '')}".strip()

if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    # What one test has compiled, the others find, in all workers and processes of the run.
    _folder = tempfile.mkdtemp(prefix="ssdnet-tests-")
    atexit.register(shutil.rmtree, _folder, ignore_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _folder
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

# Examples compile programs, and machines are busy: how long one takes says nothing.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")


# Files that take more than ten seconds of a core: first, so that no worker is left with one alone.
_LONGEST = (
    "tests/test_localize.py",
    "tests/core/test_skip_network.py",
    "tests/cli/test_ssdnet.py",
    "tests/core/test_fit.py",
    "tests/core/test_program_shape.py",
    "tests/runner/test_devices.py",
    "tests/golden/test_maps.py",
    "tests/baselines/test_rpca.py",
    "tests/core/test_target.py",
    "tests/cli/test_reproduce.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the longest files first; otherwise the order stays."""
    place = {name: number for number, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: place.get(item.nodeid.split("::")[0], len(place)))


_MAPS = Path("/proc/self/maps")  # of Linux
_MOST_MAPS = 30_000  # of 65,530 that a process may have; XLA crashes at the last, while it compiles


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Between files, frees compiled programs once they are many; kept ones come from disk."""
    if nextitem is not None and nextitem.path == item.path:
        return
    if _MAPS.exists() and _MAPS.read_bytes().count(b"\n") > _MOST_MAPS:
        from ssdnet_jax.programs import forget_programs  # late: it starts JAX

        forget_programs()


@pytest.hookimpl(optionalhook=True)  # only pytest-xdist has it
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `-n`, a file stays on one worker: its tests share fixtures and compiled programs."""
    from xdist.scheduler import LoadFileScheduling

    if config.option.dist != "load":  # another one than the default was asked for
        return None
    config.option.loadscopereorder = False
    return LoadFileScheduling(config, log)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real images, weights and golden numbers that are not part of the repository."""
    folder = os.environ.get("SSDNET_SHARED")
    if not folder or not Path(folder).is_dir():
        pytest.skip("SSDNET_SHARED is not set to a folder: real images and golden files are absent")
    return Path(folder)


@pytest.fixture(scope="session")
def flags_of() -> Any:
    """A function: the fields of a configuration as flags, but for those that change nothing."""

    def flags(fields: dict[str, Any]) -> list[str]:
        from ssdnet_jax.cli.flags import config_help
        from ssdnet_jax.cli.idle_fields import idle_fields
        from ssdnet_jax.config import from_config_dict

        config = from_config_dict(fields)
        idle = {f"--config.{name}" for name in idle_fields(config)}
        lines = [line for line in config_help(config).splitlines() if line.startswith("--")]
        return [line for line in lines if line.partition("=")[0] not in idle]

    return flags


@pytest.fixture(scope="session")
def tiny() -> dict[str, Any]:
    """Fields of a configuration that compiles and runs fast: the paper's method, made small.

    For `from_config_dict`, whose own defaults are those of features and tiles.
    """
    return {
        "image_size": 32,
        "features": {"kind": "pixels"},
        "network": {
            "channels_down": (2,),
            "channels_up": (2,),
            "channels_skip": (0,),
            "padding": "zero",
            "upsampling": "nearest",
            "activation": "none",
            "conv1x1_up": False,
            "sigmoid": True,
        },
        "loss": {"patch_sizes": (8,), "patch_strides": (4,)},
        "score": {"method": "patches", "patch_sizes": (8,), "patch_strides": (2,)},
        "fit": {
            "learning_rate": 0.01,
            "schedule": "constant",
            "warmup_steps": 0,
            "max_steps": 5,
            "stop_threshold": 1e-4,
            "input_noise": 0.01,
            "mask_ratio": 0.0,
            "mask_block": 1,
            "average_decay": 0.9,
            "block_steps": 2,
        },
        "inpaint": {"max_steps": 3},
    }


@pytest.fixture(scope="session")
def production_options() -> dict[str, Any]:
    """For `Lowered.compile`: a program of the same operations and fusions as in production."""
    quick = _QUICK_FLAGS in os.environ.get("XLA_FLAGS", "")
    return {"xla_cpu_use_fusion_emitters": True} if quick else {}


@pytest.fixture
def quick_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Heat maps of one pixel: drawing them takes time and has tests of its own."""
    import numpy as np

    from ssdnet_jax.figures import heatmap

    pixel = heatmap.Figure(np.zeros((1, 1, 3), np.uint8), {})
    monkeypatch.setattr(heatmap, "heatmap_figure", lambda **parts: pixel)


@pytest.fixture(autouse=True)
def restored_registries() -> Iterator[None]:
    """What a test registers goes after it; programs are not kept while it is there."""
    from ssdnet_jax.core import registry

    before = [(each, dict(each._entries)) for each in registry.ALL]
    yield
    for each, entries in before:
        each._entries = entries


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """MVTec AD's layout, grid/test/{blob,good}: two defective images of 40 x 56 and a good one."""
    import numpy as np
    from PIL import Image

    from ssdnet_jax.data.synthetic import grid_texture, plant_defect

    def put(path: Path, pixels: np.ndarray) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.round(255 * pixels).astype(np.uint8)).save(path)

    root = tmp_path / "set"
    for name in ("blob/0", "blob/1", "good/0"):
        image = grid_texture((40, 56), period=8, seed=len(name))
        if name != "good/0":
            seed = int(name[-1])
            image, mask = plant_defect(image, kind="blob", center=(20, 20), size=10, seed=seed)
            put(root / "grid/ground_truth" / f"{name}_mask.png", mask)
        put(root / "grid/test" / f"{name}.png", image[..., 0])
    return root
