"""verdicts.csv: which pictures of a run are bad, worst first."""

import dataclasses

from ssdnet_jax.core.calibration import calibrated_score, decision_threshold
from ssdnet_jax.data.score_maps import read_map
from ssdnet_jax.data.tables import write_table
from ssdnet_jax.runner.workdir import Workdir, named_errors, read_rows


@dataclasses.dataclass(frozen=True)
class Verdict:
    """One line of verdicts.csv."""

    path: str  # the image, as in results.csv
    calibrated_score: float  # of its raw map, without a unit (`core.calibration`)
    threshold: float  # above which a calibrated score is more than chance
    anomalous: bool  # whether it is


def write_verdicts(workdir: Workdir, image_size: int) -> list[Verdict]:
    """Judges every finished image of a work folder by its raw map; the worst comes first.

    Args:
      workdir: of any method.
      image_size: side of the square that was scored, in pixels; 0: each image's own size.

    Raises:
      InputError: a map cannot be read, or the table cannot be written.
    """
    verdicts = []
    for row in read_rows(workdir.path / "results.csv"):
        if row.status != "ok":
            continue
        score_map = read_map(workdir.map_path(row.path))
        threshold = decision_threshold(image_size**2 or score_map.size)
        score = calibrated_score(score_map)
        verdicts.append(Verdict(row.path, score, threshold, score > threshold))
    verdicts.sort(key=lambda verdict: (-verdict.calibrated_score, verdict.path))
    columns = [field.name for field in dataclasses.fields(Verdict)]
    with named_errors(workdir.path):
        write_table(workdir.path / "verdicts.csv", columns, map(dataclasses.astuple, verdicts))
    return verdicts
