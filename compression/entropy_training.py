"""Training through the rounding, with every weight's code as dear as the file will charge for it.

Every step computes with rounded weights, and its gradients move full-precision ones behind them,
which are rounded anew (the straight-through estimator, Bengio et al. 2013, arXiv 1308.3432): to the
level of least worth * squared error + price * bits, as in `entropy_quantization.py`, the bits those
of the level's present share (entropy-constrained training; Wiedemann et al. 2020, arXiv
1905.08318). Levels follow the means of the weights that took them. The price is the one at which
the codes take their budget, which shrinks to the wanted size while the network learns. A weight may
become zero and come back, so pruning is part of it (as in Guo et al. 2016, arXiv 1608.04493). Left
out: measuring the layers' worth anew on the way.
"""

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compression.constraints import Constraint
from compression.data import ImageSet
from compression.entropy_codebook import cheapest_rule, entropy_codebook
from compression.entropy_quantization import (
    CHEAPEST,
    DEAREST,
    LEVEL_BITS,
    layer_worth,
    price_for,
    quantize_entropy,
)
from compression.inputs import InputError, real
from compression.packing import pack
from compression.quantization import QuantizedLayer, QuantizedModel
from compression.recipes import TrainConfig
from compression.resnet9 import ResNet9, prunable_layers
from compression.training import EpochResult, train

_WORTH_IMAGES = 256
_SHRINKING = 0.5  # of the steps: as long does the budget shrink
_SPARE = 0.003  # of the budget: what the coder takes above Shannon's bound, and the price's lag
# Steps after which the price is solved for, and codebooks are found anew while the budget shrinks;
# half of the way is gone, since levels give way to the codes later, and in between the price moves
# with the size. Following the size alone left files 2 % too large, and cutting that off a point.
_SOLVED = 16
_REACH, _HALVINGS = 4.0, 8  # the price is looked for among so many times less and more
_TURNS = 3  # of codes and their lengths, each by the other: what the steps to come would do
_SQUEEZE = 1.01  # the price's factor, and that factor's power at each step, until the file fits


@dataclass(frozen=True, kw_only=True)
class RoundedEpoch(EpochResult):
    """One epoch; `quantized` is the rounded model after it, on the CPU; packed_bytes of its file,
    and `price` of a bit in nats. The last one is rounded anew where its file did not fit;
    the accuracy is the one before that."""

    quantized: QuantizedModel = field(repr=False, compare=False)
    packed_bytes: int
    price: float


class EntropyRounding(Constraint):
    """A Constraint: weights are levels of a codebook, the optimizer moves what is behind them.

    Bound to a copy of the float network. layers: where the codebooks begin; worth: nats for a
    squared error of 1 by layer; price: nats for a bit at first; budget: step, from 0 -> bytes that
    all codes with their levels may take; shrinking: steps in which it falls.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Mapping[str, QuantizedLayer],
        worth: Mapping[str, float],
        price: float,
        budget: Callable[[int], float],
        shrinking: int,
    ) -> None:
        self.model, self.price, self._solved = model, price, price
        self._budget, self._shrinking, self._step = budget, shrinking, 0
        weights = prunable_layers(model)
        self._rounded = {
            name: _Rounded(weights[name].weight, layer, worth[name])
            for name, layer in layers.items()
        }
        self.round_()

    @torch.no_grad()
    def after_backward(self) -> None:
        """Hand the optimizer the weights behind the rounded ones."""
        for rounded in self._rounded.values():
            rounded.weight.copy_(rounded.latent)

    @torch.no_grad()
    def after_step(self) -> None:
        """Take them back, round anew, and let the price follow the size."""
        for rounded in self._rounded.values():
            rounded.latent.copy_(rounded.weight)
        budget = self._budget(self._step)
        if self._step % _SOLVED == 0:
            if self._step < self._shrinking:
                self.renew()
            self._solved = math.sqrt(self._solved * self._price_for(budget))
            self.price = self._solved
        self.round_()
        self.price = _within(self._solved * self.code_bytes() / budget)
        self._step += 1

    def _price_for(self, size: float) -> float:
        """The price at which the codes would take `size` bytes, the weights and levels as they are;
        within reach of the present one."""
        low, high = self._solved / _REACH, self._solved * _REACH
        for _ in range(_HALVINGS):
            middle = math.sqrt(low * high)
            bits = sum(rounded.bits_at(middle) for rounded in self._rounded.values())
            low, high = (middle, high) if bits > 8 * size else (low, middle)
        return _within(high)

    @torch.no_grad()
    def round_(self) -> None:
        """The weights from those behind them, at the present price."""
        for rounded in self._rounded.values():
            rounded.follow_(self.price)

    def renew(self) -> None:
        """Find the levels anew at the present price."""
        for rounded in self._rounded.values():
            rounded.renew_(self.price)

    def code_bytes(self) -> float:
        """Shannon's bound for all codes, in bytes, with their levels."""
        return sum(rounded.bits for rounded in self._rounded.values()) / 8

    def quantized(self) -> QuantizedModel:
        """The model as it is now, on the CPU, apart from what is trained."""
        layers = {name: rounded.layer(name) for name, rounded in self._rounded.items()}
        masks = {
            name: layer.indices != layer.zero_code
            for name, layer in layers.items()
            if layer.zero_code is not None
        }
        return QuantizedModel(copy.deepcopy(self.model).cpu().eval(), layers, masks)

    def state(self) -> dict[str, Tensor]:
        """What is behind the weights, the levels with their counts, the prices, and the step."""
        price = torch.tensor([self.price, self._solved, self._step], dtype=torch.float64)
        tensors = {"price": price}
        for name, rounded in self._rounded.items():
            tensors[f"latent.{name}"] = rounded.latent
            tensors[f"levels.{name}"], tensors[f"counts.{name}"] = rounded.levels, rounded.counts
        return tensors

    @torch.no_grad()
    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Put back what `state` gave."""
        self.price, self._solved, step = state["price"].tolist()
        self._step = int(step)
        for name, rounded in self._rounded.items():
            rounded.latent.copy_(state[f"latent.{name}"])
            rounded.levels = state[f"levels.{name}"].cpu()
            rounded.counts = state[f"counts.{name}"].cpu()


class _Rounded:
    """One layer: the full-precision weights behind it, and the levels that follow them."""

    def __init__(self, weight: Tensor, layer: QuantizedLayer, worth: float) -> None:
        self.weight, self.latent = weight, weight.detach().clone()
        self._worth = worth
        codes = layer.indices.flatten().long().cpu()
        self.levels = layer.codebook.double().cpu()  # (K,)
        self.counts = torch.bincount(codes, minlength=len(self.levels)).double()  # (K,)
        self.bits = 0.0

    def follow_(self, price: float) -> None:
        """Codes at the price (nats for a bit) and the counts so far; levels to the means of the
        weights that take them, but for zero; and the weights to their levels."""
        values = _flat(self.latent).cpu()  # sums there are the same each time, and in float64
        codes = self._codes(values, price, self.counts)
        sums = torch.bincount(codes, weights=values.double(), minlength=len(self.levels))
        counts = torch.bincount(codes, minlength=len(self.levels)).double()
        means = torch.where(self.levels == 0, 0.0, sums / counts.clamp(min=1)).float().double()
        kept = (counts > 0) | (self.levels == 0)
        self.levels, place = torch.unique(means[kept] + 0.0, return_inverse=True)
        self.counts = torch.zeros(len(self.levels), dtype=torch.float64)
        self.counts.index_add_(0, place, counts[kept])
        _flat(self.weight).copy_(means.float()[codes])
        self.bits = _bits(counts)

    def bits_at(self, price: float) -> float:
        """What `bits` would come to at the price, the levels as they are."""
        values, counts = _flat(self.latent).cpu(), self.counts
        for _ in range(_TURNS):
            codes = self._codes(values, price, counts)
            counts = torch.bincount(codes, minlength=len(self.levels)).double()
        return _bits(counts)

    def _codes(self, values: Tensor, price: float, counts: Tensor) -> Tensor:
        lengths = math.log2(self.latent.numel()) - counts.clamp(min=0.5).log2()
        return cheapest_rule(self.levels, price / self._worth * lengths)(values)

    def renew_(self, price: float) -> None:
        """Levels found anew for the weights as they are: those of a lower price are too many."""
        values = _flat(self.latent).cpu()
        book = entropy_codebook(values, price / self._worth, level_bits=LEVEL_BITS)
        self.levels = book.levels.double()
        self.counts = torch.bincount(book.rule(values), minlength=len(self.levels)).double()

    def layer(self, name: str) -> QuantizedLayer:
        """Codebook and indices as they are."""
        weight = self.weight.detach().cpu()
        levels, codes = torch.unique(weight + 0.0, return_inverse=True)
        zero = torch.searchsorted(levels, 0.0)
        bits = max(1, (len(levels) - 1).bit_length())
        zero_code = int(zero) if 0.0 in levels else None
        return QuantizedLayer(name, bits, levels, codes.to(torch.uint8).contiguous(), zero_code)


def train_entropy(
    model: ResNet9,
    max_bytes: float,
    train_set: ImageSet,
    validation_set: ImageSet,
    config: TrainConfig,
    *,
    first_ratio: float = 1.5,
    worth_power: float = 0.75,
    overhead: int = 0,
    teacher: nn.Module | None = None,
    resume: str | Path | None = None,
) -> Iterator[RoundedEpoch]:
    """Train a copy of `model`, rounded at every step, yielding a RoundedEpoch after each epoch.

    max_bytes: of the packed file, which the last epoch's keeps (with `overhead` bytes for its name
    and steps); first_ratio: size at the first step in sizes of that, coming down over half of the
    steps; worth_power: 1 takes the layers' worth as measured on the dense network, 0 gives all the
    same relative error: layers that learn can do with less than they seem worth. Batch norm's
    running statistics lag behind the rounding: recalibrate. teacher, resume: as in `train`. Raises
    InputError where `train` does, and for a size that is out of reach.
    """
    wanted = real("max_bytes", max_bytes, 1, 2**40, "bytes") - overhead
    first_ratio = real("first_ratio", first_ratio, 1, 1000)
    images = train_set.images[:_WORTH_IMAGES]
    worth = _tempered(layer_worth(model, images), model, real("worth_power", worth_power, 0, 1))
    price = price_for(model, wanted * first_ratio, worth)
    start = quantize_entropy(model, price, images, worth=worth, compensate=False)
    at_first = _code_bytes(start.layers)
    rest = len(pack(start)) - at_first  # what the file holds besides
    last = (1 - _SPARE) * (wanted - rest)
    if last <= 0:
        least = math.ceil(rest) + overhead
        raise InputError(f"max_bytes must be above {least:,}, got {max_bytes:,.0f}.")
    steps = config.epochs * max(1, len(train_set) // config.batch_size)
    shrinking = max(1, round(_SHRINKING * steps))

    def budget(step: int) -> float:
        return last * max(1.0, at_first / last) ** max(0.0, 1 - step / shrinking)

    bound: list[EntropyRounding] = []

    def bind(copied: nn.Module) -> EntropyRounding:
        bound[:] = [EntropyRounding(copied, start.layers, worth, price, budget, shrinking)]
        return bound[0]

    for result in train(
        model,
        train_set,
        validation_set,
        config,
        constraint=bind,
        teacher=teacher,
        resume=resume,
    ):
        if result.epoch == config.epochs:
            _squeeze(bound[0], wanted)
        quantized = bound[0].quantized()
        found: dict[str, Any] = vars(result)
        size = len(pack(quantized)) + overhead
        yield RoundedEpoch(**found, quantized=quantized, packed_bytes=size, price=bound[0].price)


def _tempered(worth: Mapping[str, float], model: nn.Module, power: float) -> dict[str, float]:
    """Between the worth as measured and that of the same relative error in all layers."""
    squares = {n: m.weight.detach().square().mean() for n, m in prunable_layers(model).items()}
    return {
        name: worth[name] ** power / max(float(squares[name]), 1e-12) ** (1 - power)
        for name in worth
    }


def _bits(counts: Tensor) -> float:
    """Shannon's bound for codes of (K,) float64 counts, with what their levels take."""
    used = counts[counts > 0]
    return LEVEL_BITS * len(used) - float((used * (used / used.sum()).log2()).sum())


def _code_bytes(layers: Mapping[str, QuantizedLayer]) -> float:
    counts = [torch.bincount(layer.indices.flatten().long()) for layer in layers.values()]
    return sum(_bits(each.double()) for each in counts) / 8


def _squeeze(rounding: EntropyRounding, wanted: float) -> None:
    """Raise the price until the file fits: its control is a step behind, and few steps are too few
    for it."""
    factor = _SQUEEZE
    while (size := len(pack(rounding.quantized()))) > wanted:
        if rounding.price >= DEAREST:
            raise InputError(f"max_bytes must be within reach, got {wanted:,.0f} of {size:,}.")
        rounding.price = _within(rounding.price * factor)
        factor *= _SQUEEZE
        rounding.round_()


def _within(price: float) -> float:
    """A price at which codebooks can be found."""
    return min(DEAREST, max(CHEAPEST, price))


def _flat(weight: Tensor) -> Tensor:
    """(n,) over the same memory, which of convolutions is channels last."""
    return (weight.detach().permute(0, 2, 3, 1) if weight.dim() == 4 else weight.detach()).view(-1)
