"""Magnitude masks: which weights of a layer stay (LeCun 1990; Han et al. 2015, arXiv 1506.02626).

A mask holds exactly round(sparsity * n) zeros. The weights are chosen by rank of magnitude, ties
by position (the earlier one goes first), so that ties can never over-prune; a threshold is derived
for display and decides nothing.
"""

import torch
from torch import Tensor

from compression.inputs import real


def zeros_at(sparsity: float, count: int) -> int:
    """How many of `count` weights are zero at `sparsity` in 0..1: round(sparsity * count)."""
    return round(real("sparsity", sparsity, 0, 1) * count)


def magnitude_order(weight: Tensor) -> Tensor:
    """Positions of the flattened weight, smallest magnitude first, ties by position: (n,) int64."""
    return torch.sort(weight.detach().abs().flatten(), stable=True).indices


def magnitude_mask(weight: Tensor, sparsity: float) -> Tensor:
    """A bool mask of the weight's shape, True where the weight is kept.

    Exactly round(sparsity * n) entries are False. Raises InputError unless sparsity is in 0..1.
    """
    zeros = zeros_at(sparsity, weight.numel())
    kept = torch.ones(weight.numel(), dtype=torch.bool, device=weight.device)
    if zeros:
        kept[magnitude_order(weight)[:zeros]] = False
    return kept.view(weight.shape)


def threshold_of(weight: Tensor, kept: Tensor) -> float:
    """The largest magnitude among the pruned weights, to be drawn in a histogram; 0 if none is."""
    pruned = weight.detach().abs()[~kept]
    return pruned.max().item() if len(pruned) else 0.0


def sparsity_of(weight: Tensor) -> float:
    """The fraction of exact zeros, 0..1."""
    return 1.0 - torch.count_nonzero(weight).item() / max(1, weight.numel())
