"""A ResNet-9 as a list of steps, one a prunable layer, so that a run can begin at any of them.

Batch norm is folded in; each step ends with its bias, pool and ReLU. The pool comes before the
ReLU, which gives the same numbers and leaves a quarter of them to the ReLU. The last linear layer
runs in float32 whatever the precision: it costs nothing, and bfloat16 logits would tie too often.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from compression.inference import fold_batch_norm, norm_scale
from compression.resnet9 import ConvBlock, Residual, ResNet9, prunable_layers


@dataclass(frozen=True)
class State:
    """What flows between steps: activations (n, C, H, W) or features (n, F), and the residual's
    identity (n, C, H, W) between its two convolutions. Channels-last memory."""

    x: Tensor
    skip: Tensor | None = None

    def to(self, dtype: torch.dtype) -> "State":
        return State(self.x.to(dtype), None if self.skip is None else self.skip.to(dtype))

    def rows(self, start: int, stop: int) -> "State":
        """The images start..stop, sharing memory."""
        return State(self.x[start:stop], None if self.skip is None else self.skip[start:stop])

    def select(self, index: Tensor) -> "State":
        """The images whose rows `index` names, (k,) int64 on the same device."""
        skip = None if self.skip is None else self.skip.index_select(0, index)
        return State(self.x.index_select(0, index), skip)


@dataclass(frozen=True)
class Step:
    """One folded layer: float32 weight and bias, and what stands around it."""

    name: str
    weight: Tensor
    bias: Tensor
    relu: bool = True
    pool: bool = False
    begins_residual: bool = False
    ends_residual: bool = False

    def run(self, state: State, weight: Tensor, bias: Tensor) -> State:
        """The state behind this layer, computed with `weight` and `bias` in place of its own."""
        if weight.dim() == 2:
            return State(self._linear(self.inputs(state), weight, bias))
        return self.finish(functional.conv2d(state.x, weight, bias, padding=1), state)

    def inputs(self, state: State) -> Tensor:
        """What the weight is multiplied by: (n, C, H, W), or (n, F) for a linear layer."""
        if self.weight.dim() == 2 and state.x.dim() == 4:
            return functional.adaptive_max_pool2d(state.x, 1).flatten(1)
        return state.x

    def finish(self, y: Tensor, state: State) -> State:
        """The state behind this layer from its convolution's output `y`, which is overwritten."""
        if self.pool:
            y = _max_pool(y)
        y.relu_()
        if self.ends_residual:
            assert state.skip is not None
            y += state.skip
        return State(y, state.x if self.begins_residual else None)

    def _linear(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        y = functional.linear(x.to(weight.dtype), weight, bias)
        return y.relu_() if self.relu else y


def _max_pool(y: Tensor) -> Tensor:
    """(n, C, H, W) -> (n, C, H // 2, W // 2): functional.max_pool2d(y, 2), which also finds where
    each maximum was, and takes twice as long for it."""
    height, width = y.shape[2] // 2 * 2, y.shape[3] // 2 * 2
    y = torch.maximum(y[:, :, 0:height:2], y[:, :, 1:height:2])
    return torch.maximum(y[..., 0:width:2], y[..., 1:width:2])


class Network:
    """The steps with their convolutions in one dtype, to be run from any step on."""

    def __init__(self, steps: tuple[Step, ...], dtype: torch.dtype) -> None:
        self.steps, self.dtype = steps, dtype
        self._weights = [self._cast(step, step.weight) for step in steps]
        self._biases = [self._cast(step, step.bias) for step in steps]

    def _cast(self, step: Step, tensor: Tensor) -> Tensor:
        return tensor.to(self.dtype) if step.weight.dim() == 4 else tensor

    def masked(self, index: int, kept: Tensor) -> Tensor:
        """The weight of step `index` with zeros where the bool tensor `kept` is False."""
        step = self.steps[index]
        return self._cast(step, step.weight * kept)

    def step(self, index: int, state: State) -> State:
        """The state behind step `index`."""
        return self.steps[index].run(state, self._weights[index], self._biases[index])

    def logits(
        self,
        state: State,
        first: int = 0,
        weight: Tensor | None = None,
        visit: Callable[[int, State], None] | None = None,
    ) -> Tensor:
        """(n, classes) float32 from the input of step `first`, which runs with `weight` if given.

        visit: called with each step's index and input before the step runs.
        """
        state = state.to(self.dtype)
        for k in range(first, len(self.steps)):
            if visit is not None:
                visit(k, state)
            used = weight if weight is not None and k == first else self._weights[k]
            state = self.steps[k].run(state, used, self._biases[k])
        return state.x.float()


def inputs_needed(steps: tuple[Step, ...], layers: Iterable[str]) -> list[int]:
    """The steps whose inputs a run needs to begin at any of `layers`, ascending.

    A run that begins inside a residual needs the residual's own input too.
    """
    wanted = {k for k, step in enumerate(steps) if step.name in set(layers)}
    return sorted(wanted | {k - 1 for k in wanted if steps[k].ends_residual})


def steps_of(model: ResNet9) -> tuple[Step, ...]:
    """The model's steps in order, named as in `prunable_layers`; the model stays as it is."""
    folded = fold_batch_norm(model)
    assert isinstance(folded, ResNet9)
    steps: list[Step] = []
    for name, stage in folded.stages():
        if isinstance(stage, Residual):
            steps.append(_step(f"{name}.first", stage.first, begins_residual=True))
            steps.append(_step(f"{name}.second", stage.second, ends_residual=True))
        else:
            assert isinstance(stage, ConvBlock)
            steps.append(_step(name, stage))
    for name in ("hidden", "linear"):
        if hasattr(folded, name):
            layer = getattr(folded, name)
            steps.append(Step(name, layer.weight.detach(), layer.bias, relu=name == "hidden"))
    assert [step.name for step in steps] == list(prunable_layers(model))
    return tuple(steps)


def folded_scales(model: nn.Module) -> dict[str, Tensor]:
    """Layer -> what batch norm multiplies its channels by, (out, 1, 1, 1); 1 for linear layers."""
    found: dict[str, Tensor] = {}
    for name, module in prunable_layers(model).items():
        block = model.get_submodule(name)
        found[name] = torch.ones(())
        if isinstance(block, ConvBlock):
            found[name] = norm_scale(block.norm).float().view(-1, *[1] * (module.weight.dim() - 1))
    return found


def _step(name: str, block: ConvBlock, *, begins_residual=False, ends_residual=False) -> Step:
    assert block.conv.bias is not None
    pool = isinstance(block.pool, torch.nn.MaxPool2d)
    weight, bias = block.conv.weight.detach(), block.conv.bias.detach()
    return Step(name, weight, bias, True, pool, begins_residual, ends_residual)
