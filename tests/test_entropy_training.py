"""Training through the rounding: the size that it comes to, and going on after a kill."""

import math
from dataclasses import replace

import pytest
import torch

from compression import entropy_training
from compression.data import load_cifar10, normalize
from compression.entropy_quantization import price_for, quantize_entropy, quantize_to_train
from compression.entropy_rounding import EntropyRounding
from compression.entropy_training import _squeeze, train_entropy
from compression.inputs import InputError
from compression.model import load_checkpoint, prunable_layers
from compression.packing import load_packed, pack, save_packed
from compression.quantization import QuantizedLayer
from compression.recipes import TrainConfig
from compression.worth import tempered_worth

CONFIG = TrainConfig(epochs=2, batch_size=32, muon_lr=0.005, sgd_lr=0.002, precision="float32")


@pytest.fixture(scope="module")
def sets():
    train = load_cifar10("train", "sample").head(256)
    return train, load_cifar10("validation", "sample").head(64)


@pytest.fixture(scope="module")
def dense(tiny_network):
    return tiny_network


def test_the_last_epochs_file_keeps_the_size(sets, dense, tmp_path):
    results = list(
        train_entropy(dense, 30_000, *sets, CONFIG, first_ratio=1.2, overhead=500, teacher=dense)
    )
    assert [result.epoch for result in results] == [1, 2]
    last = results[-1]
    assert 0.9 * 30_000 < last.packed_bytes <= 30_000
    assert last.packed_bytes == len(pack(last.quantized)) + 500
    for name, layer in last.quantized.layers.items():
        weight = prunable_layers(last.quantized.model)[name].weight
        assert torch.equal(layer.weight(), weight)
        assert (name in last.quantized.masks) == bool((weight == 0).any())
        assert torch.equal(last.quantized.masks.get(name, weight != 0), weight != 0)
        assert len(layer.codebook) <= 2**layer.bits
    save_packed(last.quantized, tmp_path / "s.safetensors")
    assert load_packed(tmp_path / "s.safetensors").preset == dense.preset


@pytest.mark.parametrize("epochs", [1, 2])  # before the last epoch, and after it
def test_a_killed_run_goes_on_to_the_same_bits(sets, dense, tmp_path, epochs):
    whole = list(train_entropy(dense, 40_000, *sets, CONFIG, resume=tmp_path / "a"))
    part = train_entropy(dense, 40_000, *sets, CONFIG, resume=tmp_path / "b")
    for _ in range(epochs):
        next(part)
    part.close()
    rest = list(train_entropy(dense, 40_000, *sets, CONFIG, resume=tmp_path / "b"))
    assert [result.epoch for result in rest] == [2]
    assert pack(rest[-1].quantized) == pack(whole[-1].quantized)


def test_a_run_for_another_size_is_not_gone_on_with(sets, dense, tmp_path):
    """The size at first is that of the start, whatever is asked for."""
    once = replace(CONFIG, epochs=1)
    *_, start = train_entropy(dense, 40_000, *sets, once)
    options = {"start": start.quantized, "resume": tmp_path / "run"}
    next(train_entropy(dense, 30_000, *sets, once, **options))
    for other in ({"max_bytes": 33_000}, {"max_bytes": 30_000, "shrinking": 1.0}):
        with pytest.raises(InputError, match="must be of this model, masks, images and teacher"):
            next(train_entropy(dense, train_set=sets[0], validation_set=sets[1], config=once,
                               **other, **options))  # fmt: skip


def test_a_size_out_of_reach_is_said(sets, dense):
    with pytest.raises(
        InputError, match=r"max_bytes must be above [\d,]+ bytes .*, got 1,000 bytes"
    ):
        next(train_entropy(dense, 1000, *sets, CONFIG))


def test_too_few_steps_for_the_price_to_follow_keep_the_size_all_the_same(sets, dense):
    few = sets[0].head(8)
    config = replace(CONFIG, epochs=1)
    *_, last = train_entropy(dense, 40_000, few, few, config, first_ratio=3)
    assert math.isfinite(last.train_loss) and 0.8 * 40_000 < last.packed_bytes <= 40_000


def test_a_size_that_no_price_reaches_is_said():
    model = load_checkpoint("resnet9-s/baseline").model
    values = prunable_layers(model)["linear"].weight.detach()
    levels, codes = values.unique(return_inverse=True)
    layer = QuantizedLayer("linear", 8, levels[:250], codes.clamp(max=249).byte(), None)
    rounding = EntropyRounding(model, {"linear": layer}, {"linear": 1.0}, 0.5, lambda step: 1, 0)
    with pytest.raises(InputError, match=r"file takes [\d,]+ bytes .*, got 1,050 bytes .*\.$"):
        _squeeze(rounding, 1000, 50)  # as was asked for, with the bytes of name and steps


def test_a_budget_that_nothing_can_fill_is_no_mistake(sets, dense):
    few = sets[0].head(64)
    results = list(train_entropy(dense, 1e8, few, few, replace(CONFIG, epochs=3)))
    assert results[-1].price >= 1e-16 and results[-1].packed_bytes < 150_000


def test_the_size_falls_over_the_share_of_steps_that_is_asked_for(sets, dense):
    config = replace(CONFIG, batch_size=4)  # the price is solved for every 16 steps
    early, late = (
        next(train_entropy(dense, 24_000, *sets, config, shrinking=share)).packed_bytes
        for share in (0.25, 1.0)
    )
    assert early < 1.1 * 24_000 < late  # after half of the steps


class Begun(Exception):
    """Training has what it begins with."""


def test_what_training_begins_with_is_made_as_it_is_asked_to(sets, dense, monkeypatch):
    tempered, begun = [], []

    def worth(model, images, power):
        tempered.append((images, power))
        return tempered_worth(model, images, power)

    def compensated(model, price, images, *, worth):
        begun.append((price, images, worth))
        raise Begun

    monkeypatch.setattr(entropy_training, "tempered_worth", worth)
    monkeypatch.setattr(entropy_training, "quantize_to_train", compensated)
    run = train_entropy(
        dense, 24_500, *sets, CONFIG, compensation_images=16, worth_power=0.5, first_ratio=1.25,
        overhead=500,
    )  # fmt: skip
    with pytest.raises(Begun):
        next(run)
    ((images, power),) = tempered
    assert images is sets[0].images and power == 0.5
    ((price, few, given),) = begun
    assert torch.equal(few, images[:16])
    assert given == pytest.approx(tempered_worth(dense, images, 0.5))
    assert price == pytest.approx(price_for(dense, 1.25 * 24_000, given))


def test_it_may_begin_where_errors_make_up_for_each_other(sets, dense):
    """What it begins behind takes the codes that were found for it, whose answers are nearer to the
    dense network's than those of as many bytes rounded plainly."""
    images = sets[0].images
    worth = tempered_worth(dense, images)
    start, behind = quantize_to_train(dense, 1e-8, images[:128], worth=worth)
    size = len(pack(start))
    price = price_for(dense, size, worth)
    plain = quantize_entropy(dense, price, images, worth=worth, compensate=False)
    model = behind.to(memory_format=torch.channels_last)
    begun = EntropyRounding(model, start.layers, worth, 1e-8, lambda step: size, 0).quantized()
    assert len(pack(begun)) == pytest.approx(len(pack(plain)), rel=0.03)
    for name, layer in start.layers.items():
        same = (begun.layers[name].weight() != 0) == (layer.weight() != 0)
        assert float(same.float().mean()) > 0.97
    with torch.no_grad():
        models = (dense, plain.model, begun.model)
        wanted, *found = (model.eval()(normalize(images)) for model in models)
    errors = [float((answers - wanted).square().mean()) for answers in found]
    assert errors[1] < 0.5 * errors[0]
    config = replace(CONFIG, epochs=1)
    *_, last = train_entropy(dense, 24_000, *sets, config, compensation_images=64)
    assert 0.9 * 24_000 < last.packed_bytes <= 24_000
