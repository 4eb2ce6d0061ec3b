"""Training through the rounding: a step by hand, the size that it comes to, and going on."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from compression.data import load_cifar10
from compression.entropy_training import EntropyRounding, _squeeze, _tempered, train_entropy
from compression.inputs import InputError
from compression.model import load_checkpoint, prunable_layers
from compression.packing import load_packed, pack, save_packed
from compression.quantization import QuantizedLayer
from compression.recipes import TrainConfig

CONFIG = TrainConfig(epochs=2, batch_size=32, muon_lr=0.005, sgd_lr=0.002, precision="float32")


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
        for _ in range(160):  # codes and their lengths settle, by each other
            rounding.after_backward()
            rounding.after_step()
        assert 0.95 * wanted < rounding.code_bytes() < 1.05 * wanted
        ratio = rounding.code_bytes() / wanted  # the price gives way to the size in between
        assert rounding.price == pytest.approx(rounding._solved * ratio)


def test_layers_that_seem_worth_much_are_tempered():
    model = nn.Sequential(nn.Linear(2, 1, bias=False), nn.Linear(1, 1, bias=False))
    model[0].weight.data, model[1].weight.data = torch.tensor([[0.5, 0.5]]), torch.tensor([[0.1]])
    worth = {"0": 4.0, "1": 900.0}
    assert _tempered(worth, model, 1) == pytest.approx(worth)
    assert _tempered(worth, model, 0) == pytest.approx({"0": 4, "1": 100})  # 1 / mean square
    assert _tempered(worth, model, 0.5) == pytest.approx({"0": 4, "1": 300})  # in between


@pytest.fixture(scope="module")
def sets():
    train = load_cifar10("train", "sample").head(256)
    return train, load_cifar10("validation", "sample").head(64)


@pytest.fixture(scope="module")
def dense():
    return load_checkpoint("resnet9-s/baseline").model


def test_the_last_epochs_file_keeps_the_size(sets, dense, tmp_path):
    results = list(
        train_entropy(dense, 300_000, *sets, CONFIG, first_ratio=1.2, overhead=500, teacher=dense)
    )
    assert [result.epoch for result in results] == [1, 2]
    last = results[-1]
    assert 0.95 * 300_000 < last.packed_bytes <= 300_000
    assert last.packed_bytes == len(pack(last.quantized)) + 500
    for name, layer in last.quantized.layers.items():
        weight = prunable_layers(last.quantized.model)[name].weight
        assert torch.equal(layer.weight(), weight)
        assert (name in last.quantized.masks) == bool((weight == 0).any())
        assert torch.equal(last.quantized.masks.get(name, weight != 0), weight != 0)
        assert len(layer.codebook) <= 2**layer.bits
    save_packed(last.quantized, tmp_path / "s.safetensors")
    assert load_packed(tmp_path / "s.safetensors").preset == "resnet9-s"


@pytest.mark.parametrize("epochs", [1, 2])  # before the last epoch, and after it
def test_a_killed_run_goes_on_to_the_same_bits(sets, dense, tmp_path, epochs):
    whole = list(train_entropy(dense, 400_000, *sets, CONFIG, resume=tmp_path / "a"))
    part = train_entropy(dense, 400_000, *sets, CONFIG, resume=tmp_path / "b")
    for _ in range(epochs):
        next(part)
    part.close()
    rest = list(train_entropy(dense, 400_000, *sets, CONFIG, resume=tmp_path / "b"))
    assert [result.epoch for result in rest] == [2]
    assert pack(rest[-1].quantized) == pack(whole[-1].quantized)


def test_a_size_out_of_reach_is_said(sets, dense):
    with pytest.raises(InputError, match=r"max_bytes must be above [\d,]+, got 1,000"):
        next(train_entropy(dense, 1000, *sets, CONFIG))


def test_too_few_steps_for_the_price_to_follow_keep_the_size_all_the_same(sets, dense):
    few = sets[0].head(8)
    config = replace(CONFIG, epochs=1)
    *_, last = train_entropy(dense, 400_000, few, few, config, first_ratio=3)
    assert math.isfinite(last.train_loss) and 0.8 * 400_000 < last.packed_bytes <= 400_000


def test_a_size_that_no_price_reaches_is_said():
    model = load_checkpoint("resnet9-s/baseline").model
    values = prunable_layers(model)["linear"].weight.detach()
    levels, codes = values.unique(return_inverse=True)
    layer = QuantizedLayer("linear", 8, levels[:250], codes.clamp(max=249).byte(), None)
    rounding = EntropyRounding(model, {"linear": layer}, {"linear": 1.0}, 0.5, lambda step: 1, 0)
    with pytest.raises(InputError, match=r"max_bytes must be within reach, got 1,000 of [\d,]+\."):
        _squeeze(rounding, 1000)


def test_a_budget_that_nothing_can_fill_is_no_mistake(sets, dense):
    few = sets[0].head(64)
    results = list(train_entropy(dense, 1e8, few, few, replace(CONFIG, epochs=3)))
    assert results[-1].price >= 1e-16 and results[-1].packed_bytes < 2_000_000


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
