"""Codes that make up for each other, against elimination one weight at a time written out."""

from types import SimpleNamespace

import pytest
import torch

from compression.compensation import (
    _DAMPING,
    Coding,
    Elimination,
    Moments,
    _patches,
    compensated_layer,
    nearest_rule,
    quantize_compensated,
)
from compression.data import load_cifar10, normalize
from compression.inputs import InputError
from compression.kmeans import kmeans_1d
from compression.model import load_checkpoint, prunable_layers
from compression.pruning import prune
from compression.quantization import QuantizedLayer, quantize


def layer_of(weight, bits, mask=None):
    """A k-means layer of a weight, the zero code among its codes where a mask is given."""
    if mask is None:
        codebook, codes = kmeans_1d(weight.flatten(), 2**bits)
        return QuantizedLayer("x", bits, codebook, codes.view(weight.shape).to(torch.uint8), None)
    codebook, _ = kmeans_1d(weight[mask], 2**bits - 1)
    codebook = torch.cat([codebook, torch.zeros(1)]).sort().values
    zero = int((codebook == 0).nonzero())
    return QuantizedLayer("x", bits, codebook, torch.zeros(weight.shape, dtype=torch.uint8), zero)


def eliminated(layer, weight, moments, mask):
    """The oracle: Optimal Brain Surgeon's update with the inverse taken anew for each weight."""
    order = moments.diagonal().argsort(descending=True, stable=True).tolist()
    damped = moments.double() + _DAMPING * moments.diagonal().double().mean() * torch.eye(
        len(moments), dtype=torch.float64
    )
    out = torch.empty_like(weight)
    for row in range(len(weight)):
        w = weight[row].double().clone()
        for k, j in enumerate(order):
            left = order[k:]
            inverse = torch.linalg.inv(damped[left][:, left])
            codes = torch.arange(len(layer.codebook))
            if layer.zero_code is not None:
                codes = codes[codes != layer.zero_code]
            code = codes[(layer.codebook[codes].double() - w[j]).abs().argmin()]
            if mask is not None and not mask[row, j]:
                code = torch.tensor(layer.zero_code)
            value = layer.codebook[code].double()
            w[left] = w[left] - (w[j] - value) / inverse[0, 0] * inverse[0]
            w[j] = value
        out[row] = w.float()
    return out


@pytest.mark.parametrize("pruned", [False, True])
def test_codes_are_those_of_elimination_written_out(pruned):
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(5, 70, generator=generator)  # more inputs than a block
    mask = (torch.rand(5, 70, generator=generator) < 0.6) if pruned else None
    weight = weight * mask if pruned else weight
    x = torch.randn(200, 70, generator=generator) @ torch.randn(70, 70, generator=generator)
    moments = x.T @ x / len(x)
    layer = layer_of(weight, 3, mask)
    found, rounded = Elimination(moments).coded(layer, weight, mask, nearest_rule(layer))
    assert torch.equal(found.weight(), eliminated(layer, weight, moments, mask))
    assert torch.equal(found.codebook, layer.codebook)
    nearest = nearest_rule(layer)(rounded.flatten()).view(weight.shape)
    assert bool((nearest == found.indices)[slice(None) if mask is None else mask].all())
    if pruned:
        assert torch.equal(found.weight() != 0, mask)


def test_what_a_kernel_sees_at_chosen_places_is_what_unfolding_gives():
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(3, 5, 6, 8, generator=generator)
    step = SimpleNamespace(weight=torch.zeros(2, 5, 3, 3))
    chosen = torch.tensor([0, 7, 21, 40, 47, 8])  # corners, edges and the inside
    unfolded = torch.nn.functional.unfold(x, 3, padding=1)[:, :, chosen]
    assert torch.equal(_patches(step, x, chosen), unfolded.transpose(1, 2).flatten(0, 1))


def test_inputs_that_have_nothing_in_common_leave_the_nearest_codes():
    weight = torch.randn(4, 9, generator=torch.Generator().manual_seed(1))
    layer = layer_of(weight, 2)
    moments = torch.diag(torch.arange(9.0))
    found, rounded = Elimination(moments).coded(layer, weight, None, nearest_rule(layer))
    assert torch.equal(found.indices, layer.indices) and torch.equal(rounded, weight)


def test_turns_of_codes_and_levels_lessen_the_error_of_the_outputs():
    generator = torch.Generator().manual_seed(5)
    weight = torch.randn(16, 40, generator=generator)
    x = torch.randn(400, 40, generator=generator) @ torch.randn(40, 40, generator=generator)
    moments, layer = x.T @ x / len(x), layer_of(weight, 2)
    once, _ = Elimination(moments).coded(layer, weight, None, nearest_rule(layer))
    found = compensated_layer(
        Coding(layer, nearest_rule), weight, Moments(moments, torch.zeros_like(moments))
    ).layer
    errors = [float((x @ (each.weight() - weight).T).square().mean()) for each in (once, found)]
    assert errors[1] < 0.98 * errors[0]


def test_what_inputs_are_off_is_made_up_for_by_half():
    """Half of the way to the weight that gives the dense outputs from the inputs as they are."""
    generator = torch.Generator().manual_seed(6)
    weight = torch.randn(3, 4, generator=generator)
    x = torch.randn(500, 4, generator=generator)
    y = x @ torch.randn(4, 4, generator=generator) / 2
    moments = Moments(x.T @ x / len(x), (y - x).T @ x / len(x))
    levels = torch.linspace(-4, 4, 256)  # enough for each weight to have its own
    layer = QuantizedLayer("x", 8, levels, torch.zeros(3, 4, dtype=torch.uint8), None)
    found = compensated_layer(Coding(layer, nearest_rule), weight, moments).layer.weight()
    matched = torch.linalg.lstsq(x, y @ weight.T).solution.T
    assert torch.allclose(found, (weight + matched) / 2, atol=0.03)  # but for the damping
    assert not torch.allclose(found, weight, atol=0.3)


def test_all_pruned_stays_all_zero():
    weight, mask = torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.bool)
    layer = QuantizedLayer("x", 2, torch.zeros(1), torch.zeros(2, 3, dtype=torch.uint8), 0)
    moments = Moments(torch.eye(3), torch.zeros(3, 3))
    found = compensated_layer(Coding(layer, nearest_rule), weight, moments, mask).layer
    assert torch.equal(found.weight(), weight)


@pytest.fixture(scope="module")
def baseline():
    return load_checkpoint("resnet9-s/baseline").model


@pytest.fixture(scope="module")
def images():
    return load_cifar10("train", "sample").images[:128]


@pytest.fixture(scope="module")
def held_out():
    return normalize(load_cifar10("validation", "sample").images[:200])


def test_a_network_answers_more_as_it_did(baseline, images, held_out):
    before = {name: m.weight.clone() for name, m in prunable_layers(baseline).items()}
    plain, found = quantize(baseline, 3), quantize_compensated(baseline, 3, images)
    for name, layer in found.layers.items():
        assert len(layer.codebook) == 8
        assert not torch.equal(layer.codebook, plain.layers[name].codebook)
        weight = prunable_layers(found.model)[name].weight
        assert torch.equal(weight, layer.weight())
    with torch.no_grad():
        dense = baseline(held_out)
        apart = [(q.model(held_out) - dense).square().mean().item() for q in (plain, found)]
    assert apart[1] < 0.2 * apart[0]
    assert all(torch.equal(m.weight, before[n]) for n, m in prunable_layers(baseline).items())
    again = quantize_compensated(baseline, 3, images)
    assert all(torch.equal(a.indices, again.layers[n].indices) for n, a in found.layers.items())


def test_zeros_stay_and_other_layers_stay_float(baseline, images):
    cut = prune(baseline, {"conv3": 0.7})
    bits = {"conv3": 3, "linear": 4}
    found = quantize_compensated(cut.model, bits, images, cut.masks)
    assert set(found.layers) == set(bits)
    layers, before = prunable_layers(found.model), prunable_layers(cut.model)
    assert torch.equal(layers["conv3"].weight != 0, cut.masks["conv3"])
    assert torch.equal(layers["conv4"].weight, before["conv4"].weight)


def test_what_cannot_be_is_refused(baseline, images):
    with pytest.raises(InputError, match="model must be a ResNet9, got Linear"):
        quantize_compensated(torch.nn.Linear(3, 2), 4, images)
    with pytest.raises(InputError, match="images must hold at least one image"):
        quantize_compensated(baseline, 4, images[:0])
    with pytest.raises(InputError, match="bits must be a whole number from 1 to 8, got 9"):
        quantize_compensated(baseline, 9, images)
