"""Verdicts and masks, counted: false alarms and detections by set, F1 of masks before and after.

    ssdnet --input=SET/test --workdir=RUNS/METHOD/NAME --method=METHOD    for each set and method
    python benchmarks/decisions.py --shared=../shared --runs=RUNS --half=B

reads the maps of finished runs (RUNS/{ssdnet,fca,spectral_residual}/NAME, with the names below),
scores no image, and writes benchmarks/results/decisions_HALF.json. Every second picture of each set
in sorted order is in half A, on which the constants of `core.regions`, `core.ranking` and
`DecisionConfig` were chosen; half B was looked at once, after that. Beside whole good pictures
there are good halves: of a defective picture the first half (left, right, top, bottom) without a
defect in it nor within a twenty-fifth of its side.
"""

import argparse
import dataclasses
import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage, stats

from ssdnet_jax.core.calibration import calibrated_score, in_units
from ssdnet_jax.core.config import DecisionConfig
from ssdnet_jax.core.conformal import POSITIONS, Calibration, peaks_by_position
from ssdnet_jax.core.decision import Decision, decide, otsu_threshold
from ssdnet_jax.core.ranking import discoveries, merged, rank_p_values
from ssdnet_jax.data.score_maps import read_map

SETS = {
    "textures_carpet": "textures/carpet",
    "textures_grid": "textures/grid",
    "textures_leather": "textures/leather",
    "textures_tile": "textures/tile",
    "textures_wood": "textures/wood",
    "grid128": "mvtec_grid_128/grid",
    "fabric": "fabric/aitex",
    "magnetic_tile": "unseen/magnetic_tile",
    "crackforest": "unseen/crackforest",
    "mvtec512_leather": "unseen/mvtec512_leather",
    "mvtec512_tile": "unseen/mvtec512_tile",
    "mvtec512_wood": "unseen/mvtec512_wood",
}
METHODS = ("ssdnet", "fca", "spectral_residual")
SIDE = 256  # shorter side at which all pictures were analysed, pixels
DRAWS = 200  # folders that are put together at random


@dataclasses.dataclass(frozen=True)
class Case:
    """A map and what is known of it."""

    set: str
    kind: str  # "good", "half" (a good part of a defective picture) or "bad"
    score_map: np.ndarray
    resolution: float  # pixels at which it was analysed for each of the map
    truth: np.ndarray | None = None  # bool, of a bad one


def read_cases(shared: Path, runs: Path, half: str) -> Iterator[Case]:
    """The maps of one half of each set."""
    for name, place in SETS.items():
        root = shared / "data" / place
        pictures = sorted((root / "test").glob("*/*"))
        for picture in pictures[half == "B" :: 2]:
            path = runs / name / "maps" / picture.parent.name / f"{picture.name}.tiff"
            score_map = read_map(path)
            resolution = (SIDE / min(score_map.shape)) ** 2
            if picture.parent.name == "good":
                yield Case(name, "good", score_map, resolution)
                continue
            folder = root / "ground_truth" / picture.parent.name
            (mask,) = folder.glob(f"{picture.stem}_mask.*")
            truth = np.asarray(Image.open(mask).convert("L")) > 127
            yield Case(name, "bad", score_map, resolution, truth)
            if (part := good_half(truth)) is not None:
                yield Case(name, "half", score_map[part], resolution)


def good_half(truth: np.ndarray) -> tuple[slice, slice] | None:
    """The first half of a picture that is free of defects, with a margin; None if there is none."""
    height, width = truth.shape
    near = ndimage.binary_dilation(truth, iterations=math.ceil(max(truth.shape) / 25))
    whole = slice(None)
    halves = (
        (whole, slice(0, width // 2)),
        (whole, slice(width // 2, None)),
        (slice(0, height // 2), whole),
        (slice(height // 2, None), whole),
    )
    return next((part for part in halves if not near[part].any()), None)


def count(hits: int, total: int) -> dict[str, Any]:
    """A count with its 95 % interval (Clopper and Pearson 1934)."""
    if not total:
        return {"hits": 0, "of": 0}
    low = stats.beta.ppf(0.025, hits, total - hits + 1) if hits else 0.0
    high = stats.beta.ppf(0.975, hits + 1, total - hits) if hits < total else 1.0
    return {"hits": int(hits), "of": int(total), "interval": [round(low, 3), round(high, 3)]}


def by_set(cases: list[Case], hit: np.ndarray) -> dict[str, Any]:
    """How many good pictures, good halves and bad pictures are hit, in all and by set."""
    table: dict[str, Any] = {}
    for name in ("all", *SETS):
        inside = [i for i, case in enumerate(cases) if name in ("all", case.set)]
        table[name] = {}
        for kind in ("good", "half", "bad"):
            of_kind = [i for i in inside if cases[i].kind == kind]
            if of_kind:
                table[name][kind] = count(hit[of_kind].sum(), len(of_kind))
    return table


def decided_of(case: Case) -> Decision:
    """The decision by the map alone, with the default rates."""
    return decide(case.score_map, resolution=case.resolution)[0]


def picture_verdicts(cases: list[Case]) -> dict[str, Any]:
    """Each picture by its own map, at two rates."""
    p_values = np.array([decided_of(case).p_value for case in cases])
    return {f"{rate:g}": by_set(cases, p_values <= rate) for rate in (0.01, 0.05)}


def plain_maximum(cases: list[Case], limit: float) -> dict[str, Any]:
    """The calibrated score against one limit for all pictures."""
    return by_set(cases, np.array([calibrated_score(c.score_map) for c in cases]) > limit)


def highest_good(cases: list[Case]) -> float:
    """The largest calibrated score of good material: a limit with no false alarm among it."""
    return max(calibrated_score(c.score_map) for c in cases if c.kind != "bad")


def folder_verdicts(cases: list[Case]) -> dict[str, Any]:
    """Folders of a set's good material and random bad pictures, a fifth of all, and none at all."""
    rate = DecisionConfig().false_discoveries
    table: dict[str, Any] = {}
    decided = np.array([(d.score, d.p_value) for d in (decided_of(c) for c in cases)])

    def called_anomalous(scores_and_p_values: np.ndarray) -> np.ndarray:
        scores, own = scores_and_p_values.T
        return discoveries(merged(own, rank_p_values(scores)), rate)

    for name in ("all", *SETS):
        inside = [i for i, case in enumerate(cases) if name in ("all", case.set)]
        good = decided[[i for i in inside if cases[i].kind != "bad"]]
        bad = decided[[i for i in inside if cases[i].kind == "bad"]]
        if len(good) < 10 or not len(bad):
            continue
        none = called_anomalous(good)
        added = min(len(bad), len(good) // 4)
        rng = np.random.default_rng(0)
        found: dict[str, list[float]] = defaultdict(list)
        for _ in range(DRAWS):
            drawn = rng.choice(bad, added, replace=False)
            called = called_anomalous(np.concatenate((good, drawn)))
            false, true = called[: len(good)].sum(), called[len(good) :].sum()
            found["bad_found_each_by_itself"].append((drawn[:, 1] <= 0.01).mean())
            found["false_discovery_rate"].append(false / max(1, called.sum()))
            found["good_called_bad"].append(false / len(good))
            found["bad_found"].append(true / added)
        table[name] = {
            "good": len(good),
            "bad": added,
            "good_called_bad_without_bad": count(none.sum(), len(good)),
            **{key: round(float(np.mean(values)), 4) for key, values in found.items()},
        }
    return table


def calibrated_verdicts(known: list[Case], cases: list[Case]) -> dict[str, Any]:
    """By the whole good pictures of half A of the same set, at rates that they can guarantee.

    With one threshold, and by position. In half A itself each good picture by the others.
    """
    table: dict[str, Any] = {}
    for name in SETS:
        good = [in_units(c.score_map) for c in known if c.set == name and c.kind == "good"]
        inside = [c for c in cases if c.set == name and c.kind != "half"]
        if len(good) < 5:
            continue
        table[name] = {"known_good": len(good)}
        for rule, side in (("one_threshold", 1), ("by_position", POSITIONS)):
            peaks = np.stack([peaks_by_position(units, side, side) for units in good])
            p_values, scores, own = [], [], 0
            for case in inside:
                others = peaks
                if cases is known and case.kind == "good":
                    others, own = np.delete(peaks, own, 0), own + 1
                judged, scale = Calibration(others, "", {}).judge(in_units(case.score_map))
                scores.append(float(np.nanmax(judged)))
                p_values.append(scale.p_value(scores[-1]))
            bad = np.array([case.kind == "bad" for case in inside])
            above = np.subtract.outer(np.array(scores)[bad], np.array(scores)[~bad])
            table[name][rule] = {
                "levels": [round(level, 2) for level in Calibration(peaks, "", {}).levels],
                "image_auroc": round(float(np.mean((above > 0) + 0.5 * (above == 0))), 3),
                "at": {
                    f"{rate:g}": by_set(inside, np.array(p_values) <= rate)[name]
                    for rate in (0.1, 0.2)
                    if 1 / len(peaks) <= rate
                },
            }
    return table


def f1(mask: np.ndarray, truth: np.ndarray) -> float:
    """F1 of two masks."""
    return float(2 * (mask & truth).sum() / max(1, mask.sum() + truth.sum()))


def best_f1(score_map: np.ndarray, truth: np.ndarray) -> float:
    """F1 of the best of 200 thresholds, chosen with the truth in view."""
    limits = np.quantile(score_map, 1 - np.geomspace(2e-4, 0.5, 200))
    return max(f1(score_map > limit, truth) for limit in limits)


def two_thresholds(units: np.ndarray) -> np.ndarray:
    """Hysteresis with fixed limits: connected above 10 calibrated units with a peak above 20."""
    labels, count = ndimage.label(units > 10, structure=np.ones((3, 3)))
    peaks = ndimage.maximum(units, labels, np.arange(count + 1))
    return (np.r_[False, np.asarray(peaks)[1:] > 20])[labels]


def masks(cases: list[Case]) -> dict[str, Any]:
    """Mean F1 over bad pictures by rule and set, and how many masks of good material are empty."""
    scores: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    empty: Counter[tuple[str, bool]] = Counter()
    for case in cases:
        mask = decided_of(case).mask
        if case.truth is None:
            empty[case.kind, not mask.any()] += 1
            continue
        units = in_units(case.score_map)
        found = {
            "best_threshold": best_f1(case.score_map, case.truth),
            "otsu": f1(case.score_map > otsu_threshold(case.score_map), case.truth),
            "pixels_independent": f1(units > math.log2(SIDE**2 / 0.1), case.truth),
            "share_of_peak": f1(units > 0.4 * np.nanmax(units), case.truth),
            "two_thresholds": f1(two_thresholds(units), case.truth),
            "written": f1(mask, case.truth),
        }
        if mask.any():
            found["written_where_not_empty"] = found["written"]
            found["best_threshold_where_not_empty"] = found["best_threshold"]
        for rule, value in found.items():
            for name in ("all", case.set):
                scores[rule][name].append(value)
    return {
        "f1": {
            rule: {n: {"mean": round(float(np.mean(v)), 3), "of": len(v)} for n, v in by.items()}
            for rule, by in scores.items()
        },
        "empty_on_good": {
            kind: count(empty[kind, True], empty[kind, True] + empty[kind, False])
            for kind in ("good", "half")
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--runs", type=Path, required=True, help="work folders, METHOD/SET")
    parser.add_argument("--half", choices=("A", "B"), required=True)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    result: dict[str, Any] = {"half": options.half, "config": dataclasses.asdict(DecisionConfig())}
    for method in METHODS:
        if not (options.runs / method).is_dir():
            continue
        known = list(read_cases(options.shared, options.runs / method, "A"))
        cases = known
        if options.half == "B":
            cases = list(read_cases(options.shared, options.runs / method, "B"))
        limit = highest_good(known)
        result[method] = {
            "picture": picture_verdicts(cases),
            "plain_maximum": {"limit": round(limit, 2), **plain_maximum(cases, limit)},
            "pixels_independent": plain_maximum(cases, math.log2(SIDE**2 / 0.1)),
            "folder": folder_verdicts(cases),
            "masks": masks(cases),
        }
        result[method]["calibrated"] = calibrated_verdicts(known, cases)
    path = options.out / f"decisions_{options.half}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
