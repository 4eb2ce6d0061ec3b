"""Training a network for a size of its packed file, through the rounding.

The network learns a teacher's answers with rounded weights (`entropy_rounding.py`), whose codes may
take ever fewer bytes over the first part of the steps, and the wanted size from there on. Left out:
measuring the layers' worth anew on the way.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from compression.data import ImageSet
from compression.entropy_quantization import (
    CHEAPEST,
    DEAREST,
    price_for,
    quantize_entropy,
    quantize_to_train,
)
from compression.entropy_rounding import EntropyRounding, code_bits
from compression.inputs import InputError, real, size_text, whole
from compression.packing import pack
from compression.quantization import QuantizedLayer, QuantizedModel
from compression.recipes import TrainConfig
from compression.resnet9 import ResNet9, prunable_layers
from compression.training import EpochResult, train
from compression.worth import WORTH_POWER, tempered_worth

# Of the budget: what the coder takes above Shannon's bound, and the price's lag. Weights gather
# where their codes change, so that cutting off a last percent after training costs a point.
_SPARE = 0.008
_HELD = 0.995  # of a start's bytes: at a price that leaves it so many, its codes are at rest
_SQUEEZE = 1.01  # the price's factor, and that factor's power at each step, until the file fits


@dataclass(frozen=True, kw_only=True)
class RoundedEpoch(EpochResult):
    """One epoch; `quantized` is the rounded model after it, on the CPU; packed_bytes of its file,
    and `price` of a bit in nats. The last one is rounded anew where its file did not fit;
    the accuracy is the one before that."""

    quantized: QuantizedModel = field(repr=False, compare=False)
    packed_bytes: int
    price: float


def train_entropy(
    model: ResNet9,
    max_bytes: float,
    train_set: ImageSet,
    validation_set: ImageSet,
    config: TrainConfig,
    *,
    first_ratio: float = 1.5,
    shrinking: float = 0.5,
    worth_power: float = WORTH_POWER,
    compensation_images: int = 0,
    overhead: int = 0,
    start: QuantizedModel | None = None,
    teacher: nn.Module | None = None,
    resume: str | Path | None = None,
) -> Iterator[RoundedEpoch]:
    """Train a copy of `model`, rounded at every step, yielding a RoundedEpoch after each epoch.

    max_bytes: of the packed file, which the last epoch's keeps (with `overhead` bytes for its name
    and steps); first_ratio: size at the first step in sizes of that, coming down over the share
    `shrinking` of the steps; worth_power: as in `tempered_worth`. compensation_images: the
    first so many training images by which errors of the first rounding make up for each other
    (`compensation.py`); then it is the larger for it; 0: it is plain. start: what an earlier
    training made of `model`, to go on from in place of rounding it; its size then is the first.
    Batch norm's running statistics lag behind the rounding: recalibrate. teacher, resume: as in
    `train`. Raises InputError where `train` does, for a size that is out of reach, and for a start
    of other layers.
    """
    wanted = real("max_bytes", max_bytes, 1, 2**40, "bytes") - overhead
    first_ratio = real("first_ratio", first_ratio, 1, 1000)
    images = train_set.images
    worth = tempered_worth(model, images, real("worth_power", worth_power, 0, 1))
    price = price_for(model, wanted * (1 if start else first_ratio), worth)
    few, behind = images[: whole("compensation_images", compensation_images, 0, 50_000)], model
    if start:
        begun, behind = start, start.model
    elif len(few):
        begun, behind = quantize_to_train(model, price, few, worth=worth)
    else:
        begun = quantize_entropy(model, price, images, worth=worth, compensate=False)
    layers = _same_layers(model, begun)
    at_first = _code_bytes(layers)
    rest = len(pack(begun)) - at_first  # what the file holds besides
    last = (1 - _SPARE) * (wanted - rest)
    if last <= 0:
        least = math.ceil(rest) + overhead
        raise InputError(f"max_bytes must be above {size_text(least)}, got {size_text(max_bytes)}.")
    steps = config.epochs * max(1, len(train_set) // config.batch_size)
    falling = max(1, round(real("shrinking", shrinking, 0, 1) * steps))

    def budget(step: int) -> float:
        return last * max(1.0, at_first / last) ** max(0.0, 1 - step / falling)

    bound: list[EntropyRounding] = []

    def bind(copied: nn.Module) -> EntropyRounding:
        if start is None:
            rounding = EntropyRounding(copied, layers, worth, price, budget, falling)
        else:  # levels are not found anew: weights that lie in few places would get too few
            rounding = EntropyRounding(copied, layers, worth, CHEAPEST, budget, 0)
            rounding.go_on_at(price, _HELD * at_first, falling)
        bound[:] = [rounding]
        return rounding

    for result in train(
        behind,
        train_set,
        validation_set,
        config,
        constraint=bind,
        teacher=teacher,
        resume=resume,
    ):
        if result.epoch == config.epochs:
            _squeeze(bound[0], wanted, overhead)
        quantized = bound[0].quantized()
        found: dict[str, Any] = vars(result)
        size = len(pack(quantized)) + overhead
        yield RoundedEpoch(**found, quantized=quantized, packed_bytes=size, price=bound[0].price)


def _same_layers(model: ResNet9, start: QuantizedModel) -> dict[str, QuantizedLayer]:
    """The start's layers, where they are all of the model's."""
    shapes = {name: module.weight.shape for name, module in prunable_layers(model).items()}
    found = {name: layer.indices.shape for name, layer in start.layers.items()}
    if found != shapes:
        raise InputError(
            f"start must have all {len(shapes)} layers of the model quantized, got "
            f"{sum(found.get(name) == shape for name, shape in shapes.items())} of them."
        )
    return start.layers


def _code_bytes(layers: Mapping[str, QuantizedLayer]) -> float:
    counts = [torch.bincount(layer.indices.flatten().long()) for layer in layers.values()]
    return sum(code_bits(each.double()) for each in counts) / 8


def _squeeze(rounding: EntropyRounding, wanted: float, overhead: int) -> None:
    """Raise the price until the file fits: its control is a step behind, and few steps are too few
    for it."""
    factor = _SQUEEZE
    while (size := len(pack(rounding.quantized()))) > wanted:
        if rounding.price >= DEAREST:
            raise InputError(
                f"max_bytes must be within reach of this training, whose smallest file takes "
                f"{size_text(size + overhead)}, got {size_text(wanted + overhead)}."
            )
        rounding.round_at(rounding.price * factor)
        factor *= _SQUEEZE
