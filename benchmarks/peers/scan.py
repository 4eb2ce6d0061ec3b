"""The sensitivity scan that courses teach: prune in place, run the whole model, restore.

As in the labs of MIT 6.5940 (Han 2022 to 2024, pruning lab): for each layer and level the layer's
smallest weights are set to zero, the whole network is evaluated on a DataLoader, and the weights
are put back. The images pass through torchvision's ToTensor and Normalize at every point, or, in
the quicker variant, were made tensors beforehand.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset
from torchvision import transforms

from compression.data import CHANNEL_MEAN, CHANNEL_STD
from compression.resnet9 import prunable_layers

BATCH = 128
TO_TENSOR: Callable[[Any], Tensor] = transforms.Compose(
    [transforms.ToTensor(), transforms.Normalize(CHANNEL_MEAN, CHANNEL_STD)]
)


class PictureDataset(Dataset):
    """Images as torchvision's CIFAR10 hands them out: a PIL image through the transform."""

    def __init__(self, images: Tensor, labels: Tensor, transform: Callable[[Any], Tensor]) -> None:
        self._images, self._labels, self._transform = images.numpy(), labels.tolist(), transform

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self._transform(Image.fromarray(self._images[index])), self._labels[index]


def picture_loader(images: Tensor, labels: Tensor) -> DataLoader:
    """A DataLoader that makes its tensors anew at each pass. Workers would share the two cores."""
    return DataLoader(PictureDataset(images, labels, TO_TENSOR), batch_size=BATCH)


def tensor_loader(images: Tensor, labels: Tensor) -> DataLoader:
    """A DataLoader over tensors prepared beforehand, in contiguous memory."""
    pixels = torch.cat([part for part, _ in picture_loader(images, labels)])
    return DataLoader(TensorDataset(pixels, labels), batch_size=BATCH)


@torch.no_grad()
def correct_answers(model: nn.Module, loader: DataLoader) -> int:
    """How many of the loader's images the model names correctly."""
    model.eval()
    return sum(int((model(images).argmax(1) == labels).sum()) for images, labels in loader)


@torch.no_grad()
def prune_(weight: Tensor, sparsity: float) -> None:
    """Set the `round(sparsity * n)` smallest weights to zero in place."""
    order = weight.abs().flatten().argsort(stable=True)
    weight.view(-1)[order[: round(sparsity * weight.numel())]] = 0


def scan_loop(
    model: nn.Module, loader: DataLoader, levels: Iterable[float], layers: Sequence[str]
) -> dict[tuple[str, float], int]:
    """Layer and level -> correct answers; the model is as before at the end."""
    modules = prunable_layers(model)
    found = {}
    for name in layers:
        weight = modules[name].weight.data
        for level in levels:
            kept = weight.clone()
            prune_(weight, level)
            found[name, level] = correct_answers(model, loader)
            weight.copy_(kept)
    return found
