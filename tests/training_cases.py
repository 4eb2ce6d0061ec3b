"""What the tests of training share: a tiny net, its recipes, its images, and how runs compare.

A file of tests takes the fixtures that it needs by their names: `images = training_cases.images`.
"""

import pytest
import torch
from torch import nn

from compression.data import load_cifar10
from compression.training import GridMaskConfig, TrainConfig

TINY = TrainConfig(epochs=3, batch_size=16, precision="float32", translate=2, cutout=6)
GRIDMASK = GridMaskConfig((5, 9), ramp_epochs=2)


class TinyNet(nn.Module):
    """Two small convolutions with batch norm and a linear layer: milliseconds an epoch."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 12, 3, stride=2)
        self.linear = nn.Linear(12, 10)

    def forward(self, x):
        x = torch.relu(self.norm(self.first(x)))
        return self.linear(torch.relu(self.second(x)).amax((2, 3)))


def tiny_net(seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return TinyNet()


@pytest.fixture(scope="module")
def images():
    """50 images: three batches of 16, and 2 left over."""
    return load_cifar10("train", "sample").head(50)


@pytest.fixture(scope="module")
def validation():
    return load_cifar10("validation", "sample").head(40)


@pytest.fixture
def masks():
    generator = torch.Generator().manual_seed(2)
    shapes = {"first": (8, 3, 3, 3), "second": (12, 8, 3, 3), "linear": (10, 12)}
    return {name: torch.rand(s, generator=generator) < 0.4 for name, s in shapes.items()}


def same_bits(one, other):
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def same_images(one, other):
    return torch.equal(one.images, other.images) and torch.equal(one.labels, other.labels)


def numbers(results):
    """The rows without what a clock measured."""
    rows = [dict(row) for row in results[-1].history]
    return [{k: v for k, v in row.items() if "seconds" not in k} for row in rows]
