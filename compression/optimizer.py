"""The optimizers of a recipe, their one-cycle schedule, and their state as plain tensors.

torch.optim.Muon takes matrices; a convolution's weight (out, in, kh, kw) is given to it as the
matrix (out, kh * kw * in) that shares its memory.
"""

import torch
from torch import Tensor, nn

from compression.recipes import TrainConfig


class _ConvMuon(torch.optim.Muon):
    """Muon over matrix views of convolution weights; the gradients are viewed before each step."""

    def __init__(self, weights: list[nn.Parameter], config: TrainConfig) -> None:
        self._weights = weights
        self._matrices = [nn.Parameter(_as_matrix(weight.data)) for weight in weights]
        super().__init__(
            self._matrices,
            lr=config.muon_lr,
            momentum=config.muon_momentum,
            weight_decay=config.muon_weight_decay,
        )

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        for weight, matrix in zip(self._weights, self._matrices, strict=True):
            matrix.grad = None if weight.grad is None else _as_matrix(_channels_last(weight.grad))
        super().step(closure)


def _channels_last(tensor: Tensor) -> Tensor:
    return tensor.contiguous(memory_format=torch.channels_last)


def _as_matrix(weight: Tensor) -> Tensor:
    """(out, in, kh, kw) in channels-last memory -> (out, kh * kw * in) over the same memory."""
    return weight.permute(0, 2, 3, 1).view(len(weight), -1)


def build_optimizers(model: nn.Module, config: TrainConfig) -> list[torch.optim.Optimizer]:
    """Muon for the convolutions (where the recipe says so), SGD for the rest.

    Biases and batch norm take no weight decay. The model must be in channels-last memory already.
    """
    convolutions = [p for p in model.parameters() if p.dim() == 4]
    matrices = [p for p in model.parameters() if p.dim() == 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    groups = [
        {"params": matrices, "weight_decay": config.sgd_weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    optimizers: list[torch.optim.Optimizer] = []
    if config.optimizer == "muon":
        optimizers.append(_ConvMuon(convolutions, config))
    else:
        groups[0]["params"] = convolutions + matrices
    momentum = config.sgd_momentum
    optimizers.append(
        torch.optim.SGD(groups, lr=config.sgd_lr, momentum=momentum, nesterov=momentum > 0)
    )
    return optimizers


class Schedule:
    """Linear warm-up from 0 over the first share `warmup` of the steps, then linear decay to 0."""

    def __init__(self, optimizers: list[torch.optim.Optimizer], steps: int, warmup: float) -> None:
        self._optimizers = optimizers
        self._peaks = [[group["lr"] for group in owner.param_groups] for owner in optimizers]
        self._steps, self._rise = steps, max(1.0, warmup * steps)

    def set_step(self, step: int) -> None:
        """Set every learning rate for `step`, counted from 0."""
        share = min((step + 1) / self._rise, (self._steps - step) / (self._steps - self._rise + 1))
        for optimizer, peaks in zip(self._optimizers, self._peaks, strict=True):
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * share


def save_optimizers(optimizers: list[torch.optim.Optimizer]) -> dict[str, Tensor]:
    """Every state tensor of the optimizers (their momenta), by a name that says whose it is."""
    return {
        f"optimizer{k}.{index}.{name}": value.contiguous()
        for k, optimizer in enumerate(optimizers)
        for index, entries in optimizer.state_dict()["state"].items()
        for name, value in entries.items()
        if isinstance(value, Tensor)
    }


def restore_optimizers(optimizers: list[torch.optim.Optimizer], tensors: dict[str, Tensor]) -> None:
    """Put back what `save_optimizers` gave, into optimizers of the same recipe."""
    for k, optimizer in enumerate(optimizers):
        state = optimizer.state_dict()
        entries: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            owner, index, name = key.split(".", 2)
            if owner == f"optimizer{k}":
                entries.setdefault(int(index), {})[name] = (
                    _channels_last(value) if value.dim() == 4 else value
                )
        optimizer.load_state_dict({**state, "state": entries})
