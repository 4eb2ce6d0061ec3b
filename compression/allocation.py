"""Which layer gets which sparsity and how many bits: the least damage for the bytes.

For a price of a byte each layer by itself takes the setting of least divergence + price * bytes;
every price gives the best allocation of its size (Everett 1963; Shoham & Gersho 1988 for coders).
Prices in between are swept, and what a goal leaves over is spent on the single best changes, which
is nearly the best.
The prediction adds the layers' divergences and reads the drop off a curve through the measured
points. Left out: how layers act on one another, which the prediction's recorded error shows.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from compression.allocation_table import LayerTable, SettingTable
from compression.inputs import InputError, choice, real, size_text

_PRICES = 400
Places = list[tuple[int, int]]  # (row of bits, column of sparsity) of each layer


@dataclass(frozen=True)
class LayerSetting:
    """What a layer gets: sparsity (fraction of zeros) and bits (None: float32), and what it takes
    and costs by the table: bytes, and nats."""

    sparsity: float
    bits: int | None
    size_bytes: float
    divergence: float


@dataclass(frozen=True)
class Allocation:
    """A setting for each layer; predictions of the packed file's bytes and of the accuracy after
    batch-norm recalibration."""

    layers: dict[str, LayerSetting]
    size_bytes: int
    divergence: float
    predicted_drop: float

    @property
    def sparsities(self) -> dict[str, float]:
        """Layer -> sparsity, as `prune` takes it."""
        return {name: setting.sparsity for name, setting in self.layers.items()}

    @property
    def bits(self) -> dict[str, int]:
        """Layer -> bits, as `quantize` takes it: the layers that are quantized."""
        return {name: s.bits for name, s in self.layers.items() if s.bits is not None}


def allocate(
    table: SettingTable,
    *,
    max_bytes: float | None = None,
    max_drop: float | None = None,
    bits: Sequence[int] | None = None,
) -> Allocation:
    """The allocation of (nearly) least predicted damage in at most `max_bytes`, or the (nearly)
    smallest that is predicted to lose at most `max_drop` of accuracy (a fraction).

    bits: the widths to choose from (32: float32); by default all quantized ones of the table. Give
    just one of the two goals. Raises InputError for both or neither, for unknown widths, and for a
    goal that no allocation is predicted to meet.
    """
    rows = _rows(table, bits)
    if (max_bytes is None) == (max_drop is None):
        raise InputError("One goal must be given, max_bytes or max_drop, got both or neither.")
    swept = _swept(table, rows)
    if max_drop is not None:
        most = real("max_drop", max_drop, 0, 1)
        drops = [table.expected_drop(_total(table, places)[1]) for places in swept]
        fits = [places for places, drop in zip(swept, drops, strict=True) if drop <= most]
        if not fits:
            least = math.ceil(1e4 * min(drops)) / 100
            raise InputError(
                f"max_drop must be at least {least:.2f} points for this model at these bits, "
                f"got {100 * most:g}."
            )
        smallest = min(fits, key=lambda places: _total(table, places)[0])
        return described(table, _saved(table, rows, smallest, most))
    budget = real("max_bytes", max_bytes, 1, 2**40, "bytes")
    fits = [places for places in swept if _total(table, places)[0] <= budget]
    if not fits:
        least = min(_total(table, places)[0] for places in swept)
        raise InputError(
            f"max_bytes must be at least {size_text(math.ceil(least))} for this model, "
            f"got {size_text(budget)}."
        )
    best = min(fits, key=lambda places: _total(table, places)[1])
    return described(table, _spent(table, rows, best, budget))


def described(table: SettingTable, places: Places) -> Allocation:
    """The allocation that takes these places of the tables."""
    size, divergence = _total(table, places)
    settings = {}
    for layer, (row, column) in zip(table.layers, places, strict=True):
        width = layer.bits[row]
        settings[layer.name] = LayerSetting(
            float(layer.sparsities[column]),
            None if width == 32 else width,
            float(layer.size_bytes[row, column]),
            float(layer.divergence[row, column]),
        )
    return Allocation(settings, round(size), divergence, table.expected_drop(divergence))


def _rows(table: SettingTable, bits: Sequence[int] | None) -> list[int]:
    known = table.layers[0].bits
    if bits is None:
        return [row for row, width in enumerate(known) if width != 32]
    if not bits:
        raise InputError("bits must name at least one width, got none.")
    return [known.index(choice("bits", width, known)) for width in bits]


def _swept(table: SettingTable, rows: list[int]) -> list[Places]:
    """Best allocations from the smallest to the least damaged, each once."""
    prices = np.logspace(2, -12, _PRICES)
    found: dict[tuple[tuple[int, int], ...], None] = {}
    for price in prices:
        found[tuple(_cheapest(layer, rows, price) for layer in table.layers)] = None
    return [list(places) for places in found]


def _cheapest(layer: LayerTable, rows: list[int], price: float) -> tuple[int, int]:
    total = layer.divergence[rows] + price * layer.size_bytes[rows]  # (R, S)
    row, column = np.unravel_index(int(np.argmin(total)), total.shape)
    return rows[int(row)], int(column)


def _spent(table: SettingTable, rows: list[int], places: Places, budget: float) -> Places:
    """The bytes that are left, spent on the change of one layer that mends most for each byte."""
    places = list(places)
    while True:
        left = budget - _total(table, places)[0]
        best, gain = None, 0.0
        for k, (layer, (row, column)) in enumerate(zip(table.layers, places, strict=True)):
            more = layer.size_bytes[rows] - layer.size_bytes[row, column]
            mended = layer.divergence[row, column] - layer.divergence[rows]
            worth = np.where((more > 0) & (more <= left), mended / np.maximum(more, 1e-9), 0.0)
            if worth.max() > gain:
                gain = float(worth.max())
                at = np.unravel_index(int(np.argmax(worth)), worth.shape)
                best = k, (rows[int(at[0])], int(at[1]))
        if best is None:
            return places
        places[best[0]] = best[1]


def _saved(table: SettingTable, rows: list[int], places: Places, most: float) -> Places:
    """What may still be lost, spent on the change of one layer that saves most for each nat."""
    places = list(places)
    while True:
        divergence = _total(table, places)[1]
        best, gain = None, 0.0
        for k, (layer, (row, column)) in enumerate(zip(table.layers, places, strict=True)):
            saved = layer.size_bytes[row, column] - layer.size_bytes[rows]
            harmed = layer.divergence[rows] - layer.divergence[row, column]
            for at in np.argwhere(saved > 0):
                worth = saved[*at] / max(float(harmed[*at]), 1e-12)
                if worth > gain and table.expected_drop(divergence + float(harmed[*at])) <= most:
                    best, gain = (k, (rows[int(at[0])], int(at[1]))), float(worth)
        if best is None:
            return places
        places[best[0]] = best[1]


def _total(table: SettingTable, places: Places) -> tuple[float, float]:
    """Bytes, with the rest of the file, and nats."""
    pairs = list(zip(table.layers, places, strict=True))
    size = sum(layer.size_bytes[place] for layer, place in pairs) + table.rest_bytes
    return float(size), float(sum(layer.divergence[place] for layer, place in pairs))
