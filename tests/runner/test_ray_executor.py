import dataclasses
import io
import os
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from ssdnet_jax.cli.ssdnet import main
from ssdnet_jax.config import from_config_dict
from ssdnet_jax.config_files import load_config
from ssdnet_jax.core import registry
from ssdnet_jax.data.images import DecodedImage
from ssdnet_jax.data.synthetic import grid_texture
from ssdnet_jax.errors import ConfigError, InputError
from ssdnet_jax.methods.registry import make_method
from ssdnet_jax.runner import ray_executor
from ssdnet_jax.runner.checkpoints import load_network
from ssdnet_jax.runner.run import Options, run
from ssdnet_jax.runner.terminal import Terminal
from ssdnet_jax.runner.workdir import open_workdir, read_rows

ray = pytest.importorskip("ray", reason="the extra [ray] is not installed")
STORE_OPTIONS = {"object_store_memory": 100 * 2**20}  # bytes; Ray's least is 75 MB


@pytest.fixture(scope="module")
def workers_environment(tmp_path_factory):
    """What workers inherit: how this process compiles, and its cache."""
    cache = {
        "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("xla")),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in cache.items():
            patch.setenv(name.upper(), str(value))
        patch.setenv("JAX_PLATFORMS", "cpu")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.delenv("RAY_ADDRESS", raising=False)
        before = {name: getattr(jax.config, name) for name in cache}
        compilation_cache.reset_cache()
        for name, value in cache.items():
            jax.config.update(name, value)
        yield
        ray.shutdown()
        for name, value in before.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()


def start(**resources):
    """Ray on this machine alone, whatever runs here."""
    ray.shutdown()
    options = {"include_dashboard": False, "log_to_driver": False, **STORE_OPTIONS}
    ray.init(address="local", **resources, **options)


@pytest.fixture
def one_node(workers_environment):
    """Ray with two CPUs, which stays for the next test."""
    if not ray.is_initialized():
        start(num_cpus=2)


@pytest.fixture(scope="module")
def config(tiny):
    return from_config_dict(tiny)


def picture(seed=0, **options):
    image = grid_texture((40, 56), period=8, seed=seed)
    return lambda: DecodedImage(image, options.get("missing"), options.get("warnings", ()))


def failing(error):
    def read():
        raise error

    return read


class Run:
    """One run into a work folder, with what it printed."""

    def __init__(self, execute, path, sources, config, terminal=Terminal, name="ssdnet", **options):
        self.out, self.err = io.StringIO(), io.StringIO()
        method = make_method(name, config)
        self.workdir = open_workdir(path, method, root=None)
        terminal = terminal(self.out, self.err)
        self.summary = execute(method, sources, self.workdir, terminal, options=Options(**options))

    def counts(self):
        return self.summary.finished, self.summary.failed, self.summary.finished_before

    def rows(self):
        """Rows as they stand, without what a clock says."""
        rows = read_rows(self.workdir.path / "results.csv")
        return [(*(getattr(row, n) for n in vars(row) if n != "seconds"),) for row in rows]

    def files(self):
        """Everything that is the same from run to run; the page has the order of ending."""
        root, others = self.workdir.path, {"params", "index"}
        paths = [p for p in root.glob("*/**/*") if p.is_file() and not others & {*p.parts}]
        return {p.relative_to(root).as_posix(): p.read_bytes() for p in paths}


def assert_same(found, expected):
    assert found.rows() == expected.rows()
    assert found.counts() == expected.counts()
    assert sorted(found.err.getvalue().splitlines()) == sorted(expected.err.getvalue().splitlines())
    first, second = found.files(), expected.files()
    assert set(first) == set(second)
    for name in first:
        assert first[name] == second[name], name


def mixed_sources():
    missing = np.zeros((40, 56), bool)
    missing[10:20, 10:20] = True
    constant = DecodedImage(np.full((40, 40, 1), 0.5, np.float32), None, ())
    return {
        "s/a.png": picture(),
        "damaged.png": failing(InputError("/x/damaged.png: damaged; expected an image")),
        "disk.png": failing(OSError(5, "Input/output error")),
        "flat.png": lambda: constant,
        "s/holes ü.png": picture(1, missing=missing),
        "several.gif": picture(2, warnings=("only the first of 2 frames is used",)),
        "d.png": picture(3),
    }


def test_results_are_those_of_a_local_run_bit_for_bit(one_node, tmp_path, config):
    sources = mixed_sources()
    local = Run(run, tmp_path / "local", sources, config)
    assert local.counts() == (4, 3, 0)
    with ray_executor.joined(None) as device:
        assert device.startswith("CPU (") and device.endswith(", 2 at once by Ray")
        assert_same(Run(ray_executor.run, tmp_path / "ray", sources, config), local)
    assert ray.is_initialized()  # it was there before


@pytest.mark.slow  # half a minute: programs of many lanes
def test_lanes_and_seeds_are_those_of_a_local_run(one_node, tmp_path, tiny):
    # Five images in lanes of 4 with 2 seeds: the last task has fewer fits than lanes.
    config = from_config_dict({**tiny, "fit": {**tiny["fit"], "seeds": 2}})
    sources = {f"{seed}.png": picture(seed) for seed in range(5)}
    options = {"lanes": 4, "save_params": True}
    local = Run(run, tmp_path / "local", sources, config, **options)
    spread = Run(ray_executor.run, tmp_path / "ray", sources, config, **options)
    assert "uncertainty/0.png.tiff" in local.files()
    assert_same(spread, local)
    image = picture()().pixels[:32, :32]
    networks = [load_network(d.workdir.params_path("4.png"), seed=1) for d in (spread, local)]
    np.testing.assert_array_equal(*(network(image) for network in networks))


def test_a_loss_of_ones_own_is_known_to_the_workers(one_node, tmp_path, tiny):
    (tmp_path / "mine.py").write_text(
        "from ssdnet_jax import registry\n\n\n"
        "@registry.RECONSTRUCTION_ERRORS.register('of_the_test')\n"
        "def error(y, f):\n    return 3 * abs(y - f).mean(-1)\n\n\n"
        f"def get_config():\n    values = {tiny!r}\n"
        "    values['loss']['reconstruction'] = 'of_the_test'\n    return values\n"
    )
    config = load_config(str(tmp_path / "mine.py"))
    sources = {"a.png": picture(0)}
    with ray_executor.joined(None):
        found = Run(ray_executor.run, tmp_path / "ray", sources, config)
    assert_same(found, Run(run, tmp_path / "local", sources, config))


def test_baselines_run_too(one_node, tmp_path, config):
    sources = {name: picture(seed) for seed, name in enumerate(["a.png", "b.png"])}
    found = [
        Run(execute, tmp_path / name, sources, config, name="spectral_residual")
        for name, execute in (("local", run), ("ray", ray_executor.run))
    ]
    assert_same(*found)


def test_finished_images_are_neither_read_nor_fitted_again(one_node, tmp_path, config):
    sources = {"a.png": picture(), "b.png": failing(InputError("damaged"))}
    first = Run(ray_executor.run, tmp_path, sources, config)
    again = {"a.png": failing(AssertionError()), "b.png": picture(1), "c.png": picture(2)}
    second = Run(ray_executor.run, tmp_path, again, config)
    assert (first.counts(), second.counts()) == ((1, 1, 0), (2, 0, 1))
    assert [row[:2] for row in second.rows()] == [(name, "ok") for name in again]


@pytest.mark.slow  # workers that were stopped start anew
def test_a_stop_keeps_what_is_finished(one_node, tmp_path, config):
    class Stopping(Terminal):
        done = 0

        def end_image(self, row):
            type(self).done += 1

    sources = {f"{seed}.png": picture(seed) for seed in range(8)}
    stopped = Run(
        ray_executor.run,
        tmp_path,
        sources,
        config,
        terminal=Stopping,
        stop=lambda: Stopping.done > 0,
    )
    assert stopped.summary.stopped
    assert 1 <= stopped.summary.finished == len(stopped.rows()) < 8
    rest = Run(ray_executor.run, tmp_path, sources, config)
    assert rest.summary.finished + rest.summary.finished_before == 8


def test_an_error_in_the_program_itself_is_not_hidden(one_node, tmp_path, config):
    with pytest.raises(ZeroDivisionError):  # in this process
        sources = {"a.png": failing(ZeroDivisionError())}
        Run(ray_executor.run, tmp_path, sources, config)

    @registry.SCORES.register("broken")
    def broken(target, reconstruction, vgg19, plan):
        return 1 / 0

    score = dataclasses.replace(config.score, method="broken")
    config = dataclasses.replace(config, score=score)
    with pytest.raises(ZeroDivisionError):  # in a worker
        Run(ray_executor.run, tmp_path / "b", {"a.png": picture()}, config)


def kills(marker, most):
    """A score that ends the first `most` processes which are to compute it."""

    def score(target, reconstruction, vgg19, plan):
        import os  # in a worker
        from pathlib import Path

        from ssdnet_jax.core import registry

        Path(marker).mkdir(exist_ok=True)
        if len(list(Path(marker).iterdir())) < most:
            (Path(marker) / str(os.getpid())).touch()
            os._exit(9)
        return registry.SCORES["patches"](target, reconstruction, vgg19, plan)

    return score


@pytest.mark.slow  # half a minute: processes end and start
def test_a_worker_that_is_killed_is_replaced_and_its_images_are_done_again(
    one_node, tmp_path, config
):
    sources = {f"{seed}.png": picture(seed) for seed in range(4)}
    config = dataclasses.replace(config, score=dataclasses.replace(config.score, method="killing"))
    registry.SCORES.register("killing")(kills(tmp_path / "killed", 2))
    spread = Run(ray_executor.run, tmp_path / "ray", sources, config)
    killed = sorted((tmp_path / "killed").iterdir())
    assert len(killed) == 2 and str(os.getpid()) not in [path.name for path in killed]
    assert_same(spread, Run(run, tmp_path / "local", sources, config))


@pytest.mark.slow  # a minute: processes end and start
def test_images_that_kill_their_workers_fail_and_are_named(one_node, tmp_path, config):
    registry.SCORES.register("killing")(kills(tmp_path / "killed", 99))
    score = dataclasses.replace(config.score, method="killing")
    config = dataclasses.replace(config, score=score)
    sources = {"a.png": picture(), "b.png": failing(InputError("damaged"))}
    done = Run(ray_executor.run, tmp_path, sources, config)
    assert [row[:2] for row in done.rows()] == [("a.png", "error"), ("b.png", "error")]
    expected = "ssdnet: a.png: its worker was lost 4 times; expected nodes with enough memory"
    assert any(line.startswith(expected) for line in done.err.getvalue().splitlines())


def test_workers_stay_from_one_batch_to_the_next_and_from_one_run_to_the_next(
    one_node, tmp_path, config
):
    """A process that has compiled its programs does not end."""

    def score(target, reconstruction, vgg19, plan):
        import os  # in a worker, once for each time that it traces
        from pathlib import Path

        from ssdnet_jax.core import registry

        with (Path(folder) / str(os.getpid())).open("a") as file:
            file.write("traced\n")
        return registry.SCORES["patches"](target, reconstruction, vgg19, plan)

    folder = tmp_path / "traced"
    folder.mkdir()
    registry.SCORES.register("noting")(score)
    config = dataclasses.replace(config, score=dataclasses.replace(config.score, method="noting"))
    for number in range(2):
        sources = {f"{seed}.png": picture(seed) for seed in range(3)}
        done = Run(ray_executor.run, tmp_path / str(number), sources, config)
        assert done.counts() == (3, 0, 0)
    traced = [path.read_text().splitlines() for path in folder.iterdir()]
    assert len(traced) <= 2  # processes
    # Once a run at most: what is registered is another function in each.
    assert all(len(lines) <= 2 for lines in traced)


@pytest.mark.parametrize(
    ("kind", "lanes", "seeds", "images", "slots", "expected"),
    [
        ("CPU", 0, 1, 100, 4, 1),
        ("CPU", 4, 1, 100, 4, 4),
        ("CPU", 4, 3, 100, 4, 2),
        ("GPU", 0, 1, 10_000, 4, 256),  # several fillings of 64 lanes
        ("GPU", 0, 1, 40, 4, 10),  # shared out over the GPUs
        ("GPU", 0, 1, 600, 4, 150),
        ("GPU", 8, 1, 16, 4, 8),  # lanes that were asked for are filled
        ("GPU", 8, 1, 1000, 4, 32),
        ("GPU", 0, 1, 1, 4, 1),
    ],
)
def test_tasks_fill_their_lanes(kind, lanes, seeds, images, slots, expected):
    fits = images * seeds
    most = fits if lanes else -(-fits // slots)
    assert ray_executor.batch_size(kind, lanes, most, seeds, images, slots) == expected


def test_a_stream_is_cut_by_number_and_by_size():
    small, large = (DecodedImage(np.zeros((8, n, 1), np.float32), None, ()) for n in (8, 80))
    stream = [small, small, small, large, large, OSError("x"), OSError("y"), small]
    batches = list(ray_executor.cut_batches(enumerate(stream), 2, large.pixels.nbytes))
    assert [[n for n, _ in batch] for batch in batches] == [[0, 1], [2], [3], [4, 5], [6, 7]]


@pytest.mark.slow  # a minute: processes on three nodes start and compile
def test_the_loss_of_every_first_node_changes_nothing(workers_environment, tmp_path, tiny):
    from ray.cluster_utils import Cluster

    config = from_config_dict({**tiny, "fit": {**tiny["fit"], "max_steps": 300, "block_steps": 50}})
    sources = {f"{seed}.png": picture(seed) for seed in range(8)}
    local = Run(run, tmp_path / "local", sources, config)
    ray.shutdown()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **STORE_OPTIONS})
    nodes = [cluster.add_node(num_cpus=1, **STORE_OPTIONS) for _ in range(2)]

    class Killing(Terminal):
        """Kills a node after the first image, and after the second the other, busy one."""

        rows = 0

        def end_image(self, row):
            Killing.rows += 1
            if Killing.rows == 2:
                cluster.add_node(num_cpus=1, **STORE_OPTIONS)
            if nodes:
                cluster.remove_node(nodes.pop(), allow_graceful=False)

    try:
        with ray_executor.joined(cluster.address) as device:
            assert device.endswith(", 2 at once by Ray")
            spread = Run(ray_executor.run, tmp_path / "ray", sources, config, terminal=Killing)
            # A run may end before Ray misses the nodes that it has lost.
            deadline = time.monotonic() + 60
            while (alive := count_alive()) != 2 and time.monotonic() < deadline:
                time.sleep(0.5)
    finally:
        cluster.shutdown()
    assert not ray.is_initialized()  # it was joined, and left
    assert not nodes and alive == 2
    assert_same(spread, local)


def count_alive():
    return sum(node["Alive"] for node in ray.nodes())


@pytest.mark.slow  # half a minute: Ray starts a process for each task on a GPU
def test_tasks_on_gpus_are_those_of_a_local_run(workers_environment, tmp_path, config):
    # Ray believes in two GPUs; with JAX_PLATFORMS the user has asked for the CPU on them.
    sources = {f"{seed}.png": picture(seed) for seed in range(4)}
    local = Run(run, tmp_path / "local", sources, config, lanes=2)
    start(num_cpus=2, num_gpus=2)
    try:
        with ray_executor.joined(None):
            spread = Run(ray_executor.run, tmp_path / "ray", sources, config, lanes=2)
            with pytest.MonkeyPatch.context() as patch:
                patch.delenv("JAX_PLATFORMS")
                with pytest.raises(InputError, match="JAX found no GPU on this node"):
                    ray_executor.worker_device("GPU")
    finally:
        ray.shutdown()
    assert_same(spread, local)


@pytest.mark.slow  # half a minute: two processes start from nothing
def test_the_command_starts_ray_and_prints_the_summary_only(tmp_path, tiny, flags_of):
    # The example has 256 pixels: of one that is shrunk by more than 4 there is a word.
    words = flags_of({**tiny, "image_size": 64})
    command = [sys.executable, "-m", "ssdnet_jax", *words, f"--workdir={tmp_path}"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    done = subprocess.run(
        [*command, "--executor=ray", "--ray_address=local"],
        env=environment | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    verdict, summary = done.stdout.splitlines()
    assert "AUROC 0." in verdict and summary.startswith("1 finished in ")
    assert "at once by Ray" in (tmp_path / "run.json").read_text()


def test_ray_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        pytest.raises(ConfigError, match=r"pip install 'ssdnet-jax\[ray\]'"),
        ray_executor.joined(None),
    ):
        pass


@pytest.mark.parametrize(
    "address", ["127.0.0.1:1", "nonsense", "auto", "no-such-host.invalid:6379"]
)
def test_an_address_without_a_cluster_is_refused_in_one_line(address, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(
        ray._private.services, "get_ray_address_from_environment", lambda *_: None, raising=True
    )
    if address == "auto":

        def nothing(**options):
            raise ConnectionError("Could not find any running Ray instance.")

        monkeypatch.setattr(ray, "init", nothing)
    started = time.monotonic()
    flags = ["--executor=ray", f"--ray_address={address}", f"--workdir={tmp_path}/out"]
    assert main(["ssdnet", *flags]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"ssdnet: {address}: found no Ray cluster to join (")
    assert time.monotonic() - started < 20
    assert not (tmp_path / "out").exists()
