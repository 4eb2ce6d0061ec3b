"""What each layer would take and cost at each sparsity and bit width: the table to choose from.

Bytes: a layer of n weights with a share s of zeros takes n * (h(s) + (1 - s) * H) bits and its
codebook, where h is the entropy of a coin of bias s and H that of the kept weights' codes, as the
packed file stores them. Cost: the measured divergence at that sparsity, and that at those bits
times how much less squared error the codebook has among the kept weights alone: noise of rounding
and of pruning are apart, so that their divergences add. Where a layer has no more values than the
width has (it was quantized before), what an error costs is taken from the next lower width. H and
the errors are taken by k-means on some thousand quantiles of the layer's weights.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

from compression.allocation_drops import DropCurve, fit_drops
from compression.allocation_scan import SettingPoint
from compression.inputs import InputError
from compression.kmeans import kmeans_1d, squared_error
from compression.resnet9 import prunable_layers

_QUANTILES = 8192
_FINEST = 1e-7  # nats; a divergence below it is rounding
_EXACT = 1e-9  # of the weights' squares: less squared error than any codebook of other weights has
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class LayerTable:
    """One layer: sparsities (S,) ascending from 0, bits (B,); bytes and divergence, (B, S) each.

    A width of 32 stands for float32 weights.
    """

    name: str
    weights: int
    sparsities: Floats
    bits: tuple[int, ...]
    size_bytes: Floats
    divergence: Floats


@dataclass(frozen=True)
class SettingTable:
    """The layers' tables; rest_bytes: biases and batch norm in half precision, and the file's
    header; expected_drop: of accuracy (a fraction) at a divergence, from all measured points."""

    layers: tuple[LayerTable, ...]
    rest_bytes: int
    dense_accuracy: float
    expected_drop: DropCurve


def setting_table(model: nn.Module, points: Iterable[SettingPoint]) -> SettingTable:
    """The table out of the points of `scan_settings` on `model`. Raises InputError for points of
    other layers, or none at all."""
    found = list(points)
    layers = prunable_layers(model)
    if {point.layer for point in found} != set(layers):
        raise InputError(
            f"points must be of the model's {len(layers)} layers, got those of "
            f"{len({point.layer for point in found})}."
        )
    tables = tuple(
        _layer_table(
            name,
            module.weight.detach().cpu().flatten().numpy(),
            [point for point in found if point.layer == name],
        )
        for name, module in layers.items()
    )
    weights = sum(table.weights for table in tables)
    vectors = sum(parameter.numel() for parameter in model.parameters()) - weights
    dense_accuracy = found[0].dense_correct / found[0].total
    lost = [(point.dense_correct - point.correct) / point.total for point in found]
    curve = fit_drops([point.divergence for point in found], lost, dense_accuracy)
    return SettingTable(tables, 2 * vectors + 2000, dense_accuracy, curve)


def _layer_table(name: str, weights: NDArray[np.float32], points: list[SettingPoint]) -> LayerTable:
    by_level = sorted((p.sparsity, p.divergence) for p in points if p.bits is None)
    levels = [0.0, *(level for level, _ in by_level)]
    pruning = [_FINEST, *(divergence for _, divergence in by_level)]
    widths = sorted((p.bits, p.divergence) for p in points if p.bits is not None)
    sparsities = np.round(np.arange(0, max(levels) + 1e-9, 0.01), 2)  # (S,)
    pruned = np.exp(np.interp(sparsities, levels, np.log(np.maximum(pruning, _FINEST))))
    pruned[0] = 0.0
    known = np.array(sorted({0.0, *levels[1::3], levels[-1]}))
    sizes, costs = [_float_bytes(len(weights), sparsities)], [pruned]
    nats = 0.0  # for a squared error of 1
    for bits, rounding in widths:
        entropy, error = _rounding(weights, bits, known)
        coded = _entropy(sparsities) + (1 - sparsities) * np.interp(sparsities, known, entropy)
        sizes.append(len(weights) * coded / 8 + 5 * 2**bits)
        if exact := error[0] <= _EXACT * float(np.square(weights, dtype=np.float64).mean()):
            error = error - error[0]
        else:
            nats = rounding / error[0]
        added = nats * np.interp(sparsities, known, error) + (rounding if exact else 0.0)
        costs.append(pruned + added)
    return LayerTable(
        name,
        len(weights),
        sparsities,
        (32, *(bits for bits, _ in widths)),
        np.stack(sizes),
        np.stack(costs),
    )


def _float_bytes(count: int, sparsities: Floats) -> Floats:
    return count * (_entropy(sparsities) / 8 + 4 * (1 - sparsities))


def _entropy(share: Floats) -> Floats:
    """Bits of a coin that falls one way with that probability."""
    inner = np.clip(share, 1e-12, 1 - 1e-12)
    return -(inner * np.log2(inner) + (1 - inner) * np.log2(1 - inner))


def _rounding(weights: NDArray[np.float32], bits: int, sparsities: Floats) -> tuple[Floats, Floats]:
    """(S,) bits of a kept weight's code, and (S,) squared error of a weight, kept or not."""
    ordered = np.sort(weights)
    ordered = ordered[np.linspace(0, len(ordered) - 1, min(_QUANTILES, len(ordered))).astype(int)]
    by_size = np.argsort(np.abs(ordered), kind="stable")
    entropies, errors = [], []
    for sparsity in sparsities:
        kept = ordered[np.sort(by_size[round(sparsity * len(ordered)) :])]
        levels = 2**bits - (sparsity > 0)
        if not len(kept) or not levels:
            entropies.append(0.0)
            errors.append(0.0)
            continue
        centroids, labels = kmeans_1d(kept, levels)
        shares = np.bincount(labels) / len(labels)
        entropies.append(float(-(shares * np.log2(shares)).sum()))
        errors.append(squared_error(kept, centroids, labels) / len(ordered))
    return np.array(entropies), np.maximum(np.array(errors), 1e-30)
