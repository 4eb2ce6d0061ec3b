"""`python -m compression train`: train a preset by a named recipe into a checkpoint file."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer

from compression.cli.common import (
    DataOption,
    JsonOption,
    SourceOption,
    epoch_line,
    progress_bar,
    show,
)
from compression.data import load_cifar10
from compression.evaluation import evaluate
from compression.hardware import machine_record
from compression.inputs import choice
from compression.model import ResNet9, build_model, save_checkpoint
from compression.recipes import RECIPES
from compression.training import EpochResult, train


def train_command(
    out: Annotated[Path, typer.Argument(help="The checkpoint to write, NAME.safetensors.")],
    recipe: Annotated[str, typer.Option(help=f"One of {', '.join(RECIPES)}.")] = "baseline",
    preset: Annotated[str, typer.Option(help="The size of the network.")] = "resnet9-s",
    epochs: Annotated[int | None, typer.Option(help="Instead of the recipe's epochs.")] = None,
    seed: Annotated[int, typer.Option(help="Of the weights, the order and the augmentation.")] = 0,
    source: SourceOption = "auto",
    data: DataOption = None,
    json_output: JsonOption = False,
) -> None:
    """Train a network; choices on validation images, one final accuracy on the test images.

    A run that is killed goes on where it was when the same command is given again.
    """
    config = replace(RECIPES[choice("recipe", recipe, RECIPES)], seed=seed)
    if epochs is not None:
        config = replace(config, epochs=epochs)
    train_set = load_cifar10("train", source, data)
    validation_set = load_cifar10("validation", source, data)
    machine = machine_record()
    model = build_model(preset, seed=seed)
    out.parent.mkdir(parents=True, exist_ok=True)
    resume = out.with_name(out.name + ".resume")
    last: EpochResult | None = None
    with progress_bar() as bar:
        task = bar.add_task(f"{preset} {recipe}", total=config.epochs)
        for last in train(model, train_set, validation_set, config, resume=resume):
            bar.update(task, completed=last.epoch, description=epoch_line(last))
    assert last is not None
    test_set = load_cifar10("test", source, data)
    best = last.best_model
    assert isinstance(best, ResNet9)
    test = evaluate(best, test_set.images, test_set.labels)
    metadata = {
        "recipe": recipe,
        "config": asdict(config),
        "seed": seed,
        "data": {"source": train_set.source, "train": len(train_set), "test": len(test_set)},
        "curves": list(last.history),
        "best_epoch": last.best_epoch,
        "training_seconds": sum(row["seconds"] for row in last.history),
        "validation_accuracy": last.best_accuracy,
        "test_accuracy": test.accuracy,
        "test_interval": [test.low, test.high],
        "command": f"python -m compression train {out.name} --recipe {recipe} --preset {preset} "
        f"--epochs {config.epochs} --seed {seed}",
        "machine": machine,
    }
    save_checkpoint(best, out, metadata)
    shown = {key: metadata[key] for key in ("validation_accuracy", "test_accuracy")}
    show({"checkpoint": str(out), **shown}, json_output)
