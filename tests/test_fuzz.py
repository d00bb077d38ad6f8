"""A few rounds of `benchmarks/fuzz.py`, always the same ones."""

import importlib.util
import sys
from pathlib import Path

PATH = Path(__file__).parents[1] / "benchmarks" / "fuzz.py"


def test_damaged_inputs_of_all_kinds_give_values_or_errors_that_a_user_can_mend():
    spec = importlib.util.spec_from_file_location("fuzz", PATH)
    assert spec is not None
    assert spec.loader is not None
    fuzz = sys.modules["fuzz"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fuzz)
    ended = {}
    for name, once in fuzz.rounds().items():
        for seed in range(100_000, 100_040):
            ended[name, seed] = fuzz.run_round(once, seed)
        of_kind = {how for (kind, _), how in ended.items() if kind == name}
        assert of_kind >= {"value", "error"}, name  # neither all sound nor all broken
    assert {key: how for key, how in ended.items() if how not in ("value", "error")} == {}


def test_a_round_that_breaks_or_hangs_is_told_of():
    fuzz = sys.modules["fuzz"]

    def breaks(generator, folder):
        raise KeyError(generator.random())

    assert fuzz.run_round(breaks, 3).startswith("KeyError: 0.237")
    fuzz.SECONDS = 0.05
    assert fuzz.run_round(lambda *_: next(i for i in iter(int, 1) if i), 3).startswith("Timeout")
