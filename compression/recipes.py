"""The named training recipes, one TrainConfig each; they differ in augmentation alone.

All were chosen on the validation images. What each run gave is in the metadata of the checkpoints.
"""

from dataclasses import replace

from compression.training import GridMaskConfig, TrainConfig

BASELINE = TrainConfig()

RECIPES = {
    "baseline": BASELINE,
    "gridmask": replace(BASELINE, gridmask=GridMaskConfig(probability=0.5, ramp_epochs=12)),
    "cutout": replace(BASELINE, cutout=12),
}
