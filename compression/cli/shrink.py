"""`python -m compression shrink`: a checkpoint into a packed file of a given size, by all steps."""

import json
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from compression.checkpoint import file_of
from compression.cli.common import (
    DataOption,
    JsonOption,
    SourceOption,
    exact,
    note_sample,
    packed_target,
    show,
    target,
)
from compression.data import SPLITS, load_cifar10
from compression.evaluation import evaluate
from compression.files import as_argument, without_folders, write_json
from compression.hardware import machine_record
from compression.inputs import InputError, real, shown
from compression.packing import save_packed
from compression.report import row_of, variant_of
from compression.shrink import ShrinkConfig, machines_of, shrink
from compression.stored import load_stored


def shrink_command(
    checkpoint: Annotated[str, typer.Argument(help="A shipped name, or a safetensors file.")],
    out: Annotated[Path, typer.Argument(help="The packed file to write, NAME.safetensors.")],
    max_kib: Annotated[float, typer.Option(help="The most that the file may take, in KiB.")],
    epochs: Annotated[int, typer.Option(help="Of training with rounded weights; 0: none.")] = 8,
    learning_rate: Annotated[float, typer.Option(help="Of that training.")] = 0.01,
    conv_lr: Annotated[
        float | None, typer.Option(help="On the convolutions' weights, if not that of the rest.")
    ] = None,
    shrinking: Annotated[float, typer.Option(help="Share of it in which the size falls.")] = 0.5,
    first_ratio: Annotated[
        float, typer.Option(help="Size at its start, in multiples of --max-kib.")
    ] = 1.5,
    worth_power: Annotated[
        float,
        typer.Option(
            help="1: errors of a layer weigh what they cost the dense network; 0: the same "
            "relative error in all layers."
        ),
    ] = 0.75,
    compensate: Annotated[
        bool, typer.Option(help="Begin where rounding errors make up for each other.")
    ] = False,
    centroid_epochs: Annotated[int, typer.Option(help="Of the levels alone; 0 for none.")] = 3,
    centroid_lr: Annotated[float, typer.Option(help="Learning rate of the levels.")] = 0.3,
    start: Annotated[
        Path | None, typer.Option(help="A packed file made of the checkpoint, to go on from.")
    ] = None,
    teacher: Annotated[
        list[str] | None,
        typer.Option(
            help="The checkpoint to distil from, if not its own dense one; given more than once, "
            "the mean of their answers."
        ),
    ] = None,
    draws: Annotated[
        int,
        typer.Option(
            help="Epochs after which the same augmented batches come again, so that the teacher "
            "is asked once about each; 0 for never."
        ),
    ] = 0,
    seed: Annotated[int, typer.Option(help="Of the training.")] = 0,
    results: Annotated[
        Path | None,
        typer.Option(help="A .json file for the result. What it held of the start stays in it."),
    ] = None,
    source: SourceOption = "auto",
    data: DataOption = None,
    json_output: JsonOption = False,
) -> None:
    """Train with rounded weights until the file has the size, then the levels alone; measure.

    A run that is killed goes on where it was when the same command is given again: a folder beside
    OUT, named as OUT without its suffix, keeps its state.
    """
    out, start = packed_target(out), start and file_of(start)
    if results is not None:
        results = target(results)
    on = None if epochs or centroid_epochs else torch.device("cpu")  # where nothing is trained
    machine = machine_record(on)  # of the code that runs, whatever is committed meanwhile
    config = ShrinkConfig(
        1024 * real("max_kib", max_kib, 1, 2**20, "KiB"),
        epochs=epochs,
        learning_rate=learning_rate,
        conv_learning_rate=conv_lr,
        shrinking=shrinking,
        first_ratio=first_ratio,
        worth_power=worth_power,
        compensate=compensate,
        centroid_epochs=centroid_epochs,
        centroid_lr=centroid_lr,
        draws=draws,
        seed=seed,
    )
    sets = {split: load_cifar10(split, source, data) for split in SPLITS}
    dense = load_stored(checkpoint)
    earlier = _earlier(results, start) if start and results else []
    note_sample(source, sets["train"])
    small = shrink(
        dense.model, sets, config,
        start=load_stored(start) if start else None,
        teachers=[load_stored(name).model for name in teacher or ()],
        name=out.stem, folder=out.with_suffix(""),
        notify=lambda text: typer.echo(text, err=True), machine=machine,
    )  # fmt: skip
    info = save_packed(small, out)
    found = load_stored(out)
    result: dict[str, Any] = row_of(variant_of(found, sets["test"]))
    result |= {"packed_bytes": info.total_bytes, "packed_times_smaller": info.ratio}
    result["dense_accuracy"] = variant_of(dense, sets["test"]).evaluation.accuracy
    show({"file": str(out)} | result, json_output)
    if results is not None:
        command = f"python -m compression shrink {as_argument(checkpoint)} "
        command += f"{shlex.quote(out.name)} "
        command += f"--max-kib {exact(max_kib)} --epochs {epochs} "
        command += f"--learning-rate {exact(learning_rate)} "
        command += "" if conv_lr is None else f"--conv-lr {exact(conv_lr)} "
        command += f"--shrinking {exact(shrinking)} "
        command += f"--first-ratio {exact(first_ratio)} --worth-power {exact(worth_power)} "
        command += "--compensate " if compensate else ""
        command += f"--centroid-epochs {centroid_epochs} --centroid-lr {exact(centroid_lr)} "
        command += f"--draws {draws} " if draws else ""
        command += f"--seed {seed} --source {sets['train'].source}"
        command += f" --start {as_argument(start)}" if start else ""
        command += "".join(f" --teacher {as_argument(name)}" for name in teacher or ())
        command += f" --results {as_argument(results)}"
        bundled = load_cifar10("test", "sample")
        on_bundled = evaluate(found.model, bundled.images, bundled.labels)
        content = {
            "command": command,
            "start": without_folders(checkpoint),
            "config": asdict(config),
            "machine": machine,
            "result": result,
            "bundled_test": {"correct": on_bundled.correct, "total": on_bundled.total},
            "ladder": [asdict(rung) for rung in info.ladder],
        }
        if before := machines_of(out.with_suffix(""))[:-1]:  # the run was gone on with here
            content["earlier_machines"] = before
        if start:
            content["earlier"] = earlier
        write_json(results, content)


def _earlier(results: Path, start: Path) -> list[dict[str, Any]]:
    """How the start was made, oldest first, where the file to be written anew has it: as what it
    is the record of, or, where it tells of a cycle on from there, before that. Looked at before
    hours of training. Raises InputError for a file that is no such record."""
    if not (results.is_file() and start.is_file()):
        return []
    try:
        before = json.loads(results.read_text())
        made = {key: before[key] for key in ("command", "machine")}
        made |= {key: before["result"][key] for key in ("accuracy", "packed_bytes")}
        steps = [*before.get("earlier", []), made]
        sizes = [step.get("packed_bytes") for step in steps]
        size = start.stat().st_size
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{results.name} must be a result of shrink or not exist, got {shown(str(error))}."
        ) from error
    return steps[: len(sizes) - sizes[::-1].index(size)] if size in sizes else []
