"""What the tests of the scan share: images, a narrow model that knows them, an engine that counts.

A file of tests takes the fixtures by their names: `model = scan_cases.model`.
"""

import pytest
import torch
from torch.nn import functional

from compression.data import ImageSet, load_cifar10, normalize
from compression.presets import PRESETS, Preset
from compression.resnet9 import ResNet9

LEVELS = (0.3, 0.6, 0.9)
IMAGES = 120


@pytest.fixture(scope="module")
def sample() -> ImageSet:
    return load_cifar10("test", "sample").head(IMAGES)


@pytest.fixture(scope="module", autouse=True)
def tiny_preset():
    PRESETS["tiny"] = Preset(width=8)
    yield
    del PRESETS["tiny"]


@pytest.fixture(scope="module")
def model(sample, tiny_preset) -> ResNet9:
    """A narrow ResNet-9 that has learned most of the images, so that pruning has much to break."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = ResNet9("tiny")
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    pixels = normalize(sample.images)
    for _ in range(14):
        for x, y in zip(pixels.split(30), sample.labels.split(30), strict=True):
            optimizer.zero_grad()
            functional.cross_entropy(model(x), y).backward()
            optimizer.step()
    return model.eval()


class CountingEngine:
    """An engine of the test's own: counts the points that it is asked for; all images correct."""

    def __init__(self, model, images, labels, precision) -> None:
        self.asked: list[tuple[str, float, range]] = []
        self.total = len(labels)
        CountingEngine.last = self

    last: "CountingEngine | None" = None

    def blocks(self, first):
        return [range(self.total)]

    def count(self, layer, levels, rows):
        for level in levels:
            self.asked.append((layer, level, rows))
            yield level, len(rows)
