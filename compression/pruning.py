"""Magnitude pruning of chosen layers (Han et al. 2015, arXiv 1506.02626), and weight histograms.

Each layer loses its own fraction of smallest weights, by exact count; the threshold only describes
the cut. Fine-tuning with the masks held is `training.fine_tune(model, ..., masks=pruned.masks)`,
recalibration is `recalibration.recalibrate_batch_norm`; `with_model` carries the masks over to what
either of them returns. Left out: structured pruning, which removes whole filters.
"""

import copy
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from compression.inputs import InputError, choice, real, shown, whole
from compression.masks import magnitude_mask, threshold_of
from compression.model import prunable_layers


@dataclass(frozen=True)
class PrunedLayer:
    """One layer after pruning.

    sparsity: the fraction that was asked for, 0..1; threshold: the largest magnitude that was
    pruned, 0 where none was; kept, total: numbers of weights, total - kept = round(sparsity *
    total).
    """

    name: str
    sparsity: float
    threshold: float
    kept: int
    total: int


@dataclass(frozen=True)
class PrunedModel:
    """A model whose pruned weights are exactly zero.

    masks: layer -> bool tensor of its weight's shape, True where the weight is kept; only layers
    that were named. layers: all convolution and linear layers in order, unnamed at sparsity 0.
    """

    model: nn.Module = field(repr=False)
    masks: dict[str, Tensor] = field(repr=False, compare=False)
    layers: tuple[PrunedLayer, ...]

    @property
    def kept(self) -> int:
        """Weights of convolution and linear layers that are kept."""
        return sum(layer.kept for layer in self.layers)

    @property
    def total(self) -> int:
        """Weights of convolution and linear layers."""
        return sum(layer.total for layer in self.layers)

    @property
    def sparsity(self) -> float:
        """The fraction of these weights that is pruned, 0..1."""
        return 1.0 - self.kept / self.total


@dataclass(frozen=True)
class Histogram:
    """Counts of a layer's non-zero weights; exact zeros are counted apart, in no bin.

    edges: bins + 1 values, symmetric about 0; counts: one a bin, all non-zero weights together.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    threshold: float | None
    zeros: int


def prune(model: nn.Module, sparsities: Mapping[str, float]) -> PrunedModel:
    """A copy of `model`, in the same mode, with the named layers pruned by magnitude.

    sparsities: layer -> fraction of its weights to set to zero, 0..1; layers that are not named
    stay dense. Raises InputError for an unknown layer and for a sparsity that is no such fraction.
    """
    if not isinstance(sparsities, Mapping):
        raise InputError(
            f"sparsities must be a mapping of layer to sparsity, got {shown(sparsities)}."
        )
    known = prunable_layers(model)
    wanted = {
        choice("layer", name, known): real(f"sparsity of {name}", sparsity, 0, 1)
        for name, sparsity in sparsities.items()
    }
    pruned = copy.deepcopy(model)
    masks: dict[str, Tensor] = {}
    layers = []
    for name, module in prunable_layers(pruned).items():
        mask = magnitude_mask(module.weight, wanted.get(name, 0.0))
        layers.append(_describe(name, module.weight, mask, wanted.get(name, 0.0)))
        if name in wanted:
            masks[name] = mask
            with torch.no_grad():
                module.weight.masked_fill_(~mask, 0.0)
    return PrunedModel(pruned, masks, tuple(layers))


def with_present_zeros(model: nn.Module, sparsities: Mapping[str, float]) -> dict[str, float]:
    """The sparsities, and of each layer at least the fraction of weights that are zero already.

    With these `prune` gives a model that was pruned before masks for all of its zeros, so that no
    training brings them back.
    """
    found = dict(sparsities)
    for name, module in prunable_layers(model).items():
        zeros = float((module.weight.detach() == 0).double().mean())
        if zeros > found.get(name, 0.0):
            found[name] = zeros
    return found


def _describe(name: str, weight: Tensor, mask: Tensor, sparsity: float) -> PrunedLayer:
    kept = int(torch.count_nonzero(mask))
    return PrunedLayer(name, sparsity, threshold_of(weight, mask), kept, weight.numel())


def with_model(pruned: PrunedModel, model: nn.Module) -> PrunedModel:
    """The same masks around another model: the pruned one after fine-tuning or recalibration.

    Layers keep the thresholds of their pruning. Raises InputError where `model` lacks a masked
    layer, has another shape there, or has a weight other than zero where the mask has pruned it.
    """
    check_masks(model, pruned.masks)
    return dataclasses.replace(pruned, model=model)


def check_masks(model: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Raise InputError unless every mask fits a layer whose pruned weights are exactly zero."""
    layers = prunable_layers(model)
    for name, kept in masks.items():
        weight = layers[choice("layer", name, layers)].weight
        if kept.shape != weight.shape or kept.dtype != torch.bool:
            raise InputError(
                f"mask of {name} must be a bool tensor of shape {tuple(weight.shape)}, "
                f"got {str(kept.dtype).removeprefix('torch.')} {tuple(kept.shape)}."
            )
        others = int(torch.count_nonzero(weight.detach()[~kept.to(weight.device)]))
        if others:
            raise InputError(
                f"pruned weights of {name} must be zero, got {others} that are not: "
                "prune the model first, or hold the masks while it trains."
            )


def weight_histogram(
    weight: Tensor, bins: int = 100, threshold: float | None = None, *, span: float | None = None
) -> Histogram:
    """The histogram of a layer's weights over -span..span.

    span: by default the largest magnitude; give the larger of several layers' or stages' to draw
    them over the same bins. threshold: carried along, to be drawn. Raises InputError for bins
    outside 1..10000 and for a span that leaves weights out.
    """
    bins = whole("bins", bins, 1, 10_000)
    values = weight.detach().cpu().double().flatten().numpy()
    nonzero = values[values != 0]
    largest = float(np.abs(nonzero).max()) if len(nonzero) else 0.0
    if span is None:
        span = largest
    span = real("span", span, largest, float(np.finfo(np.float32).max)) or 1.0
    counts, edges = np.histogram(nonzero, bins=bins, range=(-span, span))
    return Histogram(
        edges=tuple(edges.tolist()),
        counts=tuple(counts.tolist()),
        threshold=threshold,
        zeros=len(values) - len(nonzero),
    )
