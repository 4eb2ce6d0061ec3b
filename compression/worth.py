"""What an error in a layer's weights costs the network's answers, measured by noise on that layer.

The KL divergence from the model's own answers that noise makes, for a squared error of 1: the
weight of a layer where bits are shared out. No label is read. Left out: how layers act on one
another, for which the measured worth is tempered.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from compression.data import normalize
from compression.inference import check_images, device_of
from compression.inputs import InputError
from compression.resnet9 import ResNet9, prunable_layers
from compression.scan_steps import Network, State, folded_scales, steps_of

_WORTH_IMAGES = 256
_WORTH_BATCH = 64
# Worth measured one layer at a time is too unequal: with it as it is (1), answers at the same size
# are farther off by a quarter (KL divergence, resnet9-s in 219 kB).
WORTH_POWER = 0.75
_PROBE = 0.05  # of a layer's squared weights: the noise by which its worth is measured
LEAST_WORTH, MOST_WORTH = 1e-12, 1e12


@torch.no_grad()
def layer_worth(model: nn.Module, images: Tensor) -> dict[str, float]:
    """Layer -> nats of KL divergence from the model's own answers for a squared error of 1 in all
    its weights together, measured with noise on that layer's weights that are not zero. (Rounding
    them would not do: weights that were rounded before hardly move.)

    images: (N, 32, 32, 3) uint8; 256 of them take about 1 s of two cores for `resnet9-s`.
    """
    check_network(model, images)
    assert isinstance(model, ResNet9)
    network, scales = Network(steps_of(model), torch.float32), folded_scales(model)
    generator = torch.Generator().manual_seed(0)
    errors, noisy = [], []
    for step in network.steps:
        weight = prunable_layers(model)[step.name].weight.detach()
        noise = torch.randn(weight.shape, generator=generator).to(weight) * (weight != 0)
        scale = (_PROBE * weight.square().sum() / noise.square().sum().clamp(min=1e-30)).sqrt()
        noise *= scale
        errors.append(float(noise.square().sum()))
        noisy.append(step.weight + (noise * scales[step.name]).to(step.weight))
    divergences = [0.0] * len(noisy)
    for part in images.split(_WORTH_BATCH):
        start = state = State(normalize(part.to(device_of(model))))
        before = torch.log_softmax(network.logits(start), 1)
        for k, weight in enumerate(noisy):
            after = torch.log_softmax(network.logits(state, k, weight), 1)
            divergences[k] += float((before.exp() * (before - after)).sum())
            state = network.step(k, state)
    return {
        step.name: min(max(divergence / len(images) / error, LEAST_WORTH), MOST_WORTH)
        if error > 0
        else 1.0
        for step, divergence, error in zip(network.steps, divergences, errors, strict=True)
    }


def tempered_worth(
    model: nn.Module, images: Tensor, power: float = WORTH_POWER
) -> dict[str, float]:
    """Layer -> worth between that of `layer_worth` on the first images (power 1) and that by which
    all layers have the same relative error (power 0): layers that make up for errors, or learn, can
    do with less than they seem worth. images: (N, 32, 32, 3) uint8."""
    return tempered(layer_worth(model, images[:_WORTH_IMAGES]), model, power)


def tempered(worth: Mapping[str, float], model: nn.Module, power: float) -> dict[str, float]:
    """`tempered_worth` of a worth that was measured."""
    squares = {n: m.weight.detach().square().mean() for n, m in prunable_layers(model).items()}
    return {
        name: worth[name] ** power / max(float(squares[name]), 1e-12) ** (1 - power)
        for name in worth
    }


def check_network(model: nn.Module, images: Tensor) -> None:
    """InputError for another network than a ResNet9, for weights that are not finite, and for
    images of another form than (N, 32, 32, 3) uint8."""
    if not isinstance(model, ResNet9):
        raise InputError(f"model must be a ResNet9, got {type(model).__name__}.")
    check_images(images)
    for name, module in prunable_layers(model).items():
        if bad := int((~torch.isfinite(module.weight)).sum()):
            raise InputError(f"weights of {name} must be finite, got {bad} that are not.")
