"""`python -m compression evaluate | scan | compare`: measure without changing anything."""

import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from compression.cli.common import (
    DataOption,
    JsonOption,
    SourceOption,
    exact,
    parse_numbers,
    progress_bar,
    show,
    target,
)
from compression.data import ImageSet, load_cifar10
from compression.evaluation import (
    Averages,
    ClassReport,
    Evaluation,
    evaluate,
    measure_complexity,
    measure_latency,
)
from compression.files import as_argument, without_folders
from compression.hardware import machine_record
from compression.inputs import InputError, choice, count, real, whole
from compression.model import prunable_layers
from compression.report import row_of, to_csv, to_json, variant_of, with_latency
from compression.scan_records import record_scan, save_scan
from compression.sensitivity import (
    SensitivityPoint,
    dense_point,
    latest,
    scan,
    scan_csv,
    suggest_sparsities,
)
from compression.stored import load_stored

CheckpointArgument = Annotated[
    str,
    typer.Argument(
        help="A shipped name (resnet9-s/baseline, packed/resnet9-60x, ...), or a safetensors file."
    ),
]
ImagesOption = Annotated[
    int | None, typer.Option("--images", help="Only the first so many images.")
]


def evaluate_command(
    checkpoint: CheckpointArgument,
    split: Annotated[str, typer.Option(help="test, validation or train.")] = "test",
    source: SourceOption = "auto",
    data: DataOption = None,
    images: ImagesOption = None,
    json_output: JsonOption = False,
) -> None:
    """Accuracy with its 95 % interval, the per-class report, MACs and parameters."""
    model = load_stored(checkpoint).model
    seen = _images(split, source, data, images)
    found = evaluate(model, seen.images, seen.labels)
    cost = asdict(measure_complexity(model))
    if not json_output:
        return show(_in_words(found) | cost | _classes_in_words(found), False)
    result: dict[str, Any] = {
        "accuracy": found.accuracy,
        "interval": [found.low, found.high],
        "correct": found.correct,
        "images": found.total,
        "loss": found.loss,
        "macro": asdict(found.macro),
        "weighted": asdict(found.weighted),
        "inference_seconds": round(found.inference_seconds, 3),
        **cost,
        "classes": [asdict(report) for report in found.per_class],
        "confusion": found.confusion.tolist(),
    }
    show(result, True)


def scan_command(
    checkpoint: CheckpointArgument,
    levels: Annotated[
        str, typer.Option(help="Sparsities from 0 to 1, separated by commas.")
    ] = "0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9",
    layers: Annotated[str, typer.Option(help="Layers by name, by commas; all where empty.")] = "",
    precision: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = "auto",
    max_drop: Annotated[float, typer.Option(help="Tolerated drop in points, for the hint.")] = 1.0,
    out: Annotated[Path | None, typer.Option(help="Write the points to a .csv or .json.")] = None,
    source: SourceOption = "auto",
    data: DataOption = None,
    images: ImagesOption = 1000,
    json_output: JsonOption = False,
) -> None:
    """Prune one layer at a time and measure; on validation images."""
    model = load_stored(checkpoint).model
    known = prunable_layers(model)
    named = [layer.strip() for layer in layers.split(",") if layer.strip()]
    chosen = [choice("layer", layer, known) for layer in named] or list(known)
    fractions = parse_numbers("levels", levels)
    max_drop = real("max_drop", max_drop, 0, 100, "points")
    if out is not None:
        choice("suffix of out", out.suffix, (".csv", ".json"))
        out = target(out)
    seen = _images("validation", source, data, images)
    pixels, labels = seen.images, seen.labels
    dense = dense_point(model, pixels, labels, precision=precision)
    found: list[SensitivityPoint] = []
    with progress_bar() as bar:
        task = bar.add_task("Scanning", total=len(chosen) * len(fractions))
        for point in scan(
            model, pixels, labels, levels=fractions, layers=chosen, precision=precision
        ):
            found.append(point)
            bar.update(task, completed=len(found), description=f"Scanning {point.layer}")
    points = latest(found)
    if out is not None and out.suffix == ".csv":
        out.write_text(scan_csv(points))
    elif out is not None:
        command = f"python -m compression scan {as_argument(checkpoint)} --images {len(labels)}"
        command += f" --levels {','.join(map(exact, fractions))}"
        command += f" --layers {','.join(chosen)}" if named else ""
        command += f" --source {seen.source} --precision {precision} --out {as_argument(out)}"
        about = {
            "model": without_folders(checkpoint),
            "command": command,
            "machine": machine_record(torch.device("cpu")),
        }
        recorded = record_scan(
            model, pixels, labels, points, dense, precision=precision, about=about
        )
        save_scan(out, recorded)
    result: dict[str, Any] = {
        "dense_accuracy": dense.accuracy,
        "images": dense.total,
        "suggested": suggest_sparsities(points, dense.accuracy, max_drop / 100),
    }
    if json_output:
        result["points"] = [asdict(point) for point in points]
    else:
        result["points"] = f"{len(points)}, in {out}" if out else f"{len(points)} (see --json)"
    show(result, json_output)


def compare_command(
    checkpoints: Annotated[list[str], typer.Argument(help="Shipped names or safetensors files.")],
    latency: Annotated[bool, typer.Option(help="Time them too, in turn.")] = False,
    csv_output: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    source: SourceOption = "auto",
    data: DataOption = None,
    images: ImagesOption = None,
    json_output: JsonOption = False,
) -> None:
    """Accuracy, sizes, MACs and latency of several models on the same test images."""
    if csv_output and json_output:
        raise InputError("Either --csv or --json can be given, got both.")
    test_set = load_cifar10("test", source, data)
    if images is not None:
        test_set = test_set.head(whole("images", images, 1, len(test_set)))
    variants = []
    with progress_bar() as bar:
        task = bar.add_task("Measuring", total=len(checkpoints))
        for name in checkpoints:
            variants.append(variant_of(load_stored(name), test_set))
            bar.advance(task)
    shared = {v.name for v in variants if sum(o.name == v.name for o in variants) > 1}
    variants = [  # by what was given, where that alone tells two from each other
        replace(variant, name=given) if variant.name in shared else variant
        for variant, given in zip(variants, checkpoints, strict=True)
    ]
    if latency:
        models = {str(k): variant.model for k, variant in enumerate(variants)}
        times = measure_latency(models)
        variants = [with_latency(variant, times[str(k)]) for k, variant in enumerate(variants)]
    if json_output:
        typer.echo(to_json(variants))
    elif csv_output:
        sys.stdout.write(to_csv(variants))
    else:
        for variant in variants:
            show(row_of(variant), False)
            typer.echo("")


def _in_words(found: Evaluation) -> dict[str, Any]:
    """The figures of all classes together, accuracies in percent."""
    return {
        "accuracy": f"{found.accuracy:.2%}",
        "95 % interval": f"{found.low:.2%} to {found.high:.2%}",
        "correct": f"{found.correct:,} of {found.total:,} images",
        "loss": f"{found.loss:.4f}",
        "macro": _averages(found.macro),
        "weighted": _averages(found.weighted),
        "inference_seconds": round(found.inference_seconds, 3),
    }


def _classes_in_words(found: Evaluation) -> dict[str, str]:
    return {
        report.name: f"{_averages(report)}, {count(report.support, 'image')}"
        for report in found.per_class
    }


def _averages(of: Averages | ClassReport) -> str:
    return f"precision {of.precision:.2%}, recall {of.recall:.2%}, F1 {of.f1:.2%}"


def _images(split: str, source: str, data: Path | None, images: int | None) -> ImageSet:
    """The images of a split, cut to the first so many where asked for."""
    found: ImageSet = load_cifar10(split, source, data)  # pyright: ignore[reportArgumentType]
    if images is not None:
        found = found.head(whole("images", images, 1, len(found)))
    return found
