"""Sensitivity scan (interim engine: one full evaluation a point, on a private folded copy)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from compression.evaluation import wilson_interval
from compression.inference import fold_batch_norm, predict_logits
from compression.masks import magnitude_mask
from compression.model import prunable_layers


@dataclass(frozen=True)
class SensitivityPoint:
    layer: str
    sparsity: float
    accuracy: float
    correct: int
    total: int
    low: float
    high: float


def scan(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    levels: Sequence[float],
    layers: Sequence[str] | None = None,
    precision: str = "auto",
) -> Iterator[SensitivityPoint]:
    folded = fold_batch_norm(model)
    originals = prunable_layers(model)
    for layer in layers or list(originals):
        target = prunable_layers(folded)[layer].weight
        pristine = target.detach().clone()
        for level in levels:
            mask = magnitude_mask(originals[layer].weight, level)
            with torch.no_grad():
                target.copy_(pristine * mask)
            logits = predict_logits(folded, images, precision=precision)
            correct = int((logits.argmax(1) == labels).sum())
            low, high = wilson_interval(correct, len(labels))
            yield SensitivityPoint(
                layer, level, correct / len(labels), correct, len(labels), low, high
            )
        with torch.no_grad():
            target.copy_(pristine)


def suggest_sparsities(
    points: Sequence[SensitivityPoint], dense_accuracy: float, max_drop: float
) -> dict[str, float]:
    chosen: dict[str, float] = {}
    stopped = set()
    for p in sorted(points, key=lambda p: p.sparsity):
        chosen.setdefault(p.layer, 0.0)
        if p.accuracy < dense_accuracy - max_drop:
            stopped.add(p.layer)
        if p.layer not in stopped:
            chosen[p.layer] = p.sparsity
    return chosen
