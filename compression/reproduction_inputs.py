"""What a reproduction of the course report takes in: images, the checkpoints that it names, and
what an earlier go at it left in its folder."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from compression.data import SPLITS, ImageSet, load_cifar10
from compression.files import read_record, without_folders
from compression.inputs import InputError
from compression.model import load_checkpoint
from compression.reproduction_config import ReproductionConfig
from compression.scan_cache import weights_digest


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


def content_of(
    results: Path, config: ReproductionConfig, command: str, machine: dict[str, Any]
) -> dict[str, Any]:
    """What the file of results holds, to be gone on with, or that of a new run; command, machine:
    of a new one. Raises InputError where the folder holds anything else."""
    folder, asked = results.parent, json.loads(json.dumps(asdict(config)))
    if results.is_file():
        content = read_record(results, "of a reproduction")
        if content.get("config") != asked:
            raise InputError(
                f"{folder} must hold a run of the same config, got another one: choose an "
                "empty folder."
            )
        return content
    if any(folder.glob("*.safetensors")):
        raise InputError(f"{folder} must be empty or hold a run, got checkpoints of another.")
    return {"command": command, "config": asked, "machine": machine, "rows": []}


def check_shipped(config: ReproductionConfig, content: dict[str, Any]) -> None:
    """Raise InputError unless the checkpoints that are named are there, of the preset, and those
    that an earlier go began at; `content` remembers them."""
    known = content.setdefault("weights", {})
    for cycles in config.models.values():
        if "/" in cycles[0]:
            model = load_checkpoint(cycles[0]).model
            if model.preset != config.preset:
                raise InputError(
                    f"preset must be that of {cycles[0]}, {model.preset}, got {config.preset}."
                )
            digest = weights_digest(model)
            if known.setdefault(without_folders(cycles[0]), digest) != digest:
                raise InputError(
                    f"{cycles[0]} must have the weights that this folder's run began at, got "
                    "others: choose an empty folder."
                )
