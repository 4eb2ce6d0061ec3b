"""Weights that are rounded at every step of training, each code as dear as the file charges for it.

Every step computes with rounded weights, and its gradients move full-precision ones behind them,
which are rounded anew (the straight-through estimator, Bengio et al. 2013, arXiv 1308.3432): to the
level of least worth * squared error + price * bits, as in `entropy_quantization.py`, the bits those
of the level's present share (entropy-constrained training; Wiedemann et al. 2020, arXiv
1905.08318). Levels follow the means of the weights that took them. The price is the one at which
the codes take their budget of bytes. A weight may become zero and come back, so pruning is part of
it (as in Guo et al. 2016, arXiv 1608.04493).
"""

import copy
import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from compression.constraints import Constraint
from compression.entropy_codebook import Rule, cheapest_rule, entropy_codebook
from compression.entropy_quantization import CHEAPEST, DEAREST, LEVEL_BITS
from compression.quantization import QuantizedLayer, QuantizedModel
from compression.resnet9 import prunable_layers

# Steps after which the price is solved for, and codebooks are found anew while the budget shrinks;
# in between the price moves with the size. Following the size alone left files 2 % too large, and
# cutting that off cost a point.
_SOLVED = 16
_REACH, _HALVINGS = 4.0, 8  # the price is looked for among so many times less and more
_ALL_HALVINGS = 12  # from the lowest price on
# Parts of the way to the solved price: levels give way to the codes later, so all of it is too
# much, and a price that swings keeps codes changing that should settle once the budget has.
_QUICK, _CALM = 0.5, 0.25
_TURNS = 3  # of codes and their lengths, each by the other: what the steps to come would do
_SAMPLE = 2**17  # weights of a layer by which prices and levels are looked for, at least


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
        self._falling = shrinking
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
            part = _QUICK if self._step < self._shrinking else _CALM
            low, high = self._solved / _REACH, self._solved * _REACH
            self._solved *= (self._prices(budget, low, high)[1] / self._solved) ** part
            self.price = self._solved
        self.round_()
        self.price = _within(self._solved * self.code_bytes() / budget)
        self._step += 1

    @torch.no_grad()
    def round_at(self, price: float) -> None:
        """The weights anew at another price."""
        self.price = _within(price)
        self.round_()

    @torch.no_grad()
    def go_on_at(self, dearest: float, size: float, falling: int) -> None:
        """Begin with weights that are levels already: at the highest price, `dearest` at most, that
        leaves them `size` bytes; falling: steps in which the budget falls from there."""
        self._falling = falling
        self._solved = self.price = self._prices(size, CHEAPEST, dearest, _ALL_HALVINGS)[0]
        self.round_()

    def _prices(
        self, size: float, low: float, high: float, halvings: int = _HALVINGS
    ) -> tuple[float, float]:
        """Two prices close by, at which the codes would take more than `size` bytes, and at most
        that, the weights and levels as they are; or near one end."""
        for _ in range(halvings):
            middle = math.sqrt(low * high)
            bits = sum(rounded.bits_at(middle) for rounded in self._rounded.values())
            low, high = (middle, high) if bits > 8 * size else (low, middle)
        return _within(low), _within(high)

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

    def identity(self) -> list[Tensor]:
        """What is behind the weights, and how the size falls."""
        falls = [self._budget(step) for step in range(self._falling + 1)]
        behind = [rounded.latent for rounded in self._rounded.values()]
        return [torch.tensor(falls, dtype=torch.float64), *behind]

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
        # Odd, so that it goes through all of a kernel's places and inputs.
        self._every = max(1, weight.numel() // _SAMPLE - 1) | 1

    def follow_(self, price: float) -> None:
        """Codes at the price (nats for a bit) and the counts so far; levels to the means of the
        weights that take them, but for zero; and the weights to their levels."""
        values = _flat(self.latent).cpu()  # sums there are the same each time, and in float64
        rule = self._rule(price, self.counts)
        counts, sums = torch.zeros(2, len(self.levels), dtype=torch.float64)
        zero = (self.levels[rule.codes] == 0).nonzero().flatten()
        moved = None  # the weights that are not zero, where most are
        if len(zero) and 2 * self.counts[rule.codes[zero]] > len(values):
            moved = rule.others(values, int(zero))
            counts[rule.codes[zero]] = float(len(values) - len(moved))
            values = values[moved]
        places = rule.places(values)
        counts[rule.codes] += torch.bincount(places, minlength=len(rule.codes)).double()
        added = torch.bincount(places, values.double(), minlength=len(rule.codes))
        sums[rule.codes] = added.double()  # of no values it is of whole numbers
        means = torch.where(self.levels == 0, 0.0, sums / counts.clamp(min=1)).float()
        kept = (counts > 0) | (self.levels == 0)
        self.levels, place = torch.unique(means[kept].double() + 0.0, return_inverse=True)
        self.counts = torch.zeros(len(self.levels), dtype=torch.float64)
        self.counts.index_add_(0, place, counts[kept])
        rounded, weight = means[rule.codes].index_select(0, places), _flat(self.weight)
        if moved is None:
            weight.copy_(rounded)
        else:
            weight.zero_()[moved.to(weight.device)] = rounded.to(weight.device)
        self.bits = code_bits(counts)

    def bits_at(self, price: float) -> float:
        """What `bits` would come to at the price, the levels as they are, judged by a sample."""
        values, counts = _flat(self.latent).cpu()[:: self._every], self.counts
        for _ in range(_TURNS):
            codes = self._rule(price, counts)(values)
            counts = torch.bincount(codes, minlength=len(self.levels)).double()
            counts *= self.latent.numel() / len(values)
        return code_bits(counts)

    def _rule(self, price: float, counts: Tensor) -> Rule:
        lengths = math.log2(self.latent.numel()) - counts.clamp(min=0.5).log2()
        return cheapest_rule(self.levels, price / self._worth * lengths)

    def renew_(self, price: float) -> None:
        """Levels found anew for the weights as they are: those of a lower price are too many."""
        values = _flat(self.latent).cpu()
        sample, level_bits = values[:: self._every], LEVEL_BITS / self._every
        book = entropy_codebook(sample, price / self._worth, level_bits=level_bits)
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


def code_bits(counts: Tensor) -> float:
    """Shannon's bound for codes of (K,) float64 counts, with what their levels take."""
    used = counts[counts > 0]
    return LEVEL_BITS * len(used) - float((used * (used / used.sum()).log2()).sum())


def _within(price: float) -> float:
    """A price at which codebooks can be found."""
    return min(DEAREST, max(CHEAPEST, price))


def _flat(weight: Tensor) -> Tensor:
    """(n,) over the same memory, which of convolutions is channels last."""
    return (weight.detach().permute(0, 2, 3, 1) if weight.dim() == 4 else weight.detach()).view(-1)
