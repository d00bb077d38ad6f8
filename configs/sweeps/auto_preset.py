"""What each part of the default setting brings.

Command:
  ssdnet-sweep --config=auto_preset --dataset=DATASET --workdir=DIR

Expected: docs/auto.md.
"""

from ssdnet_jax.experiments.sweep import Sweep


def get_sweep() -> Sweep:
    """One part changed at a time."""
    narrow = {"network.channels_down": (32, 48, 64, 64), "network.channels_up": (32, 48, 64, 64)}
    return Sweep(
        base="auto",
        variants={
            "as shipped": {},
            "no masking": {"fit.mask_ratio": 0.0},
            "blocks of 8": {"fit.mask_block": 8},
            "30 steps": {"fit.max_steps": 30},
            "60 steps": {"fit.max_steps": 60},
            "240 steps": {"fit.max_steps": 240},
            "narrow network": narrow,
            "12 components": {"features.components": 12},
            "48 components": {"features.components": 48},
            "24 fine components": {"features.fine_components": 24},
            "maps averaged": {"score.agreement_scale": 1e6},
            "filter bank, no VGG19": {"features.kind": "filters"},
            "Eq. 3 on features": {
                "score.method": "patches",
                "score.patch_sizes": (9,),
                "score.patch_strides": (1,),
            },
            "fit to pixels, tiles": {"features.kind": "pixels", "network.sigmoid": True},
        },
    )
