"""verdicts.csv: which images of a run are anomalous, worst first."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from ssdnet_jax.core.config import DecisionConfig
from ssdnet_jax.core.decision import Verdict
from ssdnet_jax.core.ranking import FEWEST, discoveries, merged, rank_p_values
from ssdnet_jax.data.tables import write_table
from ssdnet_jax.runner.decisions import decisions
from ssdnet_jax.runner.workdir import Workdir, named_errors

JUDGED_BY = ("image", "folder")  # by what: each alone, or among the others of the run


@dataclasses.dataclass(frozen=True)
class JudgedImage:
    """One line of verdicts.csv."""

    path: str  # the image, as in results.csv
    verdict: Verdict  # of its own map, or among the others of the run
    p_value: float  # chance of such a map on a good image, by its own regions or the calibration
    false_alarms: float | None  # up to this p-value an image is anomalous; None where it is judged
    # among the others of the run, by `rank_p_value` too
    calibrated_score: float  # the peak of its map, without a unit (`core.calibration`)
    rank_p_value: float | None = None  # chance of such a score among the run's good images; None
    # where they are not compared

    @property
    def anomalous(self) -> bool:
        """Whether that is the verdict."""
        return self.verdict == "anomalous"


@dataclasses.dataclass(frozen=True)
class Verdicts:
    """What a run says of its images."""

    all: Sequence[JudgedImage]  # worst first
    by: str = JUDGED_BY[0]  # one of `JUDGED_BY`

    @property
    def anomalous(self) -> list[JudgedImage]:
        """The anomalous images, worst first."""
        return [verdict for verdict in self.all if verdict.anomalous]

    @property
    def unsure(self) -> list[JudgedImage]:
        """The images that are neither anomalous nor good, worst first."""
        return [verdict for verdict in self.all if verdict.verdict == "unsure"]


def write_verdicts(
    workdir: Workdir,
    config: DecisionConfig,
    *,
    by: str | None = None,
    calibrated: bool = False,
) -> Verdicts:
    """Judges every finished image of a work folder and writes verdicts.csv.

    Args:
      workdir: of any method.
      config: rates of false alarms and false discoveries.
      by: one of `JUDGED_BY`; None: among the others where there are at least `FEWEST` images and no
        calibration.
      calibrated: whether p-values come from known good images.

    Raises:
      InputError: a file cannot be read or written.
    """
    found = []
    for path, decided in decisions(workdir):
        score, p_value = _number(decided["score"]), _number(decided["p_value"])
        rate = decided["false_alarms"]
        found.append(JudgedImage(path, decided["verdict"], p_value, rate, score))
    judged = sum(verdict.verdict != "unjudged" for verdict in found)
    by = by or JUDGED_BY[judged >= FEWEST and not calibrated]
    if by == "folder":
        alone = [dataclasses.replace(verdict, false_alarms=None) for verdict in found]
        found = _among_others(alone, config)
    found.sort(key=_badness)
    columns = [field.name for field in dataclasses.fields(JudgedImage)]
    with named_errors(workdir.path):
        write_table(workdir.path / "verdicts.csv", columns, map(dataclasses.astuple, found))
    return Verdicts(found, by)


def _among_others(verdicts: Sequence[JudgedImage], config: DecisionConfig) -> list[JudgedImage]:
    judged = [verdict for verdict in verdicts if verdict.verdict != "unjudged"]
    others = [verdict for verdict in verdicts if verdict.verdict == "unjudged"]
    if not judged:
        return others
    ranks = rank_p_values(np.array([verdict.calibrated_score for verdict in judged]))
    own = np.array([verdict.p_value for verdict in judged])
    found = discoveries(merged(own, ranks), config.false_discoveries)
    return others + [
        dataclasses.replace(v, verdict=_kind(v, bool(bad)), rank_p_value=float(p))
        for v, p, bad in zip(judged, ranks, found, strict=True)
    ]


def _kind(verdict: JudgedImage, discovered: bool) -> Verdict:
    if discovered:
        return "anomalous"
    return "good" if verdict.verdict == "good" else "unsure"


def _badness(verdict: JudgedImage) -> tuple[int, float, float, str]:
    order = ("anomalous", "unsure", "good", "unjudged").index(verdict.verdict)
    p_value = verdict.p_value
    if verdict.rank_p_value is not None:
        p_value = min(p_value, verdict.rank_p_value)
    score = 0.0 if math.isnan(verdict.calibrated_score) else verdict.calibrated_score
    return order, p_value, -score, verdict.path


def _number(value: float | None) -> float:
    return math.nan if value is None else value
