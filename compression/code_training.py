"""Training in which weights may change their centroid: what few bits rounded plainly need.

Centroid training holds the codes (`centroids.py`). Here every step computes with quantized weights,
its gradients move full-precision ones behind them (the straight-through estimator, Bengio et al.
2013, arXiv 1308.3432), each weight takes the nearest centroid anew, and each centroid the mean of
its weights (the two steps of k-means, one of each a step of training; PACT and LSQ learn evenly
spaced levels so: Choi et al. 2018, arXiv 1805.06085; Esser et al. 2020, arXiv 1902.08153). Pruned
weights stay zero, and the number of centroids stays. Left out: a price of the codes, which
`entropy_training.py` has.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from compression.centroids import CentroidEpoch, with_best
from compression.compensation import nearest_rule
from compression.constraints import Constraint
from compression.data import ImageSet
from compression.inputs import InputError
from compression.model import prunable_layers
from compression.quantization import QuantizedLayer, QuantizedModel, quantized_layer_of
from compression.recipes import TrainConfig
from compression.training import StepResult, train_by_step

# Muon's steps are as long where the gradient is noise as where it is not, and turn codes over: at
# 0.01 it needed 135,000 images for the 90.6 % of validation that SGD reached with 20,000 (2 bits).
CODE_TRAINING = TrainConfig(
    epochs=2, batch_size=128, optimizer="sgd", sgd_lr=0.005, warmup=0.1, label_smoothing=0.0
)


class MovingCodes(Constraint):
    """A Constraint: weights are centroids, the optimizer moves what is behind them.

    Bound to a copy of quantized.model. dense: the network that was quantized; its weight is what
    training begins behind where it lies nearest to its own centroid, elsewhere (where rounding
    errors were made up for) it is the centroid.
    """

    def __init__(self, model: nn.Module, quantized: QuantizedModel, dense: nn.Module) -> None:
        weights, behind = prunable_layers(model), prunable_layers(dense)
        for name, layer in quantized.layers.items():
            found = behind[name].weight.shape if name in behind else "no such layer"
            if found != layer.indices.shape:
                raise InputError(
                    f"dense must hold {name} of shape {tuple(layer.indices.shape)}, got {found}."
                )
        self._layers = {
            name: _Moving(
                weights[name].weight, behind[name].weight, layer, quantized.masks.get(name)
            )
            for name, layer in quantized.layers.items()
        }

    @torch.no_grad()
    def after_backward(self) -> None:
        """Hand the optimizer the weights behind the quantized ones."""
        for layer in self._layers.values():
            layer.weight.copy_(layer.latent)

    @torch.no_grad()
    def after_step(self) -> None:
        """Take them back, and quantize them anew."""
        for layer in self._layers.values():
            layer.latent.copy_(layer.weight)
            layer.quantize_()

    def state(self) -> dict[str, Tensor]:
        """The weights behind, and the centroids."""
        tensors = {}
        for name, layer in self._layers.items():
            tensors[f"latent.{name}"] = layer.latent.contiguous()
            tensors[f"levels.{name}"] = layer.levels
        return tensors

    @torch.no_grad()
    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Put back what `state` gave."""
        for name, layer in self._layers.items():
            layer.latent.copy_(state[f"latent.{name}"])
            layer.set_levels_(state[f"levels.{name}"])


def _nearest(layer: QuantizedLayer, weight: Tensor) -> Tensor:
    """The code of the nearest centroid for each weight, on the CPU where the device has none of
    the rule's float64."""
    there = torch.device("cpu") if weight.device.type == "mps" else weight.device
    codes = nearest_rule(layer).to(there)(weight.flatten().to(there))
    return codes.view(weight.shape).to(weight.device)


class _Moving:
    """One layer: the weights behind it, and K centroids, of which a zero code's is zero."""

    @torch.no_grad()
    def __init__(
        self, weight: Tensor, dense: Tensor, layer: QuantizedLayer, mask: Tensor | None
    ) -> None:
        self.weight = weight
        device = weight.device
        self.levels = layer.codebook.to(device)  # (K,) float32, ascending
        self._pruned = None
        if layer.zero_code is not None and mask is not None:
            self._pruned = ~mask.to(device)
        self._zero_code = layer.zero_code
        codes, start = layer.indices.long().to(device), dense.detach().to(device)
        same = _nearest(layer, start) == codes
        self.latent = torch.where(same, start, self.levels[codes])
        if self._pruned is not None:
            self.latent.masked_fill_(self._pruned, 0.0)
        if weight.dim() == 4:
            self.latent = self.latent.contiguous(memory_format=torch.channels_last)

    def quantize_(self) -> None:
        """The nearest centroid for each weight, its mean for each centroid; an empty one stays."""
        zero, device = self._zero_code, self.latent.device
        layer = QuantizedLayer("", 8, self.levels, torch.empty(0), zero)
        codes = _nearest(layer, self.latent)
        if self._pruned is not None and zero is not None:
            codes.masked_fill_(self._pruned, zero)
        flat, values = codes.flatten().cpu(), self.latent.flatten().cpu().double()
        sums = torch.bincount(flat, weights=values, minlength=len(self.levels))
        counts = torch.bincount(flat, minlength=len(self.levels))
        means = (sums / counts.clamp(min=1)).float().to(device)
        levels = torch.where(counts.to(device) > 0, means, self.levels)
        if zero is not None:
            levels[zero] = 0.0
        self.weight.copy_(levels[codes])
        self.set_levels_(levels)

    def set_levels_(self, levels: Tensor) -> None:
        """Ascending, with the zero's code where it is now: a mean beside it may change its sign."""
        self.levels = levels.to(self.levels).sort().values
        if self._zero_code is not None:
            self._zero_code = int(torch.searchsorted(self.levels, 0.0))


def train_codes(
    quantized: QuantizedModel,
    dense: nn.Module,
    train_set: ImageSet,
    validation_set: ImageSet,
    config: TrainConfig | None = None,
    *,
    teacher: nn.Module | None = None,
    resume: str | Path | None = None,
    device: str | torch.device | None = None,
) -> Iterator[CentroidEpoch]:
    """Train a copy of `quantized` whose weights may change centroid, a CentroidEpoch an epoch.

    dense: the network that was quantized, of the same layers. Layers keep their bits, pruned
    weights stay exactly zero, and all that is not quantized is trained as usual. config: by default
    CODE_TRAINING; teacher, resume: as in `train`. Raises InputError where `train` does, for a model
    without quantized layers, and for a dense network of other layers.
    """
    for result in train_codes_by_step(
        quantized,
        dense,
        train_set,
        validation_set,
        config,
        teacher=teacher,
        resume=resume,
        device=device,
    ):
        if isinstance(result, CentroidEpoch):
            yield result


def train_codes_by_step(
    quantized: QuantizedModel,
    dense: nn.Module,
    train_set: ImageSet,
    validation_set: ImageSet,
    config: TrainConfig | None = None,
    *,
    teacher: nn.Module | None = None,
    resume: str | Path | None = None,
    device: str | torch.device | None = None,
) -> Iterator[StepResult | CentroidEpoch]:
    """`train_codes` that also yields a StepResult after every step."""
    if not quantized.layers:
        raise InputError("quantized must hold at least one quantized layer, got none.")
    results = train_by_step(
        quantized.model,
        train_set,
        validation_set,
        config or CODE_TRAINING,
        constraint=lambda copied: MovingCodes(copied, quantized, dense),
        teacher=teacher,
        resume=resume,
        device=device,
    )
    yield from with_best(results, quantized, validation_set, _with_codes_of)


def _with_codes_of(quantized: QuantizedModel, model: nn.Module) -> QuantizedModel:
    """The codebooks and codes read off a trained model."""
    model.to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
    weights, layers = prunable_layers(model), {}
    for name, layer in quantized.layers.items():
        mask = quantized.masks.get(name)
        found = quantized_layer_of(name, weights[name].weight, layer.bits, mask)
        assert found is not None, "a layer has as many values as its bits allow"
        layers[name] = found
    return QuantizedModel(model, layers, quantized.masks)
