"""A training run as a checkpoint: from a named recipe to a file that says how it came about."""

import copy
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from compression.checkpoint import Checkpoint, save_shards, shard_files
from compression.data import ImageSet
from compression.ensemble import as_one
from compression.evaluation import evaluate
from compression.files import as_argument
from compression.hardware import machine_record
from compression.inputs import InputError, choice
from compression.model import ResNet9, build_model, load_checkpoint, save_checkpoint
from compression.recalibration import recalibrate_batch_norm
from compression.recipes import RECIPES, TrainConfig
from compression.resume import machines_of
from compression.training import EpochResult, train


def train_checkpoint(
    out: Path,
    sets: dict[str, ImageSet],
    *,
    recipe: str = "baseline",
    preset: str = "resnet9-s",
    epochs: int | None = None,
    seed: int = 0,
    start: str | None = None,
    teachers: Sequence[str] = (),
    draws: int | None = None,
) -> Iterator[EpochResult]:
    """Train by a recipe and write the checkpoint `out`; yields each epoch, the last once written.

    sets: the splits `train`, `validation` and `test`. epochs: instead of the recipe's. start: a
    checkpoint to train on from, a warm restart (Loshchilov & Hutter 2017, arXiv 1608.03983): its
    own record goes into the new file, `curves` and `training_seconds` cover both. teachers:
    checkpoints the mean of whose answers is learned in place of the labels. draws: as in
    TrainConfig, instead of the recipe's. A run that was killed goes on from the file beside `out`.
    Raises InputError, before the first epoch, for unknown names and a start of another preset.
    """
    config = replace(RECIPES[choice("recipe", recipe, RECIPES)], seed=seed)
    if epochs is not None:
        config = replace(config, epochs=epochs)
    if draws is not None:
        config = replace(config, draws=draws)
    teacher = as_one([load_checkpoint(name).model for name in teachers]) if teachers else None
    model, earlier = _first_weights(preset, seed, start)
    source = sets["train"].source
    command = f"python -m compression train {shlex.quote(out.name)} --recipe {recipe} "
    command += f"--preset {preset} --epochs {config.epochs} --seed {seed} --source {source}"
    command += f" --start {as_argument(start)}" if start else ""
    command += "".join(f" --teacher {as_argument(name)}" for name in teachers)
    command += f" --draws {draws}" if draws is not None else ""
    record: dict[str, Any] = {
        "recipe": recipe,
        "config": asdict(config),
        "seed": seed,
        "data": {"source": source, "train": len(sets["train"]), "test": len(sets["test"])},
        "command": command,
        "earlier": earlier,
        "machine": machine_record(),
    }
    return _epochs(model, teacher, config, sets, out, record, earlier)


def average_checkpoints(
    out: Path, starts: Sequence[str], sets: dict[str, ImageSet], *, images: int = 10_000
) -> dict[str, Any]:
    """Write the mean of several cycles' weights as the checkpoint `out`; returns its record.

    Stochastic weight averaging (Izmailov et al. 2018, arXiv 1803.05407): the ends of cycles lie
    around a point that generalizes better than any of them. Batch norm is re-estimated on the first
    `images` training images. starts: the cycles of one run in their order; the last one's record is
    carried on. Raises InputError for fewer than two, and for different presets.
    """
    loaded = [load_checkpoint(start) for start in starts]
    presets = {checkpoint.model.preset for checkpoint in loaded}
    if len(loaded) < 2 or len(presets) > 1:
        came = f"{len(loaded)} of {', '.join(sorted(presets)) or 'none'}"
        raise InputError(f"At least two checkpoints of one preset must be given, got {came}.")
    mean = build_model(presets.pop())
    states = [checkpoint.model.state_dict() for checkpoint in loaded]
    mean.load_state_dict(
        {
            name: torch.stack([state[name].double() for state in states]).mean(0).to(value.dtype)
            for name, value in states[0].items()
        }
    )
    model = recalibrate_batch_norm(mean.eval(), sets["train"].images[:images])
    assert isinstance(model, ResNet9)
    validation = sets["validation"]
    own = ("precision", "sharded")  # of a file in half precision, which the mean is not
    record = {key: value for key, value in loaded[-1].metadata.items() if key not in own} | {
        "averaged": [str(checkpoint.metadata.get("command", "")) for checkpoint in loaded],
        "command": " ".join(
            ["python -m compression average", shlex.quote(out.name), *map(as_argument, starts)]
            + ["--source", sets["train"].source]
        ),
        "validation_accuracy": evaluate(model, validation.images, validation.labels).accuracy,
        **_measured_anew(record_of=loaded[-1], model=model, test_set=sets["test"]),
    }
    save_checkpoint(model, out, record)
    return record


def shard_checkpoint(
    start: str, out: Path, sets: dict[str, ImageSet]
) -> tuple[dict[str, Any], list[Path]]:
    """Write a checkpoint in half precision in files of at most 9 MiB, or of one larger tensor each;
    returns its record and the files.

    These are NAME-1-of-2.safetensors and so on, for the NAME of `out`. The accuracies in their
    record are those of the halved weights.
    """
    loaded = load_checkpoint(start)
    shard_files(loaded.model, out)  # what is in the way is said before anything is measured
    model = copy.deepcopy(loaded.model)
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(tensor.half())
    validation = sets["validation"]
    record = dict(loaded.metadata) | {
        "precision": "float16",
        "sharded": f"python -m compression shard {as_argument(start)} {shlex.quote(out.name)} "
        f"--source {validation.source}",
        "validation_accuracy": evaluate(model, validation.images, validation.labels).accuracy,
        **_measured_anew(record_of=loaded, model=model, test_set=sets["test"]),
    }
    return record, save_shards(model, out, record)


def _epochs(
    model: ResNet9,
    teacher: nn.Module | None,
    config: TrainConfig,
    sets: dict[str, ImageSet],
    out: Path,
    record: dict[str, Any],
    earlier: list[dict[str, Any]],
) -> Iterator[EpochResult]:
    resume = out.with_name(out.name + ".resume")
    for result in train(
        model, sets["train"], sets["validation"], config, teacher=teacher, resume=resume
    ):
        if result.epoch == config.epochs:  # until this is done, the run can still be resumed
            record |= _outcome(result, earlier, sets["test"])
            if before := machines_of(resume)[:-1]:  # the run was gone on with here
                record["earlier_machines"] = before
            save_checkpoint(cast(ResNet9, result.best_model), out, record)
        yield result


def _first_weights(
    preset: str, seed: int, start: str | None
) -> tuple[ResNet9, list[dict[str, Any]]]:
    """The model to train, and the records of the cycles that made it, the oldest first."""
    if start is None:
        return build_model(preset, seed=seed), []
    loaded = load_checkpoint(start)
    if loaded.model.preset != preset:
        raise InputError(f"start must be a {preset}, got a {loaded.model.preset}.")
    before = dict(loaded.metadata)
    earlier = before.pop("earlier", [])
    return loaded.model, [*(earlier if isinstance(earlier, list) else []), before]


def _outcome(
    result: EpochResult, earlier: list[dict[str, Any]], test_set: ImageSet
) -> dict[str, Any]:
    """What a finished run says of itself, and the one final accuracy on the test images."""
    curves = _curves(earlier[-1]) if earlier else []
    done = len(curves)
    curves += [row | {"epoch": done + row["epoch"]} for row in result.history]
    return {
        "curves": curves,
        "best_epoch": done + result.best_epoch,
        "training_seconds": sum(row["seconds"] for row in curves),
        "validation_accuracy": result.best_accuracy,
        **_on_test(result.best_model, test_set),
    }


def _curves(record: dict[str, Any]) -> list[dict[str, Any]]:
    """A row for each epoch in a checkpoint's record, or none: a stranger's may hold anything."""
    rows = record.get("curves")
    sound = isinstance(rows, list) and all(
        isinstance(row, dict) and isinstance(row.get("seconds"), int | float) for row in rows
    )
    return list(rows) if sound else []  # pyright: ignore[reportArgumentType]


def _measured_anew(record_of: Checkpoint, model: nn.Module, test_set: ImageSet) -> dict[str, Any]:
    """What replaces a record's accuracy on the test images, and how many those were."""
    data = record_of.metadata.get("data")
    data = data if isinstance(data, dict) else {}
    return {"data": {**data, "test": len(test_set)}, **_on_test(model, test_set)}


def _on_test(model: nn.Module, test_set: ImageSet) -> dict[str, Any]:
    test = evaluate(model, test_set.images, test_set.labels)
    return {"test_accuracy": test.accuracy, "test_interval": [test.low, test.high]}
