"""What a reproduction of the course report takes in: images, and the checkpoints that it names."""

from pathlib import Path

from compression.data import SPLITS, ImageSet, load_cifar10
from compression.inputs import InputError
from compression.model import load_checkpoint
from compression.reproduction_config import ReproductionConfig


def sets_of(config: ReproductionConfig, data: Path | None) -> dict[str, ImageSet]:
    """Of each split the first images, as many as the config says and there are.

    data: the folder of the full CIFAR-10, by default the usual one. Raises InputError where the
    full set is asked for and not there.
    """
    wanted = {
        "train": config.train_images,
        "validation": config.validation_images,
        "test": config.test_images,
    }
    return {split: load_cifar10(split, config.source, data).head(wanted[split]) for split in SPLITS}


def check_shipped(config: ReproductionConfig) -> None:
    """Raise InputError unless the checkpoints that are named are there, and of the preset."""
    for cycles in config.models.values():
        if "/" in cycles[0]:
            found = load_checkpoint(cycles[0]).model.preset
            if found != config.preset:
                raise InputError(
                    f"preset must be that of {cycles[0]}, {found}, got {config.preset}."
                )
