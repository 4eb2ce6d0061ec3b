"""ResNet-9 with batch normalization, in the sizes that the explorer compares.

conv 3-w, conv w-2w + pool, residual of two convs (2w), conv 2w-4w + pool, conv 4w-8w + pool,
residual of two convs (8w), global max pool, linear to 10. It is the small residual network that
the DAWNBench CIFAR-10 entries made known (He et al. 2015 for the residual, arXiv 1512.03385).
`resnet9-t2g3` adds what the course report's network has: one more stage, convolution biases, and a
hidden linear layer, 30,437,386 parameters in all.
"""

import torch
from torch import Tensor, nn

from compression.inputs import InputError, choice, whole
from compression.presets import DEFAULT_PRESET, PRESETS


class ConvBlock(nn.Module):
    """3 x 3 convolution, batch normalization, ReLU, and a 2 x 2 max pool where `pool` is set."""

    def __init__(self, channels_in: int, channels_out: int, *, bias: bool, pool: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=bias)
        self.norm = nn.BatchNorm2d(channels_out)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.MaxPool2d(2) if pool else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels_in, H, W) -> (B, channels_out, H, W), or half of H and W with the pool."""
        return self.pool(self.relu(self.norm(self.conv(x))))


class Residual(nn.Module):
    """x + second(first(x)): two blocks of the same width beside the identity."""

    def __init__(self, channels: int, *, bias: bool) -> None:
        super().__init__()
        self.first = ConvBlock(channels, channels, bias=bias, pool=False)
        self.second = ConvBlock(channels, channels, bias=bias, pool=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return x + self.second(self.first(x))


class ResNet9(nn.Module):
    """(B, 3, 32, 32) float32 normalized images -> (B, 10) logits.

    `stages` run one after the other; each is a ConvBlock, a Residual, or the head.
    """

    def __init__(self, preset: str, *, classes: int = 10) -> None:
        super().__init__()
        shape = PRESETS[preset]
        self.preset = preset
        w, bias = shape.width, shape.conv_bias
        self.conv1 = ConvBlock(3, w, bias=bias, pool=False)
        self.conv2 = ConvBlock(w, 2 * w, bias=bias, pool=True)
        self.res1 = Residual(2 * w, bias=bias)
        self.conv3 = ConvBlock(2 * w, 4 * w, bias=bias, pool=True)
        self.conv4 = ConvBlock(4 * w, 8 * w, bias=bias, pool=True)
        self.res2 = Residual(8 * w, bias=bias)
        features = 8 * w
        if shape.extra_stage:
            features = 16 * w
            self.conv5 = ConvBlock(8 * w, features, bias=bias, pool=True)
            self.res3 = Residual(features, bias=bias)
        self.pool = nn.AdaptiveMaxPool2d(1)
        if shape.hidden:
            self.hidden = nn.Linear(features, shape.hidden)
            features = shape.hidden
        self.linear = nn.Linear(features, classes)

    def stages(self) -> list[tuple[str, nn.Module]]:
        """The convolutional stages by name, in the order in which an image passes them."""
        names = ("conv1", "conv2", "res1", "conv3", "conv4", "res2", "conv5", "res3")
        return [(name, getattr(self, name)) for name in names if hasattr(self, name)]

    def forward(self, x: Tensor) -> Tensor:
        for _, stage in self.stages():
            x = stage(x)
        x = torch.flatten(self.pool(x), 1)
        if hasattr(self, "hidden"):
            x = torch.relu(self.hidden(x))
        return self.linear(x)


def build_model(preset: str = DEFAULT_PRESET, *, seed: int = 0) -> ResNet9:
    """An untrained model in training mode; the same seed gives the same weights, bit for bit.

    Raises InputError for an unknown preset or a seed outside 0..2^63 - 1.
    """
    choice("preset", preset, PRESETS)
    seed = whole("seed", seed, 0, 2**63 - 1)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed the GPUs too
        return ResNet9(preset)


def prunable_layers(model: nn.Module) -> dict[str, nn.Conv2d | nn.Linear]:
    """The convolution and linear layers in order, by readable names such as `res1.first`.

    A ConvBlock's convolution carries the block's name. Raises InputError where there is none.
    """
    layers = {
        name.removesuffix(".conv"): module
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    }
    if not layers:
        raise InputError("model must hold convolution or linear layers, got none.")
    return layers


def count_parameters(model: nn.Module) -> int:
    """How many trainable numbers the model has."""
    return sum(parameter.numel() for parameter in model.parameters())
