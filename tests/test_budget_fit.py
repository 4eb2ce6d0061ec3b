"""Sizes of files that are not made as a whole: the same bytes, and no layer's work done twice."""

import pytest
from torch import nn

from compression import budget_fit
from compression.allocation import Allocation, LayerSetting
from compression.budget_fit import FileSizes, packed_bytes
from compression.inputs import InputError
from compression.packing import pack
from compression.pruning import prune
from compression.quantization import quantize
from compression.resnet9 import prunable_layers

SETTINGS = [(0.0, 4), (0.6, 4), (0.9, 1), (1.0, 3), (0.0, None), (0.7, None), (0.35, 2), (0.5, 8)]


def allocation(model, turn=0):
    """A setting for each layer, another of them for each turn."""
    settings = SETTINGS[turn:] + SETTINGS[:turn]
    layers = {
        name: LayerSetting(*settings[k % len(settings)], 0.0, 0.0)
        for k, name in enumerate(prunable_layers(model))
    }
    return Allocation(layers, 0, 0.0, 0.0)


@pytest.mark.parametrize("turn", [0, 3, 6])
def test_bytes_are_those_of_the_file(tiny_network, turn):
    found = allocation(tiny_network, turn)
    cut = prune(tiny_network, found.sparsities)
    made = pack(quantize(cut.model, found.bits, cut.masks))
    assert FileSizes(tiny_network).bytes_of(found) == len(made)
    assert packed_bytes(tiny_network, found, overhead=100) == len(made) + 100


def test_a_layer_is_quantized_once_at_each_setting(tiny_network, monkeypatch):
    quantized = []

    def noted(name, *asked):
        quantized.append(name)
        return real(name, *asked)

    real = budget_fit.quantize_layer
    monkeypatch.setattr(budget_fit, "quantize_layer", noted)
    sizes, first, second = FileSizes(tiny_network), allocation(tiny_network), None
    before = sizes.bytes_of(first)
    done = len(quantized)
    assert done == len(first.bits) == len(set(quantized))
    second = Allocation(first.layers | {"conv1": LayerSetting(0.9, 2, 0.0, 0.0)}, 0, 0.0, 0.0)
    assert sizes.bytes_of(second) != before
    assert sizes.bytes_of(first) == before and quantized[done:] == ["conv1"]


def test_another_network_is_refused():
    with pytest.raises(InputError, match="model must be a ResNet9 of a preset, got Linear"):
        FileSizes(nn.Linear(2, 2))
