"""`python -m compression pack | unpack | inspect`: the compressed file, and its bytes."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from compression.checkpoint import file_of
from compression.cli.common import (
    JsonOption,
    checkpoint_target,
    packed_target,
    show,
)
from compression.inputs import InputError
from compression.model import ResNet9, save_checkpoint
from compression.packing import PackedInfo, inspect_packed, load_packed_parts, save_packed
from compression.quantization import quantize
from compression.stored import StoredModel, load_stored

PackedArgument = Annotated[
    str, typer.Argument(help="A packed file: packed/NAME for a shipped one, or NAME.safetensors.")
]


def pack_command(
    checkpoint: Annotated[
        str, typer.Argument(help="A shipped name, or a checkpoint, pruned and quantized or not.")
    ],
    out: Annotated[Path, typer.Argument(help="The packed file to write, NAME.safetensors.")],
    bits: Annotated[
        int | None, typer.Option(help="Quantize all layers to so many bits first, 1 to 8.")
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Write a model as one small file: codebooks, entropy-coded indices, and all that it needs."""
    out = packed_target(out)
    _check_apart(checkpoint, out)
    stored = load_stored(checkpoint)
    variant, steps = stored.parts, stored.steps
    if bits is not None:
        variant = quantize(variant.model, bits, variant.masks)
        steps = (*steps, f"k-means quantized to {bits} bits")
    _show(save_packed(StoredModel(out.stem, steps, variant), out), json_output)


def unpack_command(
    packed: PackedArgument,
    out: Annotated[Path, typer.Argument(help="The checkpoint to write, NAME.safetensors.")],
    json_output: JsonOption = False,
) -> None:
    """Write a packed model as a plain checkpoint in float32."""
    out = checkpoint_target(out)
    _check_apart(packed, out)
    parts, about = load_packed_parts(file_of(packed))
    widths = {name: layer.bits for name, layer in parts.layers.items()}
    assert isinstance(parts.model, ResNet9)
    save_checkpoint(parts.model, out, {"steps": about["recipe"], "bits": widths})
    show({"checkpoint": str(out), "bytes": out.stat().st_size}, json_output)


def inspect_command(packed: PackedArgument, json_output: JsonOption = False) -> None:
    """Account for each byte of a packed file."""
    _show(inspect_packed(file_of(packed)), json_output)


def _check_apart(given: str, out: Path) -> None:
    """Raise InputError where the file to be written is the one to be read."""
    read = file_of(given)
    if os.path.exists(read) and os.path.exists(out) and os.path.samefile(read, out):
        raise InputError(f"The file to write must be another than {given}, got the same.")


def _show(info: PackedInfo, json_output: bool) -> None:
    if json_output:
        show(asdict(info) | {"parts": info.parts, "ratio": info.ratio}, True)
        return
    over = info.total_bytes / info.bound_bytes - 1
    rows: dict[str, Any] = {
        "model": f"{info.preset} {info.name}".strip(),
        "recipe": "; ".join(info.recipe) or "not given",
        "on disk": f"{info.total_bytes:,} bytes, {info.ratio:.1f} times smaller than float32",
        "above Shannon's bound": f"{over:.2%}",
    }
    show(rows, False)
    typer.echo("\nof which")
    show({f"  {name}": f"{size:,} bytes" for name, size in info.parts.items()}, False)
    typer.echo("\nother ways to store the same model")
    show({f"  {rung.name}": f"{rung.size_bytes:,} bytes" for rung in info.ladder}, False)
    typer.echo("\nlayers")
    for layer in info.layers:
        share = layer.nonzeros / layer.weights
        text = f"{layer.weights:,} weights, {share:.1%} not zero, {layer.bits} bits: "
        show({f"  {layer.name}": f"{text}{layer.total_bytes:,} bytes"}, False)
