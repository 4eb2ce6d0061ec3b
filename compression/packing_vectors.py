"""Biases and batch norm of a packed model: one vector, in half precision.

In eval mode batch norm is scale * x + shift, two numbers a channel in place of four; what comes
back has mean 0 and the variance that makes its scale that one (`unfolding.py` takes it apart again,
for what needs a batch's own statistics). Half precision rounds by at most one part in 2048, by
which no shipped checkpoint in a recorded reproduction has more than one of the 10,000 test images
more or fewer right (a test holds the rows, measured on packed files, to the checkpoints' figures).
"""

import numpy as np
import torch
from torch import Tensor, nn

from compression.inference import norm_scale
from compression.inputs import InputError
from compression.resnet9 import ResNet9, prunable_layers


def vectors_of(model: ResNet9) -> np.ndarray:
    """Biases, then each batch norm's scale and shift, in half precision unless one overflows it."""
    parts = [bias.detach().double() for bias in _biases(model)]
    for norm in _norms(model):
        assert norm.running_mean is not None
        scale = norm_scale(norm)
        parts += [scale, norm.bias.detach().double() - norm.running_mean.double() * scale]
    vectors = torch.cat([part.cpu() for part in parts]).float()
    if not torch.isfinite(vectors).all():
        raise InputError("biases and batch norm must be finite, got NaN or infinity.")
    half = vectors.half()
    return (half if torch.isfinite(half).all() else vectors).numpy()


@torch.no_grad()
def set_vectors_(model: ResNet9, vectors: Tensor) -> None:
    """Put back what `vectors_of` gave: batch norm with mean 0 and a variance that scales by 1."""
    parts = iter(vectors.split([*map(len, _biases(model)), *_norm_sizes(model)]))
    for bias in _biases(model):
        bias.copy_(next(parts))
    for norm in _norms(model):
        assert norm.running_mean is not None and norm.running_var is not None
        norm.weight.copy_(next(parts))
        norm.bias.copy_(next(parts))
        norm.running_mean.zero_()
        norm.running_var.fill_(1 - norm.eps)


def vector_count(model: ResNet9) -> int:
    """How many numbers `vectors_of` gives for such a model."""
    return sum(map(len, _biases(model))) + sum(_norm_sizes(model))


def _biases(model: ResNet9) -> list[Tensor]:
    modules = prunable_layers(model).values()
    return [module.bias for module in modules if module.bias is not None]


def _norms(model: ResNet9) -> list[nn.BatchNorm2d]:
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]


def _norm_sizes(model: ResNet9) -> list[int]:
    return [norm.num_features for norm in _norms(model) for _ in range(2)]
