"""The training step of most tutorials, and their evaluation: float32, contiguous memory, one batch
after the other.

Pictures pass through torchvision's RandomCrop, RandomHorizontalFlip, ToTensor and Normalize in a
DataLoader, batches hold 128 of them, and SGD with momentum moves the weights.
"""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader
from torchvision import transforms

from benchmarks.peers.scan import PictureDataset, picture_loader
from compression.data import CHANNEL_MEAN, CHANNEL_STD, ImageSet

BATCH = 128
AUGMENT: Callable[[Any], Tensor] = transforms.Compose(
    [
        transforms.RandomCrop(32, padding=4),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize(CHANNEL_MEAN, CHANNEL_STD),
    ]
)


def training_steps(model: nn.Module, images: ImageSet) -> Iterator[float]:
    """The loss of each step, epoch after epoch without end; `model` stays as it was."""
    model = copy.deepcopy(model).train()
    dataset = PictureDataset(images.images, images.labels, AUGMENT)
    loader = DataLoader(dataset, batch_size=BATCH, shuffle=True, drop_last=True)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4, nesterov=True
    )
    while True:
        for pixels, labels in loader:
            optimizer.zero_grad()
            loss = functional.cross_entropy(model(pixels), labels)
            loss.backward()
            optimizer.step()
            yield loss.item()


@torch.no_grad()
def eager_predictions(model: nn.Module, images: Tensor, batch: int = BATCH) -> Tensor:
    """(N, H, W, 3) uint8 -> (N,) int64 by a plain loop in float32, batch norm as it is."""
    model.eval()
    mean, std = (torch.tensor(x).view(1, 3, 1, 1) for x in (CHANNEL_MEAN, CHANNEL_STD))
    answers = []
    for part in images.split(batch):
        pixels = part.permute(0, 3, 1, 2).float().contiguous() / 255
        answers.append(model((pixels - mean) / std).argmax(1))
    return torch.cat(answers)


@torch.no_grad()
def loader_predictions(model: nn.Module, images: Tensor) -> Tensor:
    """The same over a DataLoader whose pictures pass through ToTensor and Normalize."""
    model.eval()
    loader = picture_loader(images, torch.zeros(len(images), dtype=torch.int64))
    return torch.cat([model(pixels).argmax(1) for pixels, _ in loader])
