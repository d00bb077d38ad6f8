"""Scores in colour over a grey image: tables that are computed once, looked up pixel by pixel."""

import functools

import numpy as np

# A score at the decision threshold has this place on the scale of `places`.
THRESHOLD_PLACE = 0.4
_DOUBLINGS = 3  # from the threshold to the end of the scale

# Place on the scale, colour, and how much of it covers the image. What is no reason to call an
# image anomalous is bluish; at the threshold the colour jumps to yellow, and goes on to purple.
_ANCHORS = (
    (0.0, (40, 80, 160), 0.0),
    (0.15, (50, 100, 185), 0.16),
    (0.3, (70, 140, 205), 0.44),
    (THRESHOLD_PLACE - 1e-3, (95, 180, 215), 0.6),
    (THRESHOLD_PLACE, (255, 230, 50), 0.88),
    (0.55, (255, 165, 25), 0.88),
    (0.75, (232, 45, 35), 0.88),
    (1.0, (125, 5, 95), 0.92),
)
# Turbo (Mikhailov 2019, Apache-2.0) as polynomials of the place, red, green and blue.
_TURBO = (
    (0.13572138, 4.61539260, -42.66032258, 132.13108234, -152.94239396, 59.28637943),
    (0.09140261, 2.19418839, 4.84296658, -14.18503333, 4.27729857, 2.82956604),
    (0.10667330, 12.64194608, -60.58204836, 110.36276771, -89.90310912, 27.34824973),
)


def places(score_map: np.ndarray, threshold: float) -> np.ndarray:
    """Where scores are on the scale of all heat maps, float32 in [0, 1].

    It is linear from 0 up to the threshold, at `THRESHOLD_PLACE`, then logarithmic up to eight
    times the threshold.

    Args:
      score_map: (H, W) in calibrated units (`core.calibration`), finite.
      threshold: in the same units.
    """
    ratio = np.asarray(score_map, np.float32) / np.float32(max(threshold, 1e-6))
    above = np.log2(np.maximum(ratio, 1.0)) * np.float32((1 - THRESHOLD_PLACE) / _DOUBLINGS)
    return np.clip(np.minimum(ratio, 1.0) * np.float32(THRESHOLD_PLACE) + above, 0.0, 1.0)


def score_at(place: np.ndarray, threshold: float) -> np.ndarray:
    """The scores at places on the scale: `places` the other way."""
    above = 2.0 ** (_DOUBLINGS * (place - THRESHOLD_PLACE) / (1 - THRESHOLD_PLACE))
    return threshold * np.where(place < THRESHOLD_PLACE, place / THRESHOLD_PLACE, above)


def blend(grey: np.ndarray, place: np.ndarray, *, anchored: bool) -> np.ndarray:
    """Colours of places over a grey image, uint8 RGB (H, W, 3).

    Args:
      grey: uint8 (H, W).
      place: (H, W) in [0, 1].
      anchored: whether they are `places` of the decision; else of a map's own range, in turbo.
    """
    level = np.minimum(place * np.float32(256), np.float32(255)).astype(np.uint16)
    return _table(anchored)[level * np.uint16(256) + grey]


@functools.cache
def _table(anchored: bool) -> np.ndarray:
    """Colours by place (256) and grey level (256): uint8 (256 * 256, 3)."""
    place = np.arange(256) / 256
    if anchored:
        known, colors, covers = zip(*_ANCHORS, strict=True)
        color = np.stack([np.interp(place, known, c) for c in zip(*colors, strict=True)], axis=-1)
        opacity = np.interp(place, known, covers)
    else:
        # Both ends of turbo are nearly black; they are left out.
        x = 0.08 + 0.82 * place
        powers = np.stack([x**i for i in range(6)], axis=-1)
        color = 255 * np.clip(powers @ np.array(_TURBO).T, 0, 1)
        opacity = 0.85 * np.sqrt(place)
    # Light and dark of the image stay visible through the colour.
    grey = np.arange(256) / 255
    shaded = color[:, None, :] * (0.72 + 0.28 * grey)[None, :, None]
    cover = opacity[:, None, None]
    table = (1 - cover) * 255 * grey[None, :, None] + cover * shaded
    return np.round(table).astype(np.uint8).reshape(-1, 3)


def gradient(steps: int) -> list[tuple[float, str]]:
    """Places of the anchored scale and their colours over mid-grey, as "#rrggbb"."""
    place = np.linspace(0, 1, steps, dtype=np.float32)
    rows = blend(np.full((1, steps), 128, np.uint8), place[None], anchored=True)[0]
    return [
        (float(p), "#{:02x}{:02x}{:02x}".format(*row)) for p, row in zip(place, rows, strict=True)
    ]
