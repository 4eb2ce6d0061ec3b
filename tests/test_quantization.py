"""Quantized models: weights equal codebook[indices], zeros stay, k-means against brute force."""

import copy
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from compression.inputs import InputError
from compression.model import build_model, prunable_layers
from compression.pruning import prune
from compression.quantization import (
    QuantizedModel,
    linear_codebook,
    quantize,
    with_codebooks,
    with_tied_model,
)

quick = settings(derandomize=True, deadline=None, max_examples=40)


def one_layer(values: list[float]) -> nn.Sequential:
    """A model of a single linear layer, `0`, with these weights and no bias."""
    model = nn.Sequential(nn.Linear(len(values), 1, bias=False))
    with torch.no_grad():
        prunable_layers(model)["0"].weight.copy_(torch.tensor([values]))
    return model


def check_invariants(quantized: QuantizedModel) -> None:
    """Every promise that the dataclasses make."""
    weights = prunable_layers(quantized.model)
    for name, layer in quantized.layers.items():
        weight = weights[name].weight
        assert layer.name == name
        assert (layer.codebook.dtype, layer.indices.dtype) == (torch.float32, torch.uint8)
        assert layer.indices.shape == weight.shape
        assert len(layer.codebook) <= 2**layer.bits
        assert (layer.codebook.diff() > 0).all()
        assert torch.equal(layer.codebook[layer.indices.long()], weight)
        assert torch.equal(layer.weight(), weight)
        assert int(layer.indices.max()) == len(layer.codebook) - 1
        mask = quantized.masks.get(name)
        if mask is not None and not mask.all():
            assert layer.zero_code is not None
            assert layer.codebook[layer.zero_code] == 0.0
            assert (layer.indices[~mask] == layer.zero_code).all()
            assert (weight[~mask] == 0).all()
        else:
            assert layer.zero_code is None


def least_error(values: list[float], k: int) -> float:
    """The optimum of k-means on a line, by trying every way to cut the sorted values."""
    ordered = torch.tensor(sorted(values), dtype=torch.float64)
    n = len(ordered)
    best = float("inf")
    for cuts in itertools.combinations(range(1, n), min(k, n) - 1):
        bounds = [0, *cuts, n]
        parts = [ordered[a:b] for a, b in itertools.pairwise(bounds)]
        best = min(best, sum(float(((p - p.mean()) ** 2).sum()) for p in parts))
    return best


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kind", ["kmeans", "linear"])
def test_invariants_hold_and_the_input_is_untouched(bits: int, masked: bool, kind: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32), nn.Flatten(), nn.Linear(32, 10))
    pruned = prune(model.eval(), {"0": 0.6} if masked else {})
    before = copy.deepcopy(pruned.model.state_dict())
    quantized = quantize(pruned.model, bits, pruned.masks, kind=kind)
    check_invariants(quantized)
    assert list(quantized.layers) == ["0", "3"]
    assert all(torch.equal(v, before[k]) for k, v in pruned.model.state_dict().items())
    after = quantized.model.state_dict()
    changed = {key for key in before if not torch.equal(after[key], before[key])}
    assert changed == {"0.weight", "3.weight"}
    assert not quantized.model.training
    assert prunable_layers(quantized.model)["0"].weight.requires_grad


def test_a_pruned_layer_by_hand() -> None:
    """Zero has one of four codes, the kept weights share three values."""
    model = one_layer([-1.0, 0.25, 3.0, 0.0, -1.5, 5.0, 0.5, 0.0])
    pruned = prune(model, {"0": 0.5})  # 0.25 and 0.5 go with the zeros
    layer = quantize(pruned.model, 2, pruned.masks).layers["0"]
    assert layer.codebook.tolist() == [-1.25, 0.0, 3.0, 5.0]
    assert layer.indices.tolist() == [[0, 1, 2, 1, 0, 3, 1, 1]]
    assert layer.zero_code == 1


def test_without_masks_zeros_are_values_like_others() -> None:
    layer = quantize(one_layer([0.0, 0.0, 0.5, 3.0, 4.0]), 1).layers["0"]
    assert layer.codebook.tolist() == pytest.approx([0.5 / 3, 3.5])
    assert layer.zero_code is None


def test_a_centroid_that_is_zero_serves_the_pruned_weights_too() -> None:
    """Three values for -1, 1, 100, 200: the first two share their mean, which is zero's code."""
    masks = {"0": torch.tensor([[True, True, False, True, True]])}
    layer = quantize(one_layer([-1.0, 1.0, 0.0, 100.0, 200.0]), 2, masks).layers["0"]
    assert (layer.codebook.tolist(), layer.zero_code) == ([0.0, 100.0, 200.0], 0)
    assert layer.indices.tolist() == [[0, 0, 0, 1, 2]]


def test_a_layer_pruned_away_and_one_whose_mask_prunes_nothing() -> None:
    model = one_layer([1.0, -2.0, 3.0])
    gone = prune(model, {"0": 1.0})
    layer = quantize(gone.model, 4, gone.masks).layers["0"]
    assert (layer.codebook.tolist(), layer.indices.tolist(), layer.zero_code) == ([0], [[0] * 3], 0)
    dense = prune(model, {"0": 0.0})
    layer = quantize(dense.model, 4, dense.masks).layers["0"]
    assert (layer.codebook.tolist(), layer.zero_code) == ([-2.0, 1.0, 3.0], None)


values = st.lists(
    st.floats(-4, 4, width=16).filter(lambda v: abs(v) > 1e-3 or v == 0), min_size=2, max_size=9
)


@quick
@given(values, st.integers(1, 2), st.floats(0, 1))
def test_quantized_error_is_the_least_possible(
    weights: list[float], bits: int, sparsity: float
) -> None:
    pruned = prune(one_layer(weights), {"0": sparsity})
    quantized = quantize(pruned.model, bits, pruned.masks)
    check_invariants(quantized)
    mask = pruned.masks["0"]
    weight = prunable_layers(pruned.model)["0"].weight.detach()
    error = float((quantized.layers["0"].weight() - weight).double().square().sum())
    k = 2**bits - (0 if mask.all() else 1)
    optimum = least_error(weight[mask].tolist(), k) if mask.any() else 0.0
    assert error == pytest.approx(optimum, rel=1e-3, abs=1e-9)


def test_a_mapping_quantizes_only_its_layers_in_the_models_order() -> None:
    model = build_model(seed=1)
    quantized = quantize(model, {"linear": 4, "conv1": 2})
    assert [(n, layer.bits) for n, layer in quantized.layers.items()] == [
        ("conv1", 2),
        ("linear", 4),
    ]
    before, after = model.state_dict(), quantized.model.state_dict()
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed == {"conv1.conv.weight", "linear.weight"}


@pytest.mark.parametrize(
    ("bits", "text"),
    [
        (0, "bits must be a whole number from 1 to 8, got 0"),
        (9, "bits must be a whole number from 1 to 8, got 9"),
        (2.5, "bits must be a whole number from 1 to 8, got 2.5"),
        (float("nan"), r"bits must be a whole number from 1 to 8, got NaN"),
        (None, "bits must be a whole number from 1 to 8, got nothing"),
        ({"0": 12}, "bits of 0 must be a whole number from 1 to 8, got 12"),
        ({"conv7": 4}, r"layer must be one of 0, got 'conv7'\."),
    ],
)
def test_bad_bits_are_refused(bits: object, text: str) -> None:
    with pytest.raises(InputError, match=text):
        quantize(one_layer([1.0, 2.0]), bits)  # pyright: ignore[reportArgumentType]


def test_bad_masks_and_kinds_are_refused() -> None:
    model = one_layer([1.0, 2.0])
    with pytest.raises(InputError, match=r"mask of 0 must be a bool tensor of shape \(1, 2\)"):
        quantize(model, 4, {"0": torch.ones(2, 1, dtype=torch.bool)})
    with pytest.raises(InputError, match="pruned weights of 0 must be zero, got 1 that are not"):
        quantize(model, 4, {"0": torch.tensor([[True, False]])})
    with pytest.raises(InputError, match="kind must be one of kmeans, linear, got 'log'"):
        quantize(model, 4, kind="log")


def test_linear_levels_by_hand() -> None:
    levels, labels = linear_codebook(torch.tensor([0.0, 0.9, 1.5, 2.1, 3.0]), 4)
    assert levels.tolist() == [0.0, 1.0, 2.0, 3.0]
    assert labels.tolist() == [0, 1, 1, 2, 3]  # 1.5 is half way and goes down
    levels, labels = linear_codebook(torch.tensor([2.0, 2.0]), 8)
    assert (levels.tolist(), labels.tolist()) == ([2.0], [0, 0])
    levels, labels = linear_codebook(torch.tensor([1.0, 4.0]), 1)
    assert (levels.tolist(), labels.tolist()) == ([2.5], [0, 0])


def test_kmeans_is_never_worse_than_linear() -> None:
    model = build_model(seed=4)
    weight = prunable_layers(model)["conv2"].weight.detach()
    errors = [
        float((quantize(model, {"conv2": 3}, kind=kind).layers["conv2"].weight() - weight).norm())
        for kind in ("kmeans", "linear")
    ]
    assert errors[0] <= errors[1]


def quantized_example() -> QuantizedModel:
    model = one_layer([-1.0, 0.0, 3.0, 0.0, -1.5, 5.0])
    masks = {"0": torch.tensor([[True, False, True, False, True, True]])}
    return quantize(model, 2, masks)  # codebook -1.25, 0, 3, 5


def test_new_codebooks_replace_the_values() -> None:
    quantized = quantized_example()
    changed = with_codebooks(quantized, {"0": torch.tensor([-2.0, 0.0, 2.5, 7.0])})
    weight = prunable_layers(changed.model)["0"].weight
    assert weight.tolist() == [[-2.0, 0.0, 2.5, 0.0, -2.0, 7.0]]
    assert torch.equal(changed.layers["0"].indices, quantized.layers["0"].indices)
    assert changed.masks is quantized.masks
    check_invariants(changed)
    assert quantized.layers["0"].codebook.tolist() == [-1.25, 0.0, 3.0, 5.0]


@pytest.mark.parametrize(
    ("codebook", "levels", "indices", "zero_code"),
    [
        ([1.0, 0.0, 3.0, -5.0], [-5.0, 0.0, 1.0, 3.0], [[2, 1, 3, 1, 2, 0]], 1),
        ([4.0, 0.0, 3.0, 4.0], [0.0, 3.0, 4.0], [[2, 0, 1, 0, 2, 2]], 0),
        ([-1.0, 0.0, -0.0, 5.0], [-1.0, 0.0, 5.0], [[0, 1, 1, 1, 0, 2]], 1),
    ],
)
def test_codes_follow_values_that_change_places_or_meet(
    codebook: list[float], levels: list[float], indices: list[list[int]], zero_code: int
) -> None:
    changed = with_codebooks(quantized_example(), {"0": torch.tensor(codebook)})
    layer = changed.layers["0"]
    assert (layer.codebook.tolist(), layer.indices.tolist()) == (levels, indices)
    assert layer.zero_code == zero_code
    check_invariants(changed)


@pytest.mark.parametrize(
    ("codebook", "text"),
    [
        ([1.0, 0.0], "codebook of 0 must be 4 finite numbers, got "),
        ([1.0, 0.0, float("nan"), 2.0], "codebook of 0 must be 4 finite numbers, got "),
        ([1.0, 0.5, 1.0, 2.0], r"codebook of 0 must be 0 at its zero code 1, got 0\.5\."),
    ],
)
def test_bad_codebooks_are_refused(codebook: list[float], text: str) -> None:
    with pytest.raises(InputError, match=text):
        with_codebooks(quantized_example(), {"0": torch.tensor(codebook)})
    with pytest.raises(InputError, match="layer must be one of 0, got 'x'"):
        with_codebooks(quantized_example(), {"x": torch.tensor(codebook)})


def test_values_are_read_off_a_tied_model() -> None:
    quantized = quantized_example()
    moved = copy.deepcopy(quantized.model)
    with torch.no_grad():
        prunable_layers(moved)["0"].weight.mul_(-2)
    after = with_tied_model(quantized, moved)
    assert after.layers["0"].codebook.tolist() == [-10.0, -6.0, 0.0, 2.5]
    assert torch.equal(prunable_layers(after.model)["0"].weight, prunable_layers(moved)["0"].weight)
    check_invariants(after)


def test_a_model_that_is_not_tied_is_refused() -> None:
    quantized = quantized_example()
    moved = copy.deepcopy(quantized.model)
    with torch.no_grad():
        prunable_layers(moved)["0"].weight[0, 0] += 1e-6
    with pytest.raises(InputError, match="weights of 0 must be one value a cluster, got several"):
        with_tied_model(quantized, moved)


def test_same_input_same_bits() -> None:
    model = build_model(seed=2)

    def indices() -> Tensor:
        return quantize(model, {"conv2": 4}).layers["conv2"].indices

    assert torch.equal(indices(), indices())
