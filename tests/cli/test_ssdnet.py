import csv
import json
import os
import shutil
import struct
import subprocess
import sys
import sysconfig
import time
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

import ssdnet_jax
from ssdnet_jax.__main__ import console
from ssdnet_jax.cli import commands
from ssdnet_jax.cli.flags import config_help
from ssdnet_jax.cli.ssdnet import help_text, main
from ssdnet_jax.config import from_config_dict, to_config_dict
from ssdnet_jax.config_files import load_config
from ssdnet_jax.data.synthetic import grid_texture
from ssdnet_jax.runner.terminal import Terminal
from ssdnet_jax.runner.workdir import COLUMNS

pytestmark = pytest.mark.usefixtures("quick_figures")
PICTURE = grid_texture((40, 56), period=8)
BYTES = np.round(255 * PICTURE[..., 0]).astype(np.uint8)


@pytest.fixture
def quick(tiny, flags_of):
    """Flags of the tiny configuration."""
    return flags_of(tiny)


@pytest.fixture
def ssdnet(quick, capsys):
    """Calls the command in this process: exit status, standard output, standard error."""

    def call(*flags):
        status = main(["ssdnet", *quick, *map(str, flags)])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


def put(path, pixels=BYTES):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def rows(workdir):
    with (workdir / "results.csv").open(newline="", encoding="utf-8") as file:
        return {row["path"]: row for row in csv.DictReader(file)}


def test_a_picture_gets_its_files_its_row_and_a_note(ssdnet, tmp_path):
    picture, out = put(tmp_path / "a.png"), tmp_path / "out"
    status, stdout, stderr = ssdnet(f"--input={picture}", f"--workdir={out}")
    assert (status, stderr) == (0, "")
    assert stdout.startswith("1 finished in ") and stdout.endswith(f"; see {out}/index.html\n")
    assert {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()} == {
        "maps/a.png.tiff",
        "heatmaps/a.png.png",
        "masks/a.png.png",
        "fits/a.png.npz",
        "results.csv",
        "run.json",
        "verdicts.csv",
        "index.html",
        "index/rows-0.js",
        "index/state.js",
        "thumbnails/a.png.jpg",
        "decisions/a.png.json",
        "defects.csv",
        "defects.coco.json",
        "defects.geojson",
    }
    score_map = tifffile.imread(out / "maps" / "a.png.tiff")
    assert (score_map.dtype, score_map.shape) == (np.float32, (40, 56))
    assert Image.open(out / "masks" / "a.png.png").size == (56, 40)
    row = rows(out)["a.png"]
    assert tuple(row) == COLUMNS
    assert row["status"] == "ok" and np.float32(row["score"]) == score_map.max()
    note = json.loads((out / "run.json").read_text())
    assert from_config_dict(note["config"]).fit.max_steps == 5
    assert note["command"].startswith("ssdnet --config.image_size=32 ")
    assert note["command"].endswith(f"--input={picture} --workdir={out}")
    assert note["seed"] == 0
    assert note["device"] and note["versions"]["jax"]
    assert note["matmul_precision"] == "float32"  # on a CPU, unless JAX was told otherwise


def test_without_an_input_the_example_runs_and_says_how_well(ssdnet, tmp_path):
    status, stdout, stderr = ssdnet(f"--workdir={tmp_path}")
    assert status == 0
    (line,) = stderr.splitlines()
    assert "1 of 1 image (example.png) analysed at up to 8 times smaller" in line
    verdict, summary = stdout.splitlines()
    assert "AUROC 0." in verdict and "average precision 0." in verdict
    assert str(tmp_path / "heatmaps" / "example.png.png") in verdict
    assert summary.startswith("1 finished in ")
    # A second time nothing is left to do, and the verdict is the same.
    again = ssdnet(f"--workdir={tmp_path}")[1].splitlines()
    assert again[0] == verdict
    assert again[1].startswith("0 finished, 1 finished before in ")


def test_pictures_of_any_kind_and_size_are_scored(ssdnet, tmp_path):
    colour = np.stack([BYTES, BYTES[::-1], BYTES[:, ::-1]], axis=-1)
    put(tmp_path / "in" / "grey.png")
    put(tmp_path / "in" / "s" / "colour.JPG", colour)
    put(tmp_path / "in" / "s" / "colour.tif", colour)
    put(tmp_path / "in" / "wide.bmp", np.tile(BYTES[:8], (1, 10)))
    put(tmp_path / "in" / "alpha.png", np.dstack([colour, 255 * (BYTES > 60).astype(np.uint8)]))
    np.save(tmp_path / "in" / "holes.npy", np.where(PICTURE > 0.7, np.nan, PICTURE))
    status, _, _ = ssdnet("--input", tmp_path / "in", "--workdir", tmp_path / "out")
    table = rows(tmp_path / "out")
    assert status == 0
    assert len(table) == 6 and {row["status"] for row in table.values()} == {"ok"}
    for name in table:
        score_map = tifffile.imread(tmp_path / "out" / "maps" / f"{name}.tiff")
        assert score_map.shape == ((8, 560) if name == "wide.bmp" else (40, 56))
        judged = BYTES > 60 if name == "alpha.png" else np.ones(score_map.shape, bool)
        np.testing.assert_array_equal(np.isfinite(score_map), judged)


def test_pixels_that_a_mask_image_names_do_not_matter(ssdnet, tmp_path):
    mask = np.zeros_like(BYTES)
    mask[5:12, 6:14] = 255
    put(tmp_path / "in" / "masks" / "a.png", mask)
    maps = []
    for value in (0, 255):
        put(tmp_path / "in" / "a.png", np.where(mask > 0, np.uint8(value), BYTES))
        where = tmp_path / f"out{value}"
        flags = (f"--input={tmp_path / 'in'}", f"--missing={tmp_path / 'in' / 'masks'}")
        assert ssdnet(*flags, f"--workdir={where}")[0] == 0
        assert list(rows(where)) == ["a.png"]
        maps.append(tifffile.imread(where / "maps" / "a.png.tiff"))
    np.testing.assert_array_equal(*maps)
    status, _, errors = ssdnet(f"--missing={tmp_path}", f"--workdir={tmp_path / 'out'}")
    assert (status, errors) == (2, "ssdnet: --missing: found without --input; expected both\n")
    status, _, errors = ssdnet(flags[0], f"--missing={tmp_path}/x", f"--workdir={tmp_path / 'o'}")
    assert status == 2 and "x: no such file or folder; expected masks" in errors


def test_a_glob_takes_what_it_names(ssdnet, tmp_path):
    for name in ("a.png", "b.png", "s/c.png"):
        put(tmp_path / "in" / name)
    assert ssdnet(f"--input={tmp_path}/in/[ab].png", f"--workdir={tmp_path}/out")[0] == 0
    assert set(rows(tmp_path / "out")) == {"a.png", "b.png"}


def bomb():
    """A PNG that claims 40000 x 40000 pixels."""

    def chunk(name, data):
        check = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + check

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 40000, 40000, 8, 0, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + body


def test_a_folder_with_bad_files_goes_on_and_fails_at_the_end(ssdnet, tmp_path):
    folder = tmp_path / "in"
    whole = put(folder / "good.png").read_bytes()
    put(folder / "zz good.png")
    put(folder / "small.png", BYTES[:4, :4])
    put(folder / "constant.png", np.full_like(BYTES, 9))
    np.save(folder / "infinite.npy", np.where(PICTURE > 0.7, np.inf, PICTURE))
    np.save(folder / "large_values.npy", 255 * PICTURE)
    np.save(folder / "integers.npy", BYTES.astype(np.int64))
    np.save(folder / "missing.npy", np.full((40, 56), np.nan))
    (folder / "bomb.png").write_bytes(bomb())
    (folder / "empty.png").write_bytes(b"")
    (folder / "truncated.png").write_bytes(whole[: len(whole) // 2])
    (folder / "text.png").write_text("no picture")
    (folder / "notes.txt").write_text("left alone")
    status, stdout, stderr = ssdnet(f"--input={folder}", f"--workdir={tmp_path / 'out'}")
    table = rows(tmp_path / "out")
    bad = sorted(name for name in table if "good" not in name)
    assert status == 1
    assert stdout.startswith(f"2 finished, {len(bad)} failed in ")
    assert len(bad) == 10 and len(table) == 12
    left_out, *lines = stderr.splitlines()
    assert left_out == "ssdnet: 1 left out, no images by their name or content: notes.txt"
    assert len(lines) == len(bad)
    for name, line in zip(bad, lines, strict=True):
        assert line.startswith("ssdnet: ") and name in line and "expected" in line
        assert table[name]["status"] == "error"
        assert table[name]["error"] in line
        assert table[name]["score"] == ""
    for name in ("good.png", "zz good.png"):
        assert table[name]["status"] == "ok"


def test_a_rerun_keeps_what_is_finished_and_tries_the_rest_again(ssdnet, tmp_path):
    folder, out = tmp_path / "in", tmp_path / "out"
    put(folder / "a.png")
    put(folder / "a.jpg")
    (folder / "b.png").write_bytes(b"damaged")
    flags = [f"--input={folder}", f"--workdir={out}"]
    assert ssdnet(*flags)[0] == 1
    before = {path: path.stat().st_mtime_ns for path in (out / "maps").iterdir()}
    table = (out / "results.csv").read_bytes()
    (out / "results.csv").write_bytes(table[:-5])  # the row of b.png, cut off
    put(folder / "b.png")
    put(folder / "c.png")
    status, stdout, _ = ssdnet(*flags)
    assert status == 0
    assert stdout.startswith("2 finished, 2 finished before in ")
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert {name: row["status"] for name, row in rows(out).items()} == {
        "a.jpg": "ok",
        "a.png": "ok",
        "b.png": "ok",
        "c.png": "ok",
    }


def test_results_inside_the_input_folder_are_not_scored(ssdnet, tmp_path):
    put(tmp_path / "a.png")
    for workdir in ("out", "out", "."):
        assert ssdnet(f"--input={tmp_path}", f"--workdir={tmp_path / workdir}")[0] == 0
        assert set(rows(tmp_path / workdir)) == {"a.png"}


def test_another_configuration_is_refused_in_the_same_folder(ssdnet, tmp_path):
    flags = [f"--input={put(tmp_path / 'a.png')}", f"--workdir={tmp_path / 'out'}"]
    assert ssdnet(*flags)[0] == 0
    status, stdout, stderr = ssdnet(*flags, "--config.seed=3")
    assert (status, stdout) == (2, "")
    assert "config.seed: 0 there, 3 here" in stderr and str(tmp_path / "out") in stderr


def test_a_picture_of_the_same_name_elsewhere_is_not_taken_for_finished(ssdnet, tmp_path):
    put(tmp_path / "one" / "a.png")
    put(tmp_path / "two" / "a.png", BYTES.T.copy())
    assert ssdnet(f"--input={tmp_path}/one", f"--workdir={tmp_path}/out")[0] == 0
    status, _, stderr = ssdnet(f"--input={tmp_path}/two", f"--workdir={tmp_path}/out")
    assert status == 2
    assert f"root: {tmp_path}/one there, {tmp_path}/two here" in stderr


def test_the_seed_changes_the_result_and_nothing_else_does(ssdnet, tmp_path):
    picture, maps = put(tmp_path / "in" / "a.png"), {}
    put(tmp_path / "in" / "b.png")
    runs = {"alone": [], "folder": [], "seed": ["--config.seed=1"]}
    for name, flags in runs.items():
        source = picture if name == "alone" else picture.parent
        assert ssdnet(f"--input={source}", f"--workdir={tmp_path / name}", *flags)[0] == 0
        maps[name] = (tmp_path / name / "maps" / "a.png.tiff").read_bytes()
    assert maps["alone"] == maps["folder"] != maps["seed"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], ["--workdir: found none"]),
        (["--workdir="], ["--workdir: found none"]),
        (["--workdir={tmp}/out", "--input="], ["--input: found no name"]),
        (["--workdir={tmp}/out", "--input={tmp}/nothing"], ["{tmp}/nothing", "no such file"]),
        (["--workdir={tmp}/out", "--input={tmp}/empty"], ["{tmp}/empty", "no images"]),
        (["--workdir={tmp}/out", "--input={tmp}/*.gif"], ["{tmp}/*.gif", "matches no image"]),
        (["--workdir={tmp}/a.png"], ["{tmp}/a.png", "work folder"]),
        (["--workdir={tmp}/a.png/below"], ["{tmp}/a.png/below", "work folder"]),
        (
            ["--workdir={tmp}/out", "--method=other"],
            ["--method", "'other'", "expected one of ssdnet"],
        ),
        (["--workdir={tmp}/out", "--config.fit.steps=3"], ["config.fit.steps", "no such field"]),
        (["--workdir={tmp}/out", "--config.seed=x"], ["config.seed", "'x'", "an integer"]),
        (["--workdir={tmp}/out", "--image_size=7"], ["config.loss.patch_sizes", "7 x 7"]),
        (["--workdir={tmp}/out", "--config=nothing"], ["'nothing'", "fabric_knots"]),
        (
            ["--workdir={tmp}/out", "--config.loss.w_perc=1", "--vgg19_weights={tmp}/no.npz"],
            ["{tmp}/no.npz"],
        ),
        (["--workdir={tmp}/out", "--method=winclip"], ["no CLIP weights", "--clip_weights=PATH"]),
        (
            ["--workdir={tmp}/out", "--method=winclip", "--clip_weights={tmp}/no.pt"],
            ["{tmp}/no.pt", "no such file", "SSDNET_CLIP_WEIGHTS"],
        ),
    ],
)
def test_a_wrong_command_line_is_refused_in_one_line(ssdnet, tmp_path, flags, words):
    put(tmp_path / "a.png")
    (tmp_path / "empty").mkdir()
    status, stdout, stderr = ssdnet(*(flag.format(tmp=tmp_path) for flag in flags))
    assert (status, stdout) == (2, "")
    *others, line = stderr.splitlines()
    assert line.startswith("ssdnet: ")
    for word in words:
        assert word.format(tmp=tmp_path) in line
    assert len(others) == ("--method=winclip" in flags)  # which takes no field of the network
    assert all("change nothing here, since only ssdnet takes such fields" in it for it in others)


def test_at_its_own_size_a_picture_too_small_for_a_patch_is_named(ssdnet, tmp_path):
    picture = put(tmp_path / "a.png", BYTES[:12])
    flags = ["--image_size=0", "--config.loss.patch_sizes=16", "--config.loss.patch_strides=8"]
    status, _, stderr = ssdnet(f"--input={picture}", f"--workdir={tmp_path / 'out'}", *flags)
    assert status == 1
    assert stderr.startswith("ssdnet: a.png: config.loss.patch_sizes: found (16,), which needs")
    assert "at least 16 pixels a side; the image is fitted at 12 x 56" in stderr


@pytest.mark.parametrize("flag", ["--help", "-h", "-help", "--helpfull", "--helpshort"])
def test_help_is_printed_whatever_else_is_said(capsys, flag):
    assert main(["ssdnet", "--nonsense", flag]) == 0
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == (help_text(), "")


def test_the_fields_of_a_configuration_are_listed(capsys):
    assert main(["ssdnet", "--config=fabric", "--help_config", "--config.seed=4"]) == 0
    out = capsys.readouterr().out
    fabric = from_config_dict({**to_config_dict(load_config("fabric")).to_dict(), "seed": 4})
    assert out == config_help(fabric) + "\n"


def test_an_interrupted_run_keeps_what_is_finished(ssdnet, quick, tmp_path, monkeypatch, capsys):
    put(tmp_path / "in" / "a.png")
    put(tmp_path / "in" / "b.png")
    flags = [f"--input={tmp_path}/in", f"--workdir={tmp_path}/out"]

    def interrupted(terminal, row):
        raise KeyboardInterrupt

    monkeypatch.setattr(sys, "argv", ["ssdnet", *quick, *flags])
    monkeypatch.setattr(commands, "leave", sys.exit)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as caught:
        patch.setattr(Terminal, "end_image", interrupted)  # after the first row
        console()
    assert caught.value.code == 130
    assert capsys.readouterr().err.strip() == "ssdnet: interrupted; finished images are kept"
    assert set(rows(tmp_path / "out")) == {"a.png"}
    assert ssdnet(*flags)[1].startswith("1 finished, 1 finished before in ")


def in_a_process(command, tmp_path):
    environment = {**os.environ, "PYTHONWARNINGS": "default"}
    environment.pop("TF_CPP_MIN_LOG_LEVEL", None)
    return subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=300
    )


def test_a_reader_that_goes_away_ends_it_without_a_word(tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "ssdnet_jax", "--help_config"]
    with os.fdopen(writing, "wb") as closed:
        done = subprocess.run(command, stdout=closed, stderr=subprocess.PIPE, timeout=300)
    assert (done.returncode, done.stderr) == (141, b"")


def test_the_installed_command_prints_its_help(tmp_path):
    command = shutil.which("ssdnet", path=sysconfig.get_path("scripts"))
    if command is None:
        pytest.skip("the package is not installed, so there is no command")
    done = in_a_process([command, "--help"], tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, help_text(), "")


def test_every_public_name_exists_and_is_explained():
    assert len(set(ssdnet_jax.__all__)) == len(ssdnet_jax.__all__)
    imported = {}
    exec("from ssdnet_jax import *", imported)  # what a user does
    for name in ssdnet_jax.__all__:
        documentation = imported[name].__doc__
        # What dataclasses and named tuples write themselves explains nothing.
        assert documentation and not documentation.startswith(f"{name}("), name


def test_as_a_process_it_is_quiet_ends_in_order_on_sigterm_and_goes_on(quick, tmp_path):
    """On a pipe: no warning, one line of summary, one of each failure, and the exit status."""
    for number in range(60):
        put(tmp_path / "in" / f"{number:02d}.png")
    command = [sys.executable, "-m", "ssdnet_jax", *quick, "--input=in", "--workdir=out"]
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    table = tmp_path / "out" / "results.csv"
    while process.poll() is None and not (table.exists() and b",ok," in table.read_bytes()):
        time.sleep(0.01)
    process.terminate()
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (143, b"")
    assert b"stopped before the end in " in out
    kept = rows(tmp_path / "out")
    assert 0 < len(kept) < 60
    (tmp_path / "in" / "damaged.png").write_bytes(b"")
    again = in_a_process(command, tmp_path)
    assert again.returncode == 1
    summary = f"{60 - len(kept)} finished, {len(kept)} finished before, 1 failed in "
    assert again.stdout.startswith(summary) and again.stdout.count("\n") == 1
    assert again.stderr.startswith("ssdnet: in/damaged.png: the file is empty")
    assert again.stderr.count("\n") == 1
    after = rows(tmp_path / "out")
    assert len(after) == 61 and all(after[path] == row for path, row in kept.items())


def test_lanes_and_networks_are_passed_on(ssdnet, tmp_path):
    put(tmp_path / "in" / "a.png")
    put(tmp_path / "in" / "b.png")
    flags = ["--lanes=2", "--devices=1", "--save_params"]
    status, _, _ = ssdnet(f"--input={tmp_path}/in", f"--workdir={tmp_path}/out", *flags)
    assert status == 0
    assert (tmp_path / "out" / "params" / "a.png" / "network.json").is_file()


def test_what_is_not_judged_is_left_out_of_all_results_and_said(ssdnet, tmp_path):
    """A label that is ignored, a transparent side, flat ground, and twelve bits in sixteen."""
    texture = np.round(255 * grid_texture((96, 96), period=8)[..., 0]).astype(np.uint8)
    label = np.zeros((96, 96), bool)
    label[40:60, 30:70] = True
    spoilt = np.where(label, 255, texture).astype(np.uint8)
    put(tmp_path / "in/label.png", spoilt)
    alpha = np.full((96, 96), 255, np.uint8)
    alpha[:, :20] = 0
    put(tmp_path / "in/side.png", np.stack([texture] * 3 + [alpha], axis=-1))
    ground = np.abs(np.arange(96) - 48) > 36
    put(tmp_path / "in/ground.png", np.where(ground, 0, texture).astype(np.uint8))
    put(tmp_path / "in/range.png", texture.astype(np.uint16) * 16)
    ring = [[30, 40], [70, 40], [70, 60], [30, 60]]
    feature = {"type": "Feature", "properties": {"image": "label.png"}}
    feature["geometry"] = {"type": "Polygon", "coordinates": [ring]}
    (tmp_path / "ignored.json").write_text(json.dumps(feature))
    out = tmp_path / "out"
    status, stdout, stderr = ssdnet(
        f"--input={tmp_path / 'in'}", f"--workdir={out}", f"--ignore={tmp_path / 'ignored.json'}"
    )
    assert status == 0 and stdout.startswith("4 finished in ")
    assert "1 of 4 images (ground.png) with flat ground around a part" in stderr
    assert "1 of 4 images (range.png) of a small range" in stderr
    judged = {}
    for name, row in rows(out).items():
        score_map = tifffile.imread(out / f"maps/{name}.tiff")
        judged[name] = np.isfinite(score_map)
        assert float(row["score"]) == pytest.approx(np.nanmax(score_map))
        assert not np.asarray(Image.open(out / f"masks/{name}.png"))[~judged[name]].any()
    np.testing.assert_array_equal(judged["label.png"], ~label)
    np.testing.assert_array_equal(judged["side.png"], alpha > 0)
    assert judged["range.png"].all() and not judged["ground.png"][:, ground].any()
    found = rows(out)
    assert float(found["ground.png"]["ground"]) == pytest.approx((~judged["ground.png"]).mean())
    assert found["label.png"]["ground"] == found["label.png"]["range"] == ""
    low, high = map(float, found["range.png"]["range"].split(","))
    assert (low, high) == pytest.approx(
        (int(texture.min()) / 4096, int(texture.max()) / 4096), rel=1e-3
    )
    status, _, stderr = ssdnet(
        *(f"--input={tmp_path / 'in'}", f"--workdir={tmp_path / 'kept'}"),
        *("--ground=keep", "--range=0,0.5"),
    )
    assert status == 0 and "ground" not in stderr
    assert rows(tmp_path / "kept")["label.png"]["range"] == "0,0.5"
    assert np.isfinite(tifffile.imread(tmp_path / "kept/maps/ground.png.tiff")).all()


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--ignore=no.png", "--ignore: found without --input"),
        ("--range=0.5", "config.range: found '0.5'; expected"),
        ("--range=0.5,0.2", "config.range: found '0.5,0.2'; expected auto, full, or LOW,HIGH"),
        ("--ground=no", "config.ground: found 'no'; expected one of auto, keep"),
    ],
)
def test_wrong_values_of_what_is_judged_are_refused(ssdnet, tmp_path, flag, message):
    status, _, stderr = ssdnet(f"--workdir={tmp_path / 'out'}", flag)
    assert status == 2 and message in stderr
