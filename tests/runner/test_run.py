import dataclasses
import errno
import io
import os
from pathlib import Path

import jax
import numpy as np
import pytest
import tifffile
from PIL import Image

from ssdnet_jax.config import from_config_dict
from ssdnet_jax.data.images import DecodedImage
from ssdnet_jax.data.synthetic import grid_texture
from ssdnet_jax.errors import InputError
from ssdnet_jax.figures import heatmap
from ssdnet_jax.localize import localize
from ssdnet_jax.methods.ssdnet import SSDnet
from ssdnet_jax.runner import record
from ssdnet_jax.runner import stream as stream_module
from ssdnet_jax.runner import workdir as workdirs
from ssdnet_jax.runner.batching import Failed
from ssdnet_jax.runner.checkpoints import load_network
from ssdnet_jax.runner.run import Options, image_key, run
from ssdnet_jax.runner.sources import file_sources
from ssdnet_jax.runner.terminal import Terminal
from ssdnet_jax.runner.workdir import open_workdir


@pytest.fixture(scope="module")
def config(tiny):
    return from_config_dict(tiny)


@pytest.fixture(autouse=True)
def figures(monkeypatch):
    """Their titles only: figures have tests of their own and take most of the time."""

    @dataclasses.dataclass(frozen=True)
    class Titled(heatmap.Figure):
        title: str

    def write(path, figure):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(figure.title)

    def drawn(**parts):
        return Titled(np.zeros((1, 1, 3), np.uint8), {}, parts["title"])

    monkeypatch.setattr(heatmap, "write_heatmap_figure", write)
    monkeypatch.setattr(heatmap, "heatmap_figure", drawn)


class Run:
    """One call of `run` into a work folder, with what it printed."""

    def __init__(self, path, sources, config):
        self.out, self.err = io.StringIO(), io.StringIO()
        self.workdir = open_workdir(path, SSDnet(config), root=None)
        self.summary = run(SSDnet(config), sources, self.workdir, Terminal(self.out, self.err))

    def counts(self):
        return self.summary.finished, self.summary.failed, self.summary.finished_before

    def rows(self):
        return {row.path: row for row in read_rows(self.workdir.path)}


def read_rows(path):
    return workdirs.read_rows(path / "results.csv")


def picture(seed=0, **options):
    image = grid_texture((40, 56), period=8, seed=seed)
    return lambda: DecodedImage(image, options.get("missing"), options.get("warnings", ()))


def failing(error):
    def read():
        raise error

    return read


def test_an_image_leaves_its_map_mask_heat_map_and_row(tmp_path, config):
    done = Run(tmp_path, {"s/a.png": picture()}, config)
    assert done.counts() == (1, 0, 0)
    row = done.rows()["s/a.png"]
    score_map = tifffile.imread(tmp_path / "maps" / "s" / "a.png.tiff")
    mask = np.asarray(Image.open(tmp_path / "masks" / "s" / "a.png.png"))
    expected = localize(picture()().pixels, config, image_key(config.seed, "s/a.png"))
    assert score_map.dtype == np.float32
    np.testing.assert_array_equal(score_map, expected.score_map)
    np.testing.assert_array_equal(mask, np.where(expected.mask, 255, 0))
    assert (tmp_path / "heatmaps" / "s" / "a.png.png").read_text() == "s/a.png"
    assert (row.status, row.error, row.steps) == ("ok", "", 5)
    assert np.float32(row.score) == score_map.max()
    assert np.float32(row.pixel_threshold) == np.float32(expected.threshold)
    assert row.anomalous_fraction == pytest.approx(np.mean(mask > 0))
    assert np.float32(row.loss) == expected.losses[-1]
    assert 0 < row.seconds < 600


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (InputError("/x/b.png: damaged; expected an image"), "/x/b.png: damaged"),
        (InputError("image is constant; expected another"), "b.png: image is constant"),
        (OSError(28, "No space left on device"), "b.png: [Errno 28] No space left"),
        (MemoryError(), "b.png: MemoryError"),
        (
            jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory\n\nAllocator:\n" * 9),
            "b.png: RESOURCE_EXHAUSTED: Out of memory",
        ),
    ],
)
def test_a_failing_image_gets_a_row_and_the_others_go_on(tmp_path, config, error, words):
    sources = {"a.png": picture(), "b.png": failing(error), "c.png": picture(1)}
    done = Run(tmp_path, sources, config)
    assert done.counts() == (2, 1, 0)
    rows = done.rows()
    assert [row.status for row in rows.values()] == ["ok", "error", "ok"]
    assert rows["b.png"].error and rows["b.png"].score is None
    (line,) = done.err.getvalue().splitlines()
    assert line.startswith(f"ssdnet: {words}")
    assert len(line) < 100


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_disk_that_takes_no_more_files_ends_the_run(tmp_path, config, monkeypatch, number):
    write = record.write_tiff_map

    def full(path, score_map):
        if path.name != "a.png.tiff":
            raise OSError(number, os.strerror(number))
        write(path, score_map)

    monkeypatch.setattr(record, "write_tiff_map", full)
    sources = {f"{name}.png": picture(seed) for seed, name in enumerate("abcd")}
    said = rf"{tmp_path}: cannot be used as a work folder \({os.strerror(number)}\)"
    with pytest.raises(InputError, match=said):
        Run(tmp_path, sources, config)
    assert [(row.path, row.status) for row in read_rows(tmp_path)] == [("a.png", "ok")]


def test_an_error_in_the_program_itself_is_not_hidden(tmp_path, config):
    with pytest.raises(ZeroDivisionError):
        Run(tmp_path, {"a.png": failing(ZeroDivisionError())}, config)


def test_an_image_that_cannot_be_fitted_is_named(tmp_path, config):
    constant = DecodedImage(np.full((40, 40, 1), 0.5, np.float32), None, ())
    done = Run(tmp_path, {"s/flat.png": lambda: constant}, config)
    assert done.err.getvalue().startswith("ssdnet: s/flat.png: image is constant (0.5")
    assert done.rows()["s/flat.png"].error.startswith("image is constant (0.5")


def test_warnings_of_the_reader_are_shown(tmp_path, config):
    done = Run(tmp_path, {"a.gif": picture(warnings=("only the first of 2 frames",))}, config)
    assert done.err.getvalue() == "ssdnet: a.gif: only the first of 2 frames\n"


def test_images_that_are_shrunk_much_are_told_of_once(tmp_path, config):
    large = np.repeat(np.repeat(picture()().pixels, 5, axis=0), 5, axis=1)
    sources = {name: lambda: DecodedImage(large, None, ()) for name in ("a.png", "b.png")}
    done = Run(tmp_path, {**sources, "c.png": picture()}, config)
    (line,) = [line for line in done.err.getvalue().splitlines() if "smaller" in line]
    assert "2 of 3 images analysed at up to 6.25 times smaller" in line
    assert "defects of less than about 12 pixels" in line and "--image_size than 32" in line


def test_images_of_few_pixels_are_told_of_once(tmp_path, tiny):
    small = picture()().pixels[:8, :12]
    sources = {"a.png": lambda: DecodedImage(small, None, ()), "b.png": picture()}
    done = Run(tmp_path, sources, from_config_dict(tiny | {"image_size": 40}))
    (line,) = done.err.getvalue().splitlines()
    assert "1 of 2 images (a.png) analysed at up to 5 times the size" in line
    assert "--image_size below 40" in line and done.rows()["a.png"].status == "ok"


def test_images_that_are_too_large_for_their_detail_are_told_of_once(tmp_path, tiny):
    large = np.repeat(np.repeat(picture()().pixels, 2, axis=0), 2, axis=1)
    features = {"kind": "filters", "components": 3, "fine_components": 2}
    score = {"method": "tiles", "marks": "none", "guide": "none"}
    fields = {"image_size": 64, "features": features, "score": score, "tiling": {"above": 6000}}
    sources = {"a.png": lambda: DecodedImage(large, None, ()), "b.png": picture()}
    done = Run(tmp_path, sources, from_config_dict(tiny | fields))
    (line,) = [line for line in done.err.getvalue().splitlines() if "score.detail" in line]
    assert "1 of 2 images (a.png) analysed at more than 1500 pixels" in line


def test_missing_pixels_are_passed_on(tmp_path, config):
    missing = np.zeros((40, 56), bool)
    missing[10:20, 10:20] = True
    done = Run(tmp_path, {"a.png": picture(missing=missing)}, config)
    expected = localize(
        picture()().pixels, config, image_key(config.seed, "a.png"), missing=missing
    )
    np.testing.assert_array_equal(
        tifffile.imread(done.workdir.map_path("a.png")), expected.score_map
    )


def written(path):
    """Which file it is and when it was written; that it was looked at does not matter."""
    status = path.stat()
    return status.st_ino, status.st_mtime_ns


def test_finished_images_are_neither_read_nor_fitted_again(tmp_path, config):
    first = Run(tmp_path, {"a.png": picture(), "b.png": failing(InputError("damaged"))}, config)
    assert first.counts() == (1, 1, 0)
    before = written(first.workdir.map_path("a.png"))
    again = {"a.png": failing(AssertionError("read again")), "b.png": picture(), "c.png": picture()}
    second = Run(tmp_path, again, config)
    assert second.counts() == (2, 0, 1)
    assert written(first.workdir.map_path("a.png")) == before
    assert {path: row.status for path, row in second.rows().items()} == dict.fromkeys(again, "ok")


def test_an_image_whose_map_has_gone_is_fitted_again(tmp_path, config):
    first = Run(tmp_path, {"a.png": picture(), "b.png": picture(1)}, config)
    first.workdir.map_path("a.png").unlink()
    second = Run(tmp_path, {"a.png": picture(), "b.png": failing(AssertionError())}, config)
    assert second.counts() == (1, 0, 1)
    assert second.workdir.map_path("a.png").exists()
    assert len(read_rows(tmp_path)) == 2


def test_a_row_comes_after_its_files(tmp_path, config, monkeypatch):
    def interrupted(path, figure):
        raise KeyboardInterrupt

    finished = Run(tmp_path, {"a.png": picture()}, config)
    monkeypatch.setattr("ssdnet_jax.figures.heatmap.write_heatmap_figure", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Run(tmp_path, {"a.png": picture(), "b.png": picture(1)}, config)
    assert set(finished.rows()) == {"a.png"}


def test_a_result_does_not_depend_on_the_neighbours(tmp_path, config):
    names = ["a.png", "b.png", "c.png"]
    sources = {name: picture(seed) for seed, name in enumerate(names)}
    together = Run(tmp_path / "together", sources, config)
    backwards = Run(tmp_path / "backwards", dict(reversed(sources.items())), config)
    alone = Run(tmp_path / "alone", {"b.png": sources["b.png"]}, config)
    maps = [done.workdir.map_path("b.png").read_bytes() for done in (together, backwards, alone)]
    assert maps[0] == maps[1] == maps[2]
    assert maps[0] != together.workdir.map_path("a.png").read_bytes()


def test_the_key_depends_on_seed_and_path_only():
    def bits(seed, relative):
        return tuple(jax.random.key_data(image_key(seed, relative)).tolist())

    assert bits(0, "s/a.png") == bits(0, "s/a.png")
    stray = b"caf\xe9.png".decode("utf-8", "surrogateescape")
    names = ["s/a.png", "a.png", "A.png", "b.png", "ü.png", stray]
    assert len({bits(seed, name) for seed in (0, 1, 2**32 - 1) for name in names}) == 18


def test_the_key_is_the_same_on_every_machine_and_in_every_version():
    assert jax.random.key_data(image_key(3, "s/a.png")).tolist() == [3242897248, 410941335]


@pytest.mark.parametrize(
    "name",
    ["with space.png", "ü 検査.png", 'comma,quote".png', "new\nline.png", "dollar$x$.png", "a.b"],
)
def test_files_of_any_name_can_be_scored_twice(tmp_path, config, name):
    (tmp_path / "in").mkdir()
    Image.fromarray((picture()().pixels[..., 0] * 255).astype(np.uint8)).save(
        tmp_path / "in" / name, "PNG"
    )
    sources = file_sources(tmp_path / "in", [Path(name)])
    assert Run(tmp_path / "out", sources, config).counts() == (1, 0, 0)
    second = Run(tmp_path / "out", sources, config)
    assert second.counts() == (0, 0, 1)
    assert second.workdir.map_path(name).is_file()


def test_sources_read_their_own_file(tmp_path):
    for number, name in enumerate(["a.npy", "b.npy"]):
        np.save(tmp_path / name, np.linspace(0, number, 4).reshape(2, 2))
    sources = file_sources(tmp_path, [Path("a.npy"), Path("b.npy")])
    assert sources["a.npy"]().pixels.max() == 0
    assert sources["b.npy"]().pixels.max() == 1


def test_the_terminal_is_told_about_every_image(tmp_path, config):
    calls = []

    class Recorder(Terminal):
        def start_run(self, images):
            calls.append(images)

        def images(self, names):
            calls.append(tuple(names))

        def end_image(self, row):
            calls.append((row.path, row.status))

    sources = {"a.png": picture(), "b.png": failing(InputError("damaged"))}
    workdir = open_workdir(tmp_path, SSDnet(config), root=None)
    run(SSDnet(config), sources, workdir, Recorder(io.StringIO(), io.StringIO()))
    assert calls[0] == 2 and ("a.png",) in calls
    assert {call for call in calls[1:] if len(call) == 2} == {("a.png", "ok"), ("b.png", "error")}


def run_with(path, sources, config, **values):
    workdir = open_workdir(path, SSDnet(config), root=None)
    terminal = Terminal(io.StringIO(), io.StringIO())
    return run(SSDnet(config), sources, workdir, terminal, options=Options(**values))


def maps(path):
    found = sorted((path / "maps").rglob("*.tiff"))
    return {p.relative_to(path).as_posix(): tifffile.imread(p) for p in found}


def assert_same_maps(actual, expected):
    assert set(actual) == set(expected)
    for name, score_map in expected.items():
        np.testing.assert_array_equal(actual[name], score_map)


def test_rows_are_in_the_order_of_the_input(tmp_path, config):
    sources = {name: picture(seed) for seed, name in enumerate(["c.png", "a.png", "b.png"])}
    sources["x.png"] = failing(InputError("damaged"))
    run_with(tmp_path, sources, config, lanes=2)
    assert [row.path for row in read_rows(tmp_path)] == ["c.png", "a.png", "b.png", "x.png"]


def test_lanes_do_not_change_what_comes_out(tmp_path, config):
    sources = {f"{n}.png": picture(n) for n in range(4)}
    sources["hole.png"] = picture(7, missing=np.eye(40, 56, dtype=bool))
    sources["small.png"] = lambda: DecodedImage(grid_texture((30, 30), period=6, seed=1), None, ())
    for lanes in (1, 2):
        assert run_with(tmp_path / str(lanes), sources, config, lanes=lanes).finished == 6
    one, two = maps(tmp_path / "1"), maps(tmp_path / "2")
    assert set(one) == set(two) and len(one) == 6
    for name, score_map in one.items():
        # Sums are taken in another order across lane counts; five steps carry that far.
        np.testing.assert_allclose(two[name], score_map, rtol=2e-2, atol=1e-4)


def test_grey_and_colour_images_share_a_run(tmp_path, config):
    grey, colour = grid_texture((40, 40), period=8, seed=0), np.zeros((40, 40, 3), np.float32)
    colour[:] = grey[..., :1]
    colour[..., 0] *= 0.5
    sources = {
        f"{n}.png": lambda n=n: DecodedImage(colour if n % 2 else grey, None, ()) for n in range(5)
    }
    assert run_with(tmp_path / "both", sources, config, lanes=2).finished == 5
    for kind, numbers in (("grey", (0, 2, 4)), ("colour", (1, 3))):
        own = {f"{n}.png": sources[f"{n}.png"] for n in numbers}
        run_with(tmp_path / kind, own, config, lanes=2)
        together = maps(tmp_path / "both")
        alone = maps(tmp_path / kind)
        assert_same_maps({name: together[name] for name in alone}, alone)


def test_a_resumed_run_with_lanes_repeats_the_bits(tmp_path, config):
    sources = {f"{n}.png": picture(n) for n in range(5)}
    run_with(tmp_path / "whole", sources, config, lanes=2)
    asked = []

    def stop():
        asked.append(1)
        return len(asked) > 4

    first = run_with(tmp_path / "parts", sources, config, lanes=2, stop=stop)
    assert first.stopped and first.finished < 5
    second = run_with(tmp_path / "parts", sources, config, lanes=2)
    assert second.finished_before == first.finished and not second.stopped
    assert_same_maps(maps(tmp_path / "parts"), maps(tmp_path / "whole"))
    rows = [(row.path, row.score, row.steps, row.loss) for row in read_rows(tmp_path / "parts")]
    whole = [(row.path, row.score, row.steps, row.loss) for row in read_rows(tmp_path / "whole")]
    assert rows == whole


def test_several_seeds_give_the_median_map_and_its_spread(tmp_path, tiny):
    config = from_config_dict({**tiny, "fit": {**tiny["fit"], "seeds": 3}})
    run_with(tmp_path, {"a.png": picture()}, config, lanes=2)
    with np.load(tmp_path / "fits" / "a.png.npz") as kept:
        assert kept["reconstructions"].shape == (3, 32, 44, 1)
        assert len({each.tobytes() for each in kept["reconstructions"]}) == 3
    expected = localize(picture()().pixels, config, image_key(config.seed, "a.png"))
    close = {"rtol": 1e-2, "atol": 1e-5}
    (score_map,) = maps(tmp_path).values()
    np.testing.assert_allclose(score_map, expected.score_map, **close)
    spread = tifffile.imread(tmp_path / "uncertainty" / "a.png.tiff")
    np.testing.assert_allclose(spread, expected.uncertainty, rtol=0.1, atol=1e-4)
    assert spread.max() > 0


def test_the_device_failing_on_one_image_spares_the_others(tmp_path, config, monkeypatch):
    fit_stream = stream_module.fit_stream

    def limited(take, **options):
        for result in fit_stream(take, **options):
            bad = result.name.image == "b.png"
            yield Failed(result.name, jax.errors.JaxRuntimeError("no memory")) if bad else result

    monkeypatch.setattr(stream_module, "fit_stream", limited)
    sources = {f"{n}.png": picture() for n in "abc"}
    run_with(tmp_path, sources, config)
    status = {row.path: (row.status, row.error) for row in read_rows(tmp_path)}
    assert status == {"a.png": ("ok", ""), "b.png": ("error", "no memory"), "c.png": ("ok", "")}


def test_parameters_are_kept_when_asked_for(tmp_path, tiny):
    # Nothing is hidden and hardly a step taken: the last network gives what was averaged.
    still = {"learning_rate": 1e-9, "input_noise": 0.0, "mask_ratio": 0.0, "seeds": 2}
    config = from_config_dict({**tiny, "fit": {**tiny["fit"], **still}})
    sources = {"s/a.png": picture(), "s/b.png": picture(1)}
    run_with(tmp_path, sources, config, save_params=True)
    found = []
    for name in sources:
        with np.load(tmp_path / "fits" / f"{name}.npz") as kept:
            for seed, mu in enumerate(kept["reconstructions"]):
                network = load_network(tmp_path / "params" / name, seed=seed)
                found.append(np.asarray(network(kept["image"])))
                np.testing.assert_allclose(found[-1], mu, atol=1e-5)
    assert len({each.tobytes() for each in found}) == 4
