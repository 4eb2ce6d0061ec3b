"""Pruning, bit widths and codes at once: the least damage for the bytes that a coder will take.

Every layer gets levels and codes of least worth * squared error + price * bits
(`entropy_codebook.py`), one price for the whole network (the equal-slope condition of Shoham &
Gersho 1988), and codes whose errors make up for each other (`compensation.py`). A layer's worth,
its sensitivity, is measured: the KL divergence of the answers that a squared error in its weights
makes. No weight is trained, no label is read. Left out: how layers act on one another.
"""

import copy
import functools
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from compression.compensation import Coding, Compensated, compensated_layers
from compression.entropy_codebook import Rule, cheapest_rule, entropy_codebook
from compression.inputs import InputError, real, size_text
from compression.packing import pack
from compression.pruning import check_masks
from compression.quantization import QuantizedLayer, QuantizedModel, with_layers
from compression.resnet9 import ResNet9, prunable_layers
from compression.worth import LEAST_WORTH, MOST_WORTH, check_network, tempered_worth

LEVEL_BITS = 48  # a level in the file, about: its value, and its count in the coder's table
CHEAPEST, DEAREST = 1e-16, 1.0  # nats for a bit: all levels that there may be, nothing but zeros
_SEARCH_IMAGES = 128  # by which the price is looked for, before all images are
_SEARCH_ROUNDS = 4
_SEARCHED = 0.03  # of the budget: near enough with few images
_SLOPE = -0.55  # bytes go about as this power of the price; -0.2 to -0.75 were seen
_SLOPES = -2.0, -0.2  # what two trials may say of it
_ROUNDS = 10
_USED = 0.99  # of the budget: near enough


class Trial(NamedTuple):
    """A price of a bit in nats, the bytes of the packed file that it led to, and the best model so
    far that fits, with its bytes."""

    price: float
    packed_bytes: int
    best: QuantizedModel | None
    best_bytes: int


def quantize_entropy(
    model: nn.Module,
    price: float,
    images: Tensor,
    masks: Mapping[str, Tensor] | None = None,
    *,
    worth: Mapping[str, float] | None = None,
    compensate: bool = True,
) -> QuantizedModel:
    """A quantized copy of `model` in which a bit of a weight's code is worth `price` nats.

    images: (N, 32, 32, 3) uint8 training images; some hundred do. masks: layer -> bool, True where
    the weight is kept, of a pruned model; kept weights may become zero as well, and the result's
    masks are those of all its zeros. worth: layer -> nats for a squared error of 1, by default
    `tempered_worth`. compensate: whether errors make up for each other; the only step that takes
    long, 10 to 15 s of two cores for 512 images and `resnet9-s`. Raises InputError as
    `quantize_compensated` does.
    """
    price = real("price", price, CHEAPEST, DEAREST, "nats for a bit")
    _checked(model, images, masks)
    if worth is None:
        worth = tempered_worth(model, images)
    codings = _codings(model, price, worth, masks)
    if not compensate:
        return _rounded(model, {name: each.layer for name, each in codings.items()})
    return _compensated(model, compensated_layers(model, codings, images, masks))


def quantize_to_train(
    model: ResNet9, price: float, images: Tensor, *, worth: Mapping[str, float]
) -> tuple[QuantizedModel, ResNet9]:
    """`quantize_entropy`, and a copy of `model` whose weights are what each code was taken for:
    what training through the rounding may begin behind, where its codes are the same."""
    price = real("price", price, CHEAPEST, DEAREST, "nats for a bit")
    _checked(model, images, None)
    found = compensated_layers(model, _codings(model, price, worth, None), images)
    behind = copy.deepcopy(model)
    for name, module in prunable_layers(behind).items():
        module.weight.data.copy_(found[name].values)
    return _compensated(model, found), behind


def fit_entropy(
    model: nn.Module,
    max_bytes: float,
    images: Tensor,
    masks: Mapping[str, Tensor] | None = None,
    *,
    overhead: int = 0,
) -> QuantizedModel:
    """`quantize_entropy` at a price whose packed file takes 99 to 100 % of `max_bytes`, or the
    largest within it that ten trials find, or that there is.

    overhead: bytes that the file's name and steps will add (`packing.description_bytes`). Takes two
    or three times the seconds of one `quantize_entropy`. Raises InputError where even the dearest
    bits leave the file too large, and for what `quantize_entropy` refuses.
    """
    *_, last = fit_entropy_by_trial(model, max_bytes, images, masks, overhead=overhead)
    assert last.best is not None
    return last.best


def fit_entropy_by_trial(
    model: nn.Module,
    max_bytes: float,
    images: Tensor,
    masks: Mapping[str, Tensor] | None = None,
    *,
    overhead: int = 0,
    first_price: float | None = None,
) -> Iterator[Trial]:
    """The trials of `fit_entropy` on all images as they are made. The first is at `first_price`, or
    at one that is looked for, without compensation first, which is quick, then with few images.
    Errors as there."""
    budget = real("max_bytes", max_bytes, 1, 2**40, "bytes")
    _checked(model, images, masks)
    worth = tempered_worth(model, images)

    def tried(price: float, count: int) -> tuple[QuantizedModel, int]:
        found = quantize_entropy(
            model, price, images[: max(1, count)], masks, worth=worth, compensate=count > 0
        )
        return found, len(pack(found)) + overhead

    least = tried(DEAREST, 0)[1]
    if least > budget:
        raise InputError(
            f"max_bytes must be at least {size_text(least)} for this model, "
            f"got {size_text(budget)}."
        )
    if first_price is None:
        price = price_for(model, budget - overhead, worth, masks)
    else:
        price = real("first_price", first_price, CHEAPEST, DEAREST, "nats for a bit")
    rounds = _SEARCH_ROUNDS if len(images) > _SEARCH_IMAGES and first_price is None else 0
    before: tuple[float, int] | None = None
    for _ in range(rounds):
        size = tried(price, _SEARCH_IMAGES)[1]
        if abs(math.log(size / budget)) < _SEARCHED or (size < budget and price == CHEAPEST):
            break
        price, before = _moved(price, size, budget, before), (price, size)
    before = None  # with fewer images there are other bytes
    best: QuantizedModel | None = None
    best_bytes, over, under = 0, 0.0, math.inf  # prices known to be too low, and high enough
    for number in range(_ROUNDS):
        if number == _ROUNDS - 1 and best is None:
            price = DEAREST  # of which is known that it fits
        found, size = tried(price, len(images))
        if best_bytes < size <= budget:
            best, best_bytes = found, size
        yield Trial(price, size, best, best_bytes)
        over, under = (over, min(under, price)) if size <= budget else (max(over, price), under)
        near = _USED * budget <= size <= budget or over >= _USED * under
        if near or (size <= budget and price == CHEAPEST):
            break
        price, before = _moved(price, size, (1 + _USED) / 2 * budget, before), (price, size)
        if under == math.inf and number > 2:  # weights in few places: bytes fall by steps
            price = min(DEAREST, max(price, over * 2 ** (number - 2)))
        if not over < price < under:  # stay between what is known
            price = math.sqrt(over * under)


def price_for(
    model: nn.Module,
    max_bytes: float,
    worth: Mapping[str, float],
    masks: Mapping[str, Tensor] | None = None,
) -> float:
    """The price in nats at which the file fits within a few percent without compensation, by
    halving the logarithm; the highest where none does."""
    low, high = math.log10(CHEAPEST), math.log10(DEAREST)
    for _ in range(10):
        middle = (low + high) / 2
        codings = _codings(model, 10**middle, worth, masks)
        layers = {name: each.layer for name, each in codings.items()}
        size = len(pack(_rounded(model, layers)))
        low, high = (low, middle) if size <= max_bytes else (middle, high)
    return CHEAPEST if low == math.log10(CHEAPEST) else 10**high


def _moved(
    price: float, size: int, wanted: float, before: tuple[float, int] | None = None
) -> float:
    """The price at which about the wanted bytes are to be had, where this one gave `size`; another
    price with its size, tried before, tells how steeply they fall."""
    slope = _SLOPE
    if before is not None and before[0] != price:
        found = math.log(size / before[1]) / math.log(price / before[0])
        slope = min(_SLOPES[1], max(_SLOPES[0], found))
    return min(DEAREST, max(CHEAPEST, price * (wanted / size) ** (1 / slope)))


def _codings(
    model: nn.Module,
    price: float,
    worth: Mapping[str, float],
    masks: Mapping[str, Tensor] | None,
) -> dict[str, Coding]:
    """Layer -> how its weights get codes at the price, beginning with each weight by itself."""
    codings = {}
    for name, module in prunable_layers(model).items():
        each = real(f"worth of {name}", worth.get(name), LEAST_WORTH, MOST_WORTH)
        mask = (masks or {}).get(name)
        renew = functools.partial(_layer, name, price / each, mask)
        rule = functools.partial(_rule, price / each)
        codings[name] = Coding(renew(module.weight.detach()), rule, renew)
    return codings


def _rounded(model: nn.Module, layers: dict[str, QuantizedLayer]) -> QuantizedModel:
    """The model with these layers, its masks those of all their zeros."""
    zeros = {name: layer.indices != layer.zero_code for name, layer in layers.items()}
    return with_layers(QuantizedModel(model, layers, zeros), layers)


def _compensated(model: nn.Module, found: Mapping[str, Compensated]) -> QuantizedModel:
    layers = {name: each.layer for name, each in found.items()}
    return _rounded(model, {n: replace(x, bits=_bits(x.codebook)) for n, x in layers.items()})


def _layer(name: str, price: float, mask: Tensor | None, weight: Tensor) -> QuantizedLayer:
    """The codebook for a weight at a price in its squared units, with the codes that its rule
    gives, each weight by itself."""
    flat = weight.flatten()
    kept = None if mask is None else mask.flatten().to(flat.device)
    values = flat if kept is None else flat[kept]
    zeros = len(flat) - len(values)
    book = entropy_codebook(values, price, zeros=zeros, level_bits=LEVEL_BITS)
    codes = book.rule.to(flat.device)(flat)
    if kept is not None:
        codes = codes.masked_fill(~kept, book.zero_code)
    indices = codes.to(torch.uint8).view(weight.shape)
    levels = book.levels.to(weight.device)
    return QuantizedLayer(name, _bits(levels), levels, indices, book.zero_code)


def _bits(levels: Tensor) -> int:
    return max(1, (len(levels) - 1).bit_length())


def _rule(price: float, layer: QuantizedLayer) -> Rule:
    """Least squared error + price * bits, a code's bits those of its present share."""
    counts = torch.bincount(layer.indices.flatten().long().cpu(), minlength=len(layer.codebook))
    lengths = math.log2(layer.indices.numel()) - counts.double().clamp(min=0.5).log2()
    return cheapest_rule(layer.codebook, price * lengths)


def _checked(model: nn.Module, images: Tensor, masks: Mapping[str, Tensor] | None) -> None:
    check_network(model, images)
    check_masks(model, dict(masks or {}))
