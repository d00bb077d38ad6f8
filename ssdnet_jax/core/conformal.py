"""Known good images as a scale: false-alarm rates that hold for any distribution of scores.

Split conformal prediction (Vovk, Gammerman and Shafer 2005; Bates et al. 2023): if a good image is
as any of the n known good ones, its score is as likely at each of the n + 1 places among them, so

    p = (1 + number of known good scores that are at least the image's) / (n + 1)

is at most alpha with a chance of at most alpha, for every n, and whatever the scores are. Nothing
is learned: the method is unchanged, only its scale is measured.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Scores of known good images.

    Attributes:
      scores: calibrated, one a good image, ascending.
      method: name of the method that scored them.
      settings: all that decides its scores.
      sha256: of the file it comes from; empty where it comes from none.
    """

    scores: tuple[float, ...]
    method: str
    settings: Mapping[str, Any]
    sha256: str = ""

    @property
    def least(self) -> float:
        """The smallest p-value, which is the lowest false-alarm rate that can be guaranteed."""
        return 1 / (len(self.scores) + 1)

    def p_value(self, peak: float) -> float:
        """The chance of at least this score on a good image, in (0, 1]."""
        at_least = sum(score >= peak for score in self.scores)
        return (1 + at_least) / (len(self.scores) + 1)

    def threshold(self, false_alarms: float) -> float:
        """Scores above it have a p-value of at most `false_alarms`; infinite if none can have."""
        # Rounding must not take away a rank: 0.07 * 100 is more than 7, 0.29 * 100 less than 29.
        rank = math.floor(false_alarms * (len(self.scores) + 1) * (1 + 1e-12))
        if rank < 1:
            return math.inf
        if rank > len(self.scores):
            return -math.inf
        return self.scores[-rank]
