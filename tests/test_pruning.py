"""Pruned models: exact counts, untouched inputs, masks carried over, histograms by hand."""

import copy

import pytest
import torch
from torch import nn

from compression.inputs import InputError
from compression.model import build_model, prunable_layers
from compression.pruning import (
    PrunedModel,
    check_masks,
    prune,
    weight_histogram,
    with_model,
    with_present_zeros,
)


def tiny(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 5))


def set_weight(model: nn.Module, name: str, values: torch.Tensor) -> None:
    with torch.no_grad():
        prunable_layers(model)[name].weight.copy_(values)


def test_zeros_that_are_there_stay_and_are_held() -> None:
    before = prune(tiny().eval(), {"0": 0.5, "3": 0.3}).model
    asked = with_present_zeros(before, {"3": 0.2})
    assert asked == {"0": 0.5, "3": pytest.approx(0.3)}
    again = prune(before, asked)
    for name, module in prunable_layers(before).items():
        assert torch.equal(again.masks[name], module.weight != 0)
    assert with_present_zeros(before, {"3": 0.6}) == {"0": 0.5, "3": 0.6}
    assert with_present_zeros(tiny(), {"3": 0.0}) == {"3": 0.0}


def test_counts_thresholds_and_weights_by_hand() -> None:
    model = tiny().eval()
    set_weight(model, "3", torch.arange(-20, 20).view(5, 8) / 4)  # -5, -4.75, ..., 4.75
    pruned = prune(model, {"3": 0.2})  # 8 of 40: 0, then -+0.25, -+0.5, -+0.75, and one 1.0
    conv, linear = pruned.layers
    assert (conv.name, conv.sparsity, conv.threshold, conv.kept, conv.total) == ("0", 0, 0, 54, 54)
    assert (linear.name, linear.sparsity, linear.threshold) == ("3", 0.2, 1.0)
    assert (linear.kept, linear.total) == (32, 40)
    assert (pruned.kept, pruned.total) == (86, 94)
    assert pruned.sparsity == pytest.approx(8 / 94)
    expected = torch.arange(-20, 20).float() / 4
    expected[16:24] = 0.0  # -1.0 comes before 1.0 and is the tie that goes
    assert torch.equal(prunable_layers(pruned.model)["3"].weight.flatten(), expected)
    assert list(pruned.masks) == ["3"]
    assert torch.equal(pruned.masks["3"].flatten(), expected != 0)


@pytest.mark.parametrize("training", [True, False])
def test_only_named_weights_change_and_the_input_not_at_all(training: bool) -> None:
    model = build_model(seed=3).train(training)
    before = copy.deepcopy(model.state_dict())
    pruned = prune(model, {"res1.first": 0.73, "linear": 0.0})
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    changed = [k for k, v in pruned.model.state_dict().items() if not torch.equal(v, before[k])]
    assert changed == ["res1.first.conv.weight"]
    assert all(module.training is training for module in pruned.model.modules())
    kept = pruned.masks["res1.first"]
    weight = pruned.model.state_dict()["res1.first.conv.weight"]
    assert torch.equal(weight, before["res1.first.conv.weight"] * kept)
    assert torch.count_nonzero(~kept) == round(0.73 * kept.numel())
    assert pruned.masks["linear"].all()


def test_pruning_further_keeps_what_was_pruned() -> None:
    first = prune(tiny(), {"3": 0.5})
    second = prune(first.model, {"3": 0.75})
    assert not (second.masks["3"] & ~first.masks["3"]).any()
    assert second.layers[1].kept == 10


@pytest.mark.parametrize(
    ("sparsities", "text"),
    [
        ({"conv9": 0.5}, r"layer must be one of 0, 3, got 'conv9'\."),
        ({"3": 1.5}, r"sparsity of 3 must be a number from 0 to 1, got 1\.5\."),
        ({"3": float("nan")}, r"sparsity of 3 must be a number from 0 to 1, got NaN"),
        ({"0": "half"}, r"sparsity of 0 must be a number from 0 to 1, got 'half'\."),
        (0.5, r"sparsities must be a mapping of layer to sparsity, got 0\.5\."),
    ],
)
def test_bad_sparsities_are_refused(sparsities: object, text: str) -> None:
    with pytest.raises(InputError, match=text):
        prune(tiny(), sparsities)  # pyright: ignore[reportArgumentType]


def test_with_model_carries_masks_and_layers_over() -> None:
    pruned = prune(tiny(), {"3": 0.5})
    tuned = copy.deepcopy(pruned.model)
    with torch.no_grad():
        prunable_layers(tuned)["3"].weight.mul_(2)
    after = with_model(pruned, tuned)
    assert isinstance(after, PrunedModel)
    assert after.model is tuned
    assert after.masks is pruned.masks
    assert after.layers == pruned.layers


def test_with_model_refuses_a_model_that_broke_the_mask() -> None:
    pruned = prune(tiny(), {"3": 0.5})
    with pytest.raises(InputError, match=r"pruned weights of 3 must be zero, got 20 that are not"):
        with_model(pruned, tiny())


def test_masks_must_fit_their_layers() -> None:
    with pytest.raises(InputError, match=r"mask of 3 must be a bool tensor of shape \(5, 8\), got"):
        check_masks(tiny(), {"3": torch.ones(8, 5, dtype=torch.bool)})
    with pytest.raises(InputError, match=r"shape \(5, 8\), got float32 \(5, 8\)\."):
        check_masks(tiny(), {"3": torch.ones(5, 8)})
    with pytest.raises(InputError, match=r"layer must be one of 0, 3, got 'x'\."):
        check_masks(tiny(), {"x": torch.ones(5, 8)})


def test_histogram_by_hand() -> None:
    weight = torch.tensor([[-1.0, 0.0, 0.5], [0.0, 0.25, 1.0]])
    histogram = weight_histogram(weight, bins=4, threshold=0.2)
    assert histogram.edges == (-1.0, -0.5, 0.0, 0.5, 1.0)
    assert histogram.counts == (1, 0, 1, 2)  # an edge belongs to the bin above, 1.0 to the last
    assert (histogram.zeros, histogram.threshold) == (2, 0.2)


def test_histograms_share_bins_with_a_span() -> None:
    before, after = torch.tensor([-2.0, 1.0]), torch.tensor([0.0, 1.0])
    first = weight_histogram(before, bins=4, span=2.0)
    second = weight_histogram(after, bins=4, span=2.0)
    assert first.edges == second.edges == (-2.0, -1.0, 0.0, 1.0, 2.0)
    assert (first.counts, second.counts) == ((1, 0, 0, 1), (0, 0, 0, 1))


def test_histogram_counts_every_weight_once() -> None:
    weight = prune(build_model(), {"conv2": 0.9}).model.state_dict()["conv2.conv.weight"]
    histogram = weight_histogram(weight)
    assert sum(histogram.counts) + histogram.zeros == weight.numel()
    assert histogram.zeros == round(0.9 * weight.numel())
    assert weight_histogram(torch.zeros(3), bins=2).counts == (0, 0)


@pytest.mark.parametrize(
    ("bins", "span", "text"),
    [
        (0, None, "bins must be a whole number from 1 to 10000, got 0"),
        (10, 0.5, "span must be a number from 1 to "),
    ],
)
def test_bad_histograms_are_refused(bins: int, span: float | None, text: str) -> None:
    with pytest.raises(InputError, match=text):
        weight_histogram(torch.tensor([-1.0, 0.5]), bins, span=span)
