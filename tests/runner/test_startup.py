import os
import platform
import stat
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import jaxlib.version
import numpy as np
import pytest
from PIL import Image

from ssdnet_jax.config import AUTO, PAPER, Config
from ssdnet_jax.data.images import read_image
from ssdnet_jax.data.weights import random_vgg19_weights
from ssdnet_jax.errors import InputError
from ssdnet_jax.methods.registry import make_method
from ssdnet_jax.runner import startup
from ssdnet_jax.runner.startup import find_inputs, with_weights
from ssdnet_jax.runner.workdir import open_workdir


def put(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.eye(9, dtype=np.uint8)).save(folder / name)


def used_workdir(path):
    open_workdir(path, make_method("ssdnet", Config()), root=None)
    put(path, "maps/a.png.tiff", "heatmaps/a.png.png", "masks/s/a.png.png")


def found(pattern, workdir):
    root, relatives = find_inputs(str(pattern), Path(workdir))
    return root, [path.as_posix() for path in relatives]


def test_a_folder_a_file_and_a_glob_name_images(tmp_path):
    put(tmp_path, "in/a.png", "in/s/b.png")
    folder = tmp_path / "in"
    assert found(folder, tmp_path / "out") == (folder, ["a.png", "s/b.png"])
    assert found(folder / "a.png", tmp_path / "out") == (folder, ["a.png"])
    assert found(folder / "*" / "*.png", tmp_path / "out") == (folder, ["s/b.png"])


@pytest.mark.parametrize("workdir", [".", "out", "deep/out"])
def test_results_inside_the_input_folder_are_no_inputs(tmp_path, workdir):
    put(tmp_path, "a.png", "out/mine.png", "masked/c.png")
    used_workdir(tmp_path / workdir)
    expected = ["a.png", "masked/c.png", "out/mine.png"]
    assert found(tmp_path, tmp_path / workdir)[1] == expected


def test_results_of_another_run_are_no_inputs_either(tmp_path):
    put(tmp_path, "a.png")
    used_workdir(tmp_path / "earlier")
    assert found(tmp_path, tmp_path / "out")[1] == ["a.png"]


def test_results_are_recognized_through_relative_paths_and_links(tmp_path, monkeypatch):
    put(tmp_path, "a.png")
    used_workdir(tmp_path / "out")
    (tmp_path / "link").symlink_to(tmp_path / "out")
    monkeypatch.chdir(tmp_path)
    assert found(".", "out")[1] == ["a.png"]
    assert found(".", "link")[1] == ["a.png"]


def test_links_in_circles_and_to_nothing_are_left_to_the_reader(tmp_path):
    put(tmp_path, "a.png")
    (tmp_path / "circle.png").symlink_to("circle.png")
    (tmp_path / "nowhere.png").symlink_to("absent.png")
    (tmp_path / "up").symlink_to(tmp_path)
    assert found(tmp_path, tmp_path / "out")[1] == ["a.png", "circle.png", "nowhere.png"]
    for name in ("circle.png", "nowhere.png"):
        with pytest.raises(InputError, match=f"{name}: a link that leads nowhere; expected"):
            read_image(tmp_path / name)


def test_folders_that_only_share_a_name_with_results_are_inputs(tmp_path):
    put(tmp_path, "maps/a.png", "s/masks/b.png")
    assert found(tmp_path, tmp_path / "out")[1] == ["maps/a.png", "s/masks/b.png"]


def test_results_may_be_inputs_of_another_run_if_asked_for(tmp_path):
    used_workdir(tmp_path / "earlier")
    assert found(tmp_path / "earlier" / "maps", tmp_path / "out")[1] == ["a.png.tiff"]


def test_nothing_but_results_is_an_error(tmp_path):
    used_workdir(tmp_path)
    for pattern in (tmp_path, tmp_path / "maps"):
        with pytest.raises(InputError, match="only results of ssdnet; expected images"):
            found(pattern, tmp_path)


def test_what_is_left_out_is_counted_and_named_once(tmp_path):
    put(tmp_path, "a.png", "sub/b.JFIF")
    Image.new("L", (9, 9), 3).save(tmp_path / "plain", "BMP")  # an image by its content
    for name in ("notes.txt", "sub/x.csv", "sub/y.csv", "sub/z.csv"):
        (tmp_path / name).write_text("a,b\n")
    os.mkfifo(tmp_path / "pipe")  # opening it would wait for ever
    used_workdir(tmp_path / "out")  # its results.csv and run.json need no word
    lines: list[str] = []
    _, images = find_inputs(str(tmp_path), tmp_path / "out", report=lines.append)
    assert [path.as_posix() for path in images] == ["a.png", "plain", "sub/b.JFIF"]
    assert lines == [
        "5 left out, no images by their name or content: notes.txt, pipe, sub/x.csv, ..."
    ]


def test_a_page_whose_name_a_file_has_is_left_out_with_a_word(tmp_path):
    pages = [Image.new("L", (9, 9), value) for value in (3, 4)]
    pages[0].save(tmp_path / "s.tif", save_all=True, append_images=pages[1:])
    pages[1].save(tmp_path / "s.tif#1", "PNG")  # an image by its content
    lines: list[str] = []
    _, images = find_inputs(str(tmp_path), tmp_path / "out", report=lines.append)
    assert sorted(path.as_posix() for path in images) == ["s.tif#1", "s.tif#2"]
    assert lines == ["1 left out, pages that go by the name of a file, which is taken: s.tif#1"]


def test_a_work_folder_that_is_a_link_in_a_circle_is_left_to_its_opener(tmp_path):
    put(tmp_path, "a.png")
    (tmp_path / "out").symlink_to("out")
    _, images = find_inputs(str(tmp_path / "a.png"), tmp_path / "out")
    assert images == [Path("a.png")]


@pytest.mark.parametrize("root", ["", "grid"])
def test_masks_of_a_labelled_dataset_are_left_out_unless_asked_for(dataset, tmp_path, root):
    lines: list[str] = []
    _, images = find_inputs(str(dataset / root), tmp_path / "out", report=lines.append)
    prefix = "" if root else "grid/"
    expected = [f"{prefix}test/{name}.png" for name in ("blob/0", "blob/1", "good/0")]
    assert [path.as_posix() for path in images] == expected
    masks = [f"{prefix}ground_truth/blob/{i}_mask.png" for i in (0, 1)]
    assert lines == [
        f"2 left out, masks in ground_truth, which are labels and no images: {', '.join(masks)}"
    ]
    asked = find_inputs(str(dataset / "grid/ground_truth"), tmp_path / "out")[1]
    assert [path.as_posix() for path in asked] == ["blob/0_mask.png", "blob/1_mask.png"]


def test_nothing_named_is_an_error(tmp_path):
    with pytest.raises(InputError, match=r"--input: found no name"):
        found("", tmp_path)


@pytest.fixture
def updates(monkeypatch):
    """What would be changed in JAX's configuration."""
    changed = {}
    monkeypatch.setattr(jax.config, "update", changed.__setitem__)
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    return changed


def test_compiled_programs_are_kept_in_a_private_folder_of_this_jaxlib_and_processor(
    tmp_path, monkeypatch, updates
):
    monkeypatch.setenv("SSDNET_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache" / "xla").mkdir(parents=True)
    (tmp_path / "cache" / "xla").chmod(0o755)  # as an earlier version may have left it
    startup.use_compilation_cache()
    folder = Path(updates["jax_compilation_cache_dir"])
    assert folder.parent == tmp_path / "cache" / "xla"
    assert folder.name.startswith(f"jaxlib-{jaxlib.version.__version__}-{platform.machine()}-")
    for path in (folder, folder.parent):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    monkeypatch.setattr(jaxlib.version, "__version__", "0.0.1")
    startup.use_compilation_cache()
    assert Path(updates["jax_compilation_cache_dir"]) != folder


def test_a_folder_that_others_can_write_is_not_used(tmp_path, monkeypatch, updates):
    monkeypatch.setenv("SSDNET_CACHE", str(tmp_path))
    (tmp_path / "xla").mkdir()
    (tmp_path / "xla").chmod(0o777)
    startup.use_compilation_cache()
    assert updates == {}


def test_a_cache_chosen_through_jax_is_left_as_it_is(tmp_path, monkeypatch, updates):
    monkeypatch.setenv("SSDNET_CACHE", str(tmp_path))
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "/elsewhere")
    startup.use_compilation_cache()
    assert updates == {}
    assert not any(tmp_path.iterdir())


def test_a_run_does_not_fail_for_want_of_a_cache(tmp_path, monkeypatch, updates):
    (tmp_path / "file").touch()
    monkeypatch.setenv("SSDNET_CACHE", str(tmp_path / "file"))
    startup.use_compilation_cache()

    def homeless():
        raise RuntimeError("no home")

    monkeypatch.delenv("SSDNET_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    startup.use_compilation_cache()
    assert updates == {}


def test_the_device_is_named_in_words():
    name = startup.device_name()
    assert name.startswith("CPU (") if jax.default_backend() == "cpu" else "gpu" in name


def test_a_missing_device_is_an_error_of_one_line(monkeypatch):
    def missing():
        raise RuntimeError("Unable to initialize backend 'cuda':\n not found")

    monkeypatch.setattr(jax, "devices", missing)
    with pytest.raises(InputError, match=r"no device \(Unable .* not found\); expected"):
        startup.device_name()


@pytest.fixture
def no_downloads(monkeypatch):
    """VGG19's weights are not to be had, unless a file is named."""

    def load(path, *, report):
        raise InputError(f"VGG19 weights: {path or 'no network'}")

    monkeypatch.delenv("SSDNET_VGG19_WEIGHTS", raising=False)
    monkeypatch.setattr("ssdnet_jax.data.weights.load_vgg19_weights", load)


@pytest.fixture
def downloads(monkeypatch):
    """Where VGG19's weights are asked for, these."""
    weights = random_vgg19_weights(0, (2, 2, 2, 2))

    def load(path, *, report):
        report(f"reading {path}")
        return weights

    monkeypatch.setattr("ssdnet_jax.data.weights.load_vgg19_weights", load)
    return weights


@pytest.fixture
def said():
    return []


def test_weights_are_loaded_only_if_they_are_needed(no_downloads, said):
    for text in ("ssdnet", "spectral_residual"):
        method = with_weights(make_method(text, PAPER), vgg19_path="missing", report=said.append)
        assert method.vgg19 is None and method.config == PAPER
    with pytest.raises(InputError, match="missing"):
        with_weights(make_method("fca", PAPER), vgg19_path="missing", report=said.append)
    assert said == []


def test_clip_weights_are_loaded_only_if_they_are_needed(tmp_path, said):
    missing = str(tmp_path / "missing.pt")
    with_weights(make_method("spectral_residual", PAPER), clip_path=missing, report=said.append)
    with pytest.raises(InputError, match=r"missing.pt"):
        with_weights(make_method("winclip", PAPER), clip_path=missing, report=said.append)


def test_weights_and_what_is_reported_of_them_are_passed_on(downloads, said):
    method = with_weights(make_method("fca", AUTO), vgg19_path="w.npz", report=said.append)
    assert method.vgg19 is downloads and said == ["reading w.npz"]


def test_automatic_features_become_those_of_the_weights_that_there_are(downloads, said):
    method = with_weights(make_method("ssdnet", AUTO), report=said.append)
    assert method.config == AUTO.resolve_features(has_vgg19=True)
    assert method.vgg19 is downloads and method.needs_vgg19


def test_without_weights_a_filter_bank_takes_their_place_and_the_terminal_says_so(
    no_downloads, said
):
    method = with_weights(make_method("ssdnet", AUTO), report=said.append)
    assert method.config == AUTO.resolve_features(has_vgg19=False)
    (message,) = said
    assert "filter bank" in message and "no network" in message


def test_weights_that_were_named_and_cannot_be_used_are_an_error(tmp_path, monkeypatch, said):
    method = make_method("ssdnet", AUTO)
    with pytest.raises(InputError, match=r"absent\.npz"):
        with_weights(method, vgg19_path=str(tmp_path / "absent.npz"), report=said.append)
    monkeypatch.setenv("SSDNET_VGG19_WEIGHTS", str(tmp_path / "none.npz"))
    with pytest.raises(InputError, match=r"none\.npz"):
        with_weights(method, report=said.append)


@pytest.fixture
def no_device_count(monkeypatch):
    """An environment that does not say how many devices a CPU has."""
    monkeypatch.delenv("JAX_NUM_CPU_DEVICES", raising=False)
    monkeypatch.delenv("XLA_FLAGS", raising=False)


@pytest.fixture
def device_counts(no_device_count, monkeypatch):
    """What JAX is told about the devices of a CPU."""
    told = []
    monkeypatch.setattr(jax.config, "update", lambda name, value: told.append((name, value)))
    return told


def test_each_core_of_a_processor_becomes_a_device(device_counts):
    startup.make_cores_devices()
    assert device_counts == [("jax_num_cpu_devices", startup.cores())]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("JAX_NUM_CPU_DEVICES", "2"),
        ("XLA_FLAGS", "--xla_force_host_platform_device_count=2"),
    ],
)
def test_a_number_of_devices_in_the_environment_stays(monkeypatch, device_counts, name, value):
    monkeypatch.setenv(name, value)
    startup.make_cores_devices()
    assert device_counts == []


def test_this_xla_knows_how_long_devices_are_to_wait_for_each_other(no_device_count):
    command = "from ssdnet_jax.runner import startup as s; s.make_cores_devices(); import jax, os; "
    command += "print(jax.device_count(), os.environ['XLA_FLAGS'])"
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True)
    flag = "--xla_cpu_collective_call_{}_timeout_seconds=3600"
    expected = f"{startup.cores()} {flag.format('warn_stuck')} {flag.format('terminate')}\n"
    assert done.stdout == expected, done.stderr


def test_how_long_devices_wait_may_be_set_from_outside(device_counts, monkeypatch):
    given = "--xla_cpu_collective_call_terminate_timeout_seconds=9"
    monkeypatch.setenv("XLA_FLAGS", given)
    startup.make_cores_devices()
    assert os.environ["XLA_FLAGS"] == given


def test_devices_stay_as_they_are_once_jax_has_started(no_device_count):
    before = jax.local_device_count()
    startup.make_cores_devices()
    assert jax.local_device_count() == before


@pytest.mark.parametrize(
    ("platform", "capability", "told", "expected"),
    [
        ("cpu", None, None, "float32"),
        ("gpu", "9.0", None, "tensorfloat32"),
        ("gpu", "7.5", None, "float32"),
        ("gpu", "gfx90a", None, "float32"),
        ("gpu", "9.0", "highest", "highest"),
        ("tpu", None, None, "bfloat16"),
    ],
)
def test_the_precision_of_products_is_the_devices_unless_jax_was_told(
    monkeypatch, platform, capability, told, expected
):
    device = SimpleNamespace(platform=platform, compute_capability=capability)
    monkeypatch.setattr(jax, "devices", lambda: [device])
    with jax.default_matmul_precision(told):
        assert startup.matmul_precision() == expected


def test_a_run_does_not_import_what_it_does_not_need():
    slow = ("flax", "matplotlib", "optax", "orbax", "scipy.stats", "skimage", "sklearn")
    slow += ("ray", "torch")
    script = "import sys, ssdnet_jax.cli.ssdnet; print(*set(sys.argv[1:]) & set(sys.modules))"
    command = [sys.executable, "-c", script, *slow]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
