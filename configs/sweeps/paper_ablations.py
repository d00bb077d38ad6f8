"""The paper's ablations: masking, the perceptual term against squared error, the patch size.

Command:
  ssdnet-sweep --config=paper_ablations --dataset=DATASET --categories=grid --workdir=DIR

The base is `grid_literal`. The perceptual term is VGG19's view of the whole image; the paper's
224-pixel patches are `loss.perceptual_view=patch`, at some forty times the arithmetic.
"""

from ssdnet_jax.experiments.sweep import Sweep


def get_sweep() -> Sweep:
    """One choice of the paper changed at a time."""
    perceptual = {"loss.perceptual_view": "image", "fit.stop_threshold": -1e9}
    return Sweep(
        base="grid_literal",
        variants={
            "as shipped": {},
            "input noise 0": {"fit.input_noise": 0.0},
            "input noise 0.1": {"fit.input_noise": 0.1},
            "10 % of pixels masked": {"fit.mask_ratio": 0.1},
            "half masked in blocks of 8": {"fit.mask_ratio": 0.5, "fit.mask_block": 8},
            "10 % of patches permuted": {"fit.permute_ratio": 0.1},
            "patches of 8": {"loss.patch_sizes": (8,), "score.patch_sizes": (8,)},
            "patches of 32": {"loss.patch_sizes": (32,), "score.patch_sizes": (32,)},
            "patches of 8, 16, 32": {
                "loss.patch_sizes": (8, 16, 32),
                "loss.patch_strides": (8, 8, 8),
                "score.patch_sizes": (8, 16, 32),
                "score.patch_strides": (1, 1, 1),
            },
            "perceptual alone": {**perceptual, "loss.w_rec": 0.0, "loss.w_perc": 1.0},
            "squared and perceptual": {**perceptual, "loss.w_perc": 1e-4},
        },
    )
