"""What the tests of the packed file share: the shipped baseline, pruned, and packed at 4 bits.

A file of tests takes the fixtures by their names: `packed = packing_cases.packed`.
"""

import pytest

from compression.model import load_checkpoint, prunable_layers
from compression.packing import save_packed
from compression.pruning import prune
from compression.quantization import quantize


@pytest.fixture(scope="module")
def baseline():
    return load_checkpoint("resnet9-s/baseline").model


@pytest.fixture(scope="module")
def pruned(baseline):
    return prune(baseline, dict.fromkeys(prunable_layers(baseline), 0.8) | {"conv1": 0.0})


@pytest.fixture(scope="module")
def packed(pruned, tmp_path_factory):
    """A pruned model at 4 bits, and its file."""
    quantized = quantize(pruned.model, 4, pruned.masks)
    path = tmp_path_factory.mktemp("packed") / "model.safetensors"
    save_packed(quantized, path)
    return quantized, path
