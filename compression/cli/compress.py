"""`python -m compression prune | quantize`: make a smaller model and write it as a checkpoint."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from compression.centroids import CentroidConfig, CentroidEpoch, train_centroids
from compression.cli.common import (
    DataOption,
    JsonOption,
    SourceOption,
    checkpoint_target,
    epoch_line,
    parse_pairs,
    progress_bar,
    show,
)
from compression.code_training import CODE_TRAINING, train_codes
from compression.compensation import quantize_compensated
from compression.data import load_cifar10
from compression.entropy_quantization import fit_entropy
from compression.inputs import InputError, count, real, whole
from compression.model import Checkpoint, ResNet9, load_checkpoint, prunable_layers, save_checkpoint
from compression.packing import description_bytes
from compression.pruning import prune, with_model, with_present_zeros
from compression.quantization import quantize
from compression.recalibration import recalibrate_batch_norm
from compression.report import row_of, variant_of
from compression.stored import load_stored, steps_of
from compression.training import FINE_TUNE, fine_tune
from compression.unfolding import unfold_batch_norm

CheckpointArgument = Annotated[
    str, typer.Argument(help="A shipped name such as resnet9-s/baseline, or a safetensors file.")
]
OutArgument = Annotated[Path, typer.Argument(help="The checkpoint to write, NAME.safetensors.")]


def prune_command(
    checkpoint: CheckpointArgument,
    out: OutArgument,
    sparsity: Annotated[
        float | None, typer.Option(help="Fraction of zeros in every layer, 0 to 1.")
    ] = None,
    layer: Annotated[
        list[str] | None, typer.Option(help="LAYER=SPARSITY, for one layer; may be repeated.")
    ] = None,
    recalibrate: Annotated[
        bool, typer.Option(help="Re-estimate batch norm on training images.")
    ] = False,
    fine_tune_epochs: Annotated[int, typer.Option(help="Epochs with the zeros held.")] = 0,
    seed: Annotated[int, typer.Option(help="Of the fine-tuning.")] = 0,
    source: SourceOption = "auto",
    data: DataOption = None,
    json_output: JsonOption = False,
) -> None:
    """Prune by magnitude; choices on validation images, the result measured on test images.

    Weights that are zero already stay so.
    """
    out = checkpoint_target(out)
    before = load_checkpoint(checkpoint)
    epochs = whole("fine_tune_epochs", fine_tune_epochs, 0, 1000)
    train_set = load_cifar10("train", source, data)
    dense = unfold_batch_norm(before.model, train_set.images)
    pruned = prune(dense, with_present_zeros(dense, _sparsities(before, sparsity, layer)))
    steps = [
        *_steps_of(before),
        f"pruned to {pruned.sparsity:.1%} zeros",
    ]
    if recalibrate:
        pruned = with_model(pruned, recalibrate_batch_norm(pruned.model, train_set.images))
        steps.append("batch norm recalibrated")
    if epochs:
        config = dataclasses.replace(FINE_TUNE, epochs=epochs, seed=seed)
        validation_set = load_cifar10("validation", source, data)
        best = None
        with progress_bar() as bar:
            task = bar.add_task("Fine-tuning", total=epochs)
            for best in fine_tune(
                pruned.model, train_set, validation_set, config, masks=pruned.masks
            ):
                bar.update(task, completed=best.epoch, description=epoch_line(best))
        assert best is not None
        pruned = with_model(pruned, best.best_model)
        steps.append(f"fine-tuned {count(epochs, 'epoch')}, best of them {best.best_epoch}")
    extra = {"sparsity": {entry.name: entry.sparsity for entry in pruned.layers}}
    _finish(pruned.model, out, before, steps, extra, source, data, json_output)


def _sparsities(
    checkpoint: Checkpoint, common: float | None, pairs: list[str] | None
) -> dict[str, float]:
    known = prunable_layers(checkpoint.model)
    sparsities = {}
    if common is not None:
        sparsities = dict.fromkeys(known, real("sparsity", common, 0, 1))
    sparsities |= parse_pairs("layer", pairs or [])
    if not sparsities:
        raise InputError("--sparsity or --layer must say what to prune, got neither.")
    return sparsities


def quantize_command(
    checkpoint: CheckpointArgument,
    out: OutArgument,
    bits: Annotated[
        int | None, typer.Option(help="Bits for each weight, 1 to 8; 8 where nothing is said.")
    ] = None,
    layer: Annotated[
        list[str] | None, typer.Option(help="LAYER=BITS, for one layer; may be repeated.")
    ] = None,
    max_kib: Annotated[
        float | None,
        typer.Option(
            help="In place of bits: the most that the packed file may take, in KiB. Zeros, levels "
            "and codes are chosen for it, on 512 training images or as many as compensate says."
        ),
    ] = None,
    compensate: Annotated[
        int,
        typer.Option(
            help="Training images by which rounding errors make up for each other; each takes up "
            "to 1 MB of memory with resnet9."
        ),
    ] = 0,
    recalibrate: Annotated[
        bool, typer.Option(help="Re-estimate batch norm on training images.")
    ] = False,
    train_epochs: Annotated[int, typer.Option(help="Epochs of centroid training.")] = 0,
    train_codes_too: Annotated[
        bool, typer.Option("--train-codes", help="Weights may change their centroid in those.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of the training.")] = 0,
    source: SourceOption = "auto",
    data: DataOption = None,
    json_output: JsonOption = False,
) -> None:
    """Quantize by k-means, or for a size; a pruned checkpoint keeps its zeros."""
    out = checkpoint_target(out)
    before = load_checkpoint(checkpoint)
    epochs = whole("train_epochs", train_epochs, 0, 1000)
    layers = prunable_layers(before.model)
    if max_kib is not None and (layer or bits is not None):
        raise InputError("Either --max-kib, or --bits and --layer, can be given, got both.")
    if max_kib is not None and train_codes_too:
        raise InputError(
            "--train-codes must go without --max-kib, which it would not keep: shrink "
            "learns for a size."
        )
    if train_codes_too and not epochs:
        raise InputError("--train-codes must have --train-epochs above 0, got none.")
    bits = whole("bits", 8 if bits is None else bits, 1, 8)
    widths: dict[str, Any] = dict.fromkeys(layers, bits) | parse_pairs("layer", layer or [])
    masks = {
        name: module.weight != 0
        for name, module in layers.items()
        if bool((module.weight == 0).any())
    }
    train_set = load_cifar10("train", source, data)
    compensate = whole("compensate", compensate, 0, len(train_set), "images")
    images = train_set.images[: compensate or 512]
    dense = unfold_batch_norm(before.model, train_set.images)
    if max_kib is not None:
        budget = 1024 * real("max_kib", max_kib, 1, 2**20, "KiB")
        label, mended = f"quantized for {max_kib:g} KiB", len(images)
        longest = _quantize_steps(label, mended, recalibrate, epochs, 0)
        overhead = description_bytes(out.stem, [*_steps_of(before), *longest])
        quantized = fit_entropy(dense, budget, images, masks, overhead=overhead)
    else:
        uniform = set(widths.values()) == {bits}
        label = f"k-means quantized to {f'{bits} bits' if uniform else 'mixed bits'}"
        mended = compensate
        if compensate:
            quantized = quantize_compensated(dense, widths, images, masks)
        else:
            quantized = quantize(dense, widths, masks)
    widths = {name: entry.bits for name, entry in quantized.layers.items()}
    best_epoch = 0
    if recalibrate:
        model = recalibrate_batch_norm(quantized.model, train_set.images)
        quantized = dataclasses.replace(quantized, model=model)
    if epochs:
        sets = (train_set, load_cifar10("validation", source, data))
        results: Iterator[CentroidEpoch]
        if train_codes_too:
            codes = dataclasses.replace(CODE_TRAINING, epochs=epochs, seed=seed)
            results = train_codes(quantized, before.model, *sets, codes)
        else:
            centroids = CentroidConfig(epochs=epochs, seed=seed)
            results = train_centroids(quantized, *sets, centroids)
        last = None
        with progress_bar() as bar:
            task = bar.add_task("Training the centroids", total=epochs)
            for last in results:
                bar.update(task, completed=last.epoch, description=epoch_line(last))
        assert last is not None
        quantized, best_epoch = last.best, last.best_epoch
    done = _quantize_steps(label, mended, recalibrate, epochs, best_epoch, codes=train_codes_too)
    steps = [*_steps_of(before), *done]
    extra: dict[str, Any] = {"bits": widths}
    if max_kib is not None:
        weights = {name: entry.weight() for name, entry in quantized.layers.items()}
        extra["sparsity"] = {n: float((w == 0).double().mean()) for n, w in weights.items()}
    _finish(quantized.model, out, before, steps, extra, source, data, json_output)


def _quantize_steps(
    label: str,
    mended: int,
    recalibrated: bool,
    epochs: int,
    best_epoch: int,
    *,
    codes: bool = False,
) -> list[str]:
    """What `quantize` did, in words: label, images that errors were made up for on, and so on."""
    steps = [label]
    if mended:
        steps.append(f"rounding errors made up for on {mended} training images")
    if recalibrated:
        steps.append("batch norm recalibrated")
    if epochs:
        kept = f"epoch {best_epoch}" if best_epoch else "the start"
        trained = "codes and centroids" if codes else "centroids"
        steps.append(f"{trained} trained {count(epochs, 'epoch')}, kept: {kept}")
    return steps


def _steps_of(checkpoint: Checkpoint) -> list[str]:
    return list(steps_of(checkpoint.metadata.get("steps")))


def _finish(
    model: Any,
    out: Path,
    before: Checkpoint,
    steps: list[str],
    extra: dict[str, Any],
    source: str,
    data: Path | None,
    json_output: bool,
) -> None:
    """Write the checkpoint and show what it is worth on the test images."""
    assert isinstance(model, ResNet9)
    kept = {key: before.metadata[key] for key in ("sparsity", "bits") if key in before.metadata}
    metadata = kept | extra | {"steps": steps}
    save_checkpoint(model, out, metadata)
    test_set = load_cifar10("test", source, data)
    variant = variant_of(load_stored(out), test_set)
    show({"checkpoint": str(out)} | row_of(variant), json_output)
