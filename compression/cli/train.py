"""`python -m compression train`: train a preset by a named recipe into a checkpoint file."""

import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from compression.cli.common import (
    DataOption,
    JsonOption,
    SourceOption,
    epoch_line,
    progress_bar,
    show,
)
from compression.data import ImageSet, load_cifar10
from compression.evaluation import evaluate
from compression.hardware import machine_record
from compression.inputs import InputError, choice
from compression.model import ResNet9, build_model, load_checkpoint, save_checkpoint
from compression.recipes import RECIPES
from compression.training import EpochResult, train


def train_command(
    out: Annotated[Path, typer.Argument(help="The checkpoint to write, NAME.safetensors.")],
    recipe: Annotated[str, typer.Option(help=f"One of {', '.join(RECIPES)}.")] = "baseline",
    preset: Annotated[str, typer.Option(help="The size of the network.")] = "resnet9-s",
    epochs: Annotated[int | None, typer.Option(help="Instead of the recipe's epochs.")] = None,
    seed: Annotated[int, typer.Option(help="Of the weights, the order and the augmentation.")] = 0,
    start: Annotated[
        str | None, typer.Option(help="A checkpoint to train on from, instead of new weights.")
    ] = None,
    source: SourceOption = "auto",
    data: DataOption = None,
    json_output: JsonOption = False,
) -> None:
    """Train a network; choices on validation images, one final accuracy on the test images.

    A run that is killed goes on where it was when the same command is given again. With --start it
    is a warm restart (Loshchilov & Hutter 2017, arXiv 1608.03983): another cycle of the learning
    rate from a checkpoint, whose own record goes into the new file.
    """
    config = replace(RECIPES[choice("recipe", recipe, RECIPES)], seed=seed)
    if epochs is not None:
        config = replace(config, epochs=epochs)
    _check_target(out)
    train_set = load_cifar10("train", source, data)
    validation_set = load_cifar10("validation", source, data)
    test_set = load_cifar10("test", source, data)
    model, earlier = _first_weights(preset, seed, start)
    record: dict[str, Any] = {
        "recipe": recipe,
        "config": asdict(config),
        "seed": seed,
        "data": {"source": train_set.source, "train": len(train_set), "test": len(test_set)},
        "command": f"python -m compression train {out.name} --recipe {recipe} --preset {preset} "
        f"--epochs {config.epochs} --seed {seed} --source {train_set.source}"
        + (f" --start {start}" if start else ""),
        "earlier": earlier,
        "machine": machine_record(),
    }
    resume = out.with_name(out.name + ".resume")
    with progress_bar() as bar:
        task = bar.add_task(f"{preset} {recipe}", total=config.epochs)
        for result in train(model, train_set, validation_set, config, resume=resume):
            bar.update(task, completed=result.epoch, description=epoch_line(result))
            if result.epoch == config.epochs:  # until this is done, the run can still be resumed
                record |= _outcome(result, earlier, test_set)
                save_checkpoint(cast(ResNet9, result.best_model), out, record)
    shown = {key: record[key] for key in ("validation_accuracy", "test_accuracy")}
    show({"checkpoint": str(out), **shown}, json_output)


def _first_weights(
    preset: str, seed: int, start: str | None
) -> tuple[ResNet9, list[dict[str, Any]]]:
    """The model to train, and the records of the cycles that made it, the oldest first."""
    if start is None:
        return build_model(preset, seed=seed), []
    loaded = load_checkpoint(start)
    if loaded.model.preset != preset:
        raise InputError(f"--start must be a {preset}, got a {loaded.model.preset}.")
    before = dict(loaded.metadata)
    return loaded.model, [*before.pop("earlier", []), before]


def _outcome(
    result: EpochResult, earlier: list[dict[str, Any]], test_set: ImageSet
) -> dict[str, Any]:
    """What a finished run says of itself, and the one final accuracy on the test images.

    `curves` and `training_seconds` cover the earlier cycles too; their epochs count on.
    """
    test = evaluate(result.best_model, test_set.images, test_set.labels)
    curves = list(earlier[-1].get("curves", [])) if earlier else []
    done = len(curves)
    curves += [row | {"epoch": done + row["epoch"]} for row in result.history]
    return {
        "curves": curves,
        "best_epoch": done + result.best_epoch,
        "training_seconds": sum(row["seconds"] for row in curves),
        "validation_accuracy": result.best_accuracy,
        "test_accuracy": test.accuracy,
        "test_interval": [test.low, test.high],
    }


def _check_target(out: Path) -> None:
    """Before an hour of training rather than after it: a checkpoint can be written there."""
    if out.suffix != ".safetensors" or out.is_dir():
        raise InputError(f"The checkpoint must be a file NAME.safetensors, got {out}.")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out.parent).close()
    except OSError as error:
        raise InputError(f"{out.parent} must be writable, got {error.strerror}.") from error
