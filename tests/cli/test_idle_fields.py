import dataclasses

import pytest

from ssdnet_jax.cli.idle_fields import idle_fields, idle_flags
from ssdnet_jax.cli.ssdnet import main
from ssdnet_jax.config import AUTO, PAPER, field_names
from ssdnet_jax.config_files import load_config


@pytest.mark.parametrize(
    ("config", "idle", "in_use"),
    [
        (
            AUTO,
            {"score.patch_sizes": "score.method is tiles", "fit.epochs": "fit.max_steps is 40"},
            {"score.tile_size", "score.guide", "features.components", "fit.mask_block"},
        ),
        (
            PAPER,
            {
                "score.tile_size": "score.method is patches",
                "features.components": "features.kind is pixels",
                "fit.mask_block": "fit.mask_ratio is 0",
                "decision.peak_share": "decision.mask is otsu",
                "loss.perceptual": "loss.w_perc is 0",
            },
            {"score.patch_sizes", "fit.epochs", "decision.mask_false_alarms"},
        ),
        (
            load_config("fabric"),
            {"score.marks": "score.method is patches"},
            {"loss.perceptual", "loss.patches_per_step", "loss.perceptual_size"},
        ),
    ],
    ids=["auto", "paper", "fabric"],
)
def test_fields_without_effect_are_known_with_the_reason(config, idle, in_use):
    found = idle_fields(config)
    assert found.keys() <= set(field_names())
    assert (
        idle.items() <= {name: why.removeprefix("config.") for name, why in found.items()}.items()
    )
    assert not in_use & found.keys()


def test_fields_of_the_network_are_told_of_where_only_baselines_run():
    arguments = ["--config.fit.max_steps=4", "--config.image_size=64", "--config.seed=1"]
    arguments += ["--config.decision.min_area=9"]
    (line,) = idle_flags(arguments, [AUTO], methods=["fca:border=corrected", "dip"])
    assert line == (
        "--config.fit.max_steps: changes nothing here, since only ssdnet takes such fields, not "
        "fca:border=corrected, dip"
    )
    more = [f"--config.fit.{name}=1" for name in ("epochs", "seeds", "block_steps")]
    (line,) = idle_flags(arguments + more, [AUTO], methods=["fca"])
    assert line.startswith(
        "--config.fit.max_steps, --config.fit.epochs, --config.fit.seeds and 1 more: change nothing"
    )
    assert not idle_flags(arguments, [AUTO], methods=["fca", "ssdnet"])
    assert not idle_flags(arguments, [AUTO], methods=["ssdnet:grid"])


def test_a_score_of_ones_own_may_take_any_field():
    own = dataclasses.replace(AUTO, score=dataclasses.replace(AUTO.score, method="mine"))
    assert not [name for name in idle_fields(own) if name.startswith("score.")]


def test_a_flag_is_told_of_once_where_no_configuration_of_the_command_takes_it():
    arguments = ["--config.score.tile_size=5", "--config.score.tile_size=7", "--config=auto"]
    (line,) = idle_flags(arguments, [PAPER])
    assert (
        line
        == "--config.score.tile_size: changes nothing here, since config.score.method is patches"
    )
    assert not idle_flags(arguments, [PAPER, AUTO]) and not idle_flags(arguments, [])
    assert not idle_flags(["--config.fit.learning_rate=0.1"], [PAPER])


def test_commands_say_it_and_go_on(tmp_path, capsys):
    flags = [
        "--config.score.patch_sizes=8",
        f"--input={tmp_path}/no.png",
        f"--workdir={tmp_path}/x",
    ]
    assert main(["ssdnet", *flags]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("ssdnet: --config.score.patch_sizes: changes nothing here")
    assert "no such file" in second
