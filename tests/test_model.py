"""ResNet-9 by its published counts and by a forward pass written out in functional calls."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from compression.inputs import InputError
from compression.model import (
    PRESETS,
    ResNet9,
    build_model,
    count_parameters,
    load_checkpoint,
    prunable_layers,
)
from compression.presets import layer_names

NAMES = ["conv1", "conv2", "res1.first", "res1.second", "conv3", "conv4"]
NAMES += ["res2.first", "res2.second"]


@pytest.mark.parametrize(
    ("preset", "parameters"),
    [("resnet9-s", 1_646_122), ("resnet9", 6_573_130), ("resnet9-t2g3", 30_437_386)],
)
def test_parameters(preset, parameters):
    with torch.device("meta"):
        model = ResNet9(preset)
    assert count_parameters(model) == parameters


def test_the_sizes_that_the_report_gives():
    """116.11 MiB in float32 and 29.03 MiB at 8 bits, for 30,437,386 parameters."""
    with torch.device("meta"):
        count = count_parameters(ResNet9("resnet9-t2g3"))
    assert round(count * 4 / 2**20, 2) == 116.11
    assert round(count / 2**20, 2) == 29.03


@pytest.mark.parametrize("width", [32, 64])
def test_parameters_of_the_plain_presets_by_hand(width):
    """3 x 3 convolutions without bias, two numbers a channel of batch norm, a linear layer."""
    w = width
    pairs = [(3, w), (w, 2 * w), (2 * w, 2 * w), (2 * w, 2 * w), (2 * w, 4 * w), (4 * w, 8 * w)]
    pairs += [(8 * w, 8 * w)] * 2
    by_hand = sum(9 * a * b + 2 * b for a, b in pairs) + 8 * w * 10 + 10
    preset = {32: "resnet9-s", 64: "resnet9"}[width]
    with torch.device("meta"):
        assert count_parameters(ResNet9(preset)) == by_hand


@pytest.mark.parametrize(
    ("preset", "more"),
    [
        ("resnet9-s", ["linear"]),
        ("resnet9", ["linear"]),
        ("resnet9-t2g3", ["conv5", "res3.first", "res3.second", "hidden", "linear"]),
    ],
)
def test_prunable_layers_are_in_order_and_readable(preset, more):
    with torch.device("meta"):
        layers = prunable_layers(ResNet9(preset))
    assert list(layers) == NAMES + more
    assert layer_names(preset) == tuple(layers)
    kinds = {name: type(layer) for name, layer in layers.items()}
    assert {name for name, kind in kinds.items() if kind is nn.Linear} <= {"hidden", "linear"}


def test_prunable_layers_are_the_models_own():
    model = build_model(seed=0)
    prunable_layers(model)["conv1"].weight.data.zero_()
    assert not model.conv1.conv.weight.any()


def test_a_model_without_layers_is_refused():
    with pytest.raises(InputError, match="^model must hold convolution or linear layers, got none"):
        prunable_layers(nn.Sequential(nn.ReLU()))


def block(state, name, x, pool=False):
    """Convolution, batch norm in evaluation, ReLU, pool, out of a state dict."""
    bias = state.get(f"{name}.conv.bias")
    x = functional.conv2d(x, state[f"{name}.conv.weight"], bias, padding=1)
    mean, variance = state[f"{name}.norm.running_mean"], state[f"{name}.norm.running_var"]
    x = (x - mean.view(-1, 1, 1)) / torch.sqrt(variance.view(-1, 1, 1) + 1e-5)
    x = x * state[f"{name}.norm.weight"].view(-1, 1, 1) + state[f"{name}.norm.bias"].view(-1, 1, 1)
    x = x.clamp(min=0)
    return functional.max_pool2d(x, 2) if pool else x


def written_out(state, x, extra):
    x = block(state, "conv1", x)
    x = block(state, "conv2", x, pool=True)
    x = x + block(state, "res1.second", block(state, "res1.first", x))
    x = block(state, "conv3", x, pool=True)
    x = block(state, "conv4", x, pool=True)
    x = x + block(state, "res2.second", block(state, "res2.first", x))
    if extra:
        x = block(state, "conv5", x, pool=True)
        x = x + block(state, "res3.second", block(state, "res3.first", x))
    x = x.amax((2, 3))
    if extra:
        x = (x @ state["hidden.weight"].T + state["hidden.bias"]).clamp(min=0)
    return x @ state["linear.weight"].T + state["linear.bias"]


@pytest.mark.parametrize("preset", ["resnet9-s", "resnet9-t2g3"])
def test_the_forward_pass_is_the_one_written_out(preset):
    model = build_model(preset, seed=1)
    generator = torch.Generator().manual_seed(0)
    for name, buffer in model.named_buffers():  # statistics that are not 0 and 1
        if name.endswith("running_mean"):
            buffer.copy_(torch.randn(buffer.shape, generator=generator) * 0.1)
        if name.endswith("running_var"):
            buffer.copy_(torch.rand(buffer.shape, generator=generator) + 0.5)
    x = torch.randn(2, 3, 32, 32, generator=generator)
    with torch.inference_mode():
        logits = model.eval()(x)
        expected = written_out(model.state_dict(), x, extra=preset == "resnet9-t2g3")
    assert logits.shape == (2, 10)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


def test_the_same_seed_gives_the_same_weights():
    first, again, other = build_model(seed=3), build_model(seed=3), build_model(seed=4)
    assert all(
        torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True)
    )
    assert not torch.equal(first.conv1.conv.weight, other.conv1.conv.weight)
    assert first.training


def test_building_does_not_move_the_global_generator():
    torch.manual_seed(12)
    expected = torch.rand(3)
    torch.manual_seed(12)
    first = build_model(seed=3)
    assert torch.equal(torch.rand(3), expected)
    torch.manual_seed(99)
    assert torch.equal(build_model(seed=3).linear.weight, first.linear.weight)


def test_the_default_is_the_small_one():
    assert build_model().preset == "resnet9-s"


@pytest.mark.parametrize("preset", ["resnet18", None, 9, ["resnet9"], b"resnet9"])
def test_an_unknown_preset_is_refused(preset):
    with pytest.raises(InputError) as caught:
        build_model(preset)
    listed = ", ".join(PRESETS)
    assert str(caught.value).startswith(f"preset must be one of {listed}, got ")


@pytest.mark.parametrize("seed", [-1, 1.5, None, "0", float("nan"), 2**63])
def test_a_seed_out_of_range_is_refused(seed):
    with pytest.raises(InputError, match="^seed must be a whole number from 0 to "):
        build_model(seed=seed)


def test_loading_is_reachable_beside_building():
    with pytest.raises(InputError, match="checkpoint must be"):
        load_checkpoint("nowhere")
