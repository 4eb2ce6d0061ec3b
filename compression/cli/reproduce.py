"""`python -m compression reproduce`: the course report from start to end, in one folder."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from compression.cli.common import DataOption, JsonOption
from compression.files import as_argument
from compression.inputs import InputError
from compression.reproduction import Reproduction
from compression.reproduction_config import load_config

CONFIGS = Path(__file__).resolve().parents[2] / "assets" / "reproduce"


def reproduce_command(
    folder: Annotated[Path, typer.Argument(help="Where every step leaves its file.")],
    config: Annotated[
        Path | None,
        typer.Option(
            help="A TOML file; see assets/reproduce/, whose full.toml is taken where none is "
            "given and trains for hours."
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Minutes: bundled sample, shipped checkpoints.")
    ] = False,
    data: DataOption = None,
    json_output: JsonOption = False,
) -> None:
    """Train, scan, prune, fine-tune, quantize, train the centroids, pack and measure.

    Given again after a kill, it goes on where it was. FOLDER/results.md is the table.
    """
    if quick and config is not None:
        raise InputError("--quick must stand alone, got a --config too.")
    if quick and data is not None:
        raise InputError("--quick must stand alone, got a --data too: it takes the sample.")
    path = CONFIGS / "quick.toml" if quick else config or CONFIGS / "full.toml"
    command = f"python -m compression reproduce {shlex.quote(folder.resolve().name)}"
    command += " --quick" if quick else f" --config {as_argument(path)}"
    run = Reproduction(
        load_config(path),
        folder,
        command=command,
        data=data,
        notify=lambda text: typer.echo(text, err=True),
    )
    run.run()
    written = folder / ("results.json" if json_output else "results.md")
    typer.echo(written.read_text(encoding="utf-8"), nl=False)
