"""The model and its checkpoints in one place: `resnet9.py` builds, `checkpoint.py` loads."""

from compression.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from compression.presets import DEFAULT_PRESET, PRESETS, SHIPPED, Preset
from compression.resnet9 import (
    ConvBlock,
    Residual,
    ResNet9,
    build_model,
    count_parameters,
    prunable_layers,
)

__all__ = [
    "DEFAULT_PRESET",
    "PRESETS",
    "SHIPPED",
    "Checkpoint",
    "ConvBlock",
    "Preset",
    "ResNet9",
    "Residual",
    "build_model",
    "count_parameters",
    "load_checkpoint",
    "prunable_layers",
    "save_checkpoint",
]
