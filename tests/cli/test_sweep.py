import csv

import pytest

from ssdnet_jax.cli.sweep import main
from ssdnet_jax.runner import executors

pytestmark = pytest.mark.usefixtures("quick_figures")

SWEEP = """
from ssdnet_jax import registry
from ssdnet_jax.experiments.sweep import Sweep


@registry.RECONSTRUCTION_ERRORS.register("largest")
def largest(y, f):
    return abs(y - f).max(-1)


def get_sweep():
    return Sweep(
        base="grid_literal",
        variants={"squared": {}, "own": {"loss.reconstruction": "largest"}},
        seeds=(0, 1),
    )
"""


@pytest.fixture
def sweep(tiny, flags_of, dataset, tmp_path, capsys):
    (tmp_path / "mine.py").write_text(SWEEP)
    quick = flags_of({**tiny, "fit": {"max_steps": 2, "block_steps": 2}})
    quick = [line for line in quick if "loss.reconstruction" not in line]  # as the variants have it

    def call(*flags, own=True):
        given = [f"--config={tmp_path}/mine.py", *quick] if own else []
        status = main(["ssdnet-sweep", *given, *flags])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


def rows(folder):
    with (folder / "sweep.csv").open(newline="") as file:
        return [
            (r["variant"], r["seed"], r["path"], r["auprc"], r["status"])
            for r in csv.DictReader(file)
        ]


def test_variants_seeds_and_images_make_a_tidy_table_and_a_figure(
    sweep, dataset, tmp_path, monkeypatch
):
    # What has been compiled for the first seed serves the second one.
    monkeypatch.setattr("ssdnet_jax.experiments.sweep.forget_programs", lambda: None)
    out = tmp_path / "out"
    status, stdout, _ = sweep(f"--dataset={dataset}", f"--workdir={out}")
    assert status == 0
    table = rows(out)
    assert len(table) == 2 * 2 * 2  # good images have nothing to find
    assert {row[:2] for row in table} == {(v, s) for v in ("squared", "own") for s in "01"}
    assert {row[4] for row in table} == {"ok"}
    values = {row[:3]: row[3] for row in table}
    assert len(set(values.values())) > 4
    assert "squared: AUPRC 0." in stdout and "own: AUPRC 0." in stdout
    assert (out / "sweep.png").read_bytes()[:4] == b"\x89PNG"
    assert "| own |" in (out / "sweep.md").read_text()
    assert (out / "runs" / "own" / "seed1" / "results.csv").exists()

    # The same again, or a part of it, scores nothing.
    monkeypatch.setattr(executors, "run", lambda *a, **k: pytest.fail("scored again"))
    flags = [f"--dataset={dataset}", f"--workdir={out}"]
    assert sweep(*flags)[0] == 0 and rows(out) == table
    assert sweep(*flags, "--seeds=0", "--every=2")[0] == 0
    assert rows(out) == [row for row in table if row[1] == "0" and row[2].endswith("0.png")]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "--dataset: found none"),
        (("--dataset=x",), "--workdir: found none"),
        (("--dataset=x", "--workdir=y"), "--config: found none; expected auto_preset"),
        (("--dataset=x", "--workdir=y", "--config=nothing"), "no sweep 'nothing'"),
        (("--dataset=x", "--workdir=y", "--config=losses", "--seeds=a"), "--seeds: found 'a'"),
        (("--dataset=x", "--workdir=y", "--config=losses", "--every=0"), "--every: found '0'"),
        (("--dataset=/none", "--workdir=y", "--config=losses"), "/none"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(sweep, tmp_path, flags, message):
    flags = [flag.replace("workdir=y", f"workdir={tmp_path}/y") for flag in flags]
    status, _, err = sweep(*flags, own=False)
    assert status == 2
    assert message in err and err.count("\n") == 1


def test_help_names_the_sweeps(sweep):
    status, out, _ = sweep("--help", own=False)
    assert status == 0
    for word in ("auto_preset", "paper_ablations", "losses", "--every", "sweep.csv"):
        assert word in out
    assert max(map(len, out.splitlines())) <= 100
