"""An allocation whose packed file truly takes at most the bytes that were asked for.

A table predicts sizes from entropies, which is a few percent off. The file itself is made here, and
the aim moved by what it was off, until the budget holds and is used. Layers do not depend on each
other: what one takes at a setting is found once.
"""

from collections.abc import Callable

from torch import nn

from compression.allocation import Allocation, LayerSetting
from compression.inputs import InputError, real, size_text
from compression.masks import magnitude_mask
from compression.packing import LayerPart, joined, layer_part
from compression.quantization import quantize_layer
from compression.resnet9 import ResNet9, prunable_layers

_ROUNDS = 12
_USED = 0.99  # of the budget: near enough


def fit(
    model: nn.Module,
    max_bytes: float,
    make: Callable[[float], Allocation],
    *,
    overhead: int = 0,
    sizes: "FileSizes | None" = None,
) -> tuple[Allocation, int]:
    """The allocation of the largest packed file found within `max_bytes`, and that file's bytes.

    make: bytes to aim at -> an allocation that is predicted to take at most so many, such as
    `allocate` gives; it raises InputError where it cannot aim so low. overhead: bytes of the file's
    name and steps (`description_bytes`), part of the budget; sizes: those of `model` that are known
    from before. Raises InputError where even the smallest file is too large.
    """
    sizes = sizes or FileSizes(model)
    budget = aim = real("max_bytes", max_bytes, 1, 2**40, "bytes")
    best: tuple[Allocation, int] | None = None
    tried: Allocation | None = None
    size, smallest = 0, 2**62
    for _ in range(_ROUNDS):
        try:
            found = make(aim)
        except InputError:
            if tried is None:
                raise
            break
        if found == tried:  # the aim moved too little for another one
            if size <= budget:
                break
            aim *= _USED
            continue
        tried, size = found, sizes.bytes_of(found) + overhead
        smallest = min(smallest, size)
        if size <= budget and (best is None or size > best[1]):
            best = found, size
        if _USED * budget <= size <= budget:
            break
        aim *= (budget if size > budget else (1 + _USED) / 2 * budget) / size
    if best is None:
        raise InputError(
            f"max_bytes must be within reach of this model, whose smallest file so made takes "
            f"{size_text(smallest)}, got {size_text(budget)}."
        )
    return best


class FileSizes:
    """What the packed file of a model takes, pruned and quantized by one allocation or another."""

    def __init__(self, model: nn.Module) -> None:
        if not isinstance(model, ResNet9):
            raise InputError(f"model must be a ResNet9 of a preset, got {type(model).__name__}.")
        self._model = model
        self._parts: dict[tuple[str, LayerSetting], LayerPart] = {}

    def bytes_of(self, found: Allocation) -> int:
        """The bytes of the file, without a name and steps."""
        layers = prunable_layers(self._model)
        return len(joined(self._model, {name: self._part(name, found) for name in layers}))

    def _part(self, name: str, found: Allocation) -> LayerPart:
        setting = found.layers[name]
        if (name, setting) not in self._parts:
            weight = prunable_layers(self._model)[name].weight.detach()
            mask = magnitude_mask(weight, setting.sparsity)
            cut, layer = weight.masked_fill(~mask, 0.0), None
            if setting.bits is not None:
                layer = quantize_layer(name, cut, setting.bits, mask)
                cut = layer.weight()
            self._parts[name, setting] = layer_part(name, cut, layer).hollow()
        return self._parts[name, setting]


def packed_bytes(model: nn.Module, found: Allocation, *, overhead: int = 0) -> int:
    """What the packed file of `model`, pruned and quantized by an allocation, takes, with
    `overhead` bytes for its name and steps."""
    return FileSizes(model).bytes_of(found) + overhead
