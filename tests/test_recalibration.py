"""Recalibrated batch norm against statistics computed by hand from stored activations."""

import copy

import pytest
import torch
from torch import Tensor, nn

from compression.data import load_cifar10, normalize
from compression.inputs import InputError
from compression.model import build_model
from compression.recalibration import recalibrate_batch_norm


class TwoNorms(nn.Module):
    """Two convolutions with batch norm, a third norm on features, and dropout that must sleep."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.conv1, self.norm1 = nn.Conv2d(3, 4, 3, stride=4), nn.BatchNorm2d(4)
        self.conv2, self.norm2 = nn.Conv2d(4, 5, 3, stride=2), nn.BatchNorm2d(5, affine=False)
        self.norm3, self.dropout = nn.BatchNorm1d(5), nn.Dropout(0.5)
        self.fixed = nn.BatchNorm1d(5, track_running_stats=False)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm1(self.conv1(x)))
        x = self.dropout(torch.relu(self.norm2(self.conv2(x))))
        return self.fixed(self.norm3(x.mean((2, 3))))


@pytest.fixture(scope="module")
def images() -> Tensor:
    """70 images; the first 20 are darkened, so that batches differ and pooling matters."""
    pixels = load_cifar10("train", "sample").images[:70].clone()
    pixels[:20] //= 3
    return pixels


def pooled(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and unbiased variance a channel in float64, of (N, C, ...) values."""
    flat = values.double().transpose(0, 1).flatten(1)
    return flat.mean(1), flat.var(1)


def oracle(model: TwoNorms, images: Tensor, parts: int) -> list[tuple[Tensor, Tensor]]:
    """What each norm sees when batches are normalized by their own statistics, pooled over all."""
    seen: list[list[Tensor]] = [[], [], []]
    for pixels in images.tensor_split(parts):
        x = model.conv1(normalize(pixels))
        seen[0].append(x)
        x = (x - x.mean((0, 2, 3), keepdim=True)) / (
            x.var((0, 2, 3), keepdim=True, correction=0) + 1e-5
        ).sqrt()
        x = x * model.norm1.weight[:, None, None] + model.norm1.bias[:, None, None]
        x = model.conv2(torch.relu(x))
        seen[1].append(x)
        x = (x - x.mean((0, 2, 3), keepdim=True)) / (
            x.var((0, 2, 3), keepdim=True, correction=0) + 1e-5
        ).sqrt()
        seen[2].append(torch.relu(x).mean((2, 3)))
    return [pooled(torch.cat(values)) for values in seen]


@pytest.mark.parametrize(("batch_size", "parts"), [(100, 1), (35, 2), (20, 4), (8, 9)])
@torch.no_grad()
def test_statistics_equal_those_computed_by_hand(
    images: Tensor, batch_size: int, parts: int
) -> None:
    model = TwoNorms()
    nn.init.uniform_(model.norm1.weight, 0.5, 2.0)
    nn.init.uniform_(model.norm1.bias, -1.0, 1.0)
    result = recalibrate_batch_norm(model, images, batch_size=batch_size)
    assert isinstance(result, TwoNorms)
    expected = oracle(model, images, parts)
    for norm, (mean, variance) in zip(
        (result.norm1, result.norm2, result.norm3), expected, strict=True
    ):
        assert norm.running_mean is not None and norm.running_var is not None
        torch.testing.assert_close(norm.running_mean.double(), mean, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(norm.running_var.double(), variance, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_pooling_is_not_the_average_of_batches(images: Tensor) -> None:
    """The first norm's variance does not depend on the batches, PyTorch's own average does."""
    model, key = TwoNorms(), "norm1.running_var"
    whole = recalibrate_batch_norm(model, images, batch_size=70).state_dict()[key]
    split = recalibrate_batch_norm(model, images, batch_size=10).state_dict()[key]
    torch.testing.assert_close(split, whole, rtol=1e-5, atol=0)
    averaged = copy.deepcopy(model).train()
    averaged.norm1.momentum = None
    averaged.norm1.reset_running_stats()
    for pixels in images.split(10):
        averaged(normalize(pixels))
    assert ((averaged.state_dict()[key] - whole).abs() / whole).max() > 0.02


def test_everything_else_stays_and_the_input_is_untouched(images: Tensor) -> None:
    model = build_model(seed=2)
    model.res1.eval()
    before = copy.deepcopy(model.state_dict())
    result = recalibrate_batch_norm(model, images[:40])
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    changed = {k for k, v in result.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == {k for k in before if k.endswith(("running_mean", "running_var"))}
    modes = [m.training for m in model.modules()]
    assert [m.training for m in result.modules()] == modes
    assert all(not m._forward_hooks for m in result.modules())
    assert all(m.momentum == 0.1 for m in result.modules() if isinstance(m, nn.BatchNorm2d))
    assert all(p.requires_grad and p.grad is None for p in result.parameters())


def test_it_repairs_a_model_whose_statistics_are_wrong(images: Tensor) -> None:
    """With one batch the recalibrated model in eval mode computes what training mode computed."""
    model = build_model(seed=2)
    result = recalibrate_batch_norm(model, images[:40], batch_size=40).eval()
    with torch.no_grad():
        expected = copy.deepcopy(model).train()(normalize(images[:40]))
        wrong = copy.deepcopy(model).eval()(normalize(images[:40]))
        got = result(normalize(images[:40]))
    # The unbiased variance is larger by n / (n - 1), n = 640 at the deepest layer.
    torch.testing.assert_close(got, expected, rtol=0, atol=0.02)
    assert (wrong - expected).abs().max() > 0.2


def test_bad_input_is_refused(images: Tensor) -> None:
    with pytest.raises(InputError, match="images must hold at least one image, got none"):
        recalibrate_batch_norm(build_model(), images[:0])
    with pytest.raises(InputError, match=r"images must be a uint8 tensor of shape \(N, height"):
        recalibrate_batch_norm(build_model(), images.float())
    with pytest.raises(InputError, match="batch_size must be a whole number from 1 to 50000"):
        recalibrate_batch_norm(build_model(), images, batch_size=0)
    with pytest.raises(InputError, match="model must hold batch norm with running statistics"):
        recalibrate_batch_norm(nn.Sequential(nn.Conv2d(3, 4, 3)), images)
