"""`python -m compression allocate`: a sparsity and a bit width for each layer, for a goal."""

from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from compression.allocation import allocate
from compression.allocation_records import RecordedSettings, load_settings, save_settings
from compression.allocation_scan import SettingPoint, scan_settings
from compression.allocation_table import setting_table
from compression.budget_fit import fit, packed_bytes
from compression.cli.common import (
    DataOption,
    ImagesOption,
    JsonOption,
    SettingsOption,
    SourceOption,
    exact,
    progress_bar,
    settings_target,
    show,
)
from compression.data import load_cifar10
from compression.files import as_argument, without_folders
from compression.hardware import machine_record
from compression.inputs import InputError, real, whole
from compression.scan_cache import content_digest, weights_digest
from compression.stored import load_stored


def allocate_command(
    checkpoint: Annotated[str, typer.Argument(help="A shipped name, or a safetensors file.")],
    max_kib: Annotated[
        float | None, typer.Option(help="Goal: a file of at most so many KiB.")
    ] = None,
    max_drop: Annotated[
        float | None, typer.Option(help="Goal: lose at most so many points.")
    ] = None,
    settings: SettingsOption = None,
    images: ImagesOption = 512,
    source: SourceOption = "auto",
    data: DataOption = None,
    json_output: JsonOption = False,
) -> None:
    """Measure what each setting of each layer costs, and spread sparsity and bits by it."""
    if (max_kib is None) == (max_drop is None):
        raise InputError("One goal must be given, --max-kib or --max-drop, got both or neither.")
    if max_kib is not None:
        max_kib = real("max_kib", max_kib, 1, 2**20, "KiB")
        goal = f"--max-kib {exact(max_kib)}"
    else:
        max_drop = real("max_drop", max_drop, 0, 100, "points")
        goal = f"--max-drop {exact(max_drop)}"
        max_drop /= 100
    settings = settings_target(settings)
    command = f"python -m compression allocate {as_argument(checkpoint)} {goal} "
    command += f"--settings {as_argument(settings)} " if settings else ""
    command += f"--images {images} --source {load_cifar10('validation', source, data).source}"
    points = measured_settings(checkpoint, settings, images, source, data, command).points
    model = load_stored(checkpoint).model
    table = setting_table(model, points)
    if max_kib is not None:
        found, size = fit(model, 1024 * max_kib, lambda aim: allocate(table, max_bytes=aim))
    else:
        found = allocate(table, max_drop=max_drop)
        size = packed_bytes(model, found)
    result: dict[str, Any] = {
        "packed_bytes": size,
        "predicted_accuracy": table.dense_accuracy - found.predicted_drop,
        "dense_accuracy": table.dense_accuracy,
    }
    if json_output:
        result |= {"sparsities": found.sparsities, "bits": found.bits}
    else:
        measured = f"{points[0].total:,} validation images that the settings were measured on"
        result["both_accuracies"] = f"of the {measured}"
        for name, setting in found.layers.items():
            bits = "float32" if setting.bits is None else f"{setting.bits} bits"
            result[name] = f"{setting.sparsity:.0%} zeros, {bits}"
    show(result, json_output)


def measured_settings(
    checkpoint: str, kept: Path | None, count: int, source: str, data: Path | None, command: str
) -> RecordedSettings:
    """The measurements: those of the file, or, where it is not there yet, made now and kept in it,
    as what `command` made.

    Raises InputError for a file of another model's.
    """
    model = load_stored(checkpoint).model
    if kept is not None and kept.is_file():
        recorded = load_settings(kept)
        if recorded.weights != weights_digest(model):
            raise InputError(
                f"{kept.name} must hold settings measured on the weights of {checkpoint}, got "
                "those of others: name another file."
            )
        return recorded
    validation = load_cifar10("validation", source, data)
    validation = validation.head(whole("images", count, 50, len(validation)))
    pair = (validation.images, validation.labels)
    points: list[SettingPoint] = []
    with progress_bar() as bar:
        task = bar.add_task("Measuring", total=None)
        for point in scan_settings(model, *pair):
            points.append(point)
            bar.update(task, completed=len(points), description=f"Measuring {point.layer}")
    machine = machine_record(torch.device("cpu"))
    about = {"model": without_folders(checkpoint), "command": command, "machine": machine}
    if kept is not None:
        save_settings(kept, model, *pair, points, about)
    return RecordedSettings(content_digest(model, *pair), weights_digest(model), points, about)
