"""What each setting of each layer does to the network's answers: the measurements to allocate by.

The counterpart of a sensitivity scan for sparsities and bit widths together, made to be added up.
Drops of accuracy do not add, and on some hundred images they are mostly noise; the divergence of
the answers (Kullback & Leibler 1951: how many nats the dense model's probabilities lose when these
stand in for them) is smooth, and small ones of different layers nearly add up. Batch norm behind
the changed layer is re-estimated, as it will be in the end (`recalibration.py`): each channel gets
the dense one's mean and spread back, so that what recalibration mends is not counted as damage.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from compression.data import normalize
from compression.evaluation import check_labelled
from compression.inference import device_of, resolved_precision
from compression.inputs import InputError, real, whole
from compression.kmeans import kmeans_1d
from compression.masks import magnitude_mask
from compression.resnet9 import ResNet9, prunable_layers
from compression.scan_steps import Network, State, Step, folded_scales, steps_of

DEFAULT_SPARSITIES = (0.2, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
DEFAULT_BITS = (2, 3, 4, 5, 6, 8)
_BATCH = 128
_TINY = 1e-12


@dataclass(frozen=True)
class SettingPoint:
    """One layer pruned to `sparsity` (fraction of zeros), or quantized to `bits`, the rest dense.

    Of the two, sparsity is 0 or bits is None. divergence: mean over `total` images, in nats;
    correct: right answers among them, of which the dense model has dense_correct.
    """

    layer: str
    sparsity: float
    bits: int | None
    divergence: float
    correct: int
    dense_correct: int
    total: int


def scan_settings(
    model: ResNet9,
    images: Tensor,
    labels: Tensor,
    *,
    sparsities: Sequence[float] = DEFAULT_SPARSITIES,
    bits: Sequence[int] = DEFAULT_BITS,
    precision: str = "auto",
) -> Iterator[SettingPoint]:
    """A point for each layer at each of the sparsities and each of the bit widths, as measured.

    images: (N, 32, 32, 3) uint8, some hundred do; labels: (N,) int64. The model is only read.
    Memory: the input of one layer for all images, and its output, at a time. Raises InputError, at
    the call, for what is out of range, and for a network that is no ResNet9.
    """
    if not isinstance(model, ResNet9):
        raise InputError(f"model must be a ResNet9, got {type(model).__name__}.")
    check_labelled(images, labels)
    levels = [real("sparsity", level, 0, 1) for level in sparsities]
    widths = [whole("bits", width, 1, 8) for width in bits]
    dtype = getattr(torch, resolved_precision(precision, device_of(model)))
    return _points(model, _Scan(model, images, labels, dtype), levels, widths)


def _points(
    model: ResNet9, scan: "_Scan", levels: list[float], widths: list[int]
) -> Iterator[SettingPoint]:
    for name, module in prunable_layers(model).items():
        weight = module.weight.detach()
        for level in levels:
            yield scan.point(name, weight * magnitude_mask(weight, level), level, None)
        for width in widths:
            codebook, codes = kmeans_1d(weight.flatten(), 2**width)
            yield scan.point(name, codebook[codes].view(weight.shape), 0.0, width)


class _Scan:
    """The dense model's answers and, layer by layer, the inputs to start from."""

    def __init__(self, model: ResNet9, images: Tensor, labels: Tensor, dtype: torch.dtype) -> None:
        self._steps = steps_of(model)
        self._network = Network(self._steps, dtype)
        self._scales = folded_scales(model)
        self._labels = labels.cpu()
        device = device_of(model)
        self._states = [
            State(normalize(part.to(device))).to(dtype) for part in images.split(_BATCH)
        ]
        self._at = 0
        logits = self._logits(self._states, 0)
        self._dense = logits.log_softmax(1)
        self._dense_correct = int((logits.argmax(1) == self._labels).sum())

    @torch.no_grad()
    def _logits(self, states: list[State], first: int) -> Tensor:
        """(N, classes) float32 on the CPU, from the inputs of step `first`."""
        return torch.cat([self._network.logits(state, first).cpu() for state in states])

    @torch.no_grad()
    def point(self, name: str, weight: Tensor, sparsity: float, bits: int | None) -> SettingPoint:
        """The answers with this weight in the layer; layers must come in the model's order."""
        place = [step.name for step in self._steps].index(name)
        while self._at < place:  # the inputs of this layer, in place of an earlier one's
            self._states = [self._network.step(self._at, state) for state in self._states]
            self._at += 1
        changed = self._changed(self._steps[place], weight)
        logits = self._logits(changed, place + 1)
        apart = (self._dense.exp() * (self._dense - logits.log_softmax(1))).sum(1).mean()
        return SettingPoint(
            name,
            sparsity,
            bits,
            max(0.0, apart.item()),
            int((logits.argmax(1) == self._labels).sum()),
            self._dense_correct,
            len(self._labels),
        )

    def _changed(self, step: Step, weight: Tensor) -> list[State]:
        """The states behind the step, computed with `weight`, batch norm re-estimated."""
        folded = (weight * self._scales[step.name]).to(step.weight)
        if weight.dim() == 2:
            return [step.run(state, folded, step.bias) for state in self._states]
        dtype = self._network.dtype
        before = [_convolved(state.x, step.weight.to(dtype)) for state in self._states]
        mean, spread = _statistics(before)
        after = [_convolved(state.x, folded.to(dtype)) for state in self._states]
        new_mean, new_spread = _statistics(after)
        gain = spread / (new_spread + _TINY)
        shift = mean - gain * new_mean + step.bias
        gain, shift = (v.to(dtype)[:, None, None] for v in (gain, shift))
        return [
            step.finish(y.mul_(gain).add_(shift), state)
            for y, state in zip(after, self._states, strict=True)
        ]


def _convolved(x: Tensor, weight: Tensor) -> Tensor:
    return functional.conv2d(x, weight, padding=1)


def _statistics(parts: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel over all parts, (C,) float32 each."""
    count = sum(part.numel() // part.shape[1] for part in parts)
    mean = sum((part.float().sum((0, 2, 3)) for part in parts), torch.zeros(())) / count
    squares = [(part.float() - mean[:, None, None]).square().sum((0, 2, 3)) for part in parts]
    return mean, (sum(squares, torch.zeros(())) / count).sqrt()
