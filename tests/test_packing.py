"""The packed file: the same network back bit for bit, every byte accounted for."""

import dataclasses
import math
import os

import numpy as np
import pytest
import torch
from safetensors.numpy import load

from compression.checkpoint import FOLDER
from compression.data import load_cifar10
from compression.evaluation import evaluate
from compression.inputs import InputError
from compression.model import build_model, prunable_layers
from compression.packing import (
    inspect_packed,
    is_packed,
    load_packed,
    load_packed_parts,
    save_packed,
)
from compression.packing_info import GZIPPED
from compression.pruning import prune
from compression.quantization import quantize
from compression.report import make_variant, variant_of
from compression.stored import load_stored
from tests import packing_cases

baseline = packing_cases.baseline
pruned = packing_cases.pruned
packed = packing_cases.packed


KINDS = {
    "dense float32": lambda model, cut: prune(model, {}),
    "pruned float32": lambda model, cut: cut,
    "8 bits": lambda model, cut: quantize(model, 8),
    "1 bit": lambda model, cut: quantize(model, 1),
    "pruned, 4 bits": lambda model, cut: quantize(cut.model, 4, cut.masks),
    "pruned, mixed": lambda model, cut: quantize(
        cut.model, {"conv1": 8, "conv2": 3, "res2.first": 2}, cut.masks
    ),
    "all zeros": lambda model, cut: quantize(
        prune(model, dict.fromkeys(prunable_layers(model), 1.0)).model, 2
    ),
}


def bits_of(weight):
    return weight.detach().contiguous().view(torch.int32)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_weights_come_back_and_the_same_bytes_again(kind, baseline, pruned, tmp_path):
    variant = KINDS[kind](baseline, pruned)
    info = save_packed(variant, tmp_path / "a.safetensors")
    save_packed(variant, tmp_path / "b.safetensors")
    content = (tmp_path / "a.safetensors").read_bytes()
    assert content == (tmp_path / "b.safetensors").read_bytes()
    assert info.total_bytes == len(content)
    header = 8 + int.from_bytes(content[:8], "little")
    stored = load(content)
    assert info.container_bytes == header + 32  # and the digest
    assert sum(info.parts.values()) == header + sum(each.nbytes for each in stored.values())
    assert info.parts["codebooks"] == sum(
        each.nbytes for name, each in stored.items() if name.endswith(".codebook")
    )
    loaded = load_packed(tmp_path / "a.safetensors")
    assert not loaded.training
    wanted = prunable_layers(variant.model)
    for name, module in prunable_layers(loaded).items():
        assert torch.equal(bits_of(module.weight), bits_of(wanted[name].weight)), name
    assert {layer.name: layer.nonzeros for layer in info.layers} == {
        name: int(module.weight.count_nonzero()) for name, module in wanted.items()
    }
    assert info == inspect_packed(tmp_path / "a.safetensors")


def test_minus_zero_comes_back_as_minus_zero(tmp_path):
    model = build_model("resnet9-s")
    with torch.no_grad():
        model.conv1.conv.weight.view(-1)[:3] = torch.tensor([-0.0, 0.0, -0.0])
    save_packed(prune(model, {}), tmp_path / "m.safetensors")
    loaded = load_packed(tmp_path / "m.safetensors")
    assert torch.equal(bits_of(loaded.conv1.conv.weight), bits_of(model.conv1.conv.weight))


def test_a_network_with_biases_and_a_hidden_layer_comes_back(tmp_path):
    model = build_model("resnet9-t2g3").eval()
    save_packed(quantize(model, 2), tmp_path / "m.safetensors")
    loaded = load_packed(tmp_path / "m.safetensors")
    for name in ("conv1", "res3.second", "hidden", "linear"):
        bias, wanted = (prunable_layers(each)[name].bias for each in (loaded, model))
        assert bias is not None and wanted is not None
        assert torch.equal(bias, wanted.half().float())
    assert loaded.preset == "resnet9-t2g3"


def test_batch_norm_in_half_precision_moves_few_answers(packed, tmp_path):
    """Scale and shift differ by at most a part in 2048; answers by a few near ties in 2,000."""
    quantized, path = packed
    images = load_cifar10("test", "sample")
    before = evaluate(quantized.model, images.images, images.labels)
    after = evaluate(load_packed(path), images.images, images.labels)
    assert (before.predictions != after.predictions).sum() <= 10
    assert abs(before.accuracy - after.accuracy) <= 0.002


def test_the_total_is_near_shannons_bound(packed):
    """The bound is computed here anew, from the codes alone."""
    quantized, path = packed
    info = inspect_packed(path)
    entropies = 0.0
    for layer in quantized.layers.values():
        shares = np.bincount(layer.indices.flatten().numpy()) / layer.indices.numel()
        entropies += -sum(p * math.log2(p) for p in shares if p) * layer.indices.numel() / 8
    books = sum(4 * len(layer.codebook) for layer in quantized.layers.values())
    vectors = 2 * (10 + 2 * (32 + 64 * 3 + 128 + 256 * 3))
    assert info.bound_bytes == pytest.approx(entropies + books + vectors, abs=1)
    assert info.bound_bytes < info.total_bytes < 1.03 * info.bound_bytes


def test_the_ladder_descends_and_ends_at_the_file(packed):
    info = inspect_packed(packed[1])
    sizes = {rung.name: rung.size_bytes for rung in info.ladder}
    assert sizes["Dense float32"] == 4 * 1_646_122
    assert sizes["Bit width"] == sum(
        -(-module.weight.numel() * 4 // 8) for module in prunable_layers(packed[0].model).values()
    )
    assert sizes["On disk"] == os.path.getsize(packed[1])
    assert sizes["Dense float32"] > sizes[GZIPPED] > sizes["On disk"]
    assert (
        sizes["With codebooks and the rest"]
        > sizes["Relative index"]
        > sizes["Relative index, Huffman"]
        > sizes["On disk"]
        > sizes["Shannon's bound"]
    )
    assert all(rung.explanation.endswith(".") for rung in info.ladder)


def test_a_variant_keeps_name_steps_masks_and_codebooks(packed, tmp_path):
    quantized, _ = packed
    images = load_cifar10("test", "sample").head(50)
    variant = make_variant(
        "small", ["pruned", "4 bits"], quantized.model, images,
        masks=quantized.masks, layers=quantized.layers,
    )  # fmt: skip
    path = tmp_path / "v.safetensors"
    save_packed(variant, path)
    found = variant_of(load_stored(path), images)
    assert (found.name, found.steps) == ("v", variant.steps)
    assert found.size == variant.size
    assert set(found.masks) == set(variant.masks) - {"conv1"}  # whose mask prunes nothing
    for name, layer in variant.layers.items():
        assert torch.equal(found.layers[name].codebook, layer.codebook)
        assert torch.equal(found.layers[name].indices, layer.indices)
        assert found.layers[name].zero_code == layer.zero_code


def test_zeros_of_a_file_that_names_no_zero_code_can_be_held(tmp_path, pruned):
    """A pruned network quantized without its masks: its zeros come back as pruned weights."""
    save_packed(quantize(pruned.model, 3), tmp_path / "x.safetensors")
    found, _ = load_packed_parts(tmp_path / "x.safetensors")
    assert found.masks
    for name, mask in found.masks.items():
        layer = found.layers[name]
        assert layer.zero_code is not None and torch.equal(layer.indices != layer.zero_code, mask)


def test_what_cannot_be_packed_is_said(baseline, packed, tmp_path):
    target = tmp_path / "m.safetensors"
    with pytest.raises(InputError, match="model must be a ResNet9 of a preset, got Linear"):
        save_packed(dataclasses.replace(packed[0], model=torch.nn.Linear(1, 1)), target)
    with pytest.raises(InputError, match="weights of conv1 must be those of its codebook"):
        save_packed(dataclasses.replace(packed[0], model=baseline), target)
    first = packed[0].layers["conv1"]
    for book in (first.codebook.flip(0), first.codebook * math.inf):
        changed = dataclasses.replace(first, codebook=book)
        layers = packed[0].layers | {"conv1": changed}
        with pytest.raises(InputError, match="centroids of conv1 must be finite and ascend"):
            save_packed(dataclasses.replace(packed[0], layers=layers), target)
    broken = build_model("resnet9-s")
    with torch.no_grad():
        broken.conv2.conv.weight[0, 0, 0, 0] = math.nan
    with pytest.raises(InputError, match="weights of conv2 must be finite, got NaN"):
        save_packed(prune(broken, {}), target)
    broken = build_model("resnet9-s")
    with torch.no_grad():
        broken.conv1.norm.bias[0] = math.inf
    with pytest.raises(InputError, match="biases and batch norm must be finite"):
        save_packed(prune(broken, {}), target)
    assert not target.exists()


def test_a_packed_file_is_told_from_a_checkpoint(packed, tmp_path):
    assert is_packed(packed[1])
    checkpoint = FOLDER / "resnet9-s" / "baseline.safetensors"
    assert checkpoint.is_file() and not is_packed(checkpoint)
    assert not is_packed(tmp_path / "nothing")
