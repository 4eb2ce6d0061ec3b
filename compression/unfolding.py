"""Batch norm as training and recalibration need it, for a model out of a packed file.

A packed file holds two numbers a channel, scale and shift (`packing_vectors.py`): all that eval
mode needs. Under a batch's own statistics the same model would be another network, since its scale
holds what a batch is divided by. Here both are taken apart again: mean and variance are measured on
images, scale and shift make up for them, and in eval mode the model stays what it was.
"""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from compression.data import normalize
from compression.inference import check_images

_IMAGES = 1024  # the first so many: a mean and a variance a channel need no more
_BATCH = 128


@torch.no_grad()
def unfold_batch_norm(model: nn.Module, images: Tensor) -> nn.Module:
    """A copy of `model` with batch-norm statistics of `images`, the same in eval mode to within
    rounding; `model` itself where its batch norm is not folded.

    images: (N, 32, 32, 3) uint8 training images, N >= 1, of which the first 1,024 are used. Modes
    stay as they are. Raises InputError for no images.
    """
    if not is_folded(model):
        return model
    check_images(images)
    unfolded, probe = copy.deepcopy(model), copy.deepcopy(model).eval()
    probe.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    sums = {name: torch.zeros(3, norm.num_features).double() for name, norm in _norms(probe)}
    for name, norm in _norms(probe):
        norm.register_forward_pre_hook(_adder(sums[name]))
    device = next(probe.parameters()).device
    for pixels in images[:_IMAGES].split(_BATCH):
        probe(normalize(pixels.to(device)))
    for name, norm in _norms(unfolded):
        count, total, squares = sums[name]
        mean = total / count
        variance = (squares / count - mean**2).clamp(min=0)
        assert norm.running_mean is not None and norm.running_var is not None
        before = (norm.running_var.double().cpu() + norm.eps).sqrt().float().double()  # 1, or so
        scale, shift = norm.weight.double().cpu() / before, norm.bias.double().cpu()
        norm.weight.copy_(scale * (variance + norm.eps).sqrt())
        norm.bias.copy_(shift + mean * scale)
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
    return unfolded


def is_folded(model: nn.Module) -> bool:
    """Whether there is batch norm, and all of it neither shifts nor divides, as a packed file's;
    a network that was never trained, whose scales are 1 as well, is none."""
    norms = [norm for _, norm in _norms(model)]
    return any(bool((norm.weight != 1).any() or norm.bias.any()) for norm in norms) and all(
        norm.running_mean is not None
        and norm.running_var is not None
        and not norm.running_mean.any()
        and bool(((norm.running_var[:, None] - _variances(norm)).abs() <= 1e-7).any(1).all())
        for norm in norms
    )


def _variances(norm: nn.BatchNorm2d) -> Tensor:
    """What stands for no variance: a packed file's 1 - eps, and 1, to which half precision rounds
    it. `reset_running_stats` leaves 1 as well: there, numbers that half precision cannot hold tell
    that none of it was stored so."""
    learned, one = torch.cat((norm.weight, norm.bias)), norm.weight.new_ones(1)
    halves = (torch.float16, torch.bfloat16)
    was_half = any(torch.equal(learned, learned.to(half).to(learned.dtype)) for half in halves)
    return torch.cat((one - norm.eps, one)) if was_half else one - norm.eps


def _norms(model: nn.Module) -> list[tuple[str, nn.BatchNorm2d]]:
    return [
        (name, m) for name, m in model.named_modules() if isinstance(m, nn.BatchNorm2d) and m.affine
    ]


def _adder(sums: Tensor) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    """Adds count, sum and sum of squares of what passes, a channel, in float64."""

    def add(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        variance, mean = torch.var_mean(inputs[0], (0, 2, 3), correction=0)
        count = inputs[0].numel() // inputs[0].shape[1]
        variance, mean = variance.cpu().double(), mean.cpu().double()
        sums.add_(count * torch.stack((torch.ones_like(mean), mean, variance + mean**2)))

    return add
