"""`python -m compression front`: size against accuracy, ours beside the usual ways, measured."""

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import torch
import typer

from compression.cli.allocate import measured_settings
from compression.cli.common import (
    DataOption,
    ImagesOption,
    JsonOption,
    SettingsOption,
    SourceOption,
    settings_target,
    show,
    target,
)
from compression.data import SPLITS, load_cifar10
from compression.files import as_argument, without_folders
from compression.front_records import FrontPoint, load_front, prediction_error, save_front
from compression.fronts import Front, FrontConfig
from compression.hardware import machine_record
from compression.inputs import InputError
from compression.scan_cache import weights_digest
from compression.stored import load_stored


def front_command(
    checkpoint: Annotated[str, typer.Argument(help="A shipped name, or a safetensors file.")],
    out: Annotated[
        Path,
        typer.Argument(help="The .json file; what it holds of the same run is gone on with."),
    ],
    sizes: Annotated[int, typer.Option(help="Goals in equal ratios, each by every way.")] = 12,
    randoms: Annotated[int, typer.Option(help="Goals drawn at random, ours alone.")] = 20,
    seed: Annotated[int, typer.Option(help="Of the random goals and the random way.")] = 0,
    settings: SettingsOption = None,
    images: ImagesOption = 512,
    source: SourceOption = "auto",
    data: DataOption = None,
    json_output: JsonOption = False,
) -> None:
    """Measure packed files of many sizes, without training: our allocation and the usual ways."""
    config = FrontConfig(sizes, randoms, seed=seed)
    stored = load_stored(checkpoint)
    name = without_folders(checkpoint)
    command = f"python -m compression front {as_argument(checkpoint)} {shlex.quote(out.name)} "
    command += f"--sizes {sizes} --randoms {randoms} "
    out, settings = target(out), settings_target(settings)
    sets = {split: load_cifar10(split, source, data) for split in SPLITS}
    dense = stored.unfolded(sets["train"].images).model
    command += f"--seed {seed} --source {sets['test'].source} "
    command += f"--settings {as_argument(settings)} " if settings else ""
    if settings is None or not settings.is_file():  # else they are in the file, measured before
        command += f"--images {images}"
    command = command.strip()
    measured = measured_settings(checkpoint, settings, images, source, data, command)
    about = {
        "model": name,
        "weights": weights_digest(stored.model),
        "command": command,
        "config": asdict(config),
        "images": {split: len(found) for split, found in sets.items()},
        "settings": measured.about | {"content": measured.content},
        "machine": machine_record(torch.device("cpu")),
    }
    known, dense_correct, earlier = _known(out, about)
    about |= {"earlier_machines": earlier} if earlier else {}
    front = Front(dense, measured.points, sets, config, known)
    if dense_correct is None:
        dense_correct = front.dense_correct()
    done: list[FrontPoint] = []
    for point in front.points():
        done.append(point)
        # What an earlier run measured stays in the file until it has been come by again.
        come_by = {(p.way, p.goal, p.goal_bytes) for p in done}
        rest = [p for p in known if (p.way, p.goal, p.goal_bytes) not in come_by]
        save_front(out, [*done, *rest], dense_correct, front.dense_bytes, about)
        size = f"{point.packed_bytes / 1024:.0f} KiB"
        typer.echo(f"{point.way}, {size}: {point.accuracy:.2%}", err=True)
    show(prediction_error(done, dense_correct), json_output)


def _known(out: Path, about: dict) -> tuple[list[FrontPoint], int | None, list[dict]]:
    """The points of an earlier run, the dense model's answers, and on what they were measured
    where that is not this machine at this commit."""
    if not out.is_file():
        return [], None, []
    points, content = load_front(out)
    other = any(content.get(key) != about[key] for key in ("weights", "config"))
    other |= content.get("images", about["images"]) != about["images"]
    if other or content.get("settings", {}).get("content") != about["settings"]["content"]:
        raise InputError(f"{out.name} must hold the same run or not exist, got another run's.")
    machines = [*content.get("earlier_machines", []), content["machine"]]
    earlier = [machine for machine in machines if machine != about["machine"]]
    return points, content["dense_correct"], earlier
