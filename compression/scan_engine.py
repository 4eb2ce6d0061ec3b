"""What computes the points of a sensitivity scan: a plain engine, and a fast one with its answers.

An image counts as correct when its margin (the logit of its class less the best other one) is above
zero, so an image far from a tie needs no full computation. The fast engine keeps the activations in
front of every scanned layer, starts there, and answers in the cheapest way that leaves no doubt:
1. by interpolating the margin between the dense model and the next higher level computed, in the
   share of squared weight that is removed (its noise grows with that share);
2. in bfloat16, where the hardware has it; 3. in float32, where that is asked for.
A cheap answer stands only where its margin is more than twice the largest miss of its kind seen at
this very point, on 48 images that always take every way and on all that were redone since; all
others are redone. `exhaustive` turns 1 and 2 off. Left out: layers pruned together.
"""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from compression.data import normalize
from compression.hardware import has_bfloat16
from compression.inference import device_of, predict_logits, resolved_precision
from compression.masks import magnitude_mask, magnitude_order, zeros_at
from compression.resnet9 import ResNet9, prunable_layers
from compression.scan_steps import Network, State, steps_of

CALIBRATION_IMAGES = 48
_SAFETY = 2.0
_BLOCK_IMAGES = 1024
_CPU_BATCH, _GPU_BATCH = 128, 1024


class Engine(Protocol):
    """Counts correct answers of one model, pruned one layer at a time, on one set of images."""

    def blocks(self, first: int | None) -> list[range]:
        """Runs of images to be counted one after the other; the first holds `first` images."""
        ...

    def count(self, layer: str, levels: Sequence[float], rows: range) -> Iterator[tuple[float, int]]:
        """(level, correct answers among images `rows`) with `layer` pruned, highest level first."""
        ...


def split_rows(total: int, first: int | None, size: int) -> list[range]:
    """0..total as one run of `first` images, if given, and even runs of at most `size`."""
    start = min(first or 0, total)
    head = [range(0, start)] if start else []
    runs = -(-(total - start) // size)
    edges = [start + (total - start) * k // max(runs, 1) for k in range(runs + 1)]
    return head + [range(a, b) for a, b in zip(edges, edges[1:], strict=False)]


class PlainEngine:
    """Prunes a copy and runs the whole of it over the images, at every point; for any model."""

    def __init__(self, model: nn.Module, images: Tensor, labels: Tensor, precision: str) -> None:
        self._model, self._images, self._labels = copy.deepcopy(model), images, labels.cpu()
        self._precision = precision

    def blocks(self, first: int | None) -> list[range]:
        return split_rows(len(self._images), first, _BLOCK_IMAGES)

    def count(self, layer: str, levels: Sequence[float], rows: range) -> Iterator[tuple[float, int]]:
        for level in sorted(levels, reverse=True):
            pruned = copy.deepcopy(self._model)
            weight = prunable_layers(pruned)[layer].weight
            weight.data *= magnitude_mask(weight, level)
            images = self._images[rows.start : rows.stop]
            logits = predict_logits(pruned, images, precision=self._precision)
            hits = logits.argmax(1) == self._labels[rows.start : rows.stop]
            yield level, int(hits.sum())


@dataclass
class _Layer:
    """What is known of one scanned layer at its levels (descending, L of them).

    bands: uint8 of the weight's shape, the weight is zero at level i where bands > i; energy: the
    share of squared folded weight removed at each level; interpolation (L, L): the largest miss of
    a margin at level [, i] interpolated from level [u, ]; rounding (L,): of bfloat16 against
    float32; calibrated: how many images took every way.
    """

    index: int
    levels: list[float]
    bands: Tensor
    energy: Tensor
    interpolation: Tensor
    rounding: Tensor
    calibrated: int = 0


@dataclass
class _Block:
    """Activations of images `rows`: labels, dense margins, the input of each step that is kept."""

    rows: range
    labels: Tensor
    margins: Tensor
    hits: Tensor
    inputs: dict[int, Tensor]


@dataclass
class _Answers:
    """Margins and hits of a block's images at one level; `done` where they were computed."""

    margins: Tensor
    hits: Tensor = field(init=False)
    done: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.hits = self.margins > 0
        self.done = torch.zeros_like(self.hits)


class FastEngine:
    """The engine for ResNet-9; see the module's text. Works on a private, folded copy."""

    def __init__(
        self,
        model: ResNet9,
        images: Tensor,
        labels: Tensor,
        precision: str,
        *,
        layers: Sequence[str],
        exhaustive: bool = False,
        cache_mib: int = 512,
    ) -> None:
        self._images, self._labels, self._exhaustive = images, labels, exhaustive
        self._device = device_of(model)
        self._batch = _CPU_BATCH if self._device.type == "cpu" else _GPU_BATCH
        steps = steps_of(model)
        exact = getattr(torch, resolved_precision(precision, self._device))
        self._exact, self._quick = Network(steps, exact), None
        if exact == torch.float32 and has_bfloat16(self._device) and not exhaustive:
            self._quick = Network(steps, torch.bfloat16)
        weights = prunable_layers(model)
        self._weights = {name: weights[name].weight.detach().clone() for name in layers}
        self._known: dict[tuple[str, tuple[float, ...]], _Layer] = {}
        self._kept = self._exact.inputs_needed(layers)
        self._limit = self._images_within(cache_mib * 2**20)
        self._block: _Block | None = None

    def blocks(self, first: int | None) -> list[range]:
        return split_rows(len(self._images), first, self._limit)

    def count(self, layer: str, levels: Sequence[float], rows: range) -> Iterator[tuple[float, int]]:
        known = self._layer(layer, tuple(sorted(levels, reverse=True)))
        if self._block is None or self._block.rows != rows:
            self._block = None  # let go of the last one before the next is made
            self._block = self._dense(rows)
        block = self._block
        calibration = max(0, min(CALIBRATION_IMAGES - known.calibrated, len(rows)))
        upper = torch.full_like(block.labels, -1)  # the last level computed, an image
        upper_margins = block.margins.clone()
        measured = torch.full((len(known.levels), calibration), torch.nan)
        for i, level in enumerate(known.levels):
            ratio = known.energy[i] / known.energy[upper].clamp_min(1e-30)
            guess = torch.lerp(block.margins, upper_margins, ratio)
            answers = _Answers(guess)
            if known.energy[i] == 0:  # nothing but zeros is removed: this is the dense model
                answers.margins, answers.hits = block.margins, block.hits
            ...
            yield level, int(answers.hits.sum())
