"""Plain inference, made quick: the one path by which every accuracy in this library is measured.

Batch normalization is folded into the convolution before it (Jacob et al. 2017, arXiv 1712.05877,
section 3.2), in float64, so that a float32 answer differs from the unfolded one by rounding alone;
memory is channels-last; a batch is small enough for its activations to stay in the processor's
cache. The caller's model is never touched: all this happens on a copy.
"""

import copy

import torch
from torch import Tensor, nn

from compression.data import normalize
from compression.hardware import autocast_dtype
from compression.inputs import InputError, whole
from compression.resnet9 import ConvBlock

_CPU_BATCH, _GPU_BATCH = 64, 1024
_MAX_BATCH = 100_000


def device_of(model: nn.Module) -> torch.device:
    """Where the model's first parameter lies; the CPU for a model that has none."""
    parameter = next(model.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device


def check_images(images: Tensor) -> None:
    """Raise InputError unless images is a non-empty uint8 tensor of shape (N, H, W, 3)."""
    expected = "images must be a uint8 tensor of shape (N, height, width, 3)"
    if not isinstance(images, Tensor):
        raise InputError(f"{expected}, got {type(images).__name__}.")
    if images.dtype != torch.uint8 or images.dim() != 4 or images.shape[-1] != 3:
        dtype = str(images.dtype).removeprefix("torch.")
        raise InputError(f"{expected}, got {dtype} {tuple(images.shape)}.")
    if not len(images):
        raise InputError("images must hold at least one image, got none.")


def resolved_precision(precision: str, device: torch.device) -> str:
    """`float32` or `bfloat16`: what `precision`, which may be `auto`, means on `device`."""
    return "float32" if autocast_dtype(precision, device) is None else "bfloat16"


def batch_of(batch_size: int | None, device: torch.device) -> int:
    """`batch_size`, or what suits the device: 64 on a CPU (the activations stay in cache)."""
    if batch_size is None:
        return _CPU_BATCH if device.type == "cpu" else _GPU_BATCH
    return whole("batch_size", batch_size, 1, _MAX_BATCH, "images")


@torch.no_grad()
def fold_batch_norm(model: nn.Module) -> nn.Module:
    """A frozen copy in eval mode and channels-last memory, batch norm folded into convolutions.

    Folds every ConvBlock and every convolution that a batch norm follows in a Sequential; any other
    batch norm stays as it is, which is correct, only slower. Weights are float32.
    """
    device = device_of(model)
    folded = copy.deepcopy(model).cpu().eval().requires_grad_(False)  # MPS has no float64
    for block in list(folded.modules()):
        if isinstance(block, ConvBlock) and isinstance(block.norm, nn.BatchNorm2d):
            block.conv, block.norm = _fold(block.conv, block.norm), nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
        elif isinstance(block, nn.Sequential):
            for k in range(len(block) - 1):
                conv, norm = block[k], block[k + 1]
                if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                    block[k], block[k + 1] = _fold(conv, norm), nn.Identity()
    return folded.to(device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def norm_scale(norm: nn.BatchNorm2d) -> Tensor:
    """What eval-mode batch norm multiplies each channel by: gamma / sqrt(var + eps), float64."""
    if norm.running_var is None:
        raise InputError("batch norm must hold running statistics, got none: train it first.")
    gamma = torch.ones_like(norm.running_var) if norm.weight is None else norm.weight
    return gamma.detach().double() / (norm.running_var.double() + norm.eps).sqrt()


def _fold(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    """One convolution that computes norm(conv(x)); worked in float64, kept as float32."""
    scale = norm_scale(norm)  # (out,)
    shift = -norm.running_mean.double()  # pyright: ignore[reportOptionalMemberAccess]
    if conv.bias is not None:
        shift = shift + conv.bias.double()
    bias = shift * scale
    if norm.bias is not None:
        bias = bias + norm.bias.double()
    conv.weight = nn.Parameter(
        (conv.weight.double() * scale.view(-1, 1, 1, 1)).float(), requires_grad=False
    )
    conv.bias = nn.Parameter(bias.float(), requires_grad=False)
    return conv


def count_correct(model: nn.Module, images: Tensor, labels: Tensor) -> int:
    """Right answers in float32; images and labels as `predict_logits` and `evaluate` take them."""
    return int((predict_logits(model, images).argmax(1) == labels).sum())


def predict_logits(
    model: nn.Module,
    images: Tensor,
    *,
    precision: str = "float32",
    batch_size: int | None = None,
) -> Tensor:
    """(N, H, W, 3) uint8 images -> (N, classes) float32 logits, on the CPU.

    precision: `float32`, `bfloat16` (where the hardware has it) or `auto` (bfloat16 where the
    hardware has it); computed where the model lies. Raises InputError for other images, an unknown
    or missing precision, and a batch size outside 1..100000.
    """
    check_images(images)
    device = device_of(model)
    batch = batch_of(batch_size, device)
    dtype = getattr(torch, resolved_precision(precision, device))
    ready = fold_batch_norm(model).to(dtype)
    with torch.inference_mode():
        logits = [
            ready(normalize(part.to(device, non_blocking=True)).to(dtype)).float()
            for part in images.split(batch)
        ]
        return torch.cat(logits).cpu()
