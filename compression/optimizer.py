"""The optimizers of a recipe, their one-cycle schedule, and their state as plain tensors.

Muon takes a convolution's weight (out, in, kh, kw) as the matrix (out, kh * kw * in) that shares
its channels-last memory. torch.optim.Muon orthogonalizes in bfloat16, which a processor without it
in hardware emulates at some 3 s a step for ResNet-9; the class here computes in what is fast.
"""

from typing import Any

import torch
from torch import Tensor, nn

from compression.hardware import has_bfloat16
from compression.recipes import TrainConfig

_QUINTIC = (3.4445, -4.7750, 2.0315)  # coefficients of Jordan et al.'s Newton-Schulz iteration
_ITERATIONS = 5


def orthogonalized(matrix: Tensor) -> Tensor:
    """(R, C) -> about U V^T of its singular value decomposition U S V^T, by Newton-Schulz.

    Five steps of the quintic iteration of Muon (Jordan et al. 2024), which bring every singular
    value to between about 0.7 and 1.2. In bfloat16 where the hardware has it, else in float32.
    """
    a, b, c = _QUINTIC
    x = matrix.bfloat16() if has_bfloat16(matrix.device) else matrix.float()
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(_ITERATIONS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.T if tall else x).to(matrix.dtype)


class ConvMuon(torch.optim.Optimizer):
    """Muon for convolution weights in channels-last memory: orthogonalized Nesterov momentum."""

    def __init__(
        self, weights: list[nn.Parameter], lr: float, momentum: float, weight_decay: float
    ) -> None:
        super().__init__(weights, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._step(weight, group["lr"], group["momentum"], group["weight_decay"])

    def _step(self, weight: nn.Parameter, lr: float, momentum: float, decay: float) -> None:
        gradient = _as_matrix(_channels_last(weight.grad))  # pyright: ignore[reportArgumentType]
        state = self.state[weight]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        buffer = state["momentum_buffer"].lerp_(gradient, 1 - momentum)
        update = orthogonalized(gradient.lerp(buffer, momentum))
        rows, columns = update.shape
        matrix = _as_matrix(weight.data)
        matrix.mul_(1 - lr * decay).add_(update, alpha=-lr * max(1, rows / columns) ** 0.5)


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
    decay = config.sgd_weight_decay
    groups: list[dict[str, Any]] = [
        {"params": matrices, "weight_decay": decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    optimizers: list[torch.optim.Optimizer] = []
    if config.optimizer == "muon":
        rates = (config.muon_lr, config.muon_momentum, config.muon_weight_decay)
        optimizers.append(ConvMuon(convolutions, *rates))
    elif config.sgd_conv_lr is None:
        groups[0]["params"] = convolutions + matrices
    else:
        own = {"params": convolutions, "weight_decay": decay, "lr": config.sgd_conv_lr}
        groups.append(own)
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
