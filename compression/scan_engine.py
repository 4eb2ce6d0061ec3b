"""What computes the points of a sensitivity scan: a plain engine, and a fast one with its answers.

The fast engine runs the dense model once over a block of images and keeps the activations in front
of every scanned layer, so that a point starts there. Batch norm is folded in, memory is
channels-last, batches stay in cache, convolutions run in bfloat16 where that is asked for. Of the
images, only those are computed at a level whose answer is in doubt (see `scan_screen.py`); where
float32 is asked for and the hardware has bfloat16, they are computed in bfloat16 first, and again
in float32 where that leaves a doubt. `exhaustive` computes every image at every point, in the
precision asked for.
"""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor, nn

from compression.data import normalize
from compression.hardware import has_bfloat16
from compression.inference import device_of, predict_logits, resolved_precision
from compression.masks import magnitude_mask, magnitude_order, zeros_at
from compression.resnet9 import ResNet9, prunable_layers
from compression.scan_screen import (
    UNKNOWN,
    Answers,
    Descent,
    Evidence,
    judge,
    redo_doubtful_,
)
from compression.scan_steps import Network, State, inputs_needed, steps_of

_BLOCK_IMAGES = 1024
_CPU_BATCH, _GPU_BATCH = 128, 1024

Count = tuple[float, int]  # a level, and how many answers are correct there


class Engine(Protocol):
    """Counts correct answers of one model, pruned one layer at a time, on one set of images."""

    def blocks(self, first: int | None) -> list[range]:
        """Runs of images to be counted one after the other; the first holds `first` images."""
        ...

    def count(self, layer: str, levels: Sequence[float], rows: range) -> Iterator[Count]:
        """Correct answers among images `rows` with `layer` pruned, from the highest level down."""
        ...


def split_rows(total: int, first: int | None, size: int) -> list[range]:
    """0..total as one run of `first` images, if given, and even runs, none longer than `size`."""
    start = min(first or 0, total, size)
    runs = -(-(total - start) // size)
    edges = [start + (total - start) * k // max(runs, 1) for k in range(runs + 1)]
    rest = [range(a, b) for a, b in zip(edges, edges[1:], strict=False)]
    return ([range(start)] if start else []) + rest


class PlainEngine:
    """Prunes a copy and runs the whole of it over the images, at every point; for any model."""

    def __init__(self, model: nn.Module, images: Tensor, labels: Tensor, precision: str) -> None:
        self._model, self._images, self._labels = copy.deepcopy(model), images, labels.cpu()
        self._precision = precision

    def blocks(self, first: int | None) -> list[range]:
        return split_rows(len(self._images), first, _BLOCK_IMAGES)

    def count(self, layer: str, levels: Sequence[float], rows: range) -> Iterator[Count]:
        images, labels = (t[rows.start : rows.stop] for t in (self._images, self._labels))
        for level in sorted(levels, reverse=True):
            pruned = copy.deepcopy(self._model)
            weight = prunable_layers(pruned)[layer].weight
            weight.data *= magnitude_mask(weight, level)
            logits = predict_logits(pruned, images, precision=self._precision)
            yield level, int((logits.argmax(1) == labels).sum())


@dataclass(frozen=True)
class _Layer:
    """A scanned layer: its step, its levels (descending), and what was seen of it there.

    bands: uint8 of the weight's shape; the weight is zero at the first `bands` levels.
    """

    step: int
    levels: tuple[float, ...]
    bands: Tensor
    evidence: Evidence


@dataclass(frozen=True)
class _Block:
    """Images `rows`: their labels, the dense model's answers, and the inputs of the steps kept."""

    rows: range
    labels: Tensor
    dense: Answers
    inputs: dict[int, Tensor]


class FastEngine:
    """The engine for ResNet-9; see the module's text. Works on a private, folded copy.

    layers: those that will be counted. cache_mib: the most that the kept activations may take;
    fewer images make a block then.
    """

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
        self._images, self._labels, self._exhaustive = images, labels.cpu(), exhaustive
        self._device = device_of(model)
        self.batch = _CPU_BATCH if self._device.type == "cpu" else _GPU_BATCH
        self._steps = steps_of(model)
        dtype = getattr(torch, resolved_precision(precision, self._device))
        self.exact, self.quick = Network(self._steps, dtype), None
        if dtype == torch.float32 and has_bfloat16(self._device) and not exhaustive:
            self.quick = Network(self._steps, torch.bfloat16)
        weights = prunable_layers(model)
        self._weights = {name: weights[name].weight.detach().clone() for name in layers}
        self._kept = inputs_needed(self._steps, layers)
        self._layers: dict[str, _Layer] = {}
        self._block: _Block | None = None
        self._block_images = max(1, min(_BLOCK_IMAGES, cache_mib * 2**20 // self.image_bytes))

    @cached_property
    def image_bytes(self) -> int:
        """What the kept activations of one image take."""
        sizes: dict[int, int] = {}
        pixels = normalize(self._images[:1].to(self._device))
        self.exact.logits(State(pixels), visit=lambda k, s: sizes.update({k: s.x.nbytes}))
        return sum(sizes[k] for k in self._kept)

    def blocks(self, first: int | None) -> list[range]:
        return split_rows(len(self._images), first, self._block_images)

    def count(self, layer: str, levels: Sequence[float], rows: range) -> Iterator[Count]:
        scanned = self._layer(layer, tuple(sorted(levels, reverse=True)))
        if self._block is None or self._block.rows != rows:
            self._block = None  # let the last one go before the next is made
            self._block = self._run_dense(rows)
        descent = Descent(scanned.evidence, self._block.dense)
        for i, level in enumerate(scanned.levels):
            point = _Point(self, scanned, self._block, i)
            if self._exhaustive:
                answers = point.in_full(torch.arange(len(rows)))
            else:
                answers = descent.answer(i, point.compute)
            yield level, int(answers.hits.sum())

    def _layer(self, name: str, levels: tuple[float, ...]) -> _Layer:
        """The scanned layer; what was seen of it is forgotten when other levels are asked for."""
        if name not in self._layers or self._layers[name].levels != levels:
            step = [step.name for step in self._steps].index(name)
            weight = self._weights[name]
            order, zeros = magnitude_order(weight), [zeros_at(x, weight.numel()) for x in levels]
            bands = torch.zeros(weight.numel(), dtype=torch.uint8, device=weight.device)
            for k, count in enumerate(zeros):
                bands[order[:count]] = k + 1
            squares = self._steps[step].weight.flatten()[order].cpu().double().square().cumsum(0)
            energy = torch.cat([squares.new_zeros(1), squares])[torch.tensor(zeros)]
            evidence = Evidence.none_yet(energy)
            self._layers[name] = _Layer(step, levels, bands.view(weight.shape), evidence)
        return self._layers[name]

    @torch.no_grad()
    def _run_dense(self, rows: range) -> _Block:
        """The dense model over the block, keeping what the scanned layers start from."""
        images, labels = (t[rows.start : rows.stop] for t in (self._images, self._labels))
        inputs: dict[int, Tensor] = {}
        logits: list[Tensor] = []

        def keep(step: int, state: State) -> None:
            if step in self._kept:
                if step not in inputs:
                    inputs[step] = _room_for(state.x, len(rows))
                start = len(logits) * self.batch
                inputs[step][start : start + len(state.x)] = state.x

        for part in images.split(self.batch):
            state = State(normalize(part.to(self._device)))
            logits.append(self.exact.logits(state, visit=keep).cpu())
        return _Block(rows, labels, judge(torch.cat(logits), labels), inputs)


class _Point:
    """One layer at one level, on one block of images: what computes its answers."""

    def __init__(self, engine: FastEngine, layer: _Layer, block: _Block, level: int) -> None:
        self._engine, self._layer, self._block = engine, layer, block
        self._kept = layer.bands <= level
        self._rounding = layer.evidence.rounding[level : level + 1]
        self._weights: dict[torch.dtype, Tensor] = {}

    def compute(self, rows: Tensor, every_way: bool) -> Answers:
        """The answers of images `rows`: in bfloat16 where that settles them, or in full.

        every_way: compute all of them in both, to see how far bfloat16 misses.
        """
        quick = self._engine.quick
        if quick is None:
            return self.in_full(rows)
        answers = self._run(quick, rows)
        answers.done[:] = False
        group = torch.zeros_like(rows)
        seen = self._rounding if not every_way else torch.full((1,), UNKNOWN)
        redo_doubtful_(answers, group, seen, lambda doubtful: self.in_full(rows[doubtful]))
        torch.maximum(self._rounding, seen, out=self._rounding)
        return answers

    def in_full(self, rows: Tensor) -> Answers:
        """The answers of images `rows`, computed in the precision asked for."""
        return self._run(self._engine.exact, rows)

    @torch.no_grad()
    def _run(self, network: Network, rows: Tensor) -> Answers:
        first = self._layer.step
        if network.dtype not in self._weights:
            self._weights[network.dtype] = network.masked(first, self._kept)
        inputs, weight = self._block.inputs, self._weights[network.dtype]
        skip = inputs[first - 1] if network.steps[first].ends_residual else None
        start = State(inputs[first], skip)
        logits = [
            network.logits(start.select(part.to(weight.device)), first, weight).cpu()
            for part in rows.split(self._engine.batch)
        ]
        return judge(torch.cat(logits), self._block.labels[rows])


def _room_for(x: Tensor, images: int) -> Tensor:
    """An empty tensor like `x`, (n, ...), for so many images."""
    form = torch.channels_last if x.dim() == 4 else torch.contiguous_format
    shape = (images, *x.shape[1:])
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=form)
