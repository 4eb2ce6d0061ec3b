"""A model out of a file, whichever kind it is: a checkpoint by name or path, or a packed model."""

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from compression.checkpoint import Checkpoint, file_of, load_checkpoint, packed_names
from compression.packing import is_packed, load_packed_parts
from compression.presets import SHIPPED
from compression.quantization import QuantizedLayer, QuantizedModel, quantized_layer_of
from compression.resnet9 import ResNet9, prunable_layers
from compression.unfolding import unfold_batch_norm

_STEPS, _LENGTH = 60, 160  # of a file's steps, and of each


@dataclass(frozen=True)
class StoredModel:
    """A model with its quantized layers and masks, and what its file says of how it came about.

    name: the file's, without its ending; steps: in words; file_bytes: what the packed file takes
    that it came out of, None for another model.
    """

    name: str
    steps: tuple[str, ...]
    parts: QuantizedModel
    file_bytes: int | None = None

    @property
    def layers(self) -> dict[str, QuantizedLayer]:
        """The quantized layers."""
        return self.parts.layers

    @property
    def model(self) -> ResNet9:
        """The network, in eval mode."""
        assert isinstance(self.parts.model, ResNet9)
        return self.parts.model

    def unfolded(self, images: Tensor) -> "StoredModel":
        """The same to be changed, as `unfold_batch_norm` gives it on (N, 32, 32, 3) training
        images; itself where batch norm is not folded."""
        model = unfold_batch_norm(self.model, images)
        if model is self.model:
            return self
        parts = dataclasses.replace(self.parts, model=model)
        return dataclasses.replace(self, parts=parts, file_bytes=None)


def load_stored(name_or_path: str | os.PathLike[str]) -> StoredModel:
    """A shipped name (`resnet9-s/baseline`, `packed/resnet9-60x`), a checkpoint file, or a packed
    file; the two told apart by their content.

    Raises InputError as `load_checkpoint` and `load_packed` do.
    """
    name = Path(name_or_path).stem if isinstance(name_or_path, str | os.PathLike) else ""
    if name and is_packed(path := file_of(name_or_path)):
        parts, about = load_packed_parts(path)
        return StoredModel(name, steps_of(about["recipe"]), parts, path.stat().st_size)
    return of_checkpoint(name, load_checkpoint(name_or_path, names=(*SHIPPED, *packed_names())))


def of_checkpoint(name: str, checkpoint: Checkpoint) -> StoredModel:
    """A checkpoint's zeros are masks, and its metadata names its bits.

    A layer whose metadata claims bits but which has more distinct values than that counts as
    float32.
    """
    layers = prunable_layers(checkpoint.model)
    masks = {layer: kept for layer, module in layers.items() if (kept := _mask(module)) is not None}
    claimed = checkpoint.metadata.get("bits")
    bits = claimed if isinstance(claimed, dict) else {}
    found = {
        layer: quantized_layer_of(layer, layers[layer].weight, width, masks.get(layer))
        for layer, width in bits.items()
        if layer in layers and isinstance(width, int) and 1 <= width <= 8
    }
    quantized = {layer: entry for layer, entry in found.items() if entry}
    for layer, entry in quantized.items():  # -0 to 0, as the codebook has it
        layers[layer].weight.data.copy_(entry.weight())
    parts = QuantizedModel(checkpoint.model, quantized, masks)
    return StoredModel(name, steps_of(checkpoint.metadata.get("steps")), parts)


def _mask(module: nn.Conv2d | nn.Linear) -> Tensor | None:
    """True where a weight is not zero; None for a layer without zeros."""
    kept = module.weight.detach() != 0
    return None if bool(kept.all()) else kept


def steps_of(steps: object) -> tuple[str, ...]:
    """The steps as short texts, whatever a file holds there."""
    given = steps if isinstance(steps, list) and steps else ["as trained"]
    return tuple(str(step)[:_LENGTH] for step in given[:_STEPS])
