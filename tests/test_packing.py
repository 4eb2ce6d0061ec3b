"""The packed file: the same network back bit for bit, every byte accounted for, hostile bytes."""

import dataclasses
import json
import math
import os

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compression.data import load_cifar10
from compression.evaluation import evaluate
from compression.inputs import InputError
from compression.model import build_model, load_checkpoint, prunable_layers
from compression.packing import inspect_packed, is_packed, load_packed, save_packed
from compression.packing_codes import CodeError, decode, encode, entropy_bytes, split
from compression.packing_file import PackedFormatError, signed
from compression.packing_ladder import SymbolRun, huffman_bits, ladder_of
from compression.pruning import prune
from compression.quantization import quantize
from compression.report import make_variant, variant_of
from compression.stored import load_stored


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
    assert info.total_bytes == len(content) == sum(info.parts.values())
    loaded = load_packed(tmp_path / "a.safetensors")
    assert not loaded.training
    wanted = prunable_layers(variant.model)
    for name, module in prunable_layers(loaded).items():
        assert torch.equal(bits_of(module.weight), bits_of(wanted[name].weight)), name
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


def test_batch_norm_in_half_precision_moves_no_accuracy(packed, tmp_path):
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
    assert sizes["Dense float32"] > sizes["Gzip of dense float32"] > sizes["On disk"]
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


def test_what_cannot_be_packed_is_said(baseline, packed, tmp_path):
    target = tmp_path / "m.safetensors"
    with pytest.raises(InputError, match="model must be a ResNet9 of a preset, got Linear"):
        save_packed(dataclasses.replace(packed[0], model=torch.nn.Linear(1, 1)), target)
    with pytest.raises(InputError, match="weights of conv1 must be those of its codebook"):
        save_packed(dataclasses.replace(packed[0], model=baseline), target)
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


# --- hostile bytes -------------------------------------------------------------------------------


def with_header(content, change):
    """The file with `change(header)` done to its parsed header, signed again."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return signed(len(text).to_bytes(8, "little") + text + content[8 + length :])


def with_about(content, change):
    """The file with `change(about)` done to its metadata, signed again."""

    def rewrite(header):
        about = json.loads(header["__metadata__"]["packed"])
        change(about)
        header["__metadata__"]["packed"] = json.dumps(about)

    return with_header(content, rewrite)


def refused(tmp_path, content, match="."):
    path = tmp_path / "bad.safetensors"
    path.write_bytes(content)
    with pytest.raises(PackedFormatError, match=match) as caught:
        load_packed(path)
    assert str(caught.value).count("\n") == 0


@pytest.fixture(scope="module")
def content(packed):
    return packed[1].read_bytes()


def test_truncated_files_are_refused(content, tmp_path):
    for length in (0, 1, 7, 8, 9, 100, 2000, len(content) // 2, len(content) - 1):
        refused(tmp_path, content[:length])
    refused(tmp_path, content + b"\0")


@settings(max_examples=2000, deadline=None)
@given(st.data())
def test_any_changed_byte_is_refused(content, tmp_path_factory, data):
    """Header bytes and checksum half of the time, so that they are met often."""
    end = st.one_of(st.integers(0, 2100), st.integers(0, len(content) - 1))
    changed = bytearray(content)
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(end)] ^= data.draw(st.integers(1, 255))
    if bytes(changed) != content:
        refused(tmp_path_factory.getbasetemp(), bytes(changed))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_changes_under_a_true_checksum_never_crash(content, tmp_path_factory, data):
    """Somebody who can sign: refused, or a network of finite numbers with the right shapes."""
    changed = bytearray(content)
    length = int.from_bytes(content[:8], "little")
    places = st.one_of(st.integers(8, 7 + length), st.integers(0, len(content) - 1))
    for _ in range(data.draw(st.integers(1, 3))):
        changed[data.draw(places)] ^= data.draw(st.integers(1, 255))
    try:
        forged = signed(bytes(changed))
    except (PackedFormatError, ValueError, KeyError, TypeError, RecursionError):
        return
    path = tmp_path_factory.getbasetemp() / "forged.safetensors"
    path.write_bytes(forged)
    try:
        model = load_packed(path)
    except PackedFormatError:
        return
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_a_later_version_says_so(content, tmp_path):
    refused(
        tmp_path,
        with_about(content, lambda about: about.update(version=2)),
        "must be of format version 1, got version 2: it takes a later version of this program",
    )


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda a: a.update(preset="resnet99"), "a known preset, got 'resnet99'"),
        (lambda a: a.update(preset="resnet9"), "biases and batch-norm|index of conv1"),
        (lambda a: a.pop("layers"), "layers and a recipe"),
        (lambda a: a["layers"].pop("conv3"), "bits and zero code of conv3"),
        (lambda a: a["layers"].update(conv3=[9, 0]), "bits and zero code of conv3"),
        (lambda a: a["layers"].update(conv3=[4, 1]), "codebook of conv3, 0 at its zero code"),
        (lambda a: a["layers"].update(conv3=[2, None]), "conv3.codebook with at most 4"),
        (lambda a: a["layers"].update(conv3=[32, None]), "conv3.values .* got none"),
        (lambda a: a.update(version="one"), "names no version"),
    ],
)
def test_metadata_that_do_not_fit_are_refused(content, tmp_path, change, match):
    refused(tmp_path, with_about(content, change), match)


def test_a_tensor_that_is_missing_or_of_another_type_is_refused(content, tmp_path):
    def rename(header):
        header["other"] = header.pop("conv3.index")

    refused(tmp_path, with_header(content, rename), "conv3.index .* got none")

    def retype(header):
        entry = header["conv3.codebook"]
        entry["dtype"], entry["shape"] = "U8", [entry["data_offsets"][1] - entry["data_offsets"][0]]

    refused(tmp_path, with_header(content, retype), "conv3.codebook .* got uint8")


def test_a_header_that_asks_for_much_is_refused_unread(content, tmp_path):
    refused(tmp_path, (2**40).to_bytes(8, "little") + content[8:], "at most 64 KiB")

    def claim(header):
        header["conv3.index"]["shape"] = [2**50]
        header["conv3.index"]["data_offsets"][1] = 2**50

    refused(tmp_path, with_header(content, claim), "does not read")


def test_files_that_are_none_are_refused(tmp_path):
    with pytest.raises(PackedFormatError, match="must be a file that can be read, got nothing"):
        load_packed(tmp_path / "nothing.safetensors")
    with pytest.raises(PackedFormatError, match="must be a file that can be read"):
        load_packed(tmp_path)
    refused(tmp_path, b"PK\3\4" + bytes(100), "must begin with a safetensors header")


def test_a_packed_file_is_told_from_a_checkpoint(packed, tmp_path):
    assert is_packed(packed[1])
    assert not is_packed("assets/checkpoints/resnet9-s/baseline.safetensors")
    assert not is_packed(tmp_path / "nothing")


# --- the coder and the ladder --------------------------------------------------------------------


@given(
    st.lists(st.integers(0, 6), min_size=1, max_size=300),
    st.integers(7, 256),
)
@settings(max_examples=300, deadline=None)
def test_symbols_come_back(symbols, alphabet):
    given_symbols = np.array(symbols, np.int32)
    coded = encode(given_symbols, alphabet).joined()
    assert np.array_equal(decode(coded, alphabet, len(symbols)), given_symbols)
    with pytest.raises(CodeError):
        decode(coded, alphabet, len(symbols) + 1)


def test_the_stream_is_near_shannons_bound():
    generator = np.random.default_rng(0)
    symbols = generator.choice(4, 200_000, p=[0.9, 0.05, 0.03, 0.02]).astype(np.int32)
    coded = encode(symbols, 4)
    bound = entropy_bytes(np.bincount(symbols))
    assert bound <= len(coded.stream) < 1.001 * bound
    assert split(coded.joined(), 4)[0].tolist() == coded.table.tolist()


def test_entropy_by_hand():
    assert entropy_bytes(np.array([8, 8])) == pytest.approx(2)  # 16 symbols of one bit
    assert entropy_bytes(np.array([0, 5])) == 0
    assert entropy_bytes(np.array([4, 2, 2])) == pytest.approx((4 * 1 + 4 * 2) / 8)


def test_huffman_by_hand():
    # 5 a, 2 b, 1 c, 1 d: lengths 1, 2, 3, 3
    assert huffman_bits(np.array([5, 2, 1, 1])) == 5 + 4 + 3 + 3
    assert huffman_bits(np.array([7, 0])) == 7
    assert huffman_bits(np.array([1, 1, 1, 1])) == 8


@given(st.lists(st.integers(1, 1000), min_size=2, max_size=40))
def test_huffman_lies_within_a_bit_of_the_entropy(counts):
    counts = np.array(counts)
    bits = huffman_bits(counts)
    assert 8 * entropy_bytes(counts) - 1e-6 <= bits <= 8 * entropy_bytes(counts) + counts.sum()


def test_a_small_layer_by_hand():
    """16 weights of 4 bits, kept at places 2 and 13: gaps 3 and 11."""
    symbols = np.zeros(16, np.int32)
    symbols[[2, 13]] = [1, 2]
    ladder = ladder_of(SymbolRun(symbols, 3, 4, zero=0))
    assert ladder.nominal == 8
    assert ladder.bitmap == 2 + 1
    # 4 bits a gap: 2 entries, 1 byte of gaps and 1 of codes; 3 bits need a filler: 9 and 12 bits
    assert ladder.relative == 2
    assert ladder.huffman == math.ceil((14 * 1 + 2 + 2) / 8) + 3
