"""Held masks: exact zeros after every call, everything else left to the bit."""

import pytest
import torch
from torch import nn

from compression.constraints import HeldMasks
from compression.inputs import InputError


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 2))


@pytest.fixture
def masks():
    generator = torch.Generator().manual_seed(1)
    return {"0": torch.rand(4, 3, 3, 3, generator=generator) < 0.5}


def test_binding_zeroes_the_pruned_weights_and_no_other(model, masks):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    HeldMasks(model, masks)
    kept = masks["0"]
    assert torch.equal(model[0].weight[kept], before["0.weight"][kept])
    assert not model[0].weight[~kept].any()
    for name in ("0.bias", "2.weight", "2.bias"):
        assert torch.equal(model.state_dict()[name], before[name])


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_a_step_may_move_them_and_they_come_back(model, masks, memory):
    model.to(memory_format=memory)
    held = HeldMasks(model, masks)
    kept = masks["0"]
    with torch.no_grad():
        model[0].weight += 1
    moved = model[0].weight.detach().clone()
    held.after_step()
    assert torch.equal(model[0].weight[kept], moved[kept])
    assert not model[0].weight[~kept].any()


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_a_pruned_weight_is_plus_zero_whatever_it_was(model, masks, value):
    held = HeldMasks(model, masks)
    with torch.no_grad():
        model[0].weight.fill_(value)
    held.after_step()
    pruned = model[0].weight[~masks["0"]]
    assert not pruned.isnan().any()
    assert not pruned.signbit().any() and not pruned.any()


def test_gradients_are_left_alone(model, masks):
    held = HeldMasks(model, masks)
    model[0].weight.grad = torch.ones(4, 3, 3, 3)
    held.after_backward()
    assert torch.equal(model[0].weight.grad, torch.ones(4, 3, 3, 3))


def test_no_masks_hold_nothing(model):
    before = model[0].weight.detach().clone()
    HeldMasks(model, {}).after_step()
    assert torch.equal(model[0].weight, before)


def test_the_masks_given_are_not_kept_hold_of(model, masks):
    held = HeldMasks(model, masks)
    masks["0"].fill_(False)
    held.after_step()
    assert model[0].weight.any()


def test_an_unknown_layer_is_refused(model, masks):
    with pytest.raises(InputError, match=r"^layer must be one of 0, 2, got 'conv9'\.$"):
        HeldMasks(model, {"conv9": masks["0"]})


@pytest.mark.parametrize(
    ("mask", "got"),
    [
        (torch.ones(4, 3, 3, dtype=torch.bool), r"bool \(4, 3, 3\)"),
        (torch.ones(4, 3, 3, 3), r"float32 \(4, 3, 3, 3\)"),
    ],
)
def test_another_shape_or_type_is_refused(model, mask, got):
    expected = rf"^mask of 0 must be a bool tensor of shape \(4, 3, 3, 3\), got {got}\.$"
    with pytest.raises(InputError, match=expected):
        HeldMasks(model, {"0": mask})
