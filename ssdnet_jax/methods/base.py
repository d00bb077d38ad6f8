"""What a method takes and gives, so that one run loop serves all of them.

    prepare -> encode -> jobs -> (fits in lanes) -> finish

A method hands back results; it does not write files, nor to the terminal.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray, PyTree

from ssdnet_jax.config import Config
from ssdnet_jax.core.config import DecisionConfig, FitSettings
from ssdnet_jax.core.conformal import Calibration
from ssdnet_jax.core.decision import Decision, decide
from ssdnet_jax.core.defects import Defect
from ssdnet_jax.core.fit import StopReason
from ssdnet_jax.core.plan import Plan
from ssdnet_jax.core.vgg19 import VGG19Weights
from ssdnet_jax.data.fits_file import StoredFits
from ssdnet_jax.data.images import resize_image, resize_map
from ssdnet_jax.methods.images import Layout

_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True)
class Member:
    """One entry of a batch of arrays, which stay on the device that computed them.

    Attributes:
      batch: arrays with a leading batch axis, of one length.
      place: of the entry in it.
    """

    batch: PyTree
    place: int

    @property
    def value(self) -> PyTree:
        """The entry alone."""
        return jax.tree.map(lambda leaf: leaf[self.place], self.batch)


def known_to_be(value: _T | None) -> _T:
    """A value that is there by the order of calls, for a type checker."""
    assert value is not None
    return value


def alone(value: PyTree) -> Member:
    """A batch of one."""
    return Member(jax.tree.map(lambda leaf: leaf[None], value), 0)


def gather(members: Sequence[Member], size: int) -> PyTree:
    """One batch of the members, filled up to `size` with the first of them.

    Where the members are all entries of one batch, in its order, it is that batch itself.
    """
    batch = members[0].batch
    lengths = {leaf.shape[0] for leaf in jax.tree.leaves(batch)}
    places = [*range(len(members)), *[0] * (size - len(members))]
    same = lengths == {size} and all(member.batch is batch for member in members)
    if same and [members[i].place for i in places] == list(range(size)):
        return batch
    values = [members[i].value for i in places]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *values)


class Bucket(NamedTuple):
    """Images of one bucket go through the same compiled programs, side by side."""

    stage: str  # "inpaint" or "fit"; "tiles" where `finish` fits in tiles, "score" where nothing is
    # fitted
    shape: tuple[int, int, int]  # (h, w, c), of what is fitted in lanes, or was fitted before;
    # of the image where it is fitted in tiles or not at all
    settings: FitSettings | None = None  # what is compiled into the fit; None: no fit in lanes
    plan: Plan | None = None  # of the images; None before they have one, and for methods without


@dataclasses.dataclass(frozen=True)
class Prepared:
    """An image that has been checked and brought to the size at which it is analysed."""

    key: PRNGKeyArray  # source of all randomness for this image
    pixels: np.ndarray  # float32 (H, W, C) in [0, 1], the input; 0 where missing, until it is
    # filled
    missing: np.ndarray  # bool (H, W)
    fitted: np.ndarray  # float32 (h, w, C), the input at the size at which it is analysed; likewise
    fitted_missing: np.ndarray  # bool (h, w)
    filled: bool = False  # whether missing pixels hold the inpainting's values instead of 0
    plan: Plan | None = None  # what is done to the image; None while pixels are to be inpainted,
    # and for methods that have none
    target: Member | None = None  # entry of a batch of `core.target.Target`, once the image is
    # encoded
    fits: StoredFits | None = None  # that exist already, of an image that is scored again
    layout: Layout | None = None  # which part of the image takes part; None: all of it
    used_range: tuple[float, float] | None = None  # range that was stretched to [0, 1] in `fitted`;
    # None: none was
    ground: float | None = None  # share of pixels that were found to be ground
    noise: float = 0.0  # standard deviation of the fitted image's noise, once it is planned
    detail: np.ndarray | None = None  # float32 (2h, 2w, C), the input at twice the size at which it
    # is analysed; None where it has no such detail, or it is not wanted
    lacks_detail: bool = False  # whether it is wanted, but too many pixels are analysed already

    @property
    def judged(self) -> int:
        """How many pixels of the fitted image take part."""
        return self.fitted_missing.size if self.layout is None else int(self.layout.valid.sum())

    @property
    def incomplete(self) -> bool:
        """Whether pixels of the fitted image are still to be inpainted."""
        return not self.filled and bool(self.fitted_missing.any())


class JobName(NamedTuple):
    """Which fit of which image a job is."""

    image: str
    seed: int


@dataclasses.dataclass(frozen=True)
class Job:
    """One fit to be done."""

    name: JobName  # given back with the result
    stage: str  # "inpaint" or "fit"
    key: PRNGKeyArray  # source of the fit's randomness
    values: Member  # entry (h, w, c) of a batch, what is fitted: pixels in [0, 1], or features of
    # them
    known: np.ndarray  # float32 (h, w), 0 where a pixel is missing
    settings: FitSettings  # what is compiled into the fit


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far a fit is after a block of steps, or the lanes together, or a pass over tiles."""

    stage: str  # "inpaint", "fit" or "score"; of an image in tiles also "features", "marks" and
    # "guide"
    step: int  # steps taken, the mean over the lanes that run; tiles done
    total: int  # most steps a fit of this stage can take; tiles
    loss: float  # loss of the last step, likewise a mean; nan before the first, and of tiles


@dataclasses.dataclass(frozen=True)
class Fitted:
    """One finished fit."""

    name: JobName  # the job's
    reconstruction: Member  # entry (h, w, c) of a batch, mu = f_theta(y)
    losses: np.ndarray  # float32 (steps,), the loss of each step
    stop: StopReason  # why the fit ended
    restorations: int  # how often the guard undid a blow-up
    params: Member | None = None  # entry (parameters,) of a batch, theta at the last step


@dataclasses.dataclass(frozen=True)
class Done:
    """An image whose fits have ended, one a seed; none for a method that does not fit."""

    name: str
    prepared: Prepared
    fits: tuple[Fitted, ...] = ()


@dataclasses.dataclass(frozen=True)
class Localization:
    """What a method says about one image; arrays are numpy, maps have the input's size.

    Attributes:
      score_map: float32 (H, W), raw anomaly score, in the unit of the method (SSDnet:
        `core.score.ScoreMaps.raw`). NaN where a pixel is not judged: ignored, transparent, ground,
        or missing together with more than a tile around it.
      score: the image's score, the maximum of `score_map`.
      decision: whether the image is anomalous, how surely, and the mask.
      defects: the connected parts of the mask, worst first.
      image: float32 (H, W, C), y: the input with missing pixels filled in.
      ground: share of the pixels that were found to be ground; None where there was none.
      used_range: range that was stretched to [0, 1] before the image was analysed; None: none was.
    """

    score_map: np.ndarray
    score: float
    decision: Decision
    defects: tuple[Defect, ...]
    image: np.ndarray
    ground: float | None = dataclasses.field(default=None, kw_only=True)
    used_range: tuple[float, float] | None = dataclasses.field(default=None, kw_only=True)

    @property
    def mask(self) -> np.ndarray:
        """Bool (H, W), the anomalous pixels."""
        return self.decision.mask

    @property
    def threshold(self) -> float:
        """The decision's threshold, in units of `score_map`."""
        return self.decision.threshold

    @property
    def calibrated_score(self) -> float:
        """The score without a unit, which compares between images (`core.calibration`)."""
        return self.decision.score

    @property
    def is_anomalous(self) -> bool:
        """Whether the verdict is "anomalous"."""
        return self.decision.anomalous


@dataclasses.dataclass(frozen=True)
class Analysed:
    """What fits of an image came to, at the size at which it was analysed.

    Attributes:
      normalized: float32 (h, w), `core.score.ScoreMaps.normalized`; the median over seeds.
      spread: float32 (h, w), standard deviation of the raw maps over seeds.
      reconstruction: float32 (hh, ww, C), mu in the image's range; likewise.
      layout: which part of the image takes part; None: all.
    """

    normalized: np.ndarray
    spread: np.ndarray
    reconstruction: np.ndarray
    layout: Layout | None


@dataclasses.dataclass(frozen=True)
class FittedLocalization(Localization):
    """What SSDnet says about one image.

    Attributes:
      analysed: what the arrays at the image's size are made of, when they are asked for.
      losses: float32 (steps,), the loss (Eq. 2) of each step; with several seeds, the first's.
      steps: optimizer steps taken; with several seeds, the most that one took.
      stop_reason: "threshold", or "max_steps" if any seed ended so.
      restorations: how often the guard undid a blow-up of Adam, over all seeds.
      fits: what scoring again needs.
    """

    analysed: Analysed
    losses: np.ndarray
    steps: int
    stop_reason: str
    restorations: int
    fits: StoredFits

    @functools.cached_property
    def normalized_map(self) -> np.ndarray:
        """Float32 (H, W), the score scaled to [0, 1] within the image (`core.score.ScoreMaps`).

        With a perceptual term, which is subtracted, in [-alpha_perc, alpha_rec].
        """
        return placed_map(self.analysed.normalized, self.analysed.layout, self.score_map.shape)

    @functools.cached_property
    def reconstruction(self) -> np.ndarray:
        """Float32 (H, W, C), the normal component mu = f_theta(y).

        With several seeds, their median, as for both maps.
        """
        return placed_picture(self.analysed.reconstruction, self.analysed.layout, self.image)

    @functools.cached_property
    def residual(self) -> np.ndarray:
        """Float32 (H, W, C), y - mu, anomaly and noise together (Eq. 1)."""
        return self.image - self.reconstruction

    @functools.cached_property
    def uncertainty(self) -> np.ndarray:
        """Float32 (H, W), standard deviation of the raw maps over seeds; zero for one seed.

        In units of `score_map`.
        """
        return placed_map(self.analysed.spread, self.analysed.layout, self.score_map.shape)


@dataclasses.dataclass(frozen=True)
class TiledLocalization(Localization):
    """What SSDnet says about an image that was fitted in crops and scored in tiles.

    Attributes:
      losses: float32 (steps,), the loss (Eq. 2) of each step; with several seeds, the first's.
      steps: optimizer steps taken.
      stop_reason: "threshold" or "max_steps".
      restorations: how often the guard undid a blow-up of Adam, over all seeds.
    """

    losses: np.ndarray
    steps: int
    stop_reason: str
    restorations: int


Report = Callable[[Progress], None]

# Of the shape (h, w, c) of what is fitted.
LoadFits = Callable[[tuple[int, ...]], None]


class Method(Protocol):
    """One way to score images; frozen and picklable.

    Attributes:
      config: the configuration, of which a method may use some fields only.
      vgg19: weights, once they are there; see `needs_vgg19`.
    """

    @property
    def name(self) -> str:
        """What commands and tables call it."""

    @property
    def config(self) -> Config: ...

    @property
    def is_random(self) -> bool:
        """Whether another seed gives another map."""

    @property
    def keeps_fits(self) -> bool:
        """Whether its results are `FittedLocalization`s."""

    @property
    def vgg19(self) -> VGG19Weights | None: ...

    @property
    def needs_vgg19(self) -> bool: ...

    @property
    def can_do_without_vgg19(self) -> bool:
        """Whether it is to be given VGG19's weights where there are any."""

    @property
    def needs_clip(self) -> bool: ...

    @property
    def settings(self) -> dict[str, Any]:
        """All that decides its results, apart from images and calibration; for run.json."""

    @property
    def calibration(self) -> Calibration | None:
        """What known good images scored, by which its maps are judged."""

    def with_weights(self, *, vgg19: VGG19Weights | None, clip: Any = None) -> "Method":
        """The method with the weights that it needs."""

    def with_calibration(self, calibration: Calibration) -> "Method":
        """The method, its maps judged by what known good images scored."""

    def prepare(self, source: Any, key: PRNGKeyArray) -> Prepared:
        """Checks an image; raises InputError or ConfigError where it cannot be scored."""

    def bucket(self, prepared: Prepared) -> Bucket:
        """What the image shares with those that go through the same programs beside it."""

    def load(self, prepared: Prepared, size: int, load_fits: LoadFits) -> None:
        """Compiles, or loads, the programs that an image's bucket will need, in this order.

        In any thread, while others compute. Not the program of `encode`, which is called at once.

        Args:
          prepared: any image of the bucket.
          size: of the batches in which its images are encoded and scored.
          load_fits: does the same for the programs of the fits.
        """

    def encode(self, group: Sequence[Prepared], size: int) -> list[Prepared]:
        """What is fitted to images of one bucket, in one call, in a batch filled up to `size`."""

    def jobs(self, prepared: Prepared, name: str) -> list[Job]:
        """The fits of an image, one a seed; none where there is nothing to fit."""

    def fill(self, prepared: Prepared, inpainted: Fitted) -> Prepared:
        """Puts what inpainting found where pixels are missing."""

    def finish(
        self, group: Sequence[Done], size: int, report: Report = lambda progress: None
    ) -> Sequence[Callable[[], Localization]]:
        """Scores images of one bucket in one call, in a batch filled up to `size`.

        What takes long tells `report` how far it is. Returns what is left to do of each image: on
        the host, in any thread, in any order.
        """


def scale_settings(method: Method) -> dict[str, Any]:
    """Those settings of a method that decide what scores mean, which a calibration must share.

    All but the seed and how scores are decided upon.
    """
    return {k: v for k, v in method.settings.items() if k not in ("decision", "seed")}


def localization_of(
    raw: np.ndarray,
    prepared: Prepared,
    config: DecisionConfig,
    calibration: Calibration | None = None,
) -> Localization:
    """The decisions that follow from a raw map.

    Args:
      raw: float32 (h, w), the map at the size at which the image was analysed.
      prepared: the image, to whose size the map is brought.
      config: how a map becomes a decision.
      calibration: of known good images, if there is any.
    """
    score_map = placed_map(raw, prepared.layout, prepared.missing.shape)
    shape = prepared.layout.window_shape if prepared.layout else score_map.shape
    decision, defects = decide(
        score_map, config, calibration, resolution=raw.size / math.prod(shape)
    )
    known = np.isfinite(score_map)
    return Localization(
        score_map=score_map,
        score=float(score_map[known].max()) if known.any() else math.nan,
        decision=decision,
        defects=defects,
        image=prepared.pixels,
        ground=prepared.ground,
        used_range=prepared.used_range,
    )


def placed_map(found: np.ndarray, layout: Layout | None, shape: tuple[int, ...]) -> np.ndarray:
    """A map of what was analysed at the image's size (H, W), NaN where a pixel is not judged."""
    if layout is None:
        height, width = shape
        return resize_map(found, (height, width))
    return layout.place(found)


def placed_picture(found: np.ndarray, layout: Layout | None, image: np.ndarray) -> np.ndarray:
    """A picture of what was analysed at the image's size; what is not judged is as in the image."""
    if layout is None:
        height, width = image.shape[:2]
        return resize_image(found, (height, width))
    return layout.place_picture(found, image)
