"""Folding against the unfolded layers, prediction against a plain eager loop."""

import copy

import pytest
import torch
from torch import nn

from compression import hardware
from compression.data import load_cifar10, normalize
from compression.inference import fold_batch_norm, norm_scale, predict_logits
from compression.inputs import InputError
from compression.model import build_model, prunable_layers


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return load_cifar10("test", "sample").images[:70]


@pytest.fixture(scope="module")
def model(images: torch.Tensor) -> nn.Module:
    """A model whose batch norms hold other statistics than the ones they start with."""
    model = build_model(seed=3)
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in ((module.weight, 0.5, 1.5), (module.bias, -0.5, 0.5)):
                tensor.data.uniform_(low, high, generator=generator)
    with torch.no_grad():
        for _ in range(3):
            model.train()(normalize(images))
    return model


def plain_logits(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """The loop of a tutorial: eval mode, one image after the other, nothing folded."""
    model = copy.deepcopy(model).eval()
    with torch.no_grad():
        return torch.cat([model(normalize(image[None]).contiguous()) for image in images])


def test_folding_changes_no_answer_and_leaves_the_model_alone(model, images):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    folded = fold_batch_norm(model)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert model.training and not folded.training
    assert not any(parameter.requires_grad for parameter in folded.parameters())
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    with torch.no_grad():
        got = folded(normalize(images))
    torch.testing.assert_close(got, plain_logits(model, images), rtol=1e-4, atol=1e-4)


def test_one_convolution_is_folded_as_worked_by_hand():
    """gamma 2, beta 1, mean 3, variance 4 - eps: 2 (w x + b - 3) / 2 + 1 = w x + b - 2."""
    conv = nn.Conv2d(1, 1, 1)
    conv.weight.data.fill_(5.0)
    assert conv.bias is not None
    conv.bias.data.fill_(0.25)
    norm = nn.BatchNorm2d(1)
    assert norm.running_mean is not None and norm.running_var is not None
    norm.weight.data.fill_(2.0)
    norm.bias.data.fill_(1.0)
    norm.running_mean.fill_(3.0)
    norm.running_var.fill_(4.0 - norm.eps)
    folded = fold_batch_norm(nn.Sequential(conv, norm, nn.ReLU()))
    assert isinstance(folded[1], nn.Identity)  # pyright: ignore[reportIndexIssue]
    parameters = [p.item() for p in folded.parameters()]
    assert parameters == pytest.approx([5.0, 0.25 - 2.0])


def test_zeros_stay_zeros_when_folded(model):
    model = copy.deepcopy(model)
    weight = prunable_layers(model)["conv3"].weight
    weight.data[torch.rand(weight.shape) < 0.5] = 0.0
    folded = prunable_layers(fold_batch_norm(model))["conv3"].weight
    assert torch.equal(folded == 0, weight == 0)


def test_folding_twice_is_folding_once(model, images):
    once = fold_batch_norm(model)
    twice = fold_batch_norm(once)
    for a, b in zip(once.parameters(), twice.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("preset", ["resnet9-s", "resnet9-t2g3"])
def test_logits_are_those_of_a_plain_loop(preset, images):
    untrained = build_model(preset, seed=1)
    plain = plain_logits(untrained, images[:4])
    got = predict_logits(untrained, images[:4], batch_size=3)
    torch.testing.assert_close(got, plain, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("batch_size", [None, 1, 33, 70, 500])
def test_batches_change_nothing(model, images, batch_size):
    got = predict_logits(model, images, batch_size=batch_size)
    assert got.dtype == torch.float32 and got.shape == (70, 10)
    plain = plain_logits(model, images)
    torch.testing.assert_close(got, plain, rtol=1e-4, atol=1e-4)
    assert torch.equal(got.argmax(1), plain.argmax(1))


def test_bfloat16_stays_near_where_the_hardware_has_it(model, images):
    if not hardware.has_bfloat16(torch.device("cpu")):
        pytest.skip("this processor has no bfloat16 in hardware")
    plain = plain_logits(model, images)
    got = predict_logits(model, images, precision="bfloat16")
    assert 0 < (got - plain).abs().max() < 0.1 * plain.abs().max()


def test_bfloat16_without_the_hardware_is_refused(model, images, monkeypatch):
    monkeypatch.setattr(hardware, "has_bfloat16", lambda device: False)
    with pytest.raises(InputError, match="bfloat16 must be in the processor's hardware"):
        predict_logits(model, images, precision="bfloat16")
    auto = predict_logits(model, images, precision="auto")
    assert torch.equal(auto, predict_logits(model, images))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.zeros(2, 32, 32, 3), r"uint8 tensor of shape .*, got float32 \(2, 32, 32, 3\)"),
        (torch.zeros(2, 3, 32, 32, dtype=torch.uint8), r"got uint8 \(2, 3, 32, 32\)"),
        (torch.zeros(32, 32, 3, dtype=torch.uint8), r"got uint8 \(32, 32, 3\)"),
        (torch.zeros(0, 32, 32, 3, dtype=torch.uint8), "at least one image, got none"),
        ([[1, 2]], "uint8 tensor of shape .*, got list"),
    ],
)
def test_other_images_are_refused(model, bad, message):
    with pytest.raises(InputError, match=message):
        predict_logits(model, bad)


@pytest.mark.parametrize("bad", [0, -1, 1.5, "many", 10**9])
def test_batch_sizes_out_of_range_are_refused(model, images, bad):
    with pytest.raises(InputError, match="batch_size must be a whole number from 1 to 100000"):
        predict_logits(model, images, batch_size=bad)


def test_batch_norm_without_statistics_is_refused():
    with pytest.raises(InputError, match="running statistics, got none"):
        norm_scale(nn.BatchNorm2d(4, track_running_stats=False))
