"""`python -m compression train | average | shard`: a preset by a recipe into a checkpoint."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from compression.cli.common import (
    DataOption,
    JsonOption,
    SourceOption,
    checkpoint_target,
    epoch_line,
    note_sample,
    progress_bar,
    show,
)
from compression.data import SPLITS, load_cifar10
from compression.model import load_checkpoint
from compression.recipes import RECIPES
from compression.runs import average_checkpoints, shard_checkpoint, train_checkpoint


def train_command(
    out: Annotated[Path, typer.Argument(help="The checkpoint to write, NAME.safetensors.")],
    recipe: Annotated[str, typer.Option(help=f"One of {', '.join(RECIPES)}.")] = "baseline",
    preset: Annotated[str, typer.Option(help="The size of the network.")] = "resnet9-s",
    epochs: Annotated[int | None, typer.Option(help="Instead of the recipe's epochs.")] = None,
    seed: Annotated[int, typer.Option(help="Of the weights, the order and the augmentation.")] = 0,
    start: Annotated[
        str | None, typer.Option(help="A checkpoint to train on from, instead of new weights.")
    ] = None,
    teacher: Annotated[
        list[str] | None,
        typer.Option(
            help="A checkpoint whose answers are learned in place of the labels; given more than "
            "once, the mean of their answers."
        ),
    ] = None,
    draws: Annotated[
        int | None,
        typer.Option(
            help="Epochs after which the same augmented batches come again, so that the teacher is "
            "asked once about each; 0 for never; instead of the recipe's."
        ),
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
    out = checkpoint_target(out)
    sets = {split: load_cifar10(split, source, data) for split in SPLITS}
    cycle: dict[str, Any] = {"recipe": recipe, "preset": preset, "epochs": epochs}
    run: dict[str, Any] = {"seed": seed, "start": start, "teachers": teacher or (), "draws": draws}
    epochs_of_run = train_checkpoint(out, sets, **cycle, **run)
    note_sample(source, sets["train"])
    with progress_bar() as bar:
        task = bar.add_task(f"{preset} {recipe}", total=None)
        for result in epochs_of_run:
            bar.update(
                task,
                description=epoch_line(result),
                completed=result.epoch,
                total=result.epochs,
            )
    record = load_checkpoint(out).metadata
    _show(out, record, json_output)


def average_command(
    out: Annotated[Path, typer.Argument(help="The checkpoint to write, NAME.safetensors.")],
    checkpoints: Annotated[list[str], typer.Argument(help="The cycles of a run, in their order.")],
    source: SourceOption = "auto",
    data: DataOption = None,
    json_output: JsonOption = False,
) -> None:
    """Average the weights of several cycles of training (stochastic weight averaging)."""
    out = checkpoint_target(out)
    sets = {split: load_cifar10(split, source, data) for split in SPLITS}
    record = average_checkpoints(out, checkpoints, sets)
    _show(out, record, json_output)


def shard_command(
    checkpoint: Annotated[str, typer.Argument(help="A checkpoint file, or a shipped name.")],
    out: Annotated[Path, typer.Argument(help="NAME.safetensors, for NAME-1-of-2 and so on.")],
    source: SourceOption = "auto",
    data: DataOption = None,
    json_output: JsonOption = False,
) -> None:
    """Write a checkpoint in half precision, in files of at most 9 MiB, measured as it is there.

    They load by the name that was given, as if they were one file.
    """
    out = checkpoint_target(out)
    sets = {split: load_cifar10(split, source, data) for split in SPLITS}
    record, files = shard_checkpoint(checkpoint, out, sets)
    _show(out, record, json_output, files)


def _show(
    out: Path, record: dict[str, Any], as_json: bool, files: Sequence[Path] | None = None
) -> None:
    """What was written, by which name it loads, and its accuracies."""
    shown: dict[str, Any] = {"checkpoint": str(out)}
    if files is not None:
        shown["files"] = [str(file) for file in files]
    accuracies = {key: record[key] for key in ("validation_accuracy", "test_accuracy")}
    show(shown | accuracies, as_json)
