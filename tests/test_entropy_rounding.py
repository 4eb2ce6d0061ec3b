"""Weights rounded at every step: a step by hand, and the price that keeps to a budget."""

import copy

import pytest
import torch
from torch import nn

from compression.entropy_rounding import EntropyRounding
from compression.quantization import QuantizedLayer


def linear(weights) -> nn.Sequential:
    model = nn.Sequential(nn.Linear(len(weights), 1, bias=False))
    model[0].weight.data = torch.tensor([weights])
    return model


def rounding_of(model, codebook, codes, price=1e-9, worth=1.0, budget=lambda step: 1e9):
    zero = codebook.index(0.0) if 0.0 in codebook else None
    layer = QuantizedLayer("0", 3, torch.tensor(codebook), torch.tensor([codes]).byte(), zero)
    return EntropyRounding(model, {"0": layer}, {"0": worth}, price, budget, 0)


def test_a_step_by_hand():
    """Rounded to 0, 0.2 and 0.9, whose clusters' means are 0, 0.16 and 1.0; the gradient moves what
    is behind: 0.12 to 0.72, which then belongs to the upper cluster."""
    model = linear([0.0, 0.12, 0.2, 1.0])
    rounding = rounding_of(model, [0.0, 0.2, 0.9], [0, 1, 1, 2])
    weight = model[0].weight
    assert weight.tolist() == [pytest.approx([0.0, 0.16, 0.16, 1.0])]
    rounding.after_backward()
    assert weight.tolist() == [pytest.approx([0.0, 0.12, 0.2, 1.0])]
    weight.data[0, 1] += 0.6  # what an optimizer would do
    rounding.after_step()  # 0, 0.72, 0.2, 1.0: the nearest of 0, 0.16 and 1.0, then the means
    assert weight.tolist() == [pytest.approx([0.0, 0.86, 0.2, 0.86])]
    rounding.after_backward()
    assert weight.tolist() == [pytest.approx([0.0, 0.72, 0.2, 1.0])]


def test_a_dear_bit_takes_the_rare_level_away():
    """At 1 nat a bit, worth 1, the lone weight's level costs log2(4) bits against log2(4/3) for
    zero: 2 - 0.415 = 1.585 is more than its squared error of 0.81."""
    model = linear([0.0, 0.0, 0.0, 0.9])
    rounding_of(model, [0.0, 0.9], [0, 0, 0, 1], price=1.0)
    assert model[0].weight.tolist() == [[0.0] * 4]
    model = linear([0.0, 0.0, 0.0, 0.9])
    rounding_of(model, [0.0, 0.9], [0, 0, 0, 1], price=1.0, worth=2.0)  # 2 * 0.81 is worth it
    assert model[0].weight.tolist() == [pytest.approx([0.0, 0.0, 0.0, 0.9])]


def test_zero_stays_zero_and_a_weight_may_come_back():
    model = linear([0.0, 0.1, 1.0, 1.0])
    rounding = rounding_of(model, [0.0, 1.0], [0, 0, 1, 1])
    weight = model[0].weight
    assert weight.tolist() == [[0.0, 0.0, 1.0, 1.0]]
    rounding.after_backward()
    weight.data[0, 1] += 0.7
    rounding.after_step()
    assert (weight[0] != 0).tolist() == [False, True, True, True]
    assert rounding.quantized().layers["0"].zero_code == 0


def test_the_size_by_hand():
    rounding = rounding_of(linear([0.0, 0.1, 0.2, 1.0]), [0.0, 1.0], [0, 0, 0, 1])
    share = torch.tensor([0.75, 0.25])
    bits = 2 * 48 - 4 * float((share * share.log2()).sum())  # two levels, and four codes
    assert rounding.code_bytes() == pytest.approx(bits / 8)


def test_the_price_is_the_one_at_which_the_codes_take_their_budget():
    torch.manual_seed(0)
    model = linear(torch.randn(4000).tolist())
    values = model[0].weight.detach().flatten()
    levels = torch.linspace(-3, 3, 31)
    codes = ((values - levels[0]) / 0.2).round().clamp(0, 30).long().tolist()
    for part in (0.4, 0.5, 0.6):
        rounding = rounding_of(copy.deepcopy(model), levels.tolist(), codes, price=0.03)
        wanted = part * rounding.code_bytes()
        rounding._budget = lambda step, wanted=wanted: wanted
        for _ in range(320):  # codes and their lengths settle, by each other
            rounding.after_backward()
            rounding.after_step()
        assert rounding.code_bytes() == pytest.approx(wanted, rel=0.01)
        ratio = rounding.code_bytes() / wanted  # the price gives way to the size in between
        assert rounding.price == pytest.approx(rounding._solved * ratio)


def test_levels_found_anew_at_a_dearer_price_are_fewer():
    torch.manual_seed(0)
    model = linear(torch.randn(500).tolist())
    values = model[0].weight.detach().clone()
    levels = values.flatten().sort().values[::10].tolist()
    codes = torch.bucketize(values.flatten(), torch.tensor(levels[1:])).tolist()
    rounding = rounding_of(model, levels, codes)
    assert len(rounding.quantized().layers["0"].codebook) == 50
    for price in (1e-3, 1e-1):
        rounding.price = price
        rounding.after_backward()
        rounding.renew()
        rounding.round_()
        layer = rounding.quantized().layers["0"]
        assert torch.equal(layer.weight(), model[0].weight)
    assert len(layer.codebook) < 10 and layer.zero_code is not None
    error = (layer.weight() - values).square()
    assert float(error.mean()) < 0.2


def test_a_level_that_comes_to_lie_on_another_is_one_with_it():
    """0.4 and 0.6 lie at two levels; the optimizer moves both to 0.5, and the mean is there."""
    model = linear([0.0, 0.0, 0.4, 0.6, 0.4, 0.6])
    rounding = rounding_of(model, [0.0, 0.4, 0.6], [0, 0, 1, 2, 1, 2])
    for _ in range(2):
        rounding.after_backward()
        model[0].weight.data[0, 2:] = torch.tensor([0.5, 0.5, 0.5, 0.5])
        rounding.after_step()
    assert model[0].weight.tolist() == [[0.0, 0.0, 0.5, 0.5, 0.5, 0.5]]
    assert rounding.quantized().layers["0"].codebook.tolist() == [0.0, 0.5]


def test_a_large_layer_is_judged_by_a_sample_of_its_weights():
    model = linear(torch.randn(600_000, generator=torch.Generator().manual_seed(0)).tolist())
    levels = torch.linspace(-4, 4, 31)
    codes = torch.bucketize(model[0].weight.detach()[0], (levels[1:] + levels[:-1]) / 2).tolist()
    rounding = rounding_of(model, levels.tolist(), codes, price=0.05)
    (rounded,) = rounding._rounded.values()
    assert rounded._every == 3
    sampled = rounded.bits_at(0.05)
    rounded._every = 1
    assert sampled == pytest.approx(rounded.bits_at(0.05), rel=0.005)
    found = []
    for rounded._every in (3, 1):
        rounded.renew_(0.05)
        assert rounded.counts.sum() == 600_000
        found.append((len(rounded.levels), rounded.bits_at(0.05)))
    assert abs(found[0][0] - found[1][0]) <= 1
    assert found[0][1] == pytest.approx(found[1][1], rel=0.01)


def test_weights_that_are_levels_are_gone_on_with_at_a_price_that_leaves_them():
    """Of 100 weights 10 are at 0.5 and 1 at 2.0, which to give up takes 5 bits' price of squared
    error 2.25: in between, the highest price that leaves the bytes is where the 10 would go."""
    model = linear([0.0] * 89 + [0.5] * 10 + [2.0])
    codes = [0] * 89 + [1] * 10 + [2]
    rounding = rounding_of(model, [0.0, 0.5, 2.0], codes, price=1e-12)
    size = rounding.code_bytes()
    rounding.go_on_at(1.0, 0.99 * size, 0)
    assert rounding.code_bytes() == pytest.approx(size)
    counts = torch.tensor([89.0, 10.0])
    at_rest = 0.25 / float((counts[0] / counts[1]).log2())
    assert rounding.price == pytest.approx(at_rest, rel=0.05)
    assert rounding.price <= at_rest
    rounding.go_on_at(at_rest / 7, 0.99 * size, 0)
    assert rounding.price == pytest.approx(at_rest / 7, rel=0.01)
