"""Zeros, levels and codes for a size: the file's bytes, what is kept, and what it is worth."""

import copy

import pytest
import torch
from torch import nn

from compression.data import load_cifar10, normalize
from compression.entropy_quantization import (
    fit_entropy,
    fit_entropy_by_trial,
    quantize_entropy,
)
from compression.inference import count_correct
from compression.inputs import InputError
from compression.model import build_model, load_checkpoint, prunable_layers
from compression.packing import description_bytes, load_packed, pack, save_packed
from compression.pruning import prune
from compression.quantization import quantize
from compression.recalibration import recalibrate_batch_norm
from compression.stored import StoredModel
from compression.worth import WORTH_POWER, layer_worth, tempered


@pytest.fixture(scope="module")
def baseline():
    return load_checkpoint("resnet9-s/baseline").model


@pytest.fixture(scope="module")
def images():
    return load_cifar10("train", "sample").images[:96]


@pytest.fixture(scope="module")
def worth(baseline, images):
    return layer_worth(baseline, images)


@pytest.fixture(scope="module")
def trials(baseline, images):
    return list(fit_entropy_by_trial(baseline, 260_000, images))


def test_the_file_is_within_the_budget_and_uses_it(trials):
    found = trials[-1].best
    size = len(pack(found))
    assert 0.98 * 260_000 < size <= 260_000
    assert size in [trial.packed_bytes for trial in trials] and len(trials) <= 5
    for name, layer in found.layers.items():
        weight = prunable_layers(found.model)[name].weight
        assert torch.equal(layer.weight(), weight)
        assert torch.equal(found.masks[name], weight != 0)


def test_a_search_begins_at_the_price_that_it_is_given(baseline, images, trials):
    last = trials[-1]
    again = list(fit_entropy_by_trial(baseline, 260_000, images, first_price=last.price))
    assert [trial.price for trial in again] == [last.price]
    assert again[0].packed_bytes == last.packed_bytes
    with pytest.raises(InputError, match="first_price must be a number from 1e-16 to 1"):
        list(fit_entropy_by_trial(baseline, 260_000, images, first_price=2.0))


def test_answers_are_better_than_those_of_k_means_in_the_same_bytes(baseline, images):
    """Against uniform sparsity and bits, each rounded and recalibrated alike."""
    train, val = load_cifar10("train", "sample"), load_cifar10("validation", "sample").head(1000)
    cut = prune(baseline, dict.fromkeys(prunable_layers(baseline), 0.6))
    other = quantize(cut.model, 3, cut.masks)
    found = fit_entropy(baseline, len(pack(other)), images)
    right = [
        count_correct(recalibrate_batch_norm(each.model, train.images[:1000]), *pair(val))
        for each in (found, other)
    ]
    assert right[0] > right[1] + 20


def pair(image_set):
    return image_set.images, image_set.labels


def test_pruned_weights_stay_zero(tiny_network, images):
    cut = prune(tiny_network, dict.fromkeys(prunable_layers(tiny_network), 0.7))
    found = quantize_entropy(cut.model, 1e-6, images, cut.masks)
    assert any(found.masks[name].any() for name in cut.masks)
    for name, mask in cut.masks.items():
        assert (found.layers[name].weight()[~mask] == 0).all()
        assert (~found.masks[name] | mask).all()


def test_a_fitted_size_brings_no_pruned_weight_back(tiny_network, images):
    """Weights are kept by chance, so that there are levels as small as what others leave."""
    model, generator = copy.deepcopy(tiny_network), torch.Generator().manual_seed(1)
    masks = {}
    for name, module in prunable_layers(model).items():
        masks[name] = torch.rand(module.weight.shape, generator=generator) < 0.5
        module.weight.data[~masks[name]] = 0.0
    found = fit_entropy(model, 1e6, images[:32], masks)
    for name, mask in masks.items():
        weight = prunable_layers(found.model)[name].weight
        assert not weight[~mask].any()
        assert (weight[mask] != 0).float().mean() > 0.9


def test_the_same_input_gives_the_same_codes_and_leaves_the_model_alone(tiny_network, images):
    before = copy.deepcopy(tiny_network.state_dict())
    found = [quantize_entropy(tiny_network, 1e-6, images) for _ in range(2)]
    for name, layer in found[0].layers.items():
        assert torch.equal(layer.indices, found[1].layers[name].indices)
    for key, value in tiny_network.state_dict().items():
        assert torch.equal(value, before[key])


def test_worth_foretells_the_divergence_of_other_noise(baseline, images, worth):
    """Fresh noise of half the power, in the model itself: the divergence goes with the power."""
    assert list(worth) == list(prunable_layers(baseline))
    with torch.no_grad():
        before = baseline(normalize(images)).log_softmax(1)
    for name in ("conv2", "conv4", "res2.second"):
        other = copy.deepcopy(baseline)
        weight = prunable_layers(other)[name].weight.data
        noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(5))
        noise *= (0.025 * weight.square().sum() / noise.square().sum()).sqrt()
        weight += noise
        with torch.no_grad():
            after = other(normalize(images)).log_softmax(1)
        nats = float((before.exp() * (before - after)).sum(1).mean())
        assert 0.4 < nats / (worth[name] * float(noise.square().sum())) < 2.5


def test_worth_does_not_hang_on_whether_weights_were_rounded(baseline, images, worth):
    """Rounded weights hardly move when they are rounded again; that must not make them dear."""
    rounded = quantize(baseline, 5).model
    for name, again in layer_worth(rounded, images).items():
        assert 0.5 < again / worth[name] < 2


def test_layers_that_seem_worth_much_are_tempered():
    model = nn.Sequential(nn.Linear(2, 1, bias=False), nn.Linear(1, 1, bias=False))
    model[0].weight.data, model[1].weight.data = torch.tensor([[0.5, 0.5]]), torch.tensor([[0.1]])
    worth = {"0": 4.0, "1": 900.0}
    assert tempered(worth, model, 1) == pytest.approx(worth)
    assert tempered(worth, model, 0) == pytest.approx({"0": 4, "1": 100})  # 1 / mean square
    assert tempered(worth, model, 0.5) == pytest.approx({"0": 4, "1": 300})  # in between


def test_dearer_bits_make_smaller_files(baseline, images, worth):
    sizes = [
        len(pack(quantize_entropy(baseline, price, images, worth=worth, compensate=False)))
        for price in (1e-9, 1e-8, 1e-7, 1e-6)
    ]
    assert sizes == sorted(sizes, reverse=True)


def test_a_layer_whose_weights_one_by_one_do_not_pay_keeps_some(baseline, images, worth):
    """What each weight leaves to the next makes values that pay: the levels are found for those."""
    price = {"price": 6.3e-6, "worth": tempered(worth, baseline, WORTH_POWER)}
    alone = quantize_entropy(baseline, images=images[:64], compensate=False, **price)
    found = quantize_entropy(baseline, images=images[:64], **price)
    assert float(alone.masks["res2.first"].float().mean()) < 0.001
    levels = found.layers["res2.first"].codebook
    assert levels[0] < 0 < levels[-1]
    assert 0.03 < float(found.masks["res2.first"].float().mean()) < 0.4


def test_an_untrained_network_comes_back_from_its_file(images, tmp_path):
    found = quantize_entropy(build_model("resnet9-s", seed=0).eval(), 1e-7, images[:32])
    save_packed(found, tmp_path / "x.safetensors")
    for name, module in prunable_layers(load_packed(tmp_path / "x.safetensors")).items():
        assert torch.equal(module.weight, found.layers[name].weight())


def test_more_bytes_than_there_is_use_for_take_one_trial(tiny_network, images):
    trials = list(fit_entropy_by_trial(tiny_network, 6_000_000, images[:32]))
    assert len(trials) == 1 and trials[0].best is not None
    for layer in trials[0].best.layers.values():
        assert len(layer.codebook) > 0.75 * min(256, layer.indices.numel())


def test_a_price_is_found_where_the_bytes_fall_by_steps(baseline, images):
    """Weights that were rounded before lie in few places, and change levels many at a time."""
    found = fit_entropy(quantize(baseline, 3).model, 250_000, images[:32])
    assert 0.8 * 250_000 < len(pack(found)) <= 250_000


def test_a_name_and_steps_are_within_the_budget(tiny_network, images):
    name, steps = "x · y" * 100, ["quantized · for a size", 'with "quotes"'] * 20
    found = fit_entropy(tiny_network, 36_000, images[:32], overhead=description_bytes(name, steps))
    size = len(pack(StoredModel(name, tuple(steps), found)))
    assert 0.95 * 36_000 < size <= 36_000
    assert (
        size - len(pack(found)) <= description_bytes(name, steps) < 1.2 * (size - len(pack(found)))
    )


def test_layers_without_anything_left_stay_zero(baseline, images):
    model = copy.deepcopy(baseline)
    layers = prunable_layers(model)
    layers["conv4"].weight.data.zero_()
    masks = {"res1.first": torch.zeros_like(layers["res1.first"].weight, dtype=torch.bool)}
    layers["res1.first"].weight.data.zero_()
    found = quantize_entropy(model, 1e-7, images[:32], masks)
    for name in ("conv4", "res1.first"):
        assert found.layers[name].codebook.tolist() == [0] and not found.masks[name].any()


def test_what_cannot_be_is_said(baseline, images, worth):
    with pytest.raises(
        InputError, match="max_bytes must be at least [0-9,]+ bytes .* for .*, got 1,000 bytes"
    ):
        fit_entropy(baseline, 1000, images[:32])
    with pytest.raises(InputError, match="price must be a number from 1e-16"):
        quantize_entropy(baseline, 0, images)
    with pytest.raises(InputError, match="worth of conv2 must be a number from .* got nothing"):
        quantize_entropy(baseline, 1e-7, images, worth={"conv1": worth["conv1"]})
    with pytest.raises(InputError, match="model must be a ResNet9, got Linear"):
        quantize_entropy(torch.nn.Linear(2, 2), 1e-7, images)
    with pytest.raises(InputError, match="images must hold at least one image, got none"):
        layer_worth(baseline, images[:0])
    spoilt = copy.deepcopy(baseline)
    prunable_layers(spoilt)["conv3"].weight.data[0, 0] = float("nan")
    with pytest.raises(InputError, match="weights of conv3 must be finite, got 9 that are not"):
        quantize_entropy(spoilt, 1e-7, images)
