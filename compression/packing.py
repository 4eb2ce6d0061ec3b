"""The compressed model as one file whose bytes are counted on disk, and back to the same network.

For each layer the file holds its codebook and its index, entropy-coded (`packing_codes.py`); a
layer that is not quantized keeps its float32 values, with an index of zeros where it is pruned.
Loading gives weights bit for bit; biases and batch norm come in half precision, for which see
`packing_vectors.py`. The container, its checksum and its limits are in
`packing_file.py`, the checks of a user's file in `packing_reader.py`, other ways to store a layer
in `packing_ladder.py`.
"""

import json
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from compression.files import at_home, replacing
from compression.inputs import InputError
from compression.packing_codes import encode
from compression.packing_file import (
    PackedFormatError,
    Tensors,
    container_of,
    is_packed,
)
from compression.packing_info import PackedInfo, PackedLayer, describe
from compression.packing_reader import FLOAT, SEEN_AS, VECTORS, PackedFile
from compression.packing_vectors import set_vectors_, vector_count, vectors_of
from compression.quantization import QuantizedLayer, QuantizedModel
from compression.resnet9 import ResNet9, build_model, count_parameters, prunable_layers

__all__ = [
    "PackedFormatError",
    "PackedInfo",
    "PackedLayer",
    "description_bytes",
    "inspect_packed",
    "is_packed",
    "load_packed",
    "load_packed_parts",
    "pack",
    "save_packed",
]


class Packable(Protocol):
    """What has a ResNet-9 and may have quantized layers: a Variant, a QuantizedModel."""

    @property
    def model(self) -> nn.Module: ...


def save_packed(variant: Packable, path: str | os.PathLike[str]) -> PackedInfo:
    """Write `pack(variant)` as a file; returns the account of all its bytes."""
    with replacing(at_home(path)) as beside:
        beside.write_bytes(pack(variant))
    return inspect_packed(path)


def pack(variant: Packable) -> bytes:
    """The packed file of a Variant, a QuantizedModel or a PrunedModel; twice gives the same bytes.

    Its `layers` say which layers are quantized, its `name` and `steps` go into the metadata, where
    it has them. Raises InputError for a network that is no ResNet9 of a preset, for weights that
    are not those of their codebooks, for codebooks that do not ascend, and for values that are not
    finite.
    """
    model, layers = variant.model, getattr(variant, "layers", {})
    if not isinstance(model, ResNet9):
        raise InputError(f"model must be a ResNet9 of a preset, got {type(model).__name__}.")
    quantized: dict[str, QuantizedLayer] = layers if isinstance(layers, dict) else {}
    parts = {
        name: layer_part(name, module.weight, quantized.get(name))
        for name, module in prunable_layers(model).items()
    }
    return joined(model, parts, getattr(variant, "name", ""), getattr(variant, "steps", ()))


@dataclass(frozen=True)
class LayerPart:
    """What a packed file holds of one layer: its tensors, and its line in the metadata."""

    tensors: Tensors
    described: tuple[int | None, int | None]

    def hollow(self) -> "LayerPart":
        """The same with zeros for its bytes, made where they are read: to be counted, not kept."""
        tensors = {n: np.broadcast_to(t.dtype.type(0), t.shape) for n, t in self.tensors.items()}
        return LayerPart(tensors, self.described)


def layer_part(name: str, weight: Tensor, layer: QuantizedLayer | None) -> LayerPart:
    """A layer as `pack` stores it; layer: its codebook and codes, None for a float32 one."""
    weight = weight.detach().cpu()
    if layer is None:
        return LayerPart(_float_tensors(name, weight), (FLOAT, None))
    return LayerPart(_quantized_tensors(layer, weight), (layer.bits, layer.zero_code))


def joined(
    model: ResNet9, parts: Mapping[str, LayerPart], name: object = "", steps: Sequence[object] = ()
) -> bytes:
    """The packed file of all the layers' parts and the model's biases and batch norm."""
    tensors: Tensors = {VECTORS: vectors_of(model)}
    for part in parts.values():
        tensors |= part.tensors
    about = {
        "preset": model.preset,
        **SEEN_AS,
        "name": str(name),
        "recipe": [str(step) for step in steps],
        "layers": {layer: list(part.described) for layer, part in parts.items()},
    }
    return container_of(about, tensors)


def description_bytes(name: str, steps: Sequence[str]) -> int:
    """At most how many bytes a name and steps add to a packed file."""

    def length(name: str, steps: Sequence[str]) -> int:
        described = {"name": name, "recipe": list(steps)}
        return len(json.dumps(json.dumps(described, separators=(",", ":"))))  # text within a text

    return length(name, steps) - length("", []) + 8  # to the next multiple of 8


def load_packed(path: str | os.PathLike[str]) -> ResNet9:
    """The network of a packed file, in eval mode, with float32 weights; as `load_checkpoint` does.

    Before its weights are changed, `unfold_batch_norm` should take its batch norm apart. Raises
    PackedFormatError, one sentence, for a file that is no sound packed model of this version;
    memory is taken for the network, and for two copies of a file that may be no larger than its
    preset justifies.
    """
    return load_packed_parts(path)[0].model  # pyright: ignore[reportReturnType]


def load_packed_parts(path: str | os.PathLike[str]) -> tuple[QuantizedModel, dict[str, Any]]:
    """The network with its quantized layers and masks (where it has zeros, which are taken for
    pruned weights), and the metadata."""
    file = PackedFile(at_home(path))
    model = build_model(file.preset)
    file.check_parts(prunable_layers(model))
    layers: dict[str, QuantizedLayer] = {}
    masks: dict[str, Tensor] = {}
    for name, module in prunable_layers(model).items():
        weight, quantized = file.layer(name, tuple(module.weight.shape))
        if (weight == 0).any():
            masks[name] = weight != 0
        if quantized is not None:
            layers[name] = _with_zero_code(quantized) if name in masks else quantized
        module.weight.data = weight
    set_vectors_(model, file.vectors(vector_count(model)))
    return QuantizedModel(model.eval(), layers, masks), file.about


def inspect_packed(path: str | os.PathLike[str]) -> PackedInfo:
    """Account for each byte of a packed file; raises PackedFormatError as `load_packed` does."""
    file = PackedFile(at_home(path))
    model = build_model(file.preset)
    file.check_parts(prunable_layers(model))
    found: list[PackedLayer] = []
    gzip = zlib.compressobj(wbits=31)
    gzipped = len(gzip.compress(file.vectors(vector_count(model)).float().numpy().tobytes()))
    for name, module in prunable_layers(model).items():
        shape = tuple(module.weight.shape)
        found.append(file.account(name, shape))
        gzipped += len(gzip.compress(file.layer(name, shape)[0].numpy().tobytes()))
    gzipped += len(gzip.flush())
    statistics = sum(b.numel() for b in model.buffers() if b.is_floating_point())
    return describe(
        file.about,
        total_bytes=file.size,
        layers=tuple(found),
        vector_bytes=file.tensors[VECTORS].nbytes,
        full_vector_bytes=4 * (vector_count(model) + statistics),
        parameters=count_parameters(model),
        gzip_bytes=gzipped,
    )


def _with_zero_code(layer: QuantizedLayer) -> QuantizedLayer:
    """The layer, one of whose values is zero, with that one's code as the zero code."""
    if layer.zero_code is not None:
        return layer
    return replace(layer, zero_code=int((layer.codebook == 0).nonzero()))


def _quantized_tensors(layer: QuantizedLayer, weight: Tensor) -> Tensors:
    codes, codebook = layer.indices.cpu(), layer.codebook.detach().cpu().float()
    if bool((codebook.diff() <= 0).any()) or not bool(torch.isfinite(codebook).all()):
        raise InputError(f"centroids of {layer.name} must be finite and ascend, got others.")
    if not torch.equal(_bits(codebook[codes.long()]), _bits(weight)):
        raise InputError(f"weights of {layer.name} must be those of its codebook, got others.")
    index = encode(codes.flatten().numpy().astype(np.int32), len(codebook))
    return {
        f"{layer.name}.codebook": _narrowest(codebook),
        f"{layer.name}.index": index.joined(),
    }


def _float_tensors(name: str, weight: Tensor) -> Tensors:
    """All values, or the kept ones and an index of 0 (a zero) and 1 (a value)."""
    flat = weight.flatten().contiguous()
    if not bool(torch.isfinite(flat).all()):
        raise InputError(f"weights of {name} must be finite, got NaN or infinity.")
    kept = _bits(flat) != 0  # -0 is a value, so that every bit comes back
    if bool(kept.all()):
        return {f"{name}.values": flat.numpy()}
    index = encode(kept.numpy().astype(np.int32), 2)
    return {f"{name}.values": flat[kept].numpy(), f"{name}.index": index.joined()}


def _bits(values: Tensor) -> Tensor:
    return values.contiguous().view(torch.int32)


def _narrowest(values: Tensor) -> np.ndarray:
    """As float16 where that holds each value exactly, else as float32."""
    half = values.half()
    return (half if torch.equal(half.float(), values) else values).numpy()
