"""Entropy-constrained scalar quantization (ECSQ): least squared error + price * code length.

k-means spends a code on a level whether many weights use it or few; an entropy coder charges
-log2(share) bits for it. Here both are weighed against each other, the price being the Lagrange
multiplier of rate and distortion, in turns until nothing changes or 200 turns are done (Chou,
Lookabaugh & Gray 1989; for networks Choi, El-Khamy & Lee 2016, arXiv 1612.01543). Zero is always a
level: where bits are dear most weights take it, so that pruning comes out by itself. The result is
a local optimum. Where a level itself costs bits, neighbours are merged whose codes pay for two
levels' worth of squared error, but not for a second level (pairwise nearest neighbours, Equitz
1989). Left out: codes of several weights at once.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compression.inputs import InputError, real, whole
from compression.kmeans import kmeans_1d

_ROUNDS = 200
_FEW, _MANY = 16, 2**14  # thresholds that are compared with one by one, and values for which
_MAX_LEVELS = 255
_FIRST_STEP = 2.0  # times the root of the price; where bits are cheap the best spacing is 2.9 of it


@dataclass(frozen=True, eq=False)
class Rule:
    """Which code a value gets: codes[i] from thresholds[i - 1] (left out) up to thresholds[i].

    codes: (M,) int64, M >= 1; thresholds: (M - 1,) float64, ascending.
    """

    codes: Tensor
    thresholds: Tensor

    def to(self, device: torch.device) -> "Rule":
        """The same rule for values there."""
        return Rule(self.codes.to(device), self.thresholds.to(device))

    def __call__(self, values: Tensor) -> Tensor:
        """(n,) int64 codes of (n,) values on the same device."""
        return self.codes.index_select(0, self.places(values))

    def places(self, values: Tensor) -> Tensor:
        """(n,) int64: which of `codes` each of (n,) values gets."""
        if len(self.thresholds) > _FEW or len(values) < _MANY:
            return torch.bucketize(values.double(), self.thresholds)
        # 3 times as fast as a search in each value
        found = torch.zeros(len(values), dtype=torch.uint8, device=values.device)
        for threshold in self.limits(values.dtype).tolist():
            found += values > threshold
        return found.long()

    def others(self, values: Tensor, place: int) -> Tensor:
        """(m,) int64, ascending: which of (n,) values get another code than codes[place]."""
        limits = self.limits(values.dtype).tolist()
        other = torch.zeros(len(values), dtype=torch.bool, device=values.device)
        if place < len(limits):
            other |= values > limits[place]
        if place > 0:
            other |= values <= limits[place - 1]
        return other.nonzero().flatten()

    def limits(self, dtype: torch.dtype) -> Tensor:
        """(M - 1,) thresholds in the values' own type, such that values are above the same ones."""
        near = self.thresholds.to(dtype)
        below = torch.nextafter(near, near.new_tensor(-math.inf))
        return torch.where(near.double() > self.thresholds, below, near)


@dataclass(frozen=True, eq=False)
class EntropyCodebook:
    """levels: (K,) float32, strictly ascending; rule: which of them a value takes; zero_code: the
    place of the exact zero."""

    levels: Tensor
    rule: Rule
    zero_code: int


def cheapest_rule(levels: Tensor, costs: Tensor | None = None) -> Rule:
    """The rule of least (value - level)^2 + cost; a tie goes to the lower level.

    levels: (K,) ascending, K >= 1; costs: (K,), by default none: then it is the nearest level. A
    level that is the cheapest for no value has no part in the rule.
    """
    values = levels.double().cpu().tolist()
    extra = [0.0] * len(values) if costs is None else costs.double().cpu().tolist()
    codes, thresholds = _lower_envelope(values, extra)
    return Rule(torch.tensor(codes), torch.tensor(thresholds, dtype=torch.float64))


def entropy_codebook(
    values: Tensor, price: float, *, zeros: int = 0, level_bits: float = 0.0
) -> EntropyCodebook:
    """Levels for `values` where a bit costs `price`, in squared units of the values.

    values: (n,) float32, finite; zeros: how many weights besides are zero for sure (pruned ones),
    which make the code of zero cheaper for the others; level_bits: what a level takes in the file.
    At most 255 levels. Half a million values take some 0.1 s of one core. Raises InputError for a
    price that is not above 0, or out of range.
    """
    price = real("price", price, 1e-30, 1e30)
    zeros = whole("zeros", zeros, 0, 2**40)
    if values.ndim != 1:
        raise InputError(f"values must have shape (n,), got {tuple(values.shape)}.")
    if bad := int((~torch.isfinite(values)).sum()):
        raise InputError(f"values must be finite, got {bad} of {len(values)} that are not.")
    ordered = np.sort(values.detach().cpu().numpy().astype(np.float64))
    levels, costs, counts = _settled(ordered, _first_levels(ordered, price), price, zeros)
    level_bits = real("level_bits", level_bits, 0, 1e6, "bits")
    while level_bits and len(fewer := _merged(levels, counts, price, level_bits)) < len(levels):
        levels, costs, counts = _settled(ordered, fewer, price, zeros)
    found = torch.from_numpy(levels).float()
    return EntropyCodebook(
        found,
        cheapest_rule(found, torch.from_numpy(costs)),
        int((found == 0).nonzero()),
    )


def _settled(
    ordered: NDArray[np.float64], levels: NDArray[np.float64], price: float, zeros: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Levels, the cost and the count of each, from `levels` after rounds of both steps."""
    total = len(ordered) + zeros
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    costs, counts = np.zeros(len(levels)), np.zeros(len(levels))
    before: list[float] = []
    for _ in range(_ROUNDS):
        codes, thresholds = _lower_envelope(levels.tolist(), costs.tolist())
        edges = np.concatenate([[0], np.searchsorted(ordered, thresholds, "right"), [len(ordered)]])
        zero = int(np.flatnonzero(levels == 0)[0])
        counts = np.bincount(codes, np.diff(edges), len(levels))
        means = np.bincount(codes, sums[edges[1:]] - sums[edges[:-1]], len(levels))
        means = np.divide(means, counts, out=levels.copy(), where=counts > 0)
        means[zero] = 0.0
        counts[zero] += zeros
        used = counts > 0
        used[zero] = True
        # Rounded to what is stored; levels that are equal then are one.
        stored, places = np.unique(means[used].astype(np.float32) + 0.0, return_inverse=True)
        levels = stored.astype(np.float64)
        counts = np.bincount(places, counts[used]).astype(np.float64, copy=False)
        lengths = math.log2(max(total, 1)) - np.log2(np.maximum(counts, 0.5))
        costs = price * lengths.astype(np.float64, copy=False)
        if thresholds == before:
            break
        before = thresholds
    return levels, costs, counts


def _merged(
    levels: NDArray[np.float64], counts: NDArray[np.float64], price: float, level_bits: float
) -> NDArray[np.float64]:
    """The levels after merging neighbours, the most profitable pair first, where only the bits of a
    level make it pay: the error grows (Ward 1963), codes get shorter, a level less is stored.

    Pairs that would pay without those bits are left as they settled: merging them too saved up to
    2 % at high rates, but makes the bytes jump by half between near prices where the values lie in
    few places, so that a size could not be met."""
    levels, counts = levels.copy(), np.maximum(counts, 1e-9)
    while len(levels) > 1:
        left, right = counts[:-1], counts[1:]
        both = left + right
        apart = (levels[1:] - levels[:-1]) ** 2
        weight = np.where(levels[:-1] == 0, right, np.where(levels[1:] == 0, left, 0))
        weight = np.where(weight > 0, weight, left * right / both)  # what joins zero becomes zero
        saved = both * np.log2(both) - left * np.log2(left) - right * np.log2(right)
        gain = price * saved - weight * apart
        gain = np.where(gain <= 0, gain + price * level_bits, 0)
        k = int(gain.argmax())
        if gain[k] <= 0:
            break
        at_zero = levels[k] == 0 or levels[k + 1] == 0
        mean = (left[k] * levels[k] + right[k] * levels[k + 1]) / both[k]
        levels[k], counts[k] = 0.0 if at_zero else mean, both[k]
        levels, counts = np.delete(levels, k + 1), np.delete(counts, k + 1)
    return levels


def _first_levels(ordered: NDArray[np.float64], price: float) -> NDArray[np.float64]:
    """Evenly spaced levels, zero among them; k-means' where those would be too many."""
    reach = float(np.abs(ordered).max()) if len(ordered) else 0.0
    if reach == 0:
        return np.zeros(1)
    step = _FIRST_STEP * price**0.5
    if reach / step > _MAX_LEVELS // 2:
        levels, _ = kmeans_1d(ordered, _MAX_LEVELS - 1)
        return np.unique(np.append(levels, 0.0))
    half = max(1, int(reach / step))
    return np.arange(-half, half + 1) * min(step, reach)


def _lower_envelope(levels: list[float], costs: list[float]) -> tuple[list[int], list[float]]:
    """The parabolas (x - level)^2 + cost that are lowest somewhere, and where one takes over."""
    codes: list[int] = []
    starts: list[float] = []  # from where on each of `codes` is the lowest
    for code, (level, cost) in enumerate(zip(levels, costs, strict=True)):
        start = -np.inf
        while codes:
            other = codes[-1]
            apart = level - levels[other]
            start = (levels[other] + level) / 2 + (cost - costs[other]) / (2 * apart)
            if start > starts[-1]:
                break
            codes.pop()
            starts.pop()
            start = -np.inf
        codes.append(code)
        starts.append(start)
    return codes, starts[1:]
