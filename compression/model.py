"""The model and its checkpoints in one place: what `resnet9.py` builds and `checkpoint.py` loads."""

from compression.checkpoint import SHIPPED, Checkpoint, load_checkpoint, save_checkpoint
from compression.resnet9 import (
    DEFAULT_PRESET,
    PRESETS,
    ConvBlock,
    Preset,
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
