import dataclasses
import inspect
import shutil
import sys

import pytest

from ssdnet_jax import config_files
from ssdnet_jax.cli.flags import config_help
from ssdnet_jax.cli.ssdnet import Arguments, help_text, parse
from ssdnet_jax.config import AUTO, PAPER, Config, field_names, from_config_dict
from ssdnet_jax.config_files import config_names, load_config
from ssdnet_jax.errors import ConfigError


def parsed(*arguments):
    return parse(["ssdnet", *arguments])


def refused(call, *words):
    with pytest.raises(ConfigError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_without_flags_the_default_configuration_is_used():
    assert parsed() == Arguments(
        config=AUTO,
        input=None,
        missing=None,
        workdir=None,
        vgg19_weights=None,
        clip_weights=None,
        method="ssdnet",
        lanes=0,
        devices=0,
        executor="local",
        ray_address=None,
        heatmaps="all",
        save_params=False,
        calibration=None,
        verdict=None,
        fail_on_anomaly=False,
        ignore=None,
        keep_gone=False,
        watch=False,
        help_config=False,
    )


def test_a_flag_and_its_value_are_one_word_or_two():
    joined = parsed("--input=a b.png", "--workdir=out", "--image_size=64", "--config=fabric")
    apart = parsed("--input", "a b.png", "-workdir", "out", "--image_size", "64", "--config=fabric")
    assert joined == apart
    assert (joined.input, joined.workdir, joined.config.image_size) == ("a b.png", "out", 64)


def test_what_is_decided_of_a_map_has_short_flags():
    found = parsed("--false_alarms=0.05", "--min_area=30", "--max_defects=2", "--verdict=folder")
    decision = found.config.decision
    assert (decision.false_alarms, decision.min_area, decision.max_defects) == (0.05, 30, 2)
    assert found.verdict == "folder"
    for word, message in (
        ("--false_alarms=1", "config.decision.false_alarms: found 1.0; expected above 0 and below"),
        ("--min_area=some", "config.decision.min_area: found 'some'; expected an integer"),
        ("--verdict=both", "--verdict: found 'both'; expected image or folder"),
    ):
        with pytest.raises(ConfigError, match=message):
            parsed(word)


def test_the_settings_of_the_paper_have_its_masks():
    assert parsed("--config=grid").config.decision.mask == "otsu"
    assert parsed("--config=auto").config.decision.mask == "significant"


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("loss.patch_sizes", "8", (8,)),
        ("loss.patch_sizes", "8,", (8,)),
        ("loss.patch_sizes", "(8,)", (8,)),
        ("loss.patch_sizes", "[12]", (12,)),
        ("fit.learning_rate", "1", 1.0),
        ("fit.learning_rate", "2e-3", 0.002),
        ("fit.stop_threshold", "-100", -100.0),
        ("fit.max_steps", "300", 300),
        ("score.coverage", "paper", "paper"),
        ("network.activation", "none", "none"),
        ("network.sigmoid", "false", False),
        ("network.sigmoid", "False", False),
        ("network.conv1x1_up", "true", True),
        ("seed", "7", 7),
    ],
)
def test_any_field_can_be_set(name, text, value):
    for words in ([f"--config.{name}={text}"], [f"--config.{name}", text]):
        config = parsed("--config=grid", "--config.loss.patch_strides=4", *words).config
        for part in name.split("."):
            config = getattr(config, part)
        assert config == value
        assert type(config) is type(value)


@pytest.mark.parametrize("text", ["16,32", "(16,32)", "(16, 32)", "[16, 32]"])
def test_tuples_of_several_entries_can_be_set(text):
    config = parsed(f"--config.loss.patch_sizes={text}", "--config.loss.patch_strides=8,8").config
    assert config.loss.patch_sizes == (16, 32)


def test_every_field_is_a_flag_and_its_printed_value_can_be_typed_again():
    config = from_config_dict(
        {"image_size": 0, "score": {"coverage": "paper"}, "fit": {"max_steps": 9}}
    )
    words = [line for line in config_help(config).splitlines() if line.startswith("--config.")]
    assert len(words) == len(field_names())
    assert parsed(*words).config == config


def test_overrides_hold_wherever_the_configuration_is_named():
    before = parsed("--config.fit.max_steps=5", "--config=fabric").config
    after = parsed("--config=fabric", "--config.fit.max_steps=5").config
    assert before == after
    assert before.fit.max_steps == 5
    assert before.loss.w_perc == 1.0


def test_the_arguments_of_the_process_do_not_matter(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["ssdnet", "--config.fit.epochs=3", "--nonsense"])
    assert parsed("--config.fit.epochs=4").config.fit.epochs == 4


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--config.fit.learning_rat=1"], ["--config.fit.learning_rate"]),
        (["--config.learning_rate=1"], ["--config.fit.learning_rate"]),
        (["--config.fit=3"], ["--config.fit:", "--config.fit.FIELD=VALUE"]),
        (["--config.=3"], ["no such field"]),
        (["--config.loss.patch_sizes[0]=4"], ["--config.loss.patch_sizes"]),
        (["--noconfig.network.sigmoid"], ["--config.network.sigmoid"]),
        (["--seed=3"], ["--seed", "--config.seed"]),
        (["--inputs=a"], ["--inputs", "--input"]),
        (["--xyzzy"], ["--xyzzy", "no such flag"]),
        (["--workdir"], ["workdir", "Missing value"]),
        (["--config"], ["config", "Missing value"]),
        (["--help_config=3"], ["--help_config: found '3'; expected true or false"]),
        (["--range=0.5"], ["config.range: found '0.5'", "auto, full, or LOW,HIGH"]),
        (["--flagfile=/does/not/exist"], ["/does/not/exist"]),
        (["picture.png"], ["picture.png", "--input=picture.png"]),
        (["--input", "a.png", "b.png"], ["'b.png'", "a glob", "quotes"]),
        (["--input=a", "--input=b"], ["--input: found twice", "'a' and 'b'", "glob in quotes"]),
        (["--workdir=a", "--workdir=b"], ["--workdir: found twice", "'a' and 'b'"]),
        (["--config=grid", "--config=auto"], ["--config: found twice", "'grid' and 'auto'"]),
        (["--watch", "--nowatch"], ["--watch: found twice"]),
        (["--method=padim"], ["--method", "padim", "ssdnet"]),
        (["--executor=dask"], ["--executor", "'dask'", "local or ray"]),
        (["--executor=ray", "--devices=2"], ["--devices", "--executor=ray"]),
        (["--save_params", "--method=fca"], ["--save_params", "--method=fca", "no network"]),
        (["--ray_address=auto"], ["--ray_address", "expected --executor=ray"]),
        (["--config=fabrik"], ["--config", "fabrik", "fabric_knots", "grid", "mean fabric?"]),
        (["--config="], ["--config", "auto"]),
        (["--config=configs"], ["--config", "auto"]),
        (["--config=elsewhere/configs/grid.py"], ["elsewhere/configs/grid.py"]),
        (["--config=grid.yaml"], ["grid.yaml"]),
        (["--image_size=a"], ["config.image_size", "'a'", "an integer"]),
        (["--config.loss.patch_sizes=40", "--image_size=64"], ["config.loss.patch_sizes", "64 x"]),
        (["--image_size=8"], ["config.network.channels_down", "8 x 8"]),
        (["--config.fit.max_steps=3.5"], ["config.fit.max_steps", "3.5", "an integer"]),
        (["--config.fit.max_steps="], ["config.fit.max_steps", "''"]),
        (["--config.fit.learning_rate=fast"], ["config.fit.learning_rate", "'fast'", "a number"]),
        (["--config.fit.learning_rate=nan"], ["config.fit.learning_rate", "a number"]),
        (["--config.fit.learning_rate=1e999"], ["config.fit.learning_rate", "finite"]),
        (["--config.score.coverage=men"], ["config.score.coverage", "'men'", "mean, paper"]),
        (["--config.network.sigmoid=1"], ["config.network.sigmoid", "True or False"]),
        (["--config.loss.patch_sizes=a,b"], ["config.loss.patch_sizes", "16,32"]),
        (["--config.loss.patch_sizes=" + "(" * 500], ["config.loss.patch_sizes"]),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(words, expected):
    refused(lambda: parsed(*words), *expected)


def test_of_overrides_of_a_field_the_last_counts_and_its_short_flag_before_them():
    assert parsed("--config.seed=1", "--config.seed=2").config.seed == 2
    assert parsed("--image_size=64", "--config.image_size=128").config.image_size == 64


def test_a_flag_may_be_repeated_with_the_same_value():
    again = parsed("--input=a", "--input=a", "--watch", "--watch", "--image_size=64")
    assert again == parsed("--input=a", "--watch", "--image_size=64", "--config.image_size=64")


@pytest.mark.parametrize("name", ["grid_literal", "grid_literal.py", "configs/grid_literal.py"])
def test_shipped_configurations_are_found_from_any_folder(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_config(name) == PAPER


def test_the_default_is_one_setting_for_every_texture():
    assert load_config("auto") == AUTO == Config()


def test_the_file_in_the_folder_goes_before_the_shipped_one(tmp_path, monkeypatch):
    (tmp_path / "grid.py").write_text("def get_config(): return {'seed': 5}")
    monkeypatch.chdir(tmp_path)
    assert load_config("grid.py").seed == 5
    assert load_config("grid").seed == 0


def test_shipped_configurations_are_the_settings_of_the_paper():
    assert config_names() == [
        "auto",
        "auto_thorough",
        "fabric",
        "fabric_knots",
        "grid",
        "grid_128",
        "grid_128_literal",
        "grid_literal",
    ]
    grid, fabric, knots = (load_config(name) for name in ("grid_literal", "fabric", "fabric_knots"))
    for config in (grid, fabric, knots):
        assert config.image_size == 256
        assert config.loss.patch_sizes == config.score.patch_sizes == (16,)
        assert (config.loss.perceptual_layer, config.loss.perceptual_size) == ("conv2_2", 224)
        assert (config.loss.perceptual, config.fit.input_noise) == ("inner_product", 0.01)
    assert (grid.loss.w_rec, grid.loss.w_perc) == (1.0, 0.0)
    assert (grid.fit.epochs, grid.fit.stop_threshold) == (10, 1e-4)
    assert (grid.score.alpha_rec, grid.score.alpha_perc) == (1.0, 0.0)
    assert (fabric.loss.w_rec, fabric.loss.w_perc) == (0.0, 1.0)
    assert (fabric.fit.epochs, fabric.fit.stop_threshold) == (1, -100.0)
    assert (fabric.score.alpha_rec, fabric.score.alpha_perc) == (1.0, 0.0)
    assert (knots.score.alpha_rec, knots.score.alpha_perc) == (0.0, 1.0)
    assert (knots.loss, knots.fit) == (fabric.loss, fabric.fit)


def test_settings_for_grids_differ_from_the_literal_ones_in_noise_and_score_alone():
    for name in ("grid", "grid_128"):
        found, literal = load_config(name), load_config(f"{name}_literal")
        assert (found.score.method, literal.score.method) == ("relative", "patches")
        assert found.score.patch_sizes == literal.score.patch_sizes
        fit = dataclasses.replace(literal.fit, input_noise=0.1, seeds=1)
        assert dataclasses.replace(found, score=literal.score) == dataclasses.replace(
            literal, fit=fit
        )


def test_shipped_configurations_load_from_the_installed_layout(tmp_path, monkeypatch):
    # In a wheel, configs/ lies inside the package, beside config_files.py.
    installed = tmp_path / "ssdnet_jax" / "configs"
    shutil.copytree(config_files.config_folder(), installed)
    expected = {name: load_config(name) for name in config_names()}
    monkeypatch.setattr(config_files, "CONFIG_FOLDERS", (installed, tmp_path / "configs"))
    monkeypatch.chdir(tmp_path)
    assert config_files.config_folder() == installed
    assert {name: load_config(name) for name in config_names()} == expected


def test_an_own_file_may_return_some_fields_only_and_be_overridden(tmp_path):
    own = tmp_path / "my own.py"
    own.write_text(
        "import math\n\n\ndef rate():\n    return math.sqrt(4)\n\n\n"
        "def get_config():\n    return {'fit': {'learning_rate': rate()}, 'image_size': 64}\n"
    )
    config = parsed(f"--config={own}", "--config.fit.epochs=3").config
    assert (config.fit.learning_rate, config.fit.epochs, config.image_size) == (2.0, 3, 64)
    assert not (tmp_path / "__pycache__").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def get_config(:", ["SyntaxError"]),
        ("import no_such_module_anywhere", ["ModuleNotFoundError", "no_such_module_anywhere"]),
        ("1 / 0", ["ZeroDivisionError"]),
        ("def get_config():\n  raise ValueError('two\\nlines')", ["ValueError: two lines"]),
        ("def get_config(name): pass", ["TypeError"]),
        ("get_config = 3", ["no function get_config"]),
        ("config = {}", ["no function get_config"]),
        ("def get_config(): pass", ["found None"]),
        ("def get_config(): return {'fit': {'steps': 3}}", ["config.fit.steps", "nearest"]),
        ("def get_config(): return {'seed': -1}", ["config.seed", "found -1"]),
    ],
)
def test_an_own_file_that_cannot_be_used_is_refused_by_name(tmp_path, text, words):
    own = tmp_path / "own.py"
    own.write_text(text)
    refused(lambda: load_config(str(own)), str(own), *words)


def test_help_names_every_flag_and_configuration():
    text = help_text()
    accepted = inspect.signature(Arguments).parameters
    for word in (*(f"--{name}" for name in accepted), "--image_size", *config_names()):
        assert word in text
    assert max(map(len, text.splitlines())) <= 100


def test_every_field_is_explained():
    blocks = config_help(Config()).split("--config.")[1:]
    assert [block.split("=")[0] for block in blocks] == field_names()
    for block in blocks:
        _, *explanation = block.splitlines()
        assert "".join(explanation).strip(), block
    assert "mean or paper" in next(b for b in blocks if b.startswith("score.coverage"))
    assert "hidden at each step" in next(b for b in blocks if b.startswith("inpaint.mask_ratio"))
    whole = next(b for b in blocks if b.startswith("features.kind"))
    assert whole.rstrip().endswith("auto: vgg19 if there are weights, else filters")


def test_fields_are_listed_also_without_the_source_of_the_package(monkeypatch):
    def missing(cls):
        raise OSError("could not get source code")

    monkeypatch.setattr(inspect, "getsource", missing)
    assert "--config.fit.learning_rate=0.02" in config_help(Config())


def test_lanes_and_devices_are_counts():
    assert (parsed("--lanes=4").lanes, parsed("--devices=2").devices) == (4, 2)


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5", ""])
def test_a_count_that_is_none_is_an_error(text):
    with pytest.raises(ConfigError, match=f"--lanes: found '{text}'; expected a whole number"):
        parsed(f"--lanes={text}")


def test_integers_of_any_length_and_files_of_flags_that_are_no_text_are_refused_in_one_line(
    tmp_path,
):
    for digits in (20, 5000):
        number = "9" * digits
        refused(lambda n=number: parsed(f"--config.seed={n}"), "config.seed", "expected")
        refused(lambda n=number: parsed(f"--image_size={n}"), "config.image_size", "expected")
        refused(lambda n=number: parsed(f"--lanes={n}"), "--lanes", "expected a whole number")
        refused(lambda n=number: parsed(f"--config.fit.learning_rate={n}"), "learning_rate")
    refused(lambda: parsed(f"--config.seed=0x{'f' * 5000}"), "config.seed", "cannot be shown")
    refused(lambda: parsed("--config.score.coarse_scale=1e-320"), "coarse_scale", "at least 0.05")
    (tmp_path / "flags").write_bytes(b"\xff\xfe\0\x80" * 9)
    refused(lambda: parsed(f"--flagfile={tmp_path / 'flags'}"), "--flagfile", "expected text")
    refused(lambda: parsed(f"--flagfile={tmp_path / 'absent'}"), "flagfile")
