"""Odd pictures and extreme settings: finite maps, or an error that says what is wrong."""

import dataclasses
import math
import operator
from typing import Any

import jax
import numpy as np
import pytest

from ssdnet_jax.config import Config, field_names, from_config_dict, legal_words
from ssdnet_jax.data.synthetic import grid_texture
from ssdnet_jax.errors import ConfigError, InputError, SSDnetError
from ssdnet_jax.localize import localize
from ssdnet_jax.programs import forget_programs

SIDE = 40
FEATURES: dict[str, Any] = {
    "image_size": SIDE,
    "features": {"kind": "filters", "components": 3, "fine_components": 2},
    "network": {"channels_down": (2,), "channels_up": (2,), "channels_skip": (1,)},
    "loss": {"patch_sizes": (4,), "patch_strides": (4,)},
    "score": {"tile_size": 3},
    "fit": {"max_steps": 25, "block_steps": 25},
    "inpaint": {"max_steps": 3},
}


def texture(shape: tuple[int, int] = (SIDE, SIDE)) -> np.ndarray:
    return grid_texture(shape, period=8, seed=0).astype(np.float32)


def pictures() -> dict[str, np.ndarray]:
    """Pictures (H, W) in which there is next to nothing, or too much."""
    plain = np.full((SIDE, SIDE), 0.5, np.float32)
    one_level, one_pixel, tiny, line = (plain.copy() for _ in range(4))
    one_level[::2] += 1 / 255
    one_pixel[3, 4] = 1
    tiny[5, 5] = np.nextafter(np.float32(0.5), np.float32(1))
    line[:, 7] = 0
    saturated = (texture()[..., 0] > 0.5).astype(np.float32)
    noise = np.random.default_rng(0).random((SIDE, SIDE), np.float32)
    denormal = np.full((SIDE, SIDE), 1e-40, np.float32)
    denormal[3, 3] = 0
    return {
        "black": np.zeros_like(plain),
        "grey": plain,
        "white": np.ones_like(plain),
        "one level": one_level,
        "one pixel": one_pixel,
        "one rounding": tiny,
        "a line": line,
        "denormal": denormal,
        "saturated": saturated,
        "noise": noise,
        "dark": texture()[..., 0] * 1e-6,
        "half black": np.where(np.arange(SIDE) < 16, 0, texture()[..., 0]),
        "ramp": np.tile(np.linspace(0, 1, SIDE, dtype=np.float32), (SIDE, 1)),
        "one column": texture((40, 1))[..., 0],
        "one row": texture((1, 40))[..., 0],
        "narrow": texture((7, 200))[..., 0],
        "strip": texture((8, 300))[..., 0],
        "NaN": np.full_like(plain, np.nan),
        "infinite": np.full_like(plain, np.inf),
        "some infinite": np.where(np.arange(SIDE) == 3, -np.inf, texture()[..., 0]),
        "beyond": texture()[..., 0] * 255,
        "some NaN": np.where(np.arange(SIDE) == 3, np.nan, texture()[..., 0]),
    }


REFUSED = {
    *("black", "grey", "white", "one column", "one row", "narrow", "NaN", "infinite", "beyond"),
    "some infinite",
}


def assert_finite(found) -> None:
    """Everything of a result, but for maps where the picture was taken for ground."""
    judged = np.isfinite(found.score_map)
    assert np.isclose(1 - judged.mean(), found.ground or 0, atol=0.01)
    fields = {field.name for field in dataclasses.fields(found)} - {"losses"}
    for name in fields | {"normalized_map", "reconstruction", "residual", "uncertainty"}:
        value = getattr(found, name)
        if isinstance(value, np.ndarray) and value.dtype.kind == "f":
            kept = value[judged] if value.shape == judged.shape else value
            assert np.isfinite(kept).all(), name
        if isinstance(value, float):
            assert math.isfinite(value), name
    assert np.isfinite(found.losses[-1])


@pytest.mark.parametrize("features", [False, True])
def test_odd_pictures_have_finite_maps_or_an_error(tiny, features):
    config = from_config_dict(FEATURES if features else tiny)
    for name, pixels in pictures().items():
        if features and name == "some NaN":
            continue  # the paper's network inpaints, which takes long to compile
        try:
            found = localize(pixels, config)
        except InputError as error:
            assert "\n" not in str(error)
            assert name in REFUSED, f"{name}: {error}"
        else:
            assert name not in REFUSED, name
            assert found.score_map.shape == pixels.shape
            assert_finite(found)


@pytest.mark.parametrize("rate", [100.0, 3.0])
def test_a_fit_that_learns_nothing_or_diverges_is_an_error(tiny, rate):
    values = {**tiny, "fit": {**tiny["fit"], "max_steps": 40, "learning_rate": rate}}
    values["fit"] |= {"blowup_factor": 0.0, "block_steps": 40}
    with pytest.raises(InputError, match=r"the fit (learned nothing|did not stay finite).*rate"):
        localize(texture(), from_config_dict(values))
    values["fit"]["learning_rate"] = 0.01
    assert_finite(localize(texture(), from_config_dict(values)))


def field_type(name: str) -> Any:
    found: Any = Config
    for part in name.split("."):
        found = {field.name: field.type for field in dataclasses.fields(found)}[part]
    return found


def set_field(values: dict[str, Any], name: str, value: Any) -> dict[str, Any]:
    group, _, field = name.rpartition(".")
    if not group:
        return {**values, field: value}
    return {**values, group: {**values.get(group, {}), field: value}}


EXTREMES = (
    *(
        0,
        1,
        2,
        3,
        5,
        127,
        4096,
        65_536,
        2**31 - 1,
        2**31,
        2**32 - 1,
        2**32,
        2**63,
        10**19,
        -1,
        -(10**19),
    ),
    *(10**400, 0.0, -0.0, 5e-324, 1e-320, 1e-38, 1e-12, 1e-3, 0.05, 0.5, 1 - 1e-9, 1.0, 1.01),
    *(100.0, 1e6, 1e9, 3e38, 1e308, math.inf, -math.inf, math.nan, True, None, "", "a", (), [], {}),
    *((0,), (1, 1), (-1,), (2**40,), (1,) * 40, 16**5000, (16**5000, 1)),
)


def test_every_field_takes_a_value_or_says_in_one_line_what_it_takes(tiny):
    accepted = 0
    for name in field_names():
        for value in EXTREMES:
            try:
                config = from_config_dict(set_field(tiny, name, value))
            except ConfigError as error:
                assert "\n" not in str(error)
                assert len(str(error)) < 300
                assert "expected" in str(error) or "needs an image" in str(error)
            else:
                accepted += 1
                assert isinstance(config, Config)
    assert accepted > 300


@pytest.mark.parametrize(
    "text", ["0,1e-320", "0.5,0.50000001", "nan,1", "0,inf", "1,0", "0,0", "-1,1", "0,1,2", "a", ""]
)
def test_a_range_in_which_values_cannot_be_told_apart_is_refused(tiny, text):
    with pytest.raises(ConfigError, match=r"config.range: found .* LOW,HIGH with") as caught:
        from_config_dict({**tiny, "range": text})
    assert "\n" not in str(caught.value)


# What makes a run longer, but no number odder: only the largest of these that is tried.
LONGEST = {"image_size": 127, "fit.seeds": 3, "fit.max_steps": 65, "inpaint.max_steps": 65}
LONGEST |= {f"network.channels_{part}": 127 for part in ("down", "up", "skip")}  # memory likewise
RANGES = ("auto", "full", "0,1", "0,1.1e-6", "0.5,0.50001", "0.999998,1")
_PROGRAMS_AT_ONCE = 40  # hundreds of them would end the process


@pytest.mark.slow  # a minute of a core, with features four
@pytest.mark.parametrize("features", [False, True])
def test_every_field_at_its_ends_gives_a_finite_map_or_an_error(tiny, features):
    """Of each field its words, or the smallest and the largest legal value of `EXTREMES`."""
    base = FEATURES if features else tiny
    wrong = {}
    done = 0
    for name in field_names():
        for value in _ends(base, name):
            try:
                assert_finite(localize(texture(), from_config_dict(set_field(base, name, value))))
            except (SSDnetError, MemoryError, jax.errors.JaxRuntimeError) as error:
                assert str(error)
            except BaseException as error:
                wrong[f"{name}={value!r:.40}"] = f"{type(error).__name__}: {error}"
            done += 1
            if done % _PROGRAMS_AT_ONCE == 0:
                forget_programs()
    assert not wrong
    assert done > 2 * len(field_names())


def _ends(base: dict[str, Any], name: str) -> list[Any]:
    if name == "range":
        return list(RANGES)
    default = operator.attrgetter(name)(from_config_dict(base))
    if words := legal_words(field_type(name)):
        return [word for word in words if _is_legal(base, name, word)]
    if isinstance(default, bool):
        return [False, True]
    legal = [value for value in EXTREMES if _is_legal(base, name, value)]
    numbers = sorted(value for value in legal if not isinstance(value, tuple | bool))
    numbers = [value for value in numbers if value <= LONGEST.get(name, value)] or [LONGEST[name]]
    tuples = [value for value in legal if isinstance(value, tuple)]
    return [*dict.fromkeys([numbers[0], numbers[-1]]), *tuples]


def _is_legal(base: dict[str, Any], name: str, value: Any) -> bool:
    try:
        from_config_dict(set_field(base, name, value))
    except ConfigError:
        return False
    return True
