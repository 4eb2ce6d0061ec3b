"""`python -m compression study`: plain, Cutout and GridMask with several seeds of one recipe."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from compression.augmentation_study import StudyConfig, run_study
from compression.cli.common import (
    DataOption,
    JsonOption,
    SourceOption,
    note_sample,
    parse_numbers,
    show,
    target,
)
from compression.data import SPLITS, load_cifar10
from compression.inputs import whole
from compression.study_records import minutes, summarize


def study_command(
    out: Annotated[Path, typer.Argument(help="The .json file to write; it is gone on with.")],
    preset: Annotated[str, typer.Option(help="The size of the network.")] = "resnet9-s",
    epochs: Annotated[int, typer.Option(help="Of each run.")] = 8,
    small_epochs: Annotated[int, typer.Option(help="The first so many, at 24 pixels.")] = 3,
    seeds: Annotated[str, typer.Option(help="By commas.")] = "0,1,2",
    source: SourceOption = "auto",
    data: DataOption = None,
    json_output: JsonOption = False,
) -> None:
    """Train without deletion, with Cutout and with GridMask, and say what that gave."""
    chosen = tuple(whole("seed", seed, 0, 2**31 - 1) for seed in parse_numbers("seeds", seeds))
    config = StudyConfig(preset, epochs, small_epochs, chosen)
    sets = {split: load_cifar10(split, source, data) for split in SPLITS}
    out = target(out)
    note_sample(source, sets["train"])
    command = f"python -m compression study {shlex.quote(out.name)} --preset {preset} "
    command += f"--epochs {epochs} --small-epochs {small_epochs} "
    command += f"--seeds {','.join(map(str, chosen))} --source {sets['train'].source}"
    runs = []
    for run in run_study(out, sets, config, command=command):
        runs.append(run)
        typer.echo(f"{run.way}, seed {run.seed}: {run.accuracy:.2%}", err=True)
    show(
        {
            row.way: f"{row.mean:.2%}, spread {100 * row.spread:.2f} points, "
            f"{minutes(row.seconds)} a run"
            for row in summarize(runs)
        },
        json_output,
    )
