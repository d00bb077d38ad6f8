"""Losses beside each other: errors of pixels, and similarities of VGG19's features.

Command:
  ssdnet-sweep --config=losses --dataset=DATASET --workdir=DIR

The base is `grid_literal`, whose threshold is one of squared error: all variants take 100 steps.
"""

from ssdnet_jax.experiments.sweep import Sweep, product


def get_sweep() -> Sweep:
    """Three errors of a pixel; three similarities, of which the cosine needs no other scale."""
    steps = {"fit.max_steps": 100, "fit.stop_threshold": -1e9}
    features = {**steps, "loss.perceptual_view": "image", "loss.w_perc": 1e-3}
    errors = product({"loss.reconstruction": ["squared", "absolute", "charbonnier"]})
    similarities = product({"loss.perceptual": ["inner_product", "cosine", "euclidean"]})
    return Sweep(
        base="grid_literal",
        variants={
            **{name: {**fields, **steps} for name, fields in errors.items()},
            **{name: {**fields, **features} for name, fields in similarities.items()},
        },
    )
