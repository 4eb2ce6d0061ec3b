"""What an allocation is measured against: the usual ways to spread a sparsity over the layers.

Each is brought to the same bytes by bisection of its one number: one sparsity for all layers, one
threshold of magnitude for all weights, or sparsities drawn at random and moved up or down together.
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import nn

from compression.allocation import Allocation, described
from compression.allocation_table import SettingTable
from compression.inputs import InputError, size_text
from compression.resnet9 import prunable_layers

_ROUNDS = 12  # of bisection: finer than the tables' steps of a percent


def uniform_allocation(table: SettingTable, max_bytes: float, bits: int) -> Allocation:
    """One sparsity in every layer, at `bits` (32: float32)."""
    names = [layer.name for layer in table.layers]
    return _at_size(table, max_bytes, bits, lambda x: dict.fromkeys(names, x))


def global_allocation(
    table: SettingTable, model: nn.Module, max_bytes: float, bits: int
) -> Allocation:
    """The smallest weights of the whole network go, whatever their layer."""
    magnitudes = {
        name: module.weight.detach().abs().flatten().cpu().sort().values
        for name, module in prunable_layers(model).items()
    }
    every = torch.cat(list(magnitudes.values())).sort().values

    def sparsities(share: float) -> dict[str, float]:
        threshold = every[min(len(every) - 1, int(share * len(every)))]
        return {
            name: int(torch.searchsorted(values, threshold)) / len(values)
            for name, values in magnitudes.items()
        }

    return _at_size(table, max_bytes, bits, sparsities)


def random_allocation(table: SettingTable, max_bytes: float, bits: int, seed: int) -> Allocation:
    """Sparsities uniform in 0..1, then all moved by the same amount."""
    generator = np.random.default_rng(seed)
    drawn = {layer.name: float(generator.random()) for layer in table.layers}
    return _at_size(
        table,
        max_bytes,
        bits,
        lambda x: {name: float(np.clip(at + 2 * x - 1, 0, 1)) for name, at in drawn.items()},
    )


def _at_size(
    table: SettingTable,
    max_bytes: float,
    bits: int,
    sparsities: Callable[[float], Mapping[str, float]],
) -> Allocation:
    """The largest allocation of the family within `max_bytes`; x in 0..1 rises with sparsity."""
    low, high = 0.0, 1.0
    smallest = _placed(table, bits, sparsities(high))
    if smallest.size_bytes > max_bytes:
        raise InputError(
            f"max_bytes must be at least {size_text(smallest.size_bytes)}, "
            f"got {size_text(max_bytes)}."
        )
    for _ in range(_ROUNDS):
        middle = (low + high) / 2
        fits = _placed(table, bits, sparsities(middle)).size_bytes <= max_bytes
        low, high = (low, middle) if fits else (middle, high)
    return _placed(table, bits, sparsities(high))


def _placed(table: SettingTable, bits: int, wanted: Mapping[str, float]) -> Allocation:
    """The allocation at the table's nearest sparsities."""
    places = []
    for layer in table.layers:
        column = int(np.abs(layer.sparsities - wanted[layer.name]).argmin())
        places.append((layer.bits.index(bits), column))
    return described(table, places)
