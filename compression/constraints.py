"""What a compressed model must keep while it trains: here, that pruned weights stay zero."""

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor, nn

from compression.inputs import InputError, choice
from compression.model import prunable_layers


class Constraint(Protocol):
    """What a compressed model must keep while it trains; bound to the weights of one model."""

    def after_backward(self) -> None:
        """Change gradients or weights in place, before the optimizer's step."""

    def after_step(self) -> None:
        """Put the weights back into their form, after the optimizer's step."""

    def state(self) -> dict[str, Tensor]:
        """What a resumed run needs besides the weights, as tensors; nothing by default."""
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Put back what `state` gave."""

    def identity(self) -> list[Tensor]:
        """What, besides the weights, makes a run another one, before its first step."""
        return list(self.state().values())


class HeldMasks(Constraint):
    """Keeps pruned weights at exactly zero.

    masks: layer name -> bool tensor of the weight's shape, True where the weight is kept.
    """

    def __init__(self, model: nn.Module, masks: Mapping[str, Tensor]) -> None:
        layers = prunable_layers(model)
        self._pairs: list[tuple[Tensor, Tensor]] = []
        for name, kept in masks.items():
            weight = layers[choice("layer", name, layers)].weight
            if kept.dtype != torch.bool or kept.shape != weight.shape:
                raise InputError(
                    f"mask of {name} must be a bool tensor of shape {tuple(weight.shape)}, "
                    f"got {str(kept.dtype).removeprefix('torch.')} {tuple(kept.shape)}."
                )
            self._pairs.append((weight, ~kept.to(weight.device)))
        self.after_step()

    def after_backward(self) -> None:
        """Nothing: the step may move a pruned weight, since it is put back."""

    @torch.no_grad()
    def after_step(self) -> None:
        for weight, pruned in self._pairs:
            weight.masked_fill_(pruned, 0.0)  # times False would leave -0, and NaN

    def identity(self) -> list[Tensor]:
        """The masks: weights that are zero already do not tell them."""
        return [pruned for _, pruned in self._pairs]
