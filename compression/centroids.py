"""Centroid training, the quantization-aware fine-tuning of Deep Compression (arXiv 1510.00149).

The indices of a quantized model stay fixed; the weights of a cluster share one value, which follows
their gradients. By the chain rule its gradient is their sum. The step uses their mean instead (the
course report's choice too): clusters hold from tens to hundreds of thousands of weights, so with
the sum no one learning rate suits all, while the mean moves each centroid as fast as its weights
would go by themselves. Where a layer has few weights for each centroid they move nearly as single
weights do, whose steps must be smaller: those of such a layer are. The zero of pruned weights never
moves. Left out: assigning weights to other centroids on the way.
"""

import copy
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compression.constraints import Constraint
from compression.data import ImageSet
from compression.inference import count_correct
from compression.inputs import InputError, choice, real
from compression.model import prunable_layers
from compression.quantization import QuantizedModel, with_tied_model
from compression.training import EpochResult, StepResult, TrainConfig, train_by_step

GRADIENTS = ("mean", "sum")
# The learning rate at which single weights are safe: with K centroids for n weights, steps of the
# mean gradient feel about K / n of the steepest curvature (they lie in K of n directions). At 0.3
# for all, 256 centroids of conv1's 864 weights diverge beside layers of 2 bits.
_SINGLE_LR = 0.01


@dataclass(frozen=True)
class CentroidConfig:
    """One recipe of centroid training.

    learning_rate: of the centroids, per step of a mean loss, with `mean` at most a hundredth times
    the weights that a layer has for each centroid; gradient: `mean` or `sum` of the cluster's,
    where `sum` wants a learning rate smaller by about the size of a cluster; vector_learning_rate:
    of biases and batch-norm scales and shifts; 0 holds them fixed, while running statistics follow
    in any case. Weights that are not quantized are held fixed.
    """

    epochs: int = 2
    batch_size: int = 128
    learning_rate: float = 0.3
    vector_learning_rate: float = 0.01
    gradient: str = "mean"
    momentum: float = 0.9
    warmup: float = 0.1
    label_smoothing: float = 0.0
    translate: int = 4
    flip: bool = True
    precision: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        real("learning_rate", self.learning_rate, 1e-9, 100)
        real("vector_learning_rate", self.vector_learning_rate, 0, 100)
        choice("gradient", self.gradient, GRADIENTS)
        real("momentum", self.momentum, 0, 1)
        self.recipe()  # the other fields mean what they mean there, and are checked there

    def recipe(self) -> TrainConfig:
        """The training recipe: SGD with Nesterov momentum and without decay of weights."""
        return TrainConfig(
            epochs=self.epochs,
            batch_size=self.batch_size,
            optimizer="sgd",
            sgd_lr=self.learning_rate,
            sgd_momentum=self.momentum,
            sgd_weight_decay=0.0,
            warmup=self.warmup,
            label_smoothing=self.label_smoothing,
            translate=self.translate,
            flip=self.flip,
            precision=self.precision,
            seed=self.seed,
        )


@dataclass(frozen=True, kw_only=True)
class CentroidEpoch(EpochResult):
    """One epoch of centroid training; `best` is the quantized model after the best epoch so far.

    learning_rate is the centroids'. Where no epoch was better than the start, the start is the
    best: best_epoch is 0, and best_accuracy is the start's.
    """

    best: QuantizedModel = field(repr=False, compare=False)


class TiedWeights(Constraint):
    """A Constraint: one value a cluster, moved by its cluster's gradient; a zero code stays zero.

    Bound to a copy of quantized.model that trains at config.learning_rate; gradients of biases and
    batch norm are scaled to have their own rate.
    """

    def __init__(self, model: nn.Module, quantized: QuantizedModel, config: CentroidConfig) -> None:
        self._kind, self._config = config.gradient, config
        self._vector_scale = config.vector_learning_rate / config.learning_rate
        modules = prunable_layers(model)
        weights = {name: module.weight for name, module in modules.items()}
        self._clusters = [
            _Clusters(weights[name], layer.indices, len(layer.codebook), layer.zero_code)
            for name, layer in quantized.layers.items()
        ]
        self._scales = [self._scale(clusters, config) for clusters in self._clusters]
        tied = {id(clusters.weight) for clusters in self._clusters}
        held = {id(weight) for weight in weights.values()} - tied
        self._held = [p for p in model.parameters() if id(p) in held]
        self._vectors = [p for p in model.parameters() if id(p) not in tied | held]

    @staticmethod
    def _scale(clusters: "_Clusters", config: CentroidConfig) -> float:
        """By which a layer's gradients are multiplied, to have the rate that suits it."""
        if config.gradient == "sum":
            return 1.0
        each = clusters.weight.numel() / clusters.used
        return min(1.0, _SINGLE_LR * each / config.learning_rate)

    @torch.no_grad()
    def after_backward(self) -> None:
        """Give each weight its cluster's gradient; the optimizer skips what has none."""
        for clusters, scale in zip(self._clusters, self._scales, strict=True):
            clusters.spread_(_grad(clusters.weight), clusters.gradient(self._kind) * scale)
        for weight in self._held:
            weight.grad = None
        for vector in self._vectors:
            vector.grad = _grad(vector) * self._vector_scale if self._vector_scale else None

    @torch.no_grad()
    def after_step(self) -> None:
        """Give all weights of a cluster one value again: vectorized steps may round them apart."""
        for clusters in self._clusters:
            clusters.spread_(clusters.weight, clusters.values())

    def identity(self) -> list[Tensor]:
        """The codes, and the settings, of which the recipe of the training holds a part."""
        settings = json.dumps(asdict(self._config), sort_keys=True).encode()
        codes = [clusters.codes for clusters in self._clusters]
        return [*codes, torch.frombuffer(bytearray(settings), dtype=torch.uint8)]


class _Clusters:
    """One layer's weights by cluster: K codes, of which `zero_code` is held at zero."""

    def __init__(self, weight: Tensor, indices: Tensor, k: int, zero_code: int | None) -> None:
        self.weight = weight
        self.codes = indices.flatten().long().to(weight.device)  # (n,)
        self._k, self._zero_code = k, zero_code
        counts = torch.bincount(self.codes, minlength=k)
        self.used = max(1, int((counts > 0).sum()))  # codes that there are weights of
        self._counts = counts.clamp(min=1)
        # Where each code occurs; which of several places is written last does not matter.
        places = torch.arange(len(self.codes), device=weight.device)
        self._place = torch.zeros(k, dtype=torch.long, device=weight.device)
        self._place[self.codes] = places

    def gradient(self, kind: str) -> Tensor:
        """(K,) float32: the mean or sum of the weights' gradients in each cluster, 0 for zero."""
        wide = torch.float32 if self.weight.device.type == "mps" else torch.float64
        each = _grad(self.weight).flatten().to(wide)
        sums = torch.bincount(self.codes, weights=each, minlength=self._k)
        return self._zeroed((sums / self._counts if kind == "mean" else sums).float())

    def values(self) -> Tensor:
        """(K,) float32: a weight of each cluster, 0 for zero."""
        return self._zeroed(self.weight.flatten()[self._place])

    def spread_(self, target: Tensor, per_code: Tensor) -> None:
        """Set each entry of `target`, of the weight's shape, to its cluster's number."""
        target.copy_(per_code[self.codes].view(target.shape))

    def _zeroed(self, per_code: Tensor) -> Tensor:
        if self._zero_code is not None:
            per_code[self._zero_code] = 0.0
        return per_code


def train_centroids(
    quantized: QuantizedModel,
    train_set: ImageSet,
    validation_set: ImageSet,
    config: CentroidConfig | None = None,
    *,
    teacher: nn.Module | None = None,
    resume: str | Path | None = None,
    device: str | torch.device | None = None,
) -> Iterator[CentroidEpoch]:
    """Train the codebooks of a copy of `quantized`, yielding a CentroidEpoch after each epoch.

    Codes keep their weights (they are numbered anew only where centroids change places), and
    pruned weights stay exactly zero. teacher, resume: as in `train`. `quantized` stays as it was.
    Raises InputError where `train` does, and for a model without quantized layers.
    """
    for result in train_centroids_by_step(
        quantized,
        train_set,
        validation_set,
        config,
        teacher=teacher,
        resume=resume,
        device=device,
    ):
        if isinstance(result, CentroidEpoch):
            yield result


def train_centroids_by_step(
    quantized: QuantizedModel,
    train_set: ImageSet,
    validation_set: ImageSet,
    config: CentroidConfig | None = None,
    *,
    teacher: nn.Module | None = None,
    resume: str | Path | None = None,
    device: str | torch.device | None = None,
) -> Iterator[StepResult | CentroidEpoch]:
    """`train_centroids` that also yields a StepResult after every step."""
    config = config or CentroidConfig()
    if not quantized.layers:
        raise InputError("quantized must hold at least one quantized layer, got none.")
    results = train_by_step(
        quantized.model,
        train_set,
        validation_set,
        config.recipe(),
        constraint=lambda copied: TiedWeights(copied, quantized, config),
        teacher=teacher,
        resume=resume,
        device=device,
    )
    yield from with_best(results, quantized, validation_set, with_tied_model)


def with_best(
    results: Iterator[StepResult | EpochResult],
    quantized: QuantizedModel,
    validation_set: ImageSet,
    read: Callable[[QuantizedModel, nn.Module], QuantizedModel],
) -> Iterator[StepResult | CentroidEpoch]:
    """Epochs of a run that began at `quantized` with the best quantized model so far, the start
    among them; read: makes it of the start and the trained network. Steps pass as they are."""
    home = next(quantized.model.parameters()).device
    right = count_correct(quantized.model, validation_set.images, validation_set.labels)
    at_start = right / len(validation_set)
    for result in results:
        if isinstance(result, StepResult):
            yield result
            continue
        found: dict[str, Any] = dict(vars(result))
        if result.best_accuracy > at_start:
            best = read(quantized, copy.deepcopy(result.best_model).to(home))
        else:
            best = quantized
            found |= {"best_accuracy": at_start, "best_epoch": 0}
        found["best_model"] = best.model
        yield CentroidEpoch(**found, best=best)


def _grad(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None, "after_backward runs after a backward pass"
    return parameter.grad
