"""The schedule by hand, Muon by torch's own and by singular values, SGD by hand."""

import dataclasses

import pytest
import torch
from torch import nn

from compression.optimizer import (
    Schedule,
    build_optimizers,
    orthogonalized,
    restore_optimizers,
    save_optimizers,
)
from compression.training import TrainConfig
from tests.training_cases import TINY, tiny_net


@pytest.mark.parametrize(
    ("steps", "warmup", "shares"),
    [
        (10, 0.3, [1 / 3, 2 / 3, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]),
        (4, 0.0, [1, 3 / 4, 2 / 4, 1 / 4]),
        (4, 1.0, [1 / 4, 2 / 4, 3 / 4, 1]),
        (1, 0.15, [1]),
    ],
)
def test_the_schedule_by_hand(steps, warmup, shares):
    weight = nn.Parameter(torch.zeros(2))
    groups = [{"params": [weight], "lr": 0.5}, {"params": [nn.Parameter(torch.zeros(1))], "lr": 2}]
    optimizer = torch.optim.SGD(groups)
    schedule = Schedule([optimizer], steps, warmup)
    for step, share in enumerate(shares):
        schedule.set_step(step)
        rates = [group["lr"] for group in optimizer.param_groups]
        assert rates == pytest.approx([0.5 * share, 2 * share])


def channels_last(model):
    return model.to(memory_format=torch.channels_last)


def test_newton_schulz_keeps_the_singular_vectors_and_evens_out_the_values():
    generator = torch.Generator().manual_seed(1)
    for shape in ((12, 72), (72, 12), (16, 16)):
        matrix = torch.randn(shape, generator=generator)
        u, _, v = torch.linalg.svd(matrix, full_matrices=False)
        inside = u.T @ orthogonalized(matrix) @ v.T  # nearly diagonal, as U S V^T would be
        assert inside.diagonal().sub(0.95).abs().max() < 0.4
        assert (inside - inside.diagonal().diag()).abs().max() < 0.05
    assert torch.equal(orthogonalized(torch.zeros(3, 4)), torch.zeros(3, 4))


def test_a_muon_step_is_torchs_on_the_matrix():
    """torch.optim.Muon orthogonalizes in bfloat16, whose rounding is the tolerance."""
    model = channels_last(tiny_net())
    muon, _ = build_optimizers(model, TINY)
    matrix = nn.Parameter(model.second.weight.detach().permute(0, 2, 3, 1).reshape(12, -1).clone())
    oracle = torch.optim.Muon([matrix], lr=0.06, momentum=0.9, weight_decay=0.025)
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        gradient = torch.randn(12, 8, 3, 3, generator=generator)
        model.first.weight.grad = torch.zeros_like(model.first.weight)
        model.second.weight.grad = gradient.clone()
        matrix.grad = gradient.permute(0, 2, 3, 1).reshape(12, -1).clone()
        muon.step()
        oracle.step()
        got = model.second.weight.detach().permute(0, 2, 3, 1).reshape(12, -1)
        torch.testing.assert_close(got, matrix.detach(), atol=0.06 * 0.05, rtol=0)


def test_a_weight_without_gradient_is_not_moved_by_an_old_one():
    model = channels_last(tiny_net())
    muon, _ = build_optimizers(model, TINY)
    for convolution in (model.first, model.second):
        convolution.weight.grad = torch.ones_like(convolution.weight)
    muon.step()
    before = model.first.weight.detach().clone()
    model.first.weight.grad = None
    muon.step()
    assert torch.equal(model.first.weight, before)


@pytest.mark.parametrize(
    ("optimizer", "conv_lr", "kinds"),
    [("muon", None, ["ConvMuon", "SGD"]), ("sgd", None, ["SGD"]), ("sgd", 0.7, ["SGD"])],
)
def test_every_parameter_has_one_optimizer_and_vectors_no_decay(optimizer, conv_lr, kinds):
    model = channels_last(tiny_net())
    config = dataclasses.replace(
        TINY, optimizer=optimizer, sgd_weight_decay=0.01, sgd_lr=0.2, sgd_conv_lr=conv_lr
    )
    optimizers = build_optimizers(model, config)
    assert [type(owner).__name__ for owner in optimizers] == kinds
    groups = [group for owner in optimizers for group in owner.param_groups]
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    for group in optimizers[-1].param_groups:
        for parameter in group["params"]:
            assert group["weight_decay"] == (0.01 if parameter.dim() > 1 else 0)
            assert group["lr"] == (conv_lr if conv_lr and parameter.dim() == 4 else 0.2)
    if optimizer == "sgd":
        held = {id(p) for group in groups for p in group["params"]}
        assert held == {id(p) for p in model.parameters()}


def test_an_sgd_step_by_hand():
    """Nesterov: v = g, then the step is lr * (g + momentum * v), with decay in g for matrices."""
    model = channels_last(tiny_net())
    config = TrainConfig(optimizer="sgd", sgd_lr=0.5, sgd_momentum=0.8, sgd_weight_decay=0.1)
    (sgd,) = build_optimizers(model, config)
    weight, bias = model.linear.weight.detach().clone(), model.linear.bias.detach().clone()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    sgd.step()
    torch.testing.assert_close(model.linear.weight, weight - 0.5 * 1.8 * (1 + 0.1 * weight))
    torch.testing.assert_close(model.linear.bias, bias - 0.5 * 1.8)


def test_momenta_come_back_in_the_memory_of_their_weights():
    """So that a resumed step runs through the same vectorized loops, and rounds alike."""
    config = dataclasses.replace(TINY, optimizer="sgd")
    first, again = channels_last(tiny_net()), channels_last(tiny_net())
    (sgd,), (resumed,) = build_optimizers(first, config), build_optimizers(again, config)
    for parameter in first.parameters():
        parameter.grad = torch.rand_like(parameter)
    sgd.step()
    tensors = save_optimizers([sgd])
    assert all(tensor.is_contiguous() for tensor in tensors.values())
    restore_optimizers([resumed], tensors)
    for mine, theirs in zip(first.parameters(), again.parameters(), strict=True):
        kept, back = sgd.state[mine]["momentum_buffer"], resumed.state[theirs]["momentum_buffer"]
        assert torch.equal(kept, back)
        assert back.stride() == theirs.stride()
